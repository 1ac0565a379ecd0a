package master

import (
	"context"
	"errors"
	"fmt"
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
	feedSet
	feeder     *queueFeeder
	fencer     *fencer
	reconciler *reconciler
	records    *recordWriter

	health   *nodeHealth
	setups   *setupMonitor
	activity *Activity

	applied      uint64 // the last event that the feeds know of
	lastDecision uint64 // the last event published here that decides about attempts
	applyError   error  // of the record or fold that was applied last; run reports it
}

func newScheduler(m *Master) *scheduler {
	s := &scheduler{
		activity: &Activity{
			Finished: map[grid.State]int64{}, Attempts: map[grid.Class]int64{}, Retries: map[grid.Class]int64{},
			Durations: map[grid.State]*Durations{}, Waits: newDurations(), Tasks: map[TaskOf]*TaskActivity{},
		},
		health: &nodeHealth{streaks: map[streakKey]*failureStreak{}, trials: map[grid.SweepID]map[int64]*trialNodes{}},
		setups: &setupMonitor{m: m, bySweep: map[grid.SweepID]*setupFailures{}},
	}
	s.feedSet = feedSet{
		m: m, feeds: map[grid.SweepID]*feed{}, pendingOpens: map[grid.SweepID]bool{},
		missing: map[grid.LeaseID]uint64{},
		closed: func(id grid.SweepID) {
			delete(s.health.trials, id)
			delete(s.setups.bySweep, id)
		},
	}
	s.feeder = &queueFeeder{m: m, s: s}
	s.fencer = &fencer{m: m, s: s, pending: map[fenceKey]nodeLoss{}}
	s.reconciler = &reconciler{m: m, s: s}
	s.records = &recordWriter{m: m, s: s}
	return s
}

