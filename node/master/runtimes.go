package master

import (
	"context"
	"time"

	"mlfnode/grid"
)

// loadedTimes bounds the run times that are loaded for a sweep with grid.OrderLongest.
const maxLoadedTimes = 512

// openTimes loads the run times of trials that have ended, evenly from all of them. It leaves out
// what it can't read: the order is computed again as trials end.
func (s *scheduler) openTimes(ctx context.Context, f *feed) {
	if f.longest == nil {
		return
	}
	defer f.longest.reorder()
	step, at := max(1, f.done.Count()/maxLoadedTimes), int64(0)
	for r := range f.done.All() {
		for ; at < r.Hi-r.Lo; at += step {
			t, known, err := s.m.cfg.History.Trial(ctx, grid.TrialID{Sweep: f.sweep.ID, Index: r.Lo + at})
			if err != nil {
				s.m.log.Warn("run times of trials could not be read; the longest may not run first", "sweep", f.sweep.ID, "err", err)
				return
			}
			if known && t.State == grid.Succeeded {
				f.longest.addRunTime(t.Index, time.Duration(t.Result.Usage.Wall)*time.Microsecond)
			}
		}
		at -= r.Hi - r.Lo
	}
}

// withdrawReordered withdraws leases that were made before run times were known.
func (s *scheduler) withdrawReordered(ctx context.Context) {
	for _, f := range s.feeds {
		if f.reordered {
			f.reordered = false
			s.withdrawLeases(ctx, f)
		}
	}
}
