package master

import (
	"context"
	"fmt"
	"time"

	"mlfnode/grid"
	"mlfnode/node/history"
)

// loadedTimes bounds the run times that are read when a sweep with grid.OrderLongest is taken up.
const loadedTimes = 512

// openTimes takes up how long trials have run that had ended, evenly from all of them.
func (s *state) openTimes(ctx context.Context, f *feed) error {
	if f.longest == nil {
		return nil
	}
	step, at := max(1, f.done.Count()/loadedTimes), int64(0)
	for r := range f.done.All() {
		for ; at < r.Hi-r.Lo; at += step {
			t, known, err := s.m.cfg.History.Trial(ctx, grid.TrialID{Sweep: f.sweep.ID, Index: r.Lo + at})
			if err != nil {
				return fmt.Errorf("load run times of %s: %w", f.sweep.ID, err)
			}
			if known && t.State == grid.Succeeded {
				f.longest.Note(t.Index, time.Duration(t.Result.Usage.Wall)*time.Microsecond)
			}
		}
		at -= r.Hi - r.Lo
	}
	f.longest.Reorder()
	return nil
}

// noteTime learns from the run time of a trial that has ended. What waits in the queue when the first times are known is taken back.
func (f *feed) noteTime(t *history.Transition) {
	if f.longest == nil || t.State != grid.Succeeded {
		return
	}
	f.longest.Note(t.Index, time.Duration(t.Ended-t.Started)*time.Microsecond)
	first := !f.longest.Known()
	if f.longest.Reorder() {
		f.turn = 0
		f.reordered = f.reordered || first
	}
}

// followOrders takes leases back that were made before run times were known.
func (s *state) followOrders(ctx context.Context) {
	for _, f := range s.feeds {
		if f.reordered {
			f.reordered = false
			s.withdrawAll(ctx, f)
		}
	}
}
