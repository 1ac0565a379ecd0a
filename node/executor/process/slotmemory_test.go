package process

import (
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/cgroups"
	"mlfnode/node/executor"
)

// TestOutOfMemoryWithoutCgroups lets the kernel kill a program for lack of memory under an executor
// that does not use cgroups, and checks that this is told from a kill -9.
func TestOutOfMemoryWithoutCgroups(t *testing.T) {
	all := cgroups.Hierarchies(cgroups.Own())
	h, limit := all[memoryController], "memory.limit_in_bytes"
	if h.Dir == "" || h.Unified {
		h, limit = all[""], "memory.max"
	}
	tight := filepath.Join(h.Dir, "oom-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(tight, 0o755); err != nil {
		t.Skipf("left out: a cgroup of one's own is needed: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(tight); err != nil {
			t.Error(err)
		}
	})
	if err := writeFile(filepath.Join(tight, limit), strconv.Itoa(32<<20)); err != nil {
		t.Skipf("left out: the memory controller is needed: %v", err)
	}
	for name, value := range map[string]string{"memory.memsw.limit_in_bytes": strconv.Itoa(32 << 20),
		"memory.swap.max": "0"} {
		_ = writeFile(filepath.Join(tight, name), value) // at most one of them is there
	}
	p, err := New(Options{Token: "oom-test-" + strconv.Itoa(os.Getpid()), DieWithAgent: true, Cgroups: CgroupsOff},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	s, err := p.Slot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for script, want := range map[string]grid.Class{
		"sleep 0.3; kill -9 $$": grid.ClassSignal,
		"sleep 0.3; echo $$ >" + tight + "/cgroup.procs; exec tail /dev/zero": grid.ClassMemory,
	} {
		o := s.Run(t.Context(), &executor.Attempt{Spec: executor.Spec{Dir: t.TempDir()},
			Argv: []string{"/bin/sh", "-c", script}, Env: os.Environ()})
		if o.Class != want || o.ExitCode != 137 {
			t.Errorf("%s: got class %q, exit code %d, %s; want %q, 137", script, o.Class, o.ExitCode, o.Reason, want)
		}
	}
}
