package master

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/jetstream"
)

const (
	// queueDepth is how many leases the queue holds for each slot: one that runs and one that
	// waits.
	queueDepth = 2
	// feedInterval is how often waiting retries are checked while a sweep is active.
	feedInterval = 100 * time.Millisecond
	// reconcileInterval is how often the leases in memory are compared with the queue.
	reconcileInterval = 3 * time.Second
)

// scheduler decides what is leased. One goroutine owns it; others reach it through the inbox only.
type scheduler struct {
	m         *Master
	feeds     map[grid.SweepID]*feed
	slotCache map[grid.Resources]int // see slots

	health        *nodeHealth
	setupFailures map[grid.SweepID]*setupFailures

	activity *Activity

	applied       uint64                  // the last event that the feeds know of
	lastDecision  uint64                  // the last event published here that decides about attempts
	missing       map[grid.LeaseID]uint64 // leases that the queue no longer holds, with the event that must be applied to be sure
	pendingFences map[fenceKey]nodeLoss   // fences that could not be stored yet
	pendingOpens  map[grid.SweepID]bool   // sweeps that could not be opened yet
	applyError    error                   // of the record or fold that was applied last; step reports it
}

func newScheduler(m *Master) *scheduler {
	return &scheduler{
		m: m, feeds: map[grid.SweepID]*feed{}, missing: map[grid.LeaseID]uint64{}, pendingFences: map[fenceKey]nodeLoss{}, pendingOpens: map[grid.SweepID]bool{},
		health: newNodeHealth(), activity: newActivity(), setupFailures: map[grid.SweepID]*setupFailures{},
	}
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
	if len(s.feeds) == 0 && len(s.pendingFences) == 0 && len(s.pendingOpens) == 0 {
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
		s.reportProblem(ctx, reconciling, s.reconcile(ctx))
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
		s.m.log.Warn("master is hindered and tries again", "err", err)
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
	f.fits, f.slots, f.lanes = func(r grid.Resources) bool { return s.m.neverFits(r) == "" }, s.slots, record.Lanes
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
		delete(s.setupFailures, id)
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
			s.recordSetup(&fd.changed[i])
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

// quarantine stops leasing trials to nodes, or parts of nodes, that turned out to be broken.
func (s *scheduler) quarantine() {
	if s.m.cfg.Nodes == nil {
		return
	}
	s.health.takesTrials = s.m.takesTrials
	for node, b := range s.health.takeBroken() {
		if b.part != grid.ScopeNode {
			s.m.log.Warn("trials are withheld from a part of a node", "node", node, "part", b.part, "reason", b.reason)
			for _, part := range s.scopesToWithhold(b) {
				s.m.cfg.Nodes.Withhold(node, part, b.reason, time.Now().Add(withholdFor))
			}
			continue
		}
		s.m.log.Warn("node is quarantined", "node", node, "reason", b.reason)
		s.m.cfg.Nodes.Quarantine(node, b.reason)
	}
}

// scopesToWithhold returns what to withhold of a broken node. If a single lane is broken, these are
// the lanes of the sweeps whose trials failed.
func (s *scheduler) scopesToWithhold(b brokenPart) []grid.Scope {
	if b.part != grid.ScopeLane {
		return []grid.Scope{b.part}
	}
	var all []grid.Scope
	for _, id := range b.sweeps {
		record, _ := s.m.Sweep(id)
		if record.Sweep == nil {
			continue
		}
		for lane := range record.AllLanes() {
			all = append(all, grid.ScopeOfLane(lane))
		}
	}
	return all
}

// takesTrials reports whether a node is up and may take trials, so that another one can be spared.
func (m *Master) takesTrials(node grid.NodeID) bool {
	if drained, _, _ := m.cfg.Nodes.Drain(node); drained {
		return false
	}
	for _, member := range m.cfg.Nodes.Members() {
		if member.Node == node {
			return member.State == cluster.Alive
		}
	}
	return true // gossip has not heard of it yet, but it has reported
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

// topUpQueue tops up the queue: in each lane, the sweep that holds the least of it goes first.
func (s *scheduler) topUpQueue(ctx context.Context) error {
	if !s.m.cfg.LeaseTrials {
		return nil
	}
	unsaved := errors.Join(s.storeEstimates(ctx), s.closeStaleLanes(ctx), s.storeStoppedRuns(ctx), s.endCancelledTrials(ctx)) // trials are leased all the same
	s.withdrawReordered(ctx)
	s.slotCache = map[grid.Resources]int{}
	for _, l := range s.openLanes() {
		slots := s.slots(l.need)
		s.rebalance(ctx, l, slots)
		for l.outstanding() < queueDepth*slots {
			ok, err := s.leaseOne(ctx, l, slots)
			if err != nil {
				return errors.Join(unsaved, err)
			}
			if !ok {
				break
			}
		}
	}
	return unsaved
}

// slots returns how many trials with these resources the cluster can run at a time, as of this pass
// of topUpQueue. It is cached because asking each node takes a while.
func (s *scheduler) slots(r grid.Resources) int {
	n, ok := s.slotCache[r]
	if !ok {
		n = s.m.cfg.Slots(r)
		s.slotCache[r] = n
	}
	return n
}

// laneFeeds is a lane with the active sweeps whose trials may be leased into it.
type laneFeeds struct {
	name  grid.Lane
	need  grid.Resources // of each trial in the lane
	feeds []*feed
}

func (s *scheduler) openLanes() map[grid.Lane]*laneFeeds {
	lanes := map[grid.Lane]*laneFeeds{}
	for _, f := range s.feeds {
		if !f.sweep.Active() || f.sweep.Task.Resources.Check() != nil {
			continue
		}
		for _, need := range f.needs() {
			name := f.laneFor(need)
			if lanes[name] == nil {
				lanes[name] = &laneFeeds{name: name, need: need}
			}
			lanes[name].feeds = append(lanes[name].feeds, f)
		}
	}
	return lanes
}

func (l *laneFeeds) outstanding() int {
	n := 0
	for _, f := range l.feeds {
		n += f.leasesInLane[l.name]
	}
	return n
}

// rebalance withdraws leases that no node has taken from a full queue, for sweeps that have none
// there: they get their share from the next free slot on, not only after everything that was leased
// before has run.
func (s *scheduler) rebalance(ctx context.Context, l *laneFeeds, slots int) {
	limit := queueDepth * slots
	if len(l.feeds) < 2 || l.outstanding() < limit {
		return
	}
	room, share := 0, max(1, limit/len(l.feeds))
	for _, f := range l.feeds {
		if _, some := f.nextLease(l.need, time.Now(), slots); some && f.leasesInLane[l.name] == 0 {
			room += share
		}
	}
	slices.SortFunc(l.feeds, func(a, b *feed) int { return cmp.Compare(b.leasesInLane[l.name], a.leasesInLane[l.name]) })
	for _, f := range l.feeds {
		for _, id := range f.newestLeases(l.name) {
			if room <= 0 || f.leasesInLane[l.name] <= share {
				break
			}
			if s.withdrawLease(ctx, f, id) {
				room--
			}
		}
	}
}

// newestLeases returns the leases in a lane, the newest first.
func (f *feed) newestLeases(lane grid.Lane) []grid.LeaseID {
	var all []grid.LeaseID
	for id, l := range f.leases {
		if l.lane == lane {
			all = append(all, id)
		}
	}
	slices.SortFunc(all, func(a, b grid.LeaseID) int { return cmp.Compare(f.leases[b].seq, f.leases[a].seq) })
	return all
}

// leaseOne publishes one lease of the sweep with the smallest share; false when no sweep of the
// lane has anything to lease. Among equals, the sweep that has waited longest goes first, so that
// each has its turn when the queue is shorter than the list of sweeps.
func (s *scheduler) leaseOne(ctx context.Context, lane *laneFeeds, slots int) (bool, error) {
	slices.SortFunc(lane.feeds, func(a, b *feed) int {
		return cmp.Or(cmp.Compare(a.leasesInLane[lane.name], b.leasesInLane[lane.name]), cmp.Compare(a.newestSeq, b.newestSeq), a.sweep.Submitted.Compare(b.sweep.Submitted))
	})
	now := time.Now()
	for _, f := range lane.feeds {
		l, ok := f.nextLease(lane.need, now, slots)
		if !ok {
			continue
		}
		if ok, err := s.recordLane(ctx, f, lane); err != nil {
			return false, err
		} else if !ok {
			continue
		}
		id, err := s.publishLease(ctx, lane, f, &l)
		if err != nil {
			return false, err
		}
		f.addPublished(id, l)
		return true, nil
	}
	return false, nil
}

// recordLane writes what trials in a lane need into the sweep's record, where nodes read it, before
// a lease is in the lane. It returns false while the sweep's trials are in too many lanes. It
// removes lanes that nothing is leased in or waits for.
func (s *scheduler) recordLane(ctx context.Context, f *feed, lane *laneFeeds) (bool, error) {
	if _, known := f.lanes[lane.name]; known || lane.name == f.sweep.Lane() {
		return true, nil
	}
	wanted := f.needs()
	record, err := s.m.editRecord(ctx, f.sweep.ID, func(r *jetstream.Record) (bool, error) {
		lanes := map[grid.Lane]grid.Resources{lane.name: lane.need}
		for name, need := range r.Lanes {
			if f.leasesInLane[name] > 0 || name == f.laneFor(need) && slices.Contains(wanted, need) {
				lanes[name] = need
			}
		}
		if len(lanes) > jetstream.MaxLanes {
			return false, nil
		}
		r.Lanes = lanes
		return true, nil
	})
	if err != nil {
		return false, fmt.Errorf("open lane %s: %w", lane.name, err)
	}
	f.lanes = record.Lanes
	_, open := f.lanes[lane.name]
	return open, nil
}

// publishLease puts a lease into the queue and keeps its sequence.
func (s *scheduler) publishLease(ctx context.Context, lane *laneFeeds, f *feed, l *lease) (grid.LeaseID, error) {
	id := s.m.cfg.Store.Queue.NewID()
	s.m.leases.add(id)
	updates := len(f.sweep.Updates)
	if r, ok := s.m.Sweep(f.sweep.ID); ok {
		updates = len(r.Sweep.Updates) // a retry may have stored one that is not applied here yet
	}
	snapshot, bad := s.m.newestSnapshot(f.sweep, l)
	avoid, elsewhere := s.avoidedNodes(f, l.lo, lane)
	seq, err := s.m.cfg.Store.Queue.Publish(ctx, jetstream.Lease{
		Sweep: f.sweep.ID, Lo: l.lo, Hi: l.hi, Attempt: l.attempt, Shape: string(lane.name), ID: id, Updates: updates,
		Snapshot: snapshot, Bad: bad, Level: f.sweep.Level(), Avoid: avoid, Elsewhere: elsewhere,
		Quiet: l.attempt > 1 && l.mode != modeAnnounced,
	})
	if err != nil {
		s.m.leases.remove(id)
		return "", fmt.Errorf("lease %s [%d,%d): %w", f.sweep.ID, l.lo, l.hi, err)
	}
	l.seq, l.elsewhere = seq, elsewhere
	return id, nil
}

// reconcile drops leases that the queue no longer holds although no event has closed them. A worker
// closes a lease before it acknowledges it, so a lease is lost once all events are applied that
// were stored when it was first missed. It also retries what has failed before.
func (s *scheduler) reconcile(ctx context.Context) error {
	undone := errors.Join(s.retryOpens(ctx), s.retryFences(ctx))
	known := s.feedsByLease()
	for id := range s.missing {
		if known[id] == nil {
			delete(s.missing, id)
		}
	}
	for _, f := range s.feeds {
		if !f.sweep.Active() {
			s.withdrawLeases(ctx, f)
		}
	}
	if known = s.feedsByLease(); len(known) == 0 {
		return undone
	}
	present, err := s.m.cfg.Store.Queue.List(ctx)
	if err != nil {
		return errors.Join(undone, fmt.Errorf("list leases: %w", err))
	}
	_, last, err := s.m.cfg.Store.Events.Bounds(ctx)
	if err != nil {
		return errors.Join(undone, fmt.Errorf("read the bounds of the event stream: %w", err))
	}
	for i := range present {
		if id := present[i].ID; known[id] == nil {
			err = errors.Join(err, s.deleteOrphan(ctx, &present[i]))
		} else if !s.reclaimAbandoned(ctx, known[id], id, time.Now()) {
			delete(known, id)
		}
	}
	for id, f := range known {
		if f.leases[id].detached && !s.reclaimAbandoned(ctx, f, id, time.Now()) {
			continue
		}
		s.requeueMissing(ctx, id, f, last)
	}
	return errors.Join(undone, err)
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
		s.m.log.Warn("lease that nobody holds could not be deleted", "sweep", f.sweep.ID, "lease", id, "err", err)
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

// requeueMissing drops a lease that is missing in the queue once all events up to last are applied.
func (s *scheduler) requeueMissing(ctx context.Context, id grid.LeaseID, f *feed, last uint64) {
	until, ok := s.missing[id]
	if !ok {
		until, s.missing[id] = last, last
	}
	if s.applied >= until {
		s.m.log.Info("lease is missing in the queue and is created again", "sweep", f.sweep.ID, "lease", id)
		delete(s.missing, id)
		if err := s.m.cfg.Store.Queue.Delete(ctx, id); err != nil { // so that no node takes it
			s.m.log.Debug("lease that is missing could not be deleted", "lease", id, "err", err)
		}
		s.dropLease(f, id)
	}
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
