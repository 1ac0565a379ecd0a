package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	gpuwatch "mlfnode/node/worker/devices"
)

// TestGPUSettings reads what trials may have of a node's GPUs, and refuses what is not obeyed.
func TestGPUSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "node.yaml")
	load := func(text string) (Config, error) {
		if err := os.WriteFile(file, []byte("gpus: {"+text+"}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(file)
	}
	c, err := load("")
	if err != nil || c.Devices.Foreign != gpuwatch.Avoid || c.Devices.Reserve != 512<<20 || c.Devices.Share != 8 ||
		c.Devices.None || len(c.Devices.Use) != 0 {
		t.Errorf("defaults: got %+v, %v", c.Devices, err)
	}
	c, err = load("use: [0, GPU-ab], foreign: ignore, reserve: 1GiB, share: 2")
	if err != nil || c.Devices.Foreign != gpuwatch.Ignore || c.Devices.Reserve != 1<<30 || c.Devices.Share != 2 ||
		strings.Join(c.Devices.Use, " ") != "0 GPU-ab" {
		t.Errorf("got %+v, %v", c.Devices, err)
	}
	t.Setenv("MLF_GPUS_FOREIGN", "avoid")
	if c, err = load("foreign: ignore"); err != nil || c.Devices.Foreign != gpuwatch.Avoid {
		t.Errorf("the environment: got %+v, %v", c.Devices, err)
	}
	os.Unsetenv("MLF_GPUS_FOREIGN")
	for text, want := range map[string]string{
		"foreign: kill": `gpus.foreign: "kill" is neither avoid nor ignore`, "share: 0": "gpus.share",
		"share: many": "gpus.share", "reserve: lots": "gpus.reserve",
		"use: [first]": "gpus.use", "mig: any": "there is no setting mig",
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", text, err, want)
		}
	}
}
