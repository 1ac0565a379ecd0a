package master

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// Set changes the priority of a sweep, how many of its trials may run at a time, and for how long
// each. Running trials go on as they are. Leases that no node has taken yet are made again with the
// new values.
func (m *Master) Set(ctx context.Context, id grid.SweepID, q api.Set) (jetstream.Record, error) {
	return m.editRecord(ctx, id, func(r *jetstream.Record) (bool, error) {
		s := r.Sweep
		priority, parallel, timeout := s.Priority, s.MaxParallel, s.Task.Timeout
		if q.Timeout != nil {
			s.Task.Timeout = time.Duration(*q.Timeout)
		}
		if q.MaxParallel != nil {
			s.MaxParallel = *q.MaxParallel
		}
		if q.Priority != nil && *q.Priority != priority {
			lanes := r.AllLanes() // nodes may still hold leases in them
			s.Priority = *q.Priority
			if delete(lanes, s.Lane()); len(lanes) > jetstream.MaxLanes {
				return false, conflict(fmt.Sprintf("trials of %s still run under %d earlier priorities or sizes, and that is the most", id, jetstream.MaxLanes),
					"try again when some have ended")
			}
			r.Lanes = lanes
		}
		return s.Priority != priority || s.MaxParallel != parallel || s.Task.Timeout != timeout, nil
	})
}

// applySettings applies the settings of a sweep's record where they differ from before.
func (s *scheduler) applySettings(ctx context.Context, f *feed, before *grid.Sweep) {
	if r, ok := s.m.Sweep(f.sweep.ID); ok {
		f.lanes = r.Lanes
	}
	if before.Priority != f.sweep.Priority || before.MaxParallel != f.sweep.MaxParallel {
		s.withdrawLeases(ctx, f)
	}
}

// closeStaleLanes removes lanes of earlier priorities that hold no lease any more from the records
// of sweeps.
func (s *scheduler) closeStaleLanes(ctx context.Context) (failed error) {
	for _, f := range s.feeds {
		stale := f.staleLanes()
		if len(stale) == 0 {
			continue
		}
		record, err := s.m.editRecord(ctx, f.sweep.ID, func(r *jetstream.Record) (bool, error) {
			for _, name := range stale {
				delete(r.Lanes, name)
			}
			return true, nil
		})
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("close lanes of %s: %w", f.sweep.ID, err))
			continue
		}
		f.lanes = record.Lanes
	}
	return failed
}

// staleLanes returns the lanes that hold no lease of the sweep and that will get none.
func (f *feed) staleLanes() (all []grid.Lane) {
	for name, need := range f.lanes {
		if f.leasesInLane[name] == 0 && name != f.laneFor(need) {
			all = append(all, name)
		}
	}
	return all
}
