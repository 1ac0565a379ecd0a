package master

import (
	"context"
	"fmt"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/history"
	"mlfnode/node/poll"
)

// restoreWithRetry calls restoreLeases until it succeeds: the scheduler can decide nothing before.
// It gives up on an error that only a restart can clear.
func (s *scheduler) restoreWithRetry(ctx context.Context) error {
	return poll.Until(ctx, reconcileInterval, func() (bool, error) {
		err := s.restoreLeases(ctx)
		if err == nil || history.IsDamage(err) {
			return true, err
		}
		s.reportProblem(ctx, reconciling, err)
		return false, nil
	})
}

// restoreLeases takes over the leases that are in the queue when the master starts: other nodes may
// be working on them.
func (s *scheduler) restoreLeases(ctx context.Context) error {
	present, err := s.m.cfg.Store.Queue.List(ctx)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	bySweep := map[grid.SweepID][]jetstream.QueuedLease{}
	for _, l := range present {
		if _, ok := s.m.Sweep(l.Sweep); ok {
			bySweep[l.Sweep] = append(bySweep[l.Sweep], l)
			continue
		}
		if err := s.m.cfg.Store.Queue.Delete(ctx, l.ID); err != nil {
			return fmt.Errorf("delete a lease of a removed sweep: %w", err)
		}
	}
	for _, r := range s.m.Sweeps() {
		leases := bySweep[r.Sweep.ID]
		if s.feeds[r.Sweep.ID] != nil || len(leases) == 0 && !r.Sweep.Active() {
			continue
		}
		if err := s.openFeed(ctx, &r, leases); err != nil {
			return err
		}
	}
	s.m.leases.loaded.Store(true)
	s.reportProblem(ctx, reconciling, nil)
	return nil
}

// expectAttempts assigns the trials that run according to history to their nodes, whose first
// heartbeats report whether they still run there. The queue may have lost their leases, or may
// grant them once more.
func (s *scheduler) expectAttempts(f *feed, open []grid.Trial) {
	now := time.Now()
	for i := range open {
		t := &open[i]
		if t.State != grid.Running {
			continue
		}
		s.m.nodes.expect(t.Node, now)
		over := f.leasesOver(t.Index, "")
		for _, id := range over {
			s.m.leases.assign(id, t.Node, now)
		}
		if len(over) > 0 {
			continue
		}
		id := grid.LeaseID(placeholderPrefix + t.Run) // until the node reports it
		s.m.leases.add(id)
		s.m.leases.assign(id, t.Node, now)
		f.addLease(id, lease{
			lo: t.Index, hi: t.Index + 1, attempt: t.Attempt, lane: f.sweep.Lane(), since: now, detached: true,
		})
		f.assigned.Add(t.Index, t.Index+1)
	}
}

// placeholderPrefix begins the ID of the lease of a running attempt until the real ID is known. The
// name of the run follows.
const placeholderPrefix = "run "
