package doctor

import (
	"testing"
)

func TestContainers(t *testing.T) {
	good := Containers{Engine: "Docker 28.2.2 at unix:///run/docker.sock", Version: "28.2.2", Limits: true,
		Seccomp: true, CgroupDriver: "systemd", GPUs: "cdi", SpecDirs: []string{"/etc/cdi"}, SpecDriver: "550.54"}
	gpu := GPUs{Driver: "550.54", Devices: []GPU{{Name: "A100"}}}
	with := func(change func(*Containers)) Containers {
		c := good
		change(&c)
		return c
	}
	tests := map[string]struct {
		c     Containers
		gpus  GPUs
		name  string // of the finding; "" means the first
		state State
		cause string
		cure  string
	}{
		"good": {good, gpu, "", OK, "Docker 28.2.2", ""},
		"gpus": {good, gpu, "container gpus", OK, "by CDI", ""},
		"none": {Containers{Problem: "no container engine answers: unix:///run/docker.sock: nothing listens there"},
			gpu, "", OK, "other nodes", ""},
		"denied": {Containers{Problem: "unix:///run/docker.sock: permission denied"}, gpu, "", Warn,
			"permission denied", "usermod -aG docker"},
		"no limits": {with(func(c *Containers) { c.Limits = false }), gpu, "container limits", Warn,
			"does not bound", "unified_cgroup"},
		"rootless": {with(func(c *Containers) { c.Limits, c.Rootless = false, true }), gpu, "container limits",
			Warn, "does not bound", "Delegate"},
		"old seccomp": {with(func(c *Containers) { c.Version = "20.10.5+dfsg1" }), gpu, "container seccomp", Warn,
			"clone3", "20.10.10"},
		"no GPU way": {with(func(c *Containers) { c.GPUs = "" }), gpu, "container gpus", Warn, "can't give",
			"gpu-setup"},
		"no toolkit": {with(func(c *Containers) { c.GPUs = "request" }), gpu, "container gpus", Warn, "can't give",
			"nvidia-container-toolkit"},
		"old podman": {with(func(c *Containers) { c.Podman, c.GPUs, c.Version = true, "", "4.3.1" }), gpu,
			"container gpus", Warn, "Podman 4.3.1", "update Podman"},
		"stale": {with(func(c *Containers) { c.SpecDriver = "535.1" }), gpu, "container gpus", Warn,
			"of the driver 535.1", "cdi generate"},
		"unnamed": {with(func(c *Containers) { c.Unnamed = []string{"GPU-1"} }), gpu, "container gpus", Warn,
			"does not name GPU-1", "cdi generate"},
		"reload": {with(func(c *Containers) { c.GPUs, c.Toolkit, c.SpecDirs = "request", true, nil }), gpu,
			"container gpus", Warn, "reloaded", "cgroupfs"},
		"by request": {with(func(c *Containers) {
			c.GPUs, c.Toolkit, c.SpecDirs, c.CgroupDriver = "request", true, nil, "cgroupfs"
		}), gpu, "container gpus", OK, "device requests", ""},
		"no such disk":  {with(func(c *Containers) { c.Root = "/" }), gpu, "container disk", "", "in /", ""},
		"not looked at": {Containers{}, gpu, "none at all", "", "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			found := checkContainers(&tt.c, &tt.gpus)
			for _, f := range found {
				if f.Name != tt.name && tt.name != "" {
					continue
				}
				if tt.state == "" {
					tt.state, tt.cure = f.State, f.Cure // it depends on the machine
				}
				want(t, f, tt.state, tt.cause, tt.cure)
				return
			}
			if tt.name != "none at all" {
				t.Errorf("got no finding %q in %v", tt.name, found)
			}
		})
	}
	want(t, judgeImageDisk("/d", 100<<30, 19<<30), Warn, "19 GiB of 100 GiB", "prune")
	want(t, judgeImageDisk("/d", 100<<30, 21<<30), OK, "21 GiB", "")
}

func TestOlder(t *testing.T) {
	for version, want := range map[string]bool{"20.10.9": true, "20.10.10": false, "20.10.24+dfsg1": false,
		"19.3": true, "28.2.2": false, "": false, "master": false, "20.10": false, "20.9": true} {
		if got := isOlder(version, 20, 10, 10); got != want {
			t.Errorf("%q: got %v, want %v", version, got, want)
		}
	}
}
