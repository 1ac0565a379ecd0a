package master

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"mlfnode/grid"
)

// A node reports what it holds immediately, and again twice a second. So a lease that its holder no
// longer reports is not held any more after holderTimeout, and one that was granted is lost when no
// node has reported it after unclaimedTimeout. What a node runs that is disconnected just then goes
// on when it is back.
const (
	holderTimeout    = 10 * time.Second
	unclaimedTimeout = 2 * time.Second
)

// reconciler finds leases that nobody works on, and lets the scheduler make them again.
type reconciler struct {
	m *Master
	s *scheduler
}

// reconcile drops leases that the queue no longer holds although no event has closed them. A worker
// closes a lease before it acknowledges it, so a lease is lost once all events are applied that
// were stored when it was first missed. It also retries what has failed before.
func (r *reconciler) reconcile(ctx context.Context) error {
	var undone error
	for _, id := range slices.Collect(maps.Keys(r.s.pendingOpens)) {
		delete(r.s.pendingOpens, id)
		if record, ok := r.m.Sweep(id); ok && record.Sweep.Active() && r.s.feeds[id] == nil {
			undone = errors.Join(undone, r.s.openFeed(ctx, &record, nil))
		}
	}
	undone = errors.Join(undone, r.s.fencer.retryFences(ctx))
	known := r.s.feedsByLease()
	maps.DeleteFunc(r.s.missing, func(id grid.LeaseID, _ uint64) bool { return known[id] == nil })
	for _, f := range r.s.feeds {
		if !f.sweep.Active() {
			r.s.withdrawLeases(ctx, f)
		}
	}
	if known = r.s.feedsByLease(); len(known) == 0 {
		return undone
	}
	present, err := r.m.cfg.Store.Queue.List(ctx)
	if err != nil {
		return errors.Join(undone, fmt.Errorf("list leases: %w", err))
	}
	_, last, err := r.m.cfg.Store.Events.Bounds(ctx)
	if err != nil {
		return errors.Join(undone, fmt.Errorf("read the bounds of the event stream: %w", err))
	}
	for i := range present {
		l := &present[i]
		switch f := known[l.ID]; {
		case f != nil:
			if !r.reclaimAbandoned(ctx, f, l.ID, time.Now()) {
				delete(known, l.ID)
			}
		case r.m.cfg.Nodes != nil && l.Sweep != "": // no node could keep it; one of a newer version stays
			err = errors.Join(err, r.m.cfg.Store.Queue.DeleteStored(ctx, l))
		}
	}
	for id, f := range known {
		if !f.leases[id].detached || r.reclaimAbandoned(ctx, f, id, time.Now()) {
			r.requeueMissing(ctx, id, f, last)
		}
	}
	return errors.Join(undone, err)
}

// requeueMissing drops a lease that is missing in the queue once all events up to last are applied.
func (r *reconciler) requeueMissing(ctx context.Context, id grid.LeaseID, f *feed, last uint64) {
	until, ok := r.s.missing[id]
	if !ok {
		until, r.s.missing[id] = last, last
	}
	if r.s.applied < until {
		return
	}
	r.m.log.Info("lease is missing in the queue; its trials are leased again", "sweep", f.sweep.ID, "lease", id)
	delete(r.s.missing, id)
	if err := r.m.cfg.Store.Queue.Delete(ctx, id); err != nil { // so that no node takes it
		r.m.log.Debug("lease that is missing could not be deleted", "lease", id, "err", err)
	}
	r.s.dropLease(f, id)
}

// reclaimAbandoned reports whether nobody works on a lease that was granted, because it was lost on
// its way to a node, or in the node. If so, it deletes the lease from the queue.
func (r *reconciler) reclaimAbandoned(ctx context.Context, f *feed, id grid.LeaseID, now time.Time) bool {
	l, c := f.leases[id], r.m.leases.get(id)
	switch {
	case r.m.cfg.Nodes == nil:
		return false
	case c.node != "":
		if now.Sub(c.lastHeartbeat) < holderTimeout || !r.m.nodes.isResponsive(c.node, now) {
			return false
		}
		r.m.leases.clearHolder(id)
	case l.detached:
		return true
	case now.Sub(l.since) < unclaimedTimeout || !r.m.cfg.Store.Queue.WasGranted(id):
		return false
	case l.grantedUnheld.IsZero():
		l.grantedUnheld = now
		f.leases[id] = l
		return false
	case now.Sub(l.grantedUnheld) < unclaimedTimeout:
		return false
	}
	if l.attempt > 1 && !l.elsewhere {
		delete(f.failedOn, l.lo) // the nodes that it avoids may be the only ones that can run it
	}
	r.m.log.Info("lease was granted, but no node holds it", "sweep", f.sweep.ID, "lease", id)
	if err := r.s.deleteLease(ctx, f, id); err != nil {
		r.m.log.Warn("lease that no node holds could not be deleted", "sweep", f.sweep.ID, "lease", id, "err", err)
	}
	return true
}

// dropStaleLeases deletes leases from the queue that a node no longer knows, because its agent has
// started a new life. reconcile finds them missing, and leases them again once the node's last
// reports have been applied.
func (r *reconciler) dropStaleLeases(node grid.NodeID, held []grid.LeaseID) {
	ctx := context.Background() // calls of the store have their own timeout
	feeds := r.s.feedsByLease()
	for _, id := range held {
		f := feeds[id]
		if f == nil {
			continue
		}
		r.m.leases.clearHolder(id)
		if err := r.s.deleteLease(ctx, f, id); err != nil {
			r.m.log.Warn("lease of an agent's last life could not be deleted", "node", node, "lease", id, "err", err)
		}
	}
	r.s.reportProblem(ctx, reconciling, r.reconcile(ctx))
}
