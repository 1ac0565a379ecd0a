package monitor

import (
	"context"
	"time"

	"mlfnode/grid"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

// restInterval is the interval at which a sweep without changes is checked.
const restInterval = 250 * time.Millisecond

// quiescence detects that nothing of a sweep or a trial runs or is going to run.
type quiescence struct {
	master  *master.Master
	history *history.DB
}

// wait returns a channel that is closed when the sweep (index -1) or the trial is at rest, or when
// ctx ends.
func (q *quiescence) wait(ctx context.Context, id grid.SweepID, index int64) <-chan struct{} {
	rest := make(chan struct{})
	go func() {
		defer close(rest)
		tick := time.NewTicker(restInterval)
		defer tick.Stop()
		for {
			moved := q.master.Changed()
			if done, err := q.reached(ctx, id, index); done || err != nil {
				return
			}
			select {
			case <-moved:
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return rest
}

// reached reports whether nothing of the sweep or of the trial runs or is going to run.
func (q *quiescence) reached(ctx context.Context, id grid.SweepID, index int64) (bool, error) {
	rec, ok := q.master.Sweep(id)
	if !ok {
		return true, nil
	}
	if index >= 0 {
		t, known, err := q.history.Trial(ctx, grid.TrialID{Sweep: id, Index: index})
		if err != nil || (known && t.State.Terminal()) {
			return true, err
		}
	}
	if rec.Sweep.Active() {
		return false, nil
	}
	leases, err := q.master.Outstanding(ctx, id)
	if err != nil || leases > 0 {
		return false, err
	}
	return true, nil
}
