package grid

import (
	"strings"
	"testing"
)

func TestCheckImage(t *testing.T) {
	digest := "@sha256:" + strings.Repeat("0f", 32)
	for _, ref := range []string{"python", "python:3.12-slim", "lab/train", "docker.io/library/x:1",
		"reg.lab:5000/a/b_c/d__e/f-g.h:V1.0_x", "localhost/x",
		"[::1]:5000/x", "x" + digest, "x:1" + digest, "127.0.0.1:41/x:1", "a--b"} {
		if err := CheckImage(ref); err != nil {
			t.Errorf("%q: got %v, want it valid", ref, err)
		}
	}
	for _, ref := range []string{"", " ", "Python", "python:", "python: 3", "a//b", "/a", "a/", "-a",
		"a:b:c", "a@sha256:12", "a" + digest + "x", "docker://x", "https://reg.lab/x",
		"a:" + strings.Repeat("x", 129), strings.Repeat("a", 513), "a\nb", "a:1\x00", "$IMAGE", "a;b", "--privileged"} {
		if CheckImage(ref) == nil {
			t.Errorf("%q: got no error", ref)
		}
	}
}

func TestParseMount(t *testing.T) {
	for text, want := range map[string]Mount{
		"/data":          {Source: "/data"},
		"/data:ro":       {Source: "/data", ReadOnly: true},
		"/data:/in":      {Source: "/data", Target: "/in"},
		"/data:/in:ro":   {Source: "/data", Target: "/in", ReadOnly: true},
		"/:/host:ro":     {Source: "/", Target: "/host", ReadOnly: true},
		"/a b/ü:/in put": {Source: "/a b/ü", Target: "/in put"},
	} {
		if got, err := ParseMount(text); err != nil || got != want {
			t.Errorf("%q: got %+v and %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", ":ro", "data", "data:/in", "/data:in", "/data:/in:rw", "/a:/b:/c", "/data/../etc",
		"/data/", "/data:/", "/", "/data:/in/..", "~/data", "$HOME:/x", "/a\x00b"} {
		if got, err := ParseMount(text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

// TestMountAllows checks that an allowed mount never reaches outside of the folder that the node
// names.
func TestMountAllows(t *testing.T) {
	for _, tt := range []struct {
		node, task string
		want       bool
	}{
		{"/data", "/data", true}, {"/data", "/data/a/b:/in", true}, {"/data", "/data:ro", true},
		{"/data:ro", "/data:ro", true}, {"/", "/x", true},
		{"/data:ro", "/data", false}, {"/data", "/database", false}, {"/data", "/", false}, {"/data/a", "/data", false},
		{"/data", "/other:/data", false},
	} {
		node, err := ParseMount(tt.node)
		if tt.node == "/" {
			node, err = Mount{Source: "/"}, nil // node.yaml can allow this one
		}
		task, err2 := ParseMount(tt.task)
		if tt.task == "/" {
			task, err2 = Mount{Source: "/", Target: "/x"}, nil
		}
		if err != nil || err2 != nil || node.Allows(&task) != tt.want {
			t.Errorf("%s, %s: got %v (%v, %v), want %v", tt.node, tt.task, !tt.want, err, err2, tt.want)
		}
	}
}

func TestParseUlimit(t *testing.T) {
	for text, want := range map[string]Ulimit{"1024": {"nofile", 1024, 1024}, "1024:65536": {"nofile", 1024, 65536},
		"-1": {"nofile", -1, -1}, "5:-1": {"nofile", 5, -1}, "0": {"nofile", 0, 0}} {
		if got, err := ParseUlimit("nofile", text); err != nil || got != want {
			t.Errorf("%q: got %+v and %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "x", "1:", ":1", "-2", "2:1", "-1:5", "1:2:3", "9999999999999999999",
		"1.5", "unlimited"} {
		if got, err := ParseUlimit("nofile", text); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
	if _, err := ParseUlimit("oops", "1"); err == nil {
		t.Error("got no error for an unknown limit")
	}
}

func TestTaskRefusesBadContainers(t *testing.T) {
	base := func() Task {
		return Task{Name: "t", Command: []string{"x"}, Image: "x", Resources: Resources{CPUs: One}}
	}
	for name, change := range map[string]func(*Task){
		"no image":   func(t *Task) { t.Image, t.Container = "", &Container{} },
		"image":      func(t *Task) { t.Image = "X Y" },
		"pull":       func(t *Task) { t.Container = &Container{Pull: "often"} },
		"network":    func(t *Task) { t.Container = &Container{Network: "container:x"} },
		"gpus":       func(t *Task) { t.Container = &Container{GPUs: "all"} },
		"shm":        func(t *Task) { t.Container = &Container{Shm: -1} },
		"mount":      func(t *Task) { t.Container = &Container{Mounts: []Mount{{Source: "/a", Target: "b"}}} },
		"mount root": func(t *Task) { t.Container = &Container{Mounts: []Mount{{Source: "/"}}} },
		"no source":  func(t *Task) { t.Container = &Container{Mounts: []Mount{{Target: "/b"}}} },
		"one place": func(t *Task) {
			t.Container = &Container{Mounts: []Mount{{Source: "/a", Target: "/x"}, {Source: "/b", Target: "/x/"}}}
		},
		"own place": func(t *Task) {
			t.Container = &Container{Mounts: []Mount{{Source: "/x"}, {Source: "/b", Target: "/x"}}}
		},
		"at root": func(t *Task) { t.Container = &Container{Mounts: []Mount{{Source: "/a", Target: "/"}}} },
		"mounts":  func(t *Task) { t.Container = &Container{Mounts: make([]Mount, 65)} },
		"ulimit":  func(t *Task) { t.Container = &Container{Ulimits: []Ulimit{{"nofile", 2, 1}}} },
	} {
		task := base()
		if change(&task); task.Check() == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	good := base()
	good.Container = &Container{Pull: "always", Network: "lab-net", GPUs: "cdi", Shm: 1 << 30,
		Mounts:  []Mount{{Source: "/data", ReadOnly: true}},
		Ulimits: []Ulimit{{"memlock", -1, -1}}, Entrypoint: &[]string{}}
	if err := good.Check(); err != nil {
		t.Errorf("got %v for a good one", err)
	}
}
