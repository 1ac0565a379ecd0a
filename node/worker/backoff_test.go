package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/gridtest"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
)

func TestTroubleTriesOneAtATime(t *testing.T) {
	var tr backoff
	now := time.UnixMicro(1_700_000_000_000_000)
	if !tr.admit(now) || !tr.admit(now) || tr.currentReason() != "" {
		t.Fatal("a node without trouble lets nothing begin")
	}
	began := now
	now = now.Add(time.Second)
	if !tr.recordFailure(began, now, "no processes") || tr.recordFailure(began, now, "no processes") ||
		tr.currentReason() != "no processes" {
		t.Errorf(
			"two attempts of one moment: got the trouble %q at level %d, want one failure", tr.currentReason(),
			tr.failures,
		)
	}
	pause := minBackoff
	for range 12 {
		if tr.admit(now.Add(pause - time.Microsecond)) {
			t.Errorf("something begins within the pause of %v", pause)
		}
		now = now.Add(pause)
		if !tr.admit(now) || tr.admit(now) {
			t.Errorf("after %v: want exactly one attempt to begin", pause)
		}
		tr.cancelProbe() // its lease was in vain
		if !tr.admit(now) {
			t.Error("a try that never began is not made good")
		}
		tr.recordFailure(now, now, "no files")
		pause = min(2*pause, maxBackoff)
	}
	if pause != maxBackoff || tr.currentReason() != "no files" {
		t.Errorf("got pauses up to %v and the trouble %q", pause, tr.currentReason())
	}
	if tr.recordSuccess(now.Add(-time.Hour)) {
		t.Error("an attempt from before the trouble has ended it")
	}
	if !tr.recordSuccess(now.Add(time.Hour)) || !tr.admit(now) || !tr.admit(now) || tr.currentReason() != "" {
		t.Error("an attempt that ran has not ended the trouble")
	}
}

// TestSickNodeBurnsNoSweep offers a queue of trials to a node that can run nothing for a while. The
// node must not use them up.
func TestSickNodeBurnsNoSweep(t *testing.T) {
	var sick atomic.Bool
	var refusals atomic.Int32
	s := newHarness(t, func(context.Context, *executor.Attempt) executor.Outcome {
		if sick.Load() {
			refusals.Add(1)
			now := time.Now()
			return executor.Outcome{
				Class: grid.ClassNode, ExitCode: 126,
				Reason: "its shim could not be started: no more processes\nsecond line", Start: now, End: now,
			}
		}
		return succeeded()
	})
	sick.Store(true)
	r := s.sweep("t-1", 60, 1, nil)
	for i := range int64(60) {
		s.lease(r, i, i+1)
	}
	s.run()
	eventually(t, "the third pause", func() bool {
		s.trials.backoff.mu.Lock()
		defer s.trials.backoff.mu.Unlock()
		return s.trials.backoff.failures >= 3
	})
	if why := s.trials.backoff.unavailableReason(); why != "its shim could not be started: no more processes" {
		t.Errorf("the trouble is told as %q", why)
	}
	if n := refusals.Load(); n > 4+4 {
		t.Errorf(
			"%d attempts were tried on a node that can run none, want as many as it has slots and then one at a time",
			n,
		)
	}
	sick.Store(false)
	ended := s.finished("t-1", 60)
	failed := 0
	for _, e := range ended {
		if e.Result.Class == grid.ClassNode {
			failed++
		} else if e.Result.Class != grid.ClassNone {
			t.Errorf("trial %d: got class %s", e.Index, e.Result.Class)
		}
	}
	if failed != int(refusals.Load()) || s.trials.backoff.unavailableReason() != "" {
		t.Errorf(
			"got %d failures of the node for %d refusals, and the trouble %q", failed, refusals.Load(),
			s.trials.backoff.unavailableReason(),
		)
	}
}

// TestNoSlotIsTheNodesTrouble checks that leases are returned while there is no slot, and not in a
// busy loop.
func TestNoSlotIsTheNodesTrouble(t *testing.T) {
	var asked atomic.Int32
	s := newHarness(t, nil)
	s.cfg.Executor = slotless{&asked}
	r := s.sweep("t-1", 1, 1, nil)
	s.lease(r, 0, 1)
	s.run()
	s.released("t-1", 1)
	if why := s.trials.backoff.unavailableReason(); !strings.Contains(
		why, "no slot for an attempt: too many open files",
	) {
		t.Errorf("got the trouble %q", why)
	}
	if n := asked.Load(); n > 8 {
		t.Errorf("a slot was asked for %d times", n)
	}
}

