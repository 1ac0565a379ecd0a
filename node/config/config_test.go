package config

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSettingsTouchNoHardware reads the settings on a machine whose GPU driver hangs. An agent
// whose programs wait for it, and every command, reads them first.
func TestSettingsTouchNoHardware(t *testing.T) {
	dir := t.TempDir()
	asked := filepath.Join(dir, "asked")
	for _, program := range []string{"nvidia-smi", "rocm-smi", "nvidia-debugdump"} {
		if err := os.WriteFile(filepath.Join(dir, program), []byte("#!/bin/sh\n: > "+asked+"\nexec sleep 1000\n"),
			0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	began := time.Now()
	cfg, err := Load("")
	if err != nil || cfg.Machine.CPUs <= 0 || cfg.Machine.Memory <= 0 {
		t.Errorf("got %+v, %v, want processors and memory", cfg.Machine, err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the settings took %v", took)
	}
	if _, err := os.Stat(asked); err == nil {
		t.Error("the settings ask the GPU driver")
	}
}

func TestStatePath(t *testing.T) {
	dir, home := t.TempDir(), t.TempDir()
	t.Chdir(dir)
	t.Setenv("HOME", home)
	for text, want := range map[string]string{
		"st": dir + "/st", "./st": dir + "/st", "../st": filepath.Dir(dir) + "/st", "/srv/st/": "/srv/st",
		"a//b/": dir + "/a/b",
		"~/mlf": home + "/mlf", "~": home, "~ada/mlf": "", "x~": dir + "/x~",
	} {
		if got, err := StatePath(text); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", text, got, err, want)
		}
	}
	file := filepath.Join(dir, "node.yaml")
	for how, set := range map[string]func(){
		"file":        func() { os.WriteFile(file, []byte("state: st\n"), 0o600) },
		"environment": func() { os.WriteFile(file, nil, 0o600); t.Setenv("MLF_STATE", "st") },
	} {
		set()
		if c, err := Load(file); err != nil || c.StateDir != dir+"/st" {
			t.Errorf("from the %s: got %q, %v, want an absolute path", how, c.StateDir, err)
		}
		os.Unsetenv("MLF_STATE")
	}
}
