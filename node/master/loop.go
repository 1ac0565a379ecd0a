package master

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

const (
	// feedInterval is how often waiting retries are checked while a sweep is active.
	feedInterval = 100 * time.Millisecond
	// reconcileInterval is how often the leases in memory are compared with the queue.
	reconcileInterval = 3 * time.Second
)

// scheduler decides what is leased. One goroutine owns it; others reach it through the inbox only.
type scheduler struct {
	m          *Master
	feeds      map[grid.SweepID]*feed
	feeder     *queueFeeder
	fencer     *fencer
	reconciler *reconciler

	health *nodeHealth
	setups *setupMonitor

	activity *Activity

	applied      uint64                // the last event that the feeds know of
	lastDecision uint64                // the last event published here that decides about attempts
	pendingOpens map[grid.SweepID]bool // sweeps that could not be opened yet
	applyError   error                 // of the record or fold that was applied last; step reports it
}

func newScheduler(m *Master) *scheduler {
	s := &scheduler{
		m: m, feeds: map[grid.SweepID]*feed{}, pendingOpens: map[grid.SweepID]bool{},
		health: newNodeHealth(), activity: newActivity(), setups: &setupMonitor{m: m, bySweep: map[grid.SweepID]*setupFailures{}},
	}
	s.feeder = &queueFeeder{m: m, s: s}
	s.fencer = &fencer{m: m, s: s, pending: map[fenceKey]nodeLoss{}}
	s.reconciler = &reconciler{m: m, s: s, missing: map[grid.LeaseID]uint64{}}
	return s
}

// loop runs the scheduler until ctx ends. caughtUp is the last event that history holds.
func (m *Master) loop(ctx context.Context, caughtUp uint64) error {
	s := newScheduler(m)
	s.applied = caughtUp
	if m.cfg.Nodes != nil {
		if err := s.restoreWithRetry(ctx); err != nil {
			return err
		}
	}
	feedTick := time.NewTicker(feedInterval)
	defer feedTick.Stop()
	reconcile := time.NewTicker(reconcileInterval)
	defer reconcile.Stop()
	for {
		if err := s.step(ctx, feedTick.C, reconcile.C); err != nil {
			return err
		}
	}
}

func (s *scheduler) step(ctx context.Context, feedTick, reconcile <-chan time.Time) error {
	if len(s.feeds) == 0 && len(s.fencer.pending) == 0 && len(s.pendingOpens) == 0 {
		reconcile = nil // nothing to wake up for
	}
	if !s.hasTimers() {
		feedTick = nil
	}
	var err error
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.m.wake:
		s.m.inbox.run(s)
		err = errors.Join(s.applyError, s.finishComplete(ctx))
		s.applyError = nil
	case <-reconcile:
		s.reportProblem(ctx, reconciling, s.reconciler.reconcile(ctx))
		err = s.finishComplete(ctx)
	case <-feedTick:
	}
	s.reportProblem(ctx, leasing, errors.Join(err, s.topUpQueue(ctx)))
	return nil
}

// hasTimers reports whether time alone can make something leasable: a retry that is due, or a store
// that accepts writes again.
func (s *scheduler) hasTimers() bool {
	for _, f := range s.feeds {
		if f.retries.len() > 0 {
			return true
		}
	}
	return s.m.hasProblem()
}

// reportProblem keeps what hinders the master for the user to see. The next tick retries: a full
// disk must not end the node.
func (s *scheduler) reportProblem(ctx context.Context, of subsystem, err error) {
	if ctx.Err() != nil {
		return
	}
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	if s.m.setProblem(of, problem) && err != nil {
		s.m.log.Warn("master is hindered; trying again", "err", err)
	}
}

// applyRecord applies a changed record: an active sweep gets a feed, an ended one loses it when its
// leases are back.
func (s *scheduler) applyRecord(ctx context.Context, c jetstream.Change) error {
	if c.Synced || !s.m.cfg.LeaseTrials {
		return nil
	}
	f := s.feeds[c.ID]
	if c.Deleted {
		if f != nil {
			s.deleteLeases(ctx, f)
		}
		s.closeFeed(c.ID)
		return nil
	}
	sweep := c.Record.Sweep
	if f == nil {
		if !sweep.Active() {
			return nil
		}
		return s.openFeed(ctx, &c.Record, nil)
	}
	before := f.sweep
	f.setSweep(sweep)
	s.applySettings(ctx, f, before)
	if sweep.Active() {
		f.signalDrained()
	} else {
		s.withdrawLeases(ctx, f)
	}
	s.closeFeedIfDone(f)
	return nil
}