// run runs the scheduler until ctx ends. caughtUp is the last event that history holds.
func (s *scheduler) run(ctx context.Context, caughtUp uint64) error {
	s.applied = caughtUp
	if s.m.cfg.Nodes != nil {
		if err := s.restoreWithRetry(ctx); err != nil {
			return err
		}
	}
	for _, r := range s.m.Sweeps() { // loaded before; only later changes are reported
		s.applyError = errors.Join(s.applyError, s.applyRecord(ctx, jetstream.Change{ID: r.Sweep.ID, Record: r}))
	}
	s.m.Kick()
	feedTick := time.NewTicker(feedInterval)
	defer feedTick.Stop()
	reconcileTick := time.NewTicker(reconcileInterval)
	defer reconcileTick.Stop()
	for {
		feed, reconcile := feedTick.C, reconcileTick.C
		if len(s.feeds) == 0 && len(s.fencer.pending) == 0 && len(s.pendingOpens) == 0 {
			reconcile = nil // nothing to wake up for
		}
		if !s.hasTimers() {
			feed = nil
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
		case <-feed:
		}
		s.reportProblem(ctx, leasing, errors.Join(err, s.topUpQueue(ctx)))
	}
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
		if f != nil { // nodes that hold leases of it learn it from their heartbeats
			for id := range f.leases {
				s.m.leases.remove(id)
				if err := s.m.cfg.Store.Queue.Delete(ctx, id); err != nil {
					s.m.log.Debug("lease of a removed sweep could not be deleted",
						"sweep", c.ID, "lease", id, "err", err)
				}
			}
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
	if r, ok := s.m.Sweep(c.ID); ok {
		f.lanes = r.Lanes
	}
	if !sweep.Active() || before.Priority != sweep.Priority || before.MaxParallel != sweep.MaxParallel {
		s.withdrawLeases(ctx, f)
	}
	if sweep.Active() {
		f.drained.release()
	}
	s.closeFeedIfDone(f)
	return nil
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
	f.slots, f.fits, f.lanes = s.feeder.slots, s.m.cfg.Capacity.fits, record.Lanes
	if sweep.Task.Resources.Measured() {
		f.sharing = newGPUSharing(record.Packing, &sweep.Task)
	}
	for i := range leases {
		f.restoreLease(&leases[i], time.Now())
		s.m.leases.add(leases[i].ID)
	}
	if s.m.cfg.Nodes != nil && !s.m.leases.loaded.Load() {
		s.expectAttempts(f, left.Open)
	}
	f.loadHistory(left, time.Now())
	if sweep.Task.Stop != nil {
		if f.earlyStop, err = loadEarlyStopping(ctx, s.m.cfg.History, sweep, &f.done); err != nil {
			return err
		}
	}
	if f.longest != nil {
		s.loadRunTimes(ctx, f)
	}
	s.m.snapshots.discardLeftover(ctx, f)
	s.feeds[sweep.ID] = f
	delete(s.pendingOpens, sweep.ID)
	if err := sweep.Task.Resources.Check(); err != nil && sweep.Active() {
		why := "the sweep's record is not valid: " + err.Error()
		s.m.log.Error("sweep is cancelled", "sweep", sweep.ID, "reason", why)
		_, err := s.m.editSweep(ctx, sweep.ID, func(s *grid.Sweep) error {
			if s.Active() {
				s.State, s.Ended, s.Problem, s.Cancelling = grid.SweepCancelled, time.Now().UTC(), why, nil
			}
			return nil
		})
		return err
	}
	return s.finishComplete(ctx)
}

// applyFold applies what a fold changed, closes the leases that workers are done with, and pauses
// the sweeps whose trials fail.
func (s *scheduler) applyFold(ctx context.Context, fd folded) {
	s.applied = fd.last
	now := time.Now()
	for i := range fd.changed {
		t := &fd.changed[i]
		f := s.feeds[t.Sweep]
		s.activity.record(f, t)
		if f == nil || fd.last <= f.loadedAt { // in the latter case the feed was loaded with this change
			continue
		}
		f.apply(t, now)
		f.earlyStop.observeEnd(t)
		if t.Change == grid.Done {
			s.revokeLeases(f, t)
			s.m.snapshots.discard(t, &f.sweep.Task)
		}
		if t.Change != grid.Began || len(f.sweep.Task.Setup) == 0 { // otherwise what runs may be its setup step
			s.health.record(t)
			s.setups.record(t)
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
	s.m.quarantine(s.health)
	s.applyError = errors.Join(
		s.records.pinImages(ctx, fd.images), s.setups.pauseFailing(ctx, s.feeds), s.records.pauseFailing(ctx))
}

// finishComplete finishes every active sweep whose trials are all terminal, if its record still has
// the size that was found complete, and no trial of it was reopened after that.
func (s *scheduler) finishComplete(ctx context.Context) error {
	for id, f := range s.feeds {
		if !f.sweep.Active() || !f.complete() {
			continue
		}
		_, err := s.m.editSweep(ctx, id, func(r *grid.Sweep) error {
			same := r.Space.Count() == f.count && r.Reopened <= s.applied
			if r.State == grid.SweepRunning && same && !s.m.isHeldOpen(id) {
				r.State, r.Ended, r.Cancelling = grid.SweepFinished, time.Now().UTC(), nil
			}
			return nil
		})
		if err != nil {
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
	unsaved := s.records.write(ctx) // trials are leased nevertheless
	for _, f := range s.feeds {
		if f.reordered { // its leases were made before run times were known
			f.reordered = false
			s.withdrawLeases(ctx, f)
		}
	}
	return errors.Join(unsaved, s.feeder.topUp(ctx))
}

// publishDecision publishes events that decide about attempts. Until they are applied, history and
// the feeds do not show what was decided.
func (s *scheduler) publishDecision(ctx context.Context, b *grid.Batch) error {
	seq, err := s.m.cfg.Store.Events.Publish(ctx, b)
	if err == nil {
		s.lastDecision = seq
	}
	return err
}
