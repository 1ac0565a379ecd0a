package executor

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// runOnce runs a shell script with an output file in a process executor that edit may change.
func runOnce(t *testing.T, script string, stdout *os.File, edit func(*Process)) (Outcome, time.Duration) {
	t.Helper()
	p, err := NewProcess(ProcessOptions{Token: fmt.Sprintf("output-%d", os.Getpid()), DieWithAgent: true}, slog.New(slog.DiscardHandler))
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
	o := s.Run(t.Context(), &Attempt{Argv: []string{"/bin/sh", "-c", script}, Env: os.Environ(), Dir: t.TempDir(), Stdout: stdout})
	return o, time.Since(began)
}

// TestOutputToAFullDisk has programs print while their file can't be written: a short one is not held up, a long one waits for
// room in the file and then goes on. What is not stored is counted.
func TestOutputToAFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	const patience = 300 * time.Millisecond
	for _, c := range []struct {
		script string
		cut    int64
		waits  bool
	}{
		{"echo one", 4, false},
		{"sleep 0.05; echo one; exit 0", 4, false},
		{"head -c 1000000 /dev/zero", 1000000, true},
	} {
		o, took := runOnce(t, c.script, full, func(p *Process) { p.stall = patience })
		if o.Class != "" || o.Cut != c.cut || o.Kept != [2]int64{} || (took > patience) != c.waits {
			t.Errorf("%s: got class %q, %d cut, %v kept after %v; want success, %d cut, a wait: %v", c.script, o.Class, o.Cut, o.Kept, took, c.cut, c.waits)
		}
	}
}

// TestOutputWithoutPidfd runs programs as on a kernel that does not tell a program's end on a descriptor.
func TestOutputWithoutPidfd(t *testing.T) {
	for script, want := range map[string]int64{"true": 0, "echo a; sleep 0.1; echo b": 4, "head -c 1000000 /dev/zero": 1000000, "sleep 0.05; head -c 65536 /dev/zero; kill -9 $$": 65536} {
		f, err := os.Create(filepath.Join(t.TempDir(), "out"))
		if err != nil {
			t.Fatal(err)
		}
		runOnce(t, script, f, func(p *Process) { p.noPidfd = true })
		if info, err := f.Stat(); err != nil || info.Size() != want {
			t.Errorf("%s: got %v bytes, %v; want %d", script, info.Size(), err, want)
		}
		f.Close()
	}
}