// retryOpens opens the active sweeps that could not be opened before.
func (s *scheduler) retryOpens(ctx context.Context) (failed error) {
	for _, id := range slices.Collect(maps.Keys(s.pendingOpens)) {
		delete(s.pendingOpens, id)
		if r, ok := s.m.Sweep(id); ok && r.Sweep.Active() && s.feeds[id] == nil {
			failed = errors.Join(failed, s.openFeed(ctx, &r, nil))
		}
	}
	return failed
}

// openFeed starts to feed a sweep whose leases, if any, are in the queue already.
func (s *scheduler) openFeed(ctx context.Context, record *jetstream.Record, leases []jetstream.QueuedLease) error {
	sweep := record.Sweep
	s.pendingOpens[sweep.ID] = true
	left, err := s.m.cfg.History.Remaining(ctx, sweep.ID)
	if err != nil {
		return fmt.Errorf("load trials of %s: %w", sweep.ID, err)
	}
	f := newFeed(sweep)
	f.fits, f.slots, f.lanes = func(r grid.Resources) bool { return s.m.neverFits(r) == "" }, s.feeder.slots, record.Lanes
	if sweep.Task.Resources.Measured() {
		f.sharing = newGPUSharing(record.Packing, &sweep.Task)
	}
	for i := range leases {
		f.restoreLease(&leases[i], time.Now())
		s.m.leases.add(leases[i].ID)
	}
	if s.m.cfg.Nodes != nil && s.m.leases.isLoading() {
		s.expectAttempts(f, left.Open)
	}
	f.loadHistory(left, time.Now())
	if err := s.loadEarlyStopping(ctx, f); err != nil {
		return err
	}
	s.openTimes(ctx, f)
	s.discardLeftoverSnapshots(ctx, f)
	s.feeds[sweep.ID] = f
	delete(s.pendingOpens, sweep.ID)
	if err := sweep.Task.Resources.Check(); err != nil && sweep.Active() {
		return s.m.failSweep(ctx, sweep.ID, "the sweep's record is not valid: "+err.Error())
	}
	return s.finishComplete(ctx)
}

// closeFeedIfDone closes the feed of a sweep that is not active and has nothing outstanding.
func (s *scheduler) closeFeedIfDone(f *feed) {
	if !f.sweep.Active() && len(f.leases) == 0 {
		s.closeFeed(f.sweep.ID)
	}
}

func (s *scheduler) closeFeed(id grid.SweepID) {
	if f := s.feeds[id]; f != nil {
		f.signalDrained()
		delete(s.feeds, id)
		s.health.forgetSweep(id)
		delete(s.setups.bySweep, id)
	}
}

// shortenLeases requeues the trials of leases that a node gives back.
func (s *scheduler) shortenLeases(node grid.NodeID, kept []jetstream.HeldLease) {
	for i := range kept {
		h := &kept[i]
		if f := s.feeds[h.Sweep]; f != nil && s.m.leases.holderOf(h.ID) == node {
			f.shortenLease(h.ID, h.Hi)
		}
	}
}

// dropLease forgets a lease: the trials that it did not finish are missing again.
func (s *scheduler) dropLease(f *feed, id grid.LeaseID) {
	s.m.leases.remove(id)
	f.dropLease(id)
	s.closeFeedIfDone(f)
}

// applyFold applies what a fold changed, then closes the leases that workers are done with.
func (s *scheduler) applyFold(fd folded) {
	s.applied = fd.last
	now := time.Now()
	for i := range fd.changed {
		s.activity.record(s.feeds[fd.changed[i].Sweep], &fd.changed[i])
		if f := s.feeds[fd.changed[i].Sweep]; f != nil && fd.last > f.loadedAt { // else the feed was loaded with this change
			f.apply(&fd.changed[i], now)
			f.observeEnd(&fd.changed[i])
			if t := &fd.changed[i]; t.Change == grid.Done {
				s.revokeRivals(f, t.Index, t.Node)
				s.revokeCancelled(f, t)
				s.discardSnapshots(f, t)
			}
			if fd.changed[i].Change == grid.Began && len(f.sweep.Task.Setup) > 0 {
				continue // what runs may be its setup step
			}
			s.health.record(&fd.changed[i])
			s.setups.record(&fd.changed[i])
		}
	}
	for _, r := range fd.released {
		// A node that has lost a lease can no longer close it.
		if holder := s.m.leases.holderOf(r.lease); holder != "" && holder != r.node {
			continue
		}
		if f := s.feeds[r.sweep]; f != nil {
			s.dropLease(f, r.lease)
		}
	}
	s.quarantine()
}

