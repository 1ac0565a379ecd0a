package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid/gridtest"
)

// stalledFor is longer than the parts of a healthy node take to answer each other.
const stalledFor = 20 * time.Second

// TestWatchdogOfAStalledDisk freezes the disk of a master that has something to write: the
// watchdog, which would have it started again, is told that all is well, and afterwards the master
// goes on.
func TestWatchdogOfAStalledDisk(t *testing.T) {
	if testing.Short() {
		t.Skip("a disk that stands still takes its time")
	}
	gridtest.Root(t, "disks that can be frozen")
	mkfs, freeze := gridtest.Program(t, "mkfs.ext4"), gridtest.Program(t, "fsfreeze")
	dir := t.TempDir()
	image, disk := filepath.Join(dir, "image"), filepath.Join(dir, "disk")
	must := func(program string, args ...string) {
		t.Helper()
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", program, args, err, out)
		}
	}
	must(mkfs, "-q", image, "64m")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	must("mount", "-o", "loop", image, disk)
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	c := newTestCluster(t)
	c.state = filepath.Join(disk, "state")
	c.start()
	t.Cleanup(func() { _ = exec.Command(freeze, "--unfreeze", disk).Run() }) // where the test has failed
	if err := c.node.Healthy(); err != nil {
		t.Fatal(err)
	}
	c.open(c.sweep("--detach")...).exit(0)
	c.awaitBegun()
	must(freeze, "--freeze", disk)
	c.end() // the master is to store results
	submitted := c.open("sweep", "--detach", "--", "true")
	for end := time.Now().Add(stalledFor); time.Now().Before(end); {
		began := time.Now()
		if err := c.node.Healthy(); err != nil {
			t.Errorf("while the disk does not answer: got %v, want it not to be a reason to restart", err)
		}
		if took := time.Since(began); took > 20*time.Second { // systemd's watchdog waits for 30 s
			t.Errorf("the answer took %v", took)
		}
		<-time.After(time.Second)
	}
	must(freeze, "--unfreeze", disk)
	<-submitted.code // one that was not stored in time is refused
	eventually(t, "the sweep to end", func() bool {
		return strings.Contains(c.open("sweeps", "--json").exit(0), `"finished"`)
	})
	c.checkOnce()
	if err := c.node.Healthy(); err != nil {
		t.Errorf("after that: got %v", err)
	}
	c.node.Stop()
	c.stop()
}
