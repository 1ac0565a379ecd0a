package process

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/grid/gridtest"
	"mlfnode/node/executor"
)

// runOnce runs a shell script with an output file in a process executor that edit may change.
func runOnce(t *testing.T, script string, stdout *os.File, edit func(*Executor)) (executor.Outcome, time.Duration) {
	t.Helper()
	p, err := New(Options{Token: fmt.Sprintf("output-%d", os.Getpid()), DieWithAgent: true},
		slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	edit(p)
	s, err := p.Slot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	began := time.Now()
	o := s.Run(t.Context(), &executor.Attempt{Argv: []string{"/bin/sh", "-c", script}, Env: os.Environ(),
		Spec: executor.Spec{Dir: t.TempDir()}, Stdout: stdout})
	return o, time.Since(began)
}

// TestOutputToAFullDisk runs programs that print while their file can't be written. Each waits for
// room in the file, also after its end. If there is none, what is not stored is counted and the
// attempt is the node's failure, however the program ended.
func TestOutputToAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	const patience = 300 * time.Millisecond
	for _, c := range []struct {
		script string
		cut    int64
		reason string
	}{
		{"echo one", 4, "its output could not be stored: no space left on device"},
		{"sleep 0.05; echo one; exit 0", 4, "its output could not be stored: no space left on device"},
		{"echo one; exit 3", 4, "its output could not be stored: no space left on device (exit code 3)"},
		{"head -c 1000000 /dev/zero", 1000000, "its output could not be stored: no space left on device"},
	} {
		o, took := runOnce(t, c.script, full, func(p *Executor) { p.stallTimeout = patience })
		if o.Class != grid.ClassNode || o.Reason != c.reason || o.Cut != c.cut ||
			o.Kept != [2]int64{} || took < patience {
			t.Errorf("%s: got class %q, %q, %d cut, %v kept after %v; want class node, %q, %d cut after %v", c.script,
				o.Class, o.Reason, o.Cut, o.Kept, took, c.reason, c.cut, patience)
		}
	}
	if o, took := runOnce(t, "exit 3", full,
		func(p *Executor) { p.stallTimeout = time.Minute }); o.Class != grid.ClassExit || took > 30*time.Second {
		t.Errorf("a program that prints nothing: got class %q after %v, want exit immediately", o.Class, took)
	}
}

// TestOutputWaitsForRoom frees space on a small, full disk after a program has ended, and checks
// that nothing is lost.
func TestOutputWaitsForRoom(t *testing.T) {
	dir := gridtest.SmallDisk(t, "1m", unix.MNT_DETACH)
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("fill the disk: got %v, want that it is full", err)
	}
	time.AfterFunc(300*time.Millisecond, func() { _ = os.Remove(ballast) })
	o, _ := runOnce(t, "printf 'said it all'", f, func(p *Executor) { p.stallTimeout = time.Minute })
	got, err := os.ReadFile(f.Name())
	if o.Class != grid.ClassNone || o.Cut != 0 || err != nil || string(got) != "said it all" {
		t.Errorf("got class %q, %d cut and %q, %v; want success with its output", o.Class, o.Cut, got, err)
	}
}

// TestOutputWithoutPidfd runs programs as on a kernel without pidfd.
func TestOutputWithoutPidfd(t *testing.T) {
	for script, want := range map[string]int64{"true": 0, "echo a; sleep 0.1; echo b": 4,
		"head -c 1000000 /dev/zero": 1000000, "sleep 0.05; head -c 65536 /dev/zero; kill -9 $$": 65536} {
		f, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		runOnce(t, script, f, func(p *Executor) { p.noPidfd = true })
		if info, err := f.Stat(); err != nil || info.Size() != want {
			t.Errorf("%s: got %v bytes, %v; want %d", script, info.Size(), err, want)
		}
		f.Close()
	}
}
