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
	// queueDepth is how many leases are in the queue for each slot: one that runs and one that waits.
	queueDepth = 2
	// feedInterval is how often retries that wait are looked at while a sweep is active.
	feedInterval = 100 * time.Millisecond
	// reconcileInterval is how often the leases that the master believes in are compared with the queue.
	reconcileInterval = 3 * time.Second
)

// state is what the loop owns. Other goroutines reach it through Master.tell only.
type state struct {
	m     *Master
	feeds map[grid.SweepID]*feed
	room  map[grid.Resources]int // see slots

	health *health
	setups map[grid.SweepID]*setups

	activity *Activity

	followed  uint64                  // the last event that the feeds know of
	published uint64                  // the last event of this loop that decides about attempts
	suspects  map[grid.LeaseID]uint64 // leases that the queue no longer holds, with the event that must be followed to be sure
	unfenced  map[unfenced]loss
	unopened  map[grid.SweepID]bool // sweeps that could not be opened
}

func newState(m *Master) *state {
	return &state{
		m: m, feeds: map[grid.SweepID]*feed{}, suspects: map[grid.LeaseID]uint64{}, unfenced: map[unfenced]loss{}, unopened: map[grid.SweepID]bool{},
		health: newHealth(), activity: newActivity(), setups: map[grid.SweepID]*setups{},
	}
}

