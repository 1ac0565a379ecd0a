package master

import (
	"context"
	"slices"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// inspector answers questions about leases and trials that wait, by what the scheduler knows.
type inspector struct{ m *Master }

// HoldsTrial reports whether a node holds a lease with the trial.
func (q *inspector) HoldsTrial(ctx context.Context, node grid.NodeID, id grid.TrialID) (bool, error) {
	return ask(ctx, q.m.inbox, func(s *scheduler) bool {
		f := s.feeds[id.Sweep]
		return f != nil && node != "" && slices.ContainsFunc(f.leasesOver(id.Index, ""), func(l grid.LeaseID) bool {
			return q.m.leases.holderOf(l) == node
		})
	})
}

// awaitDrained waits until workers have given back all leases of a cancelled sweep. Otherwise an
// attempt that is still being stopped would end after a retry, and cancel the trial once more.
func (q *inspector) awaitDrained(ctx context.Context, id grid.SweepID) error {
	drained, err := ask(ctx, q.m.inbox, func(s *scheduler) <-chan struct{} {
		drained := make(chan struct{})
		f := s.feeds[id]
		if r, ok := q.m.Sweep(id); f == nil || !ok || r.Sweep.State != grid.SweepCancelled {
			close(drained)
		} else {
			f.drained = append(f.drained, drained)
		}
		return drained
	})
	if err != nil {
		return err
	}
	select {
	case <-drained:
		return nil
	case <-q.m.closed:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Outstanding returns how many leases of the sweep are in the queue or at workers.
func (q *inspector) Outstanding(ctx context.Context, id grid.SweepID) (int, error) {
	return ask(ctx, q.m.inbox, func(s *scheduler) int {
		if f := s.feeds[id]; f != nil {
			return len(f.leases)
		}
		return 0
	})
}

// Busy reports whether a sweep is active, or leases of one are in the queue or at workers.
func (q *inspector) Busy(ctx context.Context) (bool, error) {
	if slices.ContainsFunc(q.m.Sweeps(), func(r jetstream.Record) bool { return r.Sweep.Active() }) {
		return true, nil
	}
	return ask(ctx, q.m.inbox, func(s *scheduler) bool { return len(s.feedsByLease()) > 0 })
}
