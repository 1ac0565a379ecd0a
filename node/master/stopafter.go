package master

import (
	"context"
	"fmt"
	"time"

	"mlfnode/grid"
)

// pauseFailing pauses the sweeps in which as many trials have failed as their tasks allow. A sweep
// whose trials have all ended is not paused: that would save nothing.
func (s *scheduler) pauseFailing(ctx context.Context) error {
	for id, f := range s.feeds {
		limit := f.sweep.Task.StopAfter
		if limit == 0 || !f.sweep.Active() || f.complete() {
			continue
		}
		c, err := s.m.cfg.History.Counts(ctx, id)
		if err != nil {
			return fmt.Errorf("count trials of %s: %w", id, err)
		}
		failed := c.Failed - f.sweep.Accepted
		if failed < limit {
			continue
		}
		s.m.log.Info("sweep is paused: too many trials have failed", "sweep", id, "failed", failed, "limit", limit)
		_, err = s.m.editSweep(ctx, id, func(r *grid.Sweep) error {
			if r.State == grid.SweepRunning && r.Accepted == f.sweep.Accepted {
				r.State, r.Paused = grid.SweepPaused, time.Now().UTC()
				r.Problem = fmt.Sprintf("paused, because %d trials have failed (stop_after: %d)\nto go on all the same: mlfnode resume %s", failed, limit, id)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
