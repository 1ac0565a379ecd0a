package master

import (
	"context"
	"maps"
	"slices"

	"mlfnode/grid"
	"mlfnode/node/history"
)

// feedSet holds the feeds of the sweeps that are active or have leases, and ends these leases.
type feedSet struct {
	m      *Master
	feeds  map[grid.SweepID]*feed
	closed func(grid.SweepID) // called when a feed was closed

	pendingOpens map[grid.SweepID]bool // sweeps whose feeds could not be opened yet

	// missing are the leases that the queue no longer holds, with the event that must be applied to
	// be sure.
	missing map[grid.LeaseID]uint64
}

// feedsByLease returns the feed of every lease that the master knows.
func (s *feedSet) feedsByLease() map[grid.LeaseID]*feed {
	all := map[grid.LeaseID]*feed{}
	for _, f := range s.feeds {
		for id := range f.leases {
			all[id] = f
		}
	}
	return all
}

func (s *feedSet) closeFeed(id grid.SweepID) {
	if f := s.feeds[id]; f != nil {
		f.drained.release()
		delete(s.feeds, id)
		s.closed(id)
	}
}

// closeFeedIfDone closes the feed of a sweep that is not active and has nothing outstanding.
func (s *feedSet) closeFeedIfDone(f *feed) {
	if !f.sweep.Active() && len(f.leases) == 0 {
		s.closeFeed(f.sweep.ID)
	}
}

// dropLease forgets a lease: the trials that it did not finish are missing again.
func (s *feedSet) dropLease(f *feed, id grid.LeaseID) {
	s.m.leases.remove(id)
	f.dropLease(id)
	s.closeFeedIfDone(f)
}

// withdrawLeases withdraws all leases of a sweep that no node holds: they must not run any more, or
// are to be leased again under new settings.
func (s *feedSet) withdrawLeases(ctx context.Context, f *feed) {
	for _, id := range slices.Collect(maps.Keys(f.leases)) {
		s.withdrawLease(ctx, f, id)
	}
}

// withdrawLease takes a lease out of the queue and forgets it, unless a node holds it. It reports
// whether it did so. It does not matter if the message can't be deleted: no node gets that lease
// any more.
func (s *feedSet) withdrawLease(ctx context.Context, f *feed, id grid.LeaseID) bool {
	ok, err := s.m.cfg.Store.Queue.Withdraw(ctx, id)
	if err != nil {
		s.m.log.Warn("lease that no node holds could not be deleted", "sweep", f.sweep.ID, "lease", id, "err", err)
	}
	if ok {
		s.dropLease(f, id)
	}
	return ok
}

// deleteLease deletes a lease from the queue, if it is there.
func (s *feedSet) deleteLease(ctx context.Context, f *feed, id grid.LeaseID) error {
	if f.leases[id].detached {
		return nil
	}
	return s.m.cfg.Store.Queue.Delete(ctx, id)
}

// revokeLease ends a lease whose trial goes on, or has ended, elsewhere.
func (s *feedSet) revokeLease(f *feed, id grid.LeaseID) {
	l, ok := f.leases[id]
	if !ok {
		return
	}
	if holder := s.m.leases.holderOf(id); holder != "" {
		s.m.leases.refuse(id, holder)
	}
	if l.seq > 0 {
		ctx := context.Background() // calls of the store have their own timeout
		if err := s.m.cfg.Store.Queue.Delete(ctx, id); err != nil {
			s.m.log.Warn("lease could not be deleted; its trial may run once more",
				"sweep", f.sweep.ID, "lease", id, "err", err)
		}
	}
	delete(s.missing, id)
	s.dropLease(f, id)
}

// revokeLeases ends what still runs, or waits to run, of a trial that has ended, under leases that
// hold no other trial: elsewhere if it got its result while a node was away, and everywhere nothing
// of it has run if it was cancelled.
func (s *feedSet) revokeLeases(f *feed, t *history.Transition) {
	away, cancelled := f.awayTrials[t.Index], t.Class == grid.ClassCancel
	if !away && !cancelled {
		return
	}
	delete(f.awayTrials, t.Index)
	for _, id := range f.leasesOver(t.Index, "") {
		elsewhere := away && s.m.leases.holderOf(id) != t.Node
		unused := cancelled && (t.Node == "" || !s.m.cfg.Store.Queue.WasGranted(id))
		if l := f.leases[id]; l.hi-l.lo == 1 && (elsewhere || unused) {
			s.revokeLease(f, id)
		}
	}
}
