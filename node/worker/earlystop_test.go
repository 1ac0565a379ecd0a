package worker

import (
	"context"
	"errors"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// TestWorseAttemptIsStopped ends one of two running attempts that the record names, and lets the
// other continue. What the first has reported is in its result. An attempt that ends on its own at
// that moment keeps its own outcome.
func TestWorseAttemptIsStopped(t *testing.T) {
	t.Parallel()
	started, end := make(chan *executor.Attempt, 2), make(chan struct{})
	s := newHarness(t, func(ctx context.Context, a *executor.Attempt) executor.Outcome {
		started <- a
		select {
		case <-ctx.Done():
			o := succeeded()
			if !errors.Is(context.Cause(ctx), executor.ErrCancelled) {
				t.Errorf("stopped by %v, want it stopped as one that is cancelled", context.Cause(ctx))
			}
			o.Class, o.Reason = executor.StopVerdict(context.Cause(ctx))
			return o
		case <-end:
			return succeeded()
		}
	})
	r := s.sweep("a-1", 2, 1, func(r *grid.Sweep) {
		r.Task.Stop = &grid.EarlyStop{Metric: "loss", Goal: "minimize", Rule: grid.StopMedian, After: 1}
	})
	s.run()
	s.lease(r, 0, 1)
	s.lease(r, 1, 2)
	<-started
	<-started
	all := s.events(r.ID, func(all []grid.Event) bool { return len(only(all, grid.Started)) == 2 })
	var run string
	for _, e := range only(all, grid.Started) {
		if e.Index == 1 {
			run = e.Run
		}
	}
	old, err := s.store.Records.Load(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	old.Sweep.Stopping = []grid.StoppedRun{
		{Index: 0, Run: "another.1.1", Reason: "of an attempt that is long over"},
		{Index: 1, Run: run, Reason: "worse than all"},
	}
	if _, err := s.store.Records.Update(t.Context(), &old); err != nil {
		t.Fatal(err)
	}
	if e := s.finished(r.ID, 1)[0]; e.Index != 1 || e.Result.Class != grid.ClassStopped ||
		e.Result.Reason != "worse than all" {
		t.Errorf("got trial %d, %+v; want trial 1 stopped early", e.Index, e.Result)
	}
	close(end)
	for _, e := range s.finished(r.ID, 2) {
		if e.Index == 0 && e.Result.Class != grid.ClassNone {
			t.Errorf("trial 0: got %+v, want a success", e.Result)
		}
	}
}
