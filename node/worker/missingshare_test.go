package worker

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// TestMissingShare runs sweeps that share paths which this node can't read. Each fails like a
// setup, which pauses it after a while, and the node continues with other sweeps.
func TestMissingShare(t *testing.T) {
	s := newHarness(t, func(context.Context, *executor.Attempt) executor.Outcome { return succeeded() })
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	round := filepath.Join(t.TempDir(), "round")
	if err := os.Symlink(round, round); err != nil {
		t.Fatal(err)
	}
	paths := map[grid.SweepID]string{
		"none-1": "/no/such/folder", "file-1": file + "/in", "round-1": round, "long-1": "/" + strings.Repeat("n", 300),
	}
	for id, path := range paths {
		r := s.sweep(id, 1, 1, func(r *grid.Sweep) { r.Task.Links = []grid.Link{{Path: "data", To: path}} })
		s.lease(r, 0, 1)
	}
	s.run()
	for id, path := range paths {
		r := s.finished(id, 1)[0].Result
		if want := "the project shares " + path + ", which this node can't read: "; r.Class != grid.ClassSetup ||
			!strings.HasPrefix(r.Reason, want) {
			t.Errorf("%s ended with %s: %.200s; want a failed setup: %.100s", id, r.Class, r.Reason, want)
		}
	}
	if why := s.trials.backoff.unavailableReason(); why != "" {
		t.Errorf("the node is in trouble: %s", why)
	}
	r := s.sweep("other-1", 1, 1, nil)
	eventually(t, "the worker knows the sweep", func() bool { _, ok := s.sweeps.active(r.ID); return ok })
	s.lease(r, 0, 1)
	if other := s.finished("other-1", 1)[0].Result; other.Class != grid.ClassNone {
		t.Errorf("another sweep ended with %s: %s", other.Class, other.Reason)
	}
}

// TestUnreadableSetup lists folders in which a setup step has left files that the node's user must
// not read.
func TestUnreadableSetup(t *testing.T) {
	asNobody(t)
	for _, c := range []struct {
		name string
		mode os.FileMode
		dir  bool
	}{
		{name: "file", mode: 0}, {name: "file", mode: 0o200}, {name: "file", mode: 0o077},
		{name: "dir", mode: 0, dir: true}, {name: "dir", mode: 0o300, dir: true}, {name: "dir", mode: 0o600, dir: true},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "sub", c.name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if err == nil && c.dir {
			path = filepath.Join(path, "x")
			err = os.MkdirAll(path, 0o700)
			path = filepath.Dir(path)
		} else if err == nil {
			err = os.WriteFile(path, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		_, err = listFolder(dir, nil)
		r := new(attempt).prepareFailure(err)
		if want := "the setup step leaves sub/" + c.name; r.Class != grid.ClassSetup ||
			!strings.HasPrefix(r.Reason, want) || !strings.HasSuffix(r.Reason, ": permission denied") {
			t.Errorf("%s with mode %o: got %s: %s; want a failed setup: %s…", c.name, c.mode, r.Class, r.Reason, want)
		}
		if err := os.Chmod(path, 0o700); err != nil {
			t.Error(err)
		}
	}
}

// asNobody drops root's rights over files in the test.
func asNobody(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	const nobody = 65534
	above := t.TempDir() // the test's own folder
	for dir := filepath.Dir(above); strings.HasPrefix(dir, os.TempDir()+"/"); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread() // the thread ends together with the test's goroutine
	if err := unix.Setfsuid(nobody); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Setfsuid(0) }) // so that the test's folders can be removed
}
