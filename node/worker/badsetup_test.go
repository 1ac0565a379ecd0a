package worker

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// TestSetupFailsOnceForAll fails a setup step that many trials need. They run it one at a time,
// with a pause in between, and no other trial fails because of it. When the sweep is paused, the
// worker returns the leases that it holds, and when the sweep is resumed the step runs immediately.
func TestSetupFailsOnceForAll(t *testing.T) {
	var setups atomic.Int32
	var broken atomic.Bool
	s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
		o := succeeded()
		if a.Argv[0] == "setup" {
			setups.Add(1)
			if broken.Load() {
				o.Class, o.ExitCode, o.Reason = grid.ClassExit, 1, "exit code 1"
			}
		}
		return o
	})
	broken.Store(true)
	r := s.sweep("t-1", 40, 1, func(r *grid.Sweep) { r.Task.Setup = []string{"setup"} })
	for i := range int64(40) {
		s.lease(r, i, i+1)
	}
	s.run()
	if first := s.finished("t-1", 1)[0]; first.Result.Class != grid.ClassSetup {
		t.Errorf("got %+v, want the setup's failure", first.Result)
	}
	eventually(t, "the second try", func() bool { return setups.Load() == 2 })
	if all := s.finished("t-1", 2); len(all) != 2 {
		t.Errorf("got %d failed attempts for two tries: %+v", len(all), all)
	}
	s.setState(r, grid.SweepPaused)
	eventually(
		t, "what the worker holds to be given back", func() bool { return len(s.Worker.dispatcher.leases.all()) == 0 },
	)
	n := setups.Load()
	for _, e := range s.finished("t-1", 2) {
		if e.Result.Class != grid.ClassSetup && e.Result.Class != grid.ClassHalt {
			t.Errorf("trial %d ended with %s", e.Index, e.Result.Class)
		}
	}
	broken.Store(false)
	began := time.Now()
	s.setState(r, grid.SweepRunning)
	eventually(t, "the worker to hear of it", func() bool { _, ok := s.sweeps.active("t-1"); return ok })
	s.lease(r, 0, 1)
	s.events("t-1", func(all []grid.Event) bool {
		for _, e := range only(all, grid.Finished) {
			if e.Result.Class == grid.ClassNone {
				return true
			}
		}
		return false
	})
	if took := time.Since(began); took > 2*setupRetryDelay || setups.Load() > n+1 {
		t.Errorf("it went on after %v and %d more setups, want one immediately", took, setups.Load()-n)
	}
}
