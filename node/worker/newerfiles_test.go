package worker

import (
	"context"
	"sync/atomic"
	"testing"

	"mlfnode/jetstream"
	"mlfnode/node/executor"
)

// TestLeaseOfNewerFiles checks that a worker that has not yet learned of newer files for some
// trials returns their leases.
func TestLeaseOfNewerFiles(t *testing.T) {
	var ran atomic.Int64
	s := newHarness(t, func(_ context.Context, a *executor.Attempt) executor.Outcome {
		if variable(a.Env, "MLF_TRIAL") == "t-1/0" {
			ran.Add(1)
		}
		return succeeded()
	})
	r := s.sweep("t-1", 2, 1, nil)
	if _, err := s.store.Queue.Publish(
		t.Context(), jetstream.Lease{Sweep: r.ID, Lo: 0, Hi: 1, Attempt: 2, Shape: string(r.Lane()), Updates: 1},
	); err != nil {
		t.Fatal(err)
	}
	s.lease(r, 1, 2)
	s.run()
	if got := s.finished(r.ID, 1)[0].Index; got != 1 || ran.Load() > 0 {
		t.Errorf("got the result of trial %d, and trial 0 ran %d times; want trial 1 alone", got, ran.Load())
	}
}