type slotless struct{ asked *atomic.Int32 }

func (s slotless) Slot() (executor.Slot, error) {
	s.asked.Add(1)
	return nil, syscall.EMFILE
}

// TestFullDiskIsTheNodes checks which programs that fail while the disk is full are to blame.
func TestFullDiskIsTheNodes(t *testing.T) {
	const disk = 32 << 20
	for _, c := range []struct {
		how          string
		class        grid.Class
		own, foreign int64 // bytes on the disk
		saved        int64 // of the trial's checkpoint
		want         grid.Class
	}{
		{"room", grid.ClassExit, 1 << 20, 1 << 20, 0, grid.ClassExit},
		{"full of others' files", grid.ClassExit, 1 << 20, disk - 3<<20, 0, grid.ClassNode},
		{"full, killed", grid.ClassSignal, 1 << 20, disk - 3<<20, 0, grid.ClassNode},
		{"full, succeeded", grid.ClassNone, 1 << 20, disk - 3<<20, 0, grid.ClassNone},
		{"full, too long", grid.ClassTimeout, 1 << 20, disk - 3<<20, 0, grid.ClassTimeout},
		{"full, cancelled", grid.ClassCancel, 1 << 20, disk - 3<<20, 0, grid.ClassCancel},
		{"full of its own files", grid.ClassExit, disk - 3<<20, 1 << 20, 0, grid.ClassExit},
		{"full of what it saved", grid.ClassExit, 1 << 20, 1 << 20, disk - 4<<20, grid.ClassExit},
	} {
		t.Run(c.how, func(t *testing.T) {
			dir := gridtest.SmallDisk(t, fmt.Sprint(disk), 0)
			folder := filepath.Join(dir, "1")
			if err := os.MkdirAll(filepath.Join(folder, "work"), 0o700); err != nil {
				t.Fatal(err)
			}
			for path, size := range map[string]int64{
				filepath.Join(folder, "work", "out"): c.own, filepath.Join(dir, "other"): c.foreign,
				filepath.Join(dir, "saved"): c.saved,
			} {
				if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			monitor := &diskMonitor{dir: dir, log: logger(t)}
			result := &grid.Result{Class: c.class, ExitCode: 1, Reason: "exit code 1", Usage: grid.Usage{Wall: 7}}
			monitor.attribute(
				&attempt{
					spool:      &spool{spoolPaths: newSpoolPaths(folder)},
					checkpoint: &checkpointFolder{dir: filepath.Join(dir, "saved")},
				},
				result,
			)
			if result.Class != c.want || !strings.Contains(result.Reason, "exit code 1") {
				t.Errorf("got class %q (%s), want %q", result.Class, result.Reason, c.want)
			}
		})
	}
}

func TestWhoseErrorsOfPreparationAre(t *testing.T) {
	a := &attempt{attemptSpec: attemptSpec{started: time.Now()}}
	for _, c := range []struct {
		err  error
		want grid.Class
	}{
		{&fs.PathError{Op: "open", Path: "x", Err: syscall.EMFILE}, grid.ClassNode},
		{fmt.Errorf("the attempt's folder could not be filled: %w", syscall.ENOSPC), grid.ClassNode},
		{fmt.Errorf("the project's bundle could not be unpacked: %w", syscall.EIO), grid.ClassNode},
		{fmt.Errorf("the project's bundle could not be unpacked: %w", jetstream.ErrClosed), grid.ClassNode},
		{fmt.Errorf("the project's bundle could not be unpacked: %w", jetstream.ErrNotFound), grid.ClassSetup},
		{errors.New("the bundle is damaged"), grid.ClassSetup},
		{&mountError{"the container mounts /data, which this node does not have"}, grid.ClassMount},
		{&setupError{class: grid.ClassExit, reason: "exit code 1"}, grid.ClassSetup},
		{&setupError{class: grid.ClassStart, reason: "not found"}, grid.ClassSetup},
		{&setupError{class: grid.ClassNode, reason: "no more processes"}, grid.ClassNode},
		{fmt.Errorf("wrapped: %w", &setupError{class: grid.ClassNode, reason: "no more processes"}), grid.ClassNode},
	} {
		if r := a.prepareFailure(c.err); r.Class != c.want || r.Reason == "" {
			t.Errorf("%v: got class %s, want %s", c.err, r.Class, c.want)
		}
	}
}
