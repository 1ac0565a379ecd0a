package inventory

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatcherOfAHungDriver uses a driver that hangs forever, as in a system call that cannot be
// interrupted. The Watcher calls it once and reports ErrSilent to others, and neither Latest nor
// the end of Run waits for it.
func TestWatcherOfAHungDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var looks atomic.Int32
		told := make(chan Machine, 8)
		release := make(chan struct{})
		w := NewWatcher(Machine{CPUs: 3}, nil, func(m Machine) { told <- m })
		w.read = func(context.Context, Source) (Machine, error) {
			looks.Add(1)
			<-release
			return Machine{CPUs: 4}, nil
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		time.Sleep(hangs + 10*refresh) // the fake clock of the bubble
		if m := <-told; m.CPUs != 3 || m.GPUProblem != silence || w.Latest().GPUProblem != silence {
			t.Errorf("others were told %+v, want that the driver does not answer", m)
		}
		if n := looks.Load(); n != 1 || len(told) != 0 {
			t.Errorf("got %d looks and %d more calls, want one look alone", n, len(told))
		}
		stop()
		begun := time.Now()
		if err := <-ended; err != nil || time.Since(begun) > endLimit {
			t.Errorf("the end took %v: %v", time.Since(begun), err)
		}
		close(release)
		synctest.Wait()
		if len(told) != 0 {
			t.Error("others are told something after the end")
		}
	})
}

// hangingSMI puts an nvidia-smi into PATH that hangs, with a child process that keeps its output
// open, and writes a line for each run.
func hangingSMI(t *testing.T) (runs string) {
	t.Helper()
	dir := t.TempDir()
	runs = filepath.Join(dir, "runs")
	script := "#!/bin/sh\necho run >> " + runs + "\nsleep 1000\n"
	if err := os.WriteFile(filepath.Join(dir, "nvidia-smi"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return runs
}

func TestHangingSMIIsGivenUp(t *testing.T) {
	runs := hangingSMI(t)
	began := time.Now()
	if _, err := Size(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(runs); err == nil {
		t.Error("the size of the machine asks the driver")
	}
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	var m Machine
	(&smi{}).Read(ctx, &m)
	if !strings.Contains(m.GPUProblem, "does not answer") || time.Since(began) > 5*time.Second {
		t.Errorf("got the problem %q after %v", m.GPUProblem, time.Since(began))
	}
	ctx, stop = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	if m, err := Read(ctx); err != nil || m.CPUs <= 0 || !strings.Contains(m.GPUProblem, "does not answer") {
		t.Errorf("got %+v, %v", m, err)
	}
}