// loop is the one goroutine that decides what is leased.
func (m *Master) loop(ctx context.Context) error {
	s := newState(m)
	s.followed = m.caughtUp
	if m.cfg.Nodes != nil {
		if err := s.restoreAll(ctx); err != nil {
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

func (s *state) step(ctx context.Context, feedTick, reconcile <-chan time.Time) error {
	if len(s.feeds) == 0 && len(s.unfenced) == 0 && len(s.unopened) == 0 {
		reconcile = nil // nothing to wake up for
	}
	if !s.waiting() {
		feedTick = nil
	}
	var err error
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case c := <-s.m.changes:
		err = s.change(ctx, c)
	case f := <-s.m.folded:
		s.follow(f)
		err = errors.Join(s.pinImages(ctx, f.images), s.pauseBroken(ctx), s.pauseFailing(ctx), s.finishComplete(ctx))
	case <-s.m.kick:
		s.listen()
		err = s.finishComplete(ctx)
	case <-reconcile:
		s.report(ctx, reconciling, s.reconcile(ctx))
		err = s.finishComplete(ctx)
	case <-feedTick:
	}
	s.report(ctx, leasing, errors.Join(err, s.feed(ctx)))
	return nil
}

// waiting reports whether time alone can make something ready to be leased: a retry, or a store that has refused.
func (s *state) waiting() bool {
	for _, f := range s.feeds {
		if f.again.len() > 0 {
			return true
		}
	}
	return s.m.hindered()
}

// report keeps what hinders the master for the user to see. The next tick tries again: a full disk must not end the node.
func (s *state) report(ctx context.Context, of work, err error) {
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

// change follows a record: an active sweep gets a feed, an ended one loses it when its leases are back.
func (s *state) change(ctx context.Context, c jetstream.Change) error {
	if c.Synced || !s.m.cfg.Feed {
		return nil
	}
	f := s.feeds[c.ID]
	if c.Deleted {
		if f != nil {
			s.discardLeases(ctx, f)
		}
		s.forget(c.ID)
		return nil
	}
	sweep := c.Record.Sweep
	if f == nil {
		if !sweep.Active() {
			return nil
		}
		return s.open(ctx, &c.Record, nil)
	}
	before := f.sweep
	f.follow(sweep)
	s.followSet(ctx, f, before)
	if sweep.Active() {
		f.settle()
	} else {
		s.withdrawAll(ctx, f)
	}
	s.retire(f)
	return s.finishComplete(ctx)
}

// openAgain opens the active sweeps of which that has failed before.
func (s *state) openAgain(ctx context.Context) (failed error) {
	for _, id := range slices.Collect(maps.Keys(s.unopened)) {
		delete(s.unopened, id)
		if r, ok := s.m.Sweep(id); ok && r.Sweep.Active() && s.feeds[id] == nil {
			failed = errors.Join(failed, s.open(ctx, &r, nil))
		}
	}
	return failed
}

// open begins to feed a sweep, of which these leases are in the queue already.
func (s *state) open(ctx context.Context, record *jetstream.Record, leases []jetstream.QueuedLease) error {
	sweep := record.Sweep
	s.unopened[sweep.ID] = true
	left, err := s.m.cfg.History.Left(ctx, sweep.ID)
	if err != nil {
		return fmt.Errorf("load what is done of %s: %w", sweep.ID, err)
	}
	f := newFeed(sweep)
	f.fits, f.slots, f.lanes = func(r grid.Resources) bool { return s.m.never(r) == "" }, s.slots, record.Lanes
	if sweep.Task.Resources.Measured() {
		f.measured = newMeasured(record.Packing, &sweep.Task)
	}
	for i := range leases {
		f.restore(&leases[i], time.Now())
		s.m.ledger.add(leases[i].ID)
	}
	if s.m.cfg.Nodes != nil && s.m.ledger.starting() {
		s.expect(f, left.Open)
	}
	f.load(left, time.Now())
	if err := s.openCompared(ctx, f); err != nil {
		return err
	}
	s.openTimes(ctx, f)
	s.discardEnded(ctx, f)
	s.feeds[sweep.ID] = f
	delete(s.unopened, sweep.ID)
	if err := sweep.Task.Resources.Check(); err != nil && sweep.Active() {
		return s.m.failSweep(ctx, sweep.ID, "the sweep's record is not valid: "+err.Error())
	}
	return s.finishComplete(ctx)
}

// retire forgets the feed of a sweep that is not active and has nothing outstanding.
func (s *state) retire(f *feed) {
	if !f.sweep.Active() && len(f.leases) == 0 {
		s.forget(f.sweep.ID)
	}
}

func (s *state) forget(id grid.SweepID) {
	if f := s.feeds[id]; f != nil {
		f.settle()
		delete(s.feeds, id)
		s.health.forget(id)
		delete(s.setups, id)
	}
}

// shorten has others run what a node gives back of leases.
func (s *state) shorten(node grid.NodeID, kept []jetstream.HeldLease) {
	for i := range kept {
		h := &kept[i]
		if f := s.feeds[h.Sweep]; f != nil && s.m.ledger.holder(h.ID) == node {
			f.shorten(h.ID, h.Hi)
		}
	}
}

// drop forgets a lease: what it did not bring to an end is missing again.
func (s *state) drop(f *feed, id grid.LeaseID) {
	s.m.ledger.remove(id)
	f.drop(id)
	s.retire(f)
}

// follow applies what a fold changed, then closes the leases that workers are done with.
func (s *state) follow(fd folded) {
	s.followed = fd.last
	now := time.Now()
	for i := range fd.changed {
		s.activity.note(s.feeds[fd.changed[i].Sweep], &fd.changed[i])
		if f := s.feeds[fd.changed[i].Sweep]; f != nil && fd.last > f.known { // else it was loaded with this change
			f.apply(&fd.changed[i], now)
			f.compareEnd(&fd.changed[i])
			if t := &fd.changed[i]; t.Change == grid.Done {
				s.conclude(f, t.Index, t.Node)
				s.endLeases(f, t)
				s.discard(f, t)
			}
			if fd.changed[i].Change == grid.Began && len(f.sweep.Task.Setup) > 0 {
				continue // what runs may be its setup step
			}
			s.health.note(&fd.changed[i])
			s.noteSetup(&fd.changed[i])
		}
	}
	for _, r := range fd.released {
		// A node that has lost a lease has no say in it any more.
		if holder := s.m.ledger.holder(r.lease); holder != "" && holder != r.node {
			continue
		}
		if f := s.feeds[r.sweep]; f != nil {
			s.drop(f, r.lease)
		}
	}
	s.quarantine()
}

// quarantine lets no more trials run on nodes that turned out to be broken.
func (s *state) quarantine() {
	if s.m.cfg.Nodes == nil {
		return
	}
	s.health.works = s.m.takesTrials
	for node, b := range s.health.broken() {
		if b.part != grid.ScopeNode {
			s.m.log.Warn("trials are withheld from a part of a node", "node", node, "part", b.part, "reason", b.reason)
			for _, part := range s.parts(b) {
				s.m.cfg.Nodes.Withhold(node, part, b.reason, time.Now().Add(withholdTime))
			}
			continue
		}
		s.m.log.Warn("node is quarantined", "node", node, "reason", b.reason)
		s.m.cfg.Nodes.Quarantine(node, b.reason)
	}
}

// parts lists what is withheld of a node to blame: of a single lane, those of the sweeps whose trials failed.
func (s *state) parts(b blame) []grid.Scope {
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

// takesTrials reports whether a node is there and may take trials, so that another one can be done without.
func (m *Master) takesTrials(node grid.NodeID) bool {
	if drained, _, _ := m.cfg.Nodes.Drain(node); drained {
		return false
	}
	for _, member := range m.cfg.Nodes.Members() {
		if member.Node == node {
			return member.State == cluster.Alive
		}
	}
	return true // gossip has not heard of it yet, and its reports have come
}

// finishComplete ends every active sweep whose trials are all terminal.
func (s *state) finishComplete(ctx context.Context) error {
	for _, f := range s.feeds {
		if !f.sweep.Active() || !f.complete() {
			continue
		}
		if err := s.m.finish(ctx, f.sweep.ID, f.count, s.followed); err != nil {
			return err
		}
	}
	return nil
}

// feed tops up the queue: in each lane, the sweep that holds the least of it goes first.
func (s *state) feed(ctx context.Context) error {
	if !s.m.cfg.Feed {
		return nil
	}
	unsaved := errors.Join(s.saveMeasured(ctx), s.closeLanes(ctx), s.stopWorse(ctx), s.withdrawTrials(ctx)) // trials are leased all the same
	s.followOrders(ctx)
	s.room = map[grid.Resources]int{}
	for _, l := range s.lanesToFeed() {
		slots := s.slots(l.need)
		s.makeRoom(ctx, l, slots)
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

// slots is how many trials with these resources the cluster can run at a time, as of this pass of feed. To ask each node takes a while.
func (s *state) slots(r grid.Resources) int {
	n, ok := s.room[r]
	if !ok {
		n = s.m.cfg.Slots(r)
		s.room[r] = n
	}
	return n
}

// fedLane is a lane with the active sweeps whose trials may be leased into it.
type fedLane struct {
	name  grid.Lane
	need  grid.Resources // of each trial in it
	feeds []*feed
}

func (s *state) lanesToFeed() map[grid.Lane]*fedLane {
	lanes := map[grid.Lane]*fedLane{}
	for _, f := range s.feeds {
		if !f.sweep.Active() || f.sweep.Task.Resources.Check() != nil {
			continue
		}
		for _, need := range f.wanted() {
			name := f.lane(need)
			if lanes[name] == nil {
				lanes[name] = &fedLane{name: name, need: need}
			}
			lanes[name].feeds = append(lanes[name].feeds, f)
		}
	}
	return lanes
}

func (l *fedLane) outstanding() int {
	n := 0
	for _, f := range l.feeds {
		n += f.held[l.name]
	}
	return n
}

// makeRoom takes leases out of a full queue that no node has taken, for sweeps that have none there: they are to have their share from the
// next slot on that comes free, and not only when what was leased before has run.
func (s *state) makeRoom(ctx context.Context, l *fedLane, slots int) {
	limit := queueDepth * slots
	if len(l.feeds) < 2 || l.outstanding() < limit {
		return
	}
	room, share := 0, max(1, limit/len(l.feeds))
	for _, f := range l.feeds {
		if _, some := f.next(l.need, time.Now(), slots); some && f.held[l.name] == 0 {
			room += share
		}
	}
	slices.SortFunc(l.feeds, func(a, b *feed) int { return cmp.Compare(b.held[l.name], a.held[l.name]) })
	for _, f := range l.feeds {
		for _, id := range f.newest(l.name) {
			if room <= 0 || f.held[l.name] <= share {
				break
			}
			if s.withdraw(ctx, f, id) {
				room--
			}
		}
	}
}

// newest lists the leases in a lane, the newest first.
func (f *feed) newest(lane grid.Lane) []grid.LeaseID {
	var all []grid.LeaseID
	for id, l := range f.leases {
		if l.lane == lane {
			all = append(all, id)
		}
	}
	slices.SortFunc(all, func(a, b grid.LeaseID) int { return cmp.Compare(f.leases[b].seq, f.leases[a].seq) })
	return all
}

// leaseOne publishes one lease of the sweep with the smallest share; false when no sweep of the lane has anything to lease.
// Of equal ones the sweep goes first that has waited longest, so that each has its turn where the queue is shorter than the
// list of sweeps.
func (s *state) leaseOne(ctx context.Context, lane *fedLane, slots int) (bool, error) {
	slices.SortFunc(lane.feeds, func(a, b *feed) int {
		return cmp.Or(cmp.Compare(a.held[lane.name], b.held[lane.name]), cmp.Compare(a.last, b.last), a.sweep.Submitted.Compare(b.sweep.Submitted))
	})
	now := time.Now()
	for _, f := range lane.feeds {
		l, ok := f.next(lane.need, now, slots)
		if !ok {
			continue
		}
		if ok, err := s.announce(ctx, f, lane); err != nil {
			return false, err
		} else if !ok {
			continue
		}
		id, err := s.publish(ctx, lane, f, &l)
		if err != nil {
			return false, err
		}
		f.leased(id, l)
		return true, nil
	}
	return false, nil
}

// announce has the nodes know what trials in a lane need, before a lease is in it. It reports false while the sweep's trials are in too
// many lanes. Lanes that nothing is leased in or waits for make room.
func (s *state) announce(ctx context.Context, f *feed, lane *fedLane) (bool, error) {
	if _, known := f.lanes[lane.name]; known || lane.name == f.sweep.Lane() {
		return true, nil
	}
	wanted := f.wanted()
	record, err := s.m.changeRecord(ctx, f.sweep.ID, func(r *jetstream.Record) (bool, error) {
		lanes := map[grid.Lane]grid.Resources{lane.name: lane.need}
		for name, need := range r.Lanes {
			if f.held[name] > 0 || name == f.lane(need) && slices.Contains(wanted, need) {
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

// publish puts a lease into the queue and notes where it lies.
func (s *state) publish(ctx context.Context, lane *fedLane, f *feed, l *lease) (grid.LeaseID, error) {
	id := s.m.cfg.Store.Queue.NewID()
	s.m.ledger.add(id)
	updates := len(f.sweep.Updates)
	if r, ok := s.m.Sweep(f.sweep.ID); ok {
		updates = len(r.Sweep.Updates) // a retry may have stored one that the loop has not followed yet
	}
	snapshot, bad := s.m.newestSnapshot(f.sweep, l)
	avoid, elsewhere := s.avoidFor(f, l.lo, lane)
	seq, err := s.m.cfg.Store.Queue.Publish(ctx, jetstream.Lease{
		Sweep: f.sweep.ID, Lo: l.lo, Hi: l.hi, Attempt: l.attempt, Shape: string(lane.name), ID: id, Updates: updates,
		Snapshot: snapshot, Bad: bad, Level: f.sweep.Level(), Avoid: avoid, Elsewhere: elsewhere,
		Quiet: l.attempt > 1 && l.manner != announced,
	})
	if err != nil {
		s.m.ledger.remove(id)
		return "", fmt.Errorf("lease %s [%d,%d): %w", f.sweep.ID, l.lo, l.hi, err)
	}
	l.seq, l.elsewhere = seq, elsewhere
	return id, nil
}

// reconcile drops leases that the queue no longer holds although no event has closed them. A worker closes a lease before it
// acknowledges it, so once all events are followed that were stored when the lease was missed, it is lost. What has failed before is
// tried again.
func (s *state) reconcile(ctx context.Context) error {
	undone := errors.Join(s.openAgain(ctx), s.fenceAgain(ctx))
	known := s.leases()
	for id := range s.suspects {
		if known[id] == nil {
			delete(s.suspects, id)
		}
	}
	for _, f := range s.feeds {
		if !f.sweep.Active() {
			s.withdrawAll(ctx, f)
		}
	}
	if known = s.leases(); len(known) == 0 {
		return undone
	}
	present, err := s.m.cfg.Store.Queue.List(ctx)
	if err != nil {
		return errors.Join(undone, fmt.Errorf("list leases: %w", err))
	}
	_, last, err := s.m.cfg.Store.Events.Bounds(ctx)
	if err != nil {
		return errors.Join(undone, fmt.Errorf("look at the event stream: %w", err))
	}
	for i := range present {
		if id := present[i].ID; known[id] == nil {
			err = errors.Join(err, s.orphan(ctx, &present[i]))
		} else if !s.abandoned(ctx, known[id], id, time.Now()) {
			delete(known, id)
		}
	}
	for id, f := range known {
		if f.leases[id].detached && !s.abandoned(ctx, f, id, time.Now()) {
			continue
		}
		s.suspect(ctx, id, f, last)
	}
	return errors.Join(undone, err)
}

// withdrawAll takes the leases of a sweep out of the queue that no node has: none may run any more, or they are to be made again.
func (s *state) withdrawAll(ctx context.Context, f *feed) {
	for _, id := range slices.Collect(maps.Keys(f.leases)) {
		s.withdraw(ctx, f, id)
	}
}

// withdraw takes a lease out of the queue, and forgets it, unless a node has it. It reports whether it did so. A message that can't be
// deleted changes nothing: no node takes that lease any more.
func (s *state) withdraw(ctx context.Context, f *feed, id grid.LeaseID) bool {
	ok, err := s.m.cfg.Store.Queue.Withdraw(ctx, id)
	if err != nil {
		s.m.log.Warn("lease that nobody holds could not be deleted", "sweep", f.sweep.ID, "lease", id, "err", err)
	}
	if ok {
		s.drop(f, id)
	}
	return ok
}

// discardLeases takes all leases of a sweep that is gone out of the queue. Nodes that hold some are told so by their beats.
func (s *state) discardLeases(ctx context.Context, f *feed) {
	for id := range f.leases {
		s.m.ledger.remove(id)
		if err := s.m.cfg.Store.Queue.Delete(ctx, id); err != nil {
			s.m.log.Debug("lease of a removed sweep could not be deleted", "sweep", f.sweep.ID, "lease", id, "err", err)
		}
	}
}

// leases gives the feed of every lease that the master believes in.
func (s *state) leases() map[grid.LeaseID]*feed {
	all := map[grid.LeaseID]*feed{}
	for _, f := range s.feeds {
		for id := range f.leases {
			all[id] = f
		}
	}
	return all
}

func (s *state) suspect(ctx context.Context, id grid.LeaseID, f *feed, last uint64) {
	until, ok := s.suspects[id]
	if !ok {
		until, s.suspects[id] = last, last
	}
	if s.followed >= until {
		s.m.log.Info("lease is missing in the queue and is created again", "sweep", f.sweep.ID, "lease", id)
		delete(s.suspects, id)
		if err := s.m.cfg.Store.Queue.Delete(ctx, id); err != nil { // so that nobody takes it
			s.m.log.Debug("lease that is missing could not be deleted", "lease", id, "err", err)
		}
		s.drop(f, id)
	}
}

// settle waits until workers have given back all they held of a cancelled sweep. An attempt that is still being stopped would
// otherwise end behind a retry, and cancel the trial once more.
func (m *Master) settle(ctx context.Context, id grid.SweepID) error {
	settled := make(chan struct{})
	call := func(s *state) {
		f := s.feeds[id]
		if r, ok := m.Sweep(id); f == nil || !ok || r.Sweep.State != grid.SweepCancelled {
			close(settled)
			return
		}
		f.settled = append(f.settled, settled)
	}
	if err := m.inLoop(ctx, call); err != nil {
		return err
	}
	select {
	case <-settled:
		return nil
	case <-m.ended:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Outstanding says how many leases of the sweep are in the queue or at workers.
func (m *Master) Outstanding(ctx context.Context, id grid.SweepID) (int, error) {
	answer := make(chan int, 1)
	call := func(s *state) {
		if f := s.feeds[id]; f != nil {
			answer <- len(f.leases)
			return
		}
		answer <- 0
	}
	if err := m.inLoop(ctx, call); err != nil {
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
	if err := m.inLoop(ctx, func(s *state) { answer <- len(s.leases()) > 0 }); err != nil {
		return false, err
	}
	return <-answer, nil
}

func (m *Master) anyActive() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.sweeps {
		if r.Sweep.Active() {
			return true
		}
	}
	return false
}

// tell has the loop run call, without waiting for it.
func (m *Master) tell(call func(*state)) {
	m.tellMu.Lock()
	m.told = append(m.told, call)
	m.tellMu.Unlock()
	m.Kick()
}

// Kick has the loop look for what may run: more nodes may be there.
func (m *Master) Kick() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// listen runs what the loop was told.
func (s *state) listen() {
	s.m.tellMu.Lock()
	told := s.m.told
	s.m.told = nil
	s.m.tellMu.Unlock()
	for _, call := range told {
		call(s)
	}
}

// errEnded says that the master has ended, and decides nothing more.
var errEnded = errors.New("the master has ended")

// inLoop has the loop run call, and waits for that.
func (m *Master) inLoop(ctx context.Context, call func(*state)) error {
	done := make(chan struct{})
	m.tell(func(s *state) {
		call(s)
		close(done)
	})
	select {
	case <-done:
		return nil
	case <-m.ended:
		return errEnded
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
