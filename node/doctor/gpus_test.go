package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestGPUs(t *testing.T) {
	good := GPU{Name: "A100", Persistent: true}
	with := func(change func(*GPU)) GPUs {
		other := good
		change(&other)
		return GPUs{Driver: "550.54.15", CUDA: "12.4", Devices: []GPU{good, other}}
	}
	tests := map[string]struct {
		gpus  GPUs
		files map[string]string
		state State
		want  string // in the finding that is not OK, or in the last one
	}{
		"no driver": {GPUs{}, nil, OK, "no NVIDIA driver"},
		"a GPU alone": {GPUs{},
			map[string]string{"sys/bus/pci/devices/a/vendor": "0x10de\n", "sys/bus/pci/devices/a/class": "0x030200\n"},
			Warn, "1 of its GPUs"},
		"sound alone": {GPUs{},
			map[string]string{"sys/bus/pci/devices/a/vendor": "0x10de\n", "sys/bus/pci/devices/a/class": "0x040300\n"},
			OK, "no NVIDIA driver"},
		"mismatch":       {GPUs{Problem: "different versions"}, nil, Bad, "different versions"},
		"a driver alone": {GPUs{Driver: "550"}, nil, OK, "with no GPU"},
		"all well":       {with(func(*GPU) {}), nil, OK, "version 550.54.15, CUDA 12.4, 2 GPUs"},
		"lost": {with(func(d *GPU) { d.Problem = "GPU 1 is lost"; d.Persistent = false }), nil, Bad,
			"GPU 1 is lost"},
		"to be reset":    {with(func(d *GPU) { d.Recovery = "needs a reset" }), nil, Bad, "GPU 1 needs a reset"},
		"not persistent": {with(func(d *GPU) { d.Persistent = false }), nil, Warn, "off for GPU 1"},
		"exclusive":      {with(func(d *GPU) { d.Mode = "exclusive" }), nil, Warn, "GPU 1 is in exclusive mode"},
		"prohibited":     {with(func(d *GPU) { d.Mode = "prohibited" }), nil, Bad, "GPU 1 lets no program"},
		"MIG, empty":     {with(func(d *GPU) { d.MIG = true }), nil, Warn, "without any instance"},
		"MIG":            {with(func(d *GPU) { d.MIG, d.Instances = true, 7 }), nil, OK, "gpu_profile"},
		"an MPS daemon": {with(func(*GPU) {}), map[string]string{"proc/12/comm": "nvidia-cuda-mps\n"}, Warn,
			"MPS daemon"},
		"another program": {with(func(*GPU) {}), map[string]string{"proc/12/comm": "python3\n"}, OK, "2 GPUs"},
	}
	for name, tt := range tests {
		root := t.TempDir()
		for file, text := range tt.files {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		found := checkGPUs(&tt.gpus, root)
		got := found[len(found)-1]
		for _, f := range found {
			if f.State != OK {
				got = f
				if f.Cure == "" {
					t.Errorf("%s: no cure of %q", name, f.Cause)
				}
			}
		}
		if got.State != tt.state || !strings.Contains(got.Cause, tt.want) {
			t.Errorf("%s: got %+v, want %s: %s", name, got, tt.state, tt.want)
		}
	}
}
