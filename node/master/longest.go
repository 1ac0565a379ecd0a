package master

import (
	"context"
	"time"

	"mlfnode/grid"
	"mlfnode/node/history"
)

// loadedTimes bounds the run times that are read when a sweep with grid.OrderLongest is taken up.
const loadedTimes = 512

// openTimes takes up how long trials have run that had ended, evenly from all of them. What can't be read is left out: the order is found
// again as trials end.
func (s *state) openTimes(ctx context.Context, f *feed) {
	if f.longest == nil {
		return
	}
	defer f.longest.Reorder()
	step, at := max(1, f.done.Count()/loadedTimes), int64(0)
	for r := range f.done.All() {
		for ; at < r.Hi-r.Lo; at += step {
			t, known, err := s.m.cfg.History.Trial(ctx, grid.TrialID{Sweep: f.sweep.ID, Index: r.Lo + at})
			if err != nil {
				s.m.log.Warn("run times of trials could not be read, and the longest may not run first", "sweep", f.sweep.ID, "err", err)
				return
			}
			if known && t.State == grid.Succeeded {
				f.longest.Note(t.Index, time.Duration(t.Result.Usage.Wall)*time.Microsecond)
			}
		}
		at -= r.Hi - r.Lo
	}
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