// finishComplete ends every active sweep whose trials are all terminal.
func (s *scheduler) finishComplete(ctx context.Context) error {
	for _, f := range s.feeds {
		if !f.sweep.Active() || !f.complete() {
			continue
		}
		if err := s.m.finish(ctx, f.sweep.ID, f.count, s.applied); err != nil {
			return err
		}
	}
	return nil
}

// topUpQueue stores what the feeds have learned, and tops up the queue.
func (s *scheduler) topUpQueue(ctx context.Context) error {
	if !s.m.cfg.LeaseTrials {
		return nil
	}
	unsaved := errors.Join(s.storeEstimates(ctx), s.closeStaleLanes(ctx), s.storeStoppedRuns(ctx), s.endCancelledTrials(ctx)) // trials are leased all the same
	s.withdrawReordered(ctx)
	return errors.Join(unsaved, s.feeder.topUp(ctx))
}

// withdrawLeases withdraws all leases of a sweep that no node holds: they must not run any more, or
// are to be leased again under new settings.
func (s *scheduler) withdrawLeases(ctx context.Context, f *feed) {
	for _, id := range slices.Collect(maps.Keys(f.leases)) {
		s.withdrawLease(ctx, f, id)
	}
}

// withdrawLease takes a lease out of the queue and forgets it, unless a node holds it. It reports
// whether it did so. It does not matter if the message can't be deleted: no node gets that lease
// any more.
func (s *scheduler) withdrawLease(ctx context.Context, f *feed, id grid.LeaseID) bool {
	ok, err := s.m.cfg.Store.Queue.Withdraw(ctx, id)
	if err != nil {
		s.m.log.Warn("lease that no node holds could not be deleted", "sweep", f.sweep.ID, "lease", id, "err", err)
	}
	if ok {
		s.dropLease(f, id)
	}
	return ok
}

// deleteLeases takes all leases of a removed sweep out of the queue. Nodes that hold some learn it
// from their heartbeats.
func (s *scheduler) deleteLeases(ctx context.Context, f *feed) {
	for id := range f.leases {
		s.m.leases.remove(id)
		if err := s.m.cfg.Store.Queue.Delete(ctx, id); err != nil {
			s.m.log.Debug("lease of a removed sweep could not be deleted", "sweep", f.sweep.ID, "lease", id, "err", err)
		}
	}
}

// feedsByLease returns the feed of every lease that the master knows.
func (s *scheduler) feedsByLease() map[grid.LeaseID]*feed {
	all := map[grid.LeaseID]*feed{}
	for _, f := range s.feeds {
		for id := range f.leases {
			all[id] = f
		}
	}
	return all
}

// awaitDrained waits until workers have given back all leases of a cancelled sweep. Otherwise an
// attempt that is still being stopped would end after a retry, and cancel the trial once more.
func (m *Master) awaitDrained(ctx context.Context, id grid.SweepID) error {
	settled := make(chan struct{})
	call := func(s *scheduler) {
		f := s.feeds[id]
		if r, ok := m.Sweep(id); f == nil || !ok || r.Sweep.State != grid.SweepCancelled {
			close(settled)
			return
		}
		f.drained = append(f.drained, settled)
	}
	if err := m.call(ctx, call); err != nil {
		return err
	}
	select {
	case <-settled:
		return nil
	case <-m.closed:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Outstanding returns how many leases of the sweep are in the queue or at workers.
func (m *Master) Outstanding(ctx context.Context, id grid.SweepID) (int, error) {
	answer := make(chan int, 1)
	call := func(s *scheduler) {
		if f := s.feeds[id]; f != nil {
			answer <- len(f.leases)
			return
		}
		answer <- 0
	}
	if err := m.call(ctx, call); err != nil {
		return 0, err
	}
	return <-answer, nil
}

// Busy reports whether a sweep is active, or leases of one are in the queue or at workers.
func (m *Master) Busy(ctx context.Context) (bool, error) {
	if m.anyActive() {
		return true, nil
	}
	answer := make(chan bool, 1)
	if err := m.call(ctx, func(s *scheduler) { answer <- len(s.feedsByLease()) > 0 }); err != nil {
		return false, err
	}
	return <-answer, nil
}
