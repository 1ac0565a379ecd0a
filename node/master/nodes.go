package master

import (
	"context"
	"fmt"
	"sync"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/jetstream"
)

// Nodes connects the master to the cluster's nodes.
type Nodes struct {
	// Members returns the view of gossip, this node included.
	Members func() []cluster.Member
	// Refused reports whether the node's machine answers while its agent does not.
	Refused func(ctx context.Context, node grid.NodeID) bool
	// Disconnections calls fn when the connection of a node has ended.
	Disconnections func(fn func(grid.NodeID)) (stop func(), err error)
	// Drain reports whether a node may not take leases, whether that is because it is broken, and
	// why in words.
	Drain func(grid.NodeID) (drain, broken bool, reason string)
	// Quarantine drains a node that is broken.
	Quarantine func(node grid.NodeID, reason string)
	// Fits reports whether a node has room for trials with these resources, were nothing else
	// running there; nil allows all.
	Fits func(*cluster.Member, grid.Resources) bool
	// Withhold keeps trials that need a part of a node from it for a while, and Withheld returns
	// these parts with the reasons.
	Withhold func(node grid.NodeID, part grid.Scope, reason string, until time.Time)
	Withheld func(grid.NodeID) map[grid.Scope]string
	// Keys identifies the gossip keyring in force.
	Keys func() uint64
	// CAs identifies the CAs that the cluster trusts; nil when that is not known.
	CAs func() uint64
	// Known reports whether a node belongs to the cluster, whether it is up or not; nil when that
	// is not known.
	Known func(grid.NodeID) bool
	// CrashLimit is how many nodes may die under a trial before it is set aside.
	CrashLimit int
	Outage     Outage
	// Self is the master's own node.
	Self grid.NodeID
	// LinkUp reports whether this machine's own link is up; nil when that is not known.
	LinkUp func() bool
}

const (
	// nodeCheckInterval is how often the master checks which nodes are lost.
	nodeCheckInterval = 100 * time.Millisecond
	// restartGrace is how long an agent may take, after it has taken over what its predecessor
	// left, until it is heard from.
	restartGrace = time.Second
	// restartLimit is how long an agent may take that has announced its restart.
	restartLimit = 15 * time.Second
	// probeInterval is how often the gossip port of a node without a connection is probed, and
	// probeTimeout how long one probe takes.
	probeInterval = 200 * time.Millisecond
	probeTimeout  = time.Second
	// reportCost is how long a report of a node keeps the store busy: a flush of the disk for its
	// output and one for its events. Nodes at work report so seldom that the store has that time
	// for each of them in turn; with up to ten of them that changes nothing. Beyond slowestPace,
	// output would not be live.
	reportCost  = 1500 * time.Microsecond
	slowestPace = 500 * time.Millisecond
)

// nodeState is one node as its heartbeats and its connection show it.
type nodeState struct {
	start         string    // life of its agent
	born          time.Time // when that life was first heard from
	keys          uint64    // the keyring that it has
	lastHeartbeat time.Time
	disconnected  time.Time // when its connection ended; zero while it has one, or has had none
	refused       time.Time // when a probe last found its agent dead while its machine answered; zero if the last probe did not
	returned      time.Time // when a probe found another agent in its place
	restarting    time.Time // when it announced its restart
	busy          bool      // it held leases
	draining      bool
	leaving       bool
	outlive       time.Duration // how long its programs go on without an agent; 0 when it does not say so
	mark          uint64        // what heartbeats carry that were sent since it was heard from again
	refusals      map[grid.Lane]grid.Refusal
	expected      bool // it has not been heard from in this life of the master
	dead          bool
}

// isSilent reports whether the node's heartbeats or its connection say that it is dead.
func (p *nodeState) isSilent(now time.Time) bool {
	return !p.disconnected.IsZero() || now.Sub(p.lastHeartbeat) > jetstream.HeartbeatTimeout
}

// nodeTable holds the nodes that have been heard from in this life of the master.
type nodeTable struct {
	mu    sync.Mutex
	byID  map[grid.NodeID]*nodeState
	marks uint64 // the newest mark; marks start at the time of this life's start
}

// recordHeartbeat records a heartbeat. It reports whether the node's agent has started a new life,
// and returns the mark that tells heartbeats from leftovers of a time in which the node was not
// heard from.
func (p *nodeTable) recordHeartbeat(node grid.NodeID, b *jetstream.Heartbeat, now time.Time) (reborn bool, mark uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	if known == nil {
		known = &nodeState{start: b.Start, born: now}
		p.byID[node] = known
	}
	reborn = known.start != b.Start || known.dead
	if mark = known.mark; mark == 0 || reborn || known.isSilent(now) {
		p.marks++
		mark = p.marks
	}
	born := known.born
	if known.start != b.Start {
		born = now
	}
	*known = nodeState{
		mark: mark, born: born,
		start: b.Start, keys: b.Keys, lastHeartbeat: now, busy: len(b.Leases) > 0, draining: b.Draining, leaving: b.Leaving, outlive: b.Outlive,
		refusals: boundedRefusals(b.Refusals),
	}
	if b.Restarting {
		known.restarting = now
	}
	return reborn, mark
}

const (
	// maxLaneName and maxRefusalText bound the names and the texts in what a node reports of the
	// lanes that wait there.
	maxLaneName    = 64
	maxRefusalText = 512
)

// boundedRefusals returns as much of what a node reports as is kept.
func boundedRefusals(said map[grid.Lane]grid.Refusal) map[grid.Lane]grid.Refusal {
	if len(said) == 0 {
		return nil
	}
	text := func(s string) string { return printable.Clip(printable.Line([]byte(s)), maxRefusalText) }
	kept := map[grid.Lane]grid.Refusal{}
	for lane, r := range said {
		if len(kept) >= jetstream.MaxRefusals {
			break
		}
		if len(lane) <= maxLaneName {
			r.Code, r.Of = grid.RefusalCode(text(string(r.Code))), grid.Amount(text(string(r.Of)))
			r.Device, r.By, r.What = text(r.Device), text(r.By), text(r.What)
			kept[lane] = r
		}
	}
	return kept
}

// recordDisconnect records that a connection has ended. It returns false if that says nothing of
// the node, because it was lost before.
func (p *nodeTable) recordDisconnect(node grid.NodeID, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	if known == nil || !known.disconnected.IsZero() || known.dead {
		return false
	}
	known.disconnected = now
	return true
}

// recordProbe records whether a probe found the agent dead; an agent whose successor listens
// already is not dead. It returns false when the node has been heard from again.
func (p *nodeTable) recordProbe(node grid.NodeID, refused bool, now time.Time) (waiting bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	if known == nil || known.disconnected.IsZero() || known.dead {
		return false
	}
	switch {
	case refused:
		known.refused, known.returned = now, time.Time{}
	case !known.refused.IsZero():
		known.refused, known.returned = time.Time{}, now
	}
	return true
}

// gossipStates returns what gossip says of each node. It leaves out that a node left if its agent
// was first heard from later: gossip may learn of the new agent last.
func (p *nodeTable) gossipStates(members []cluster.Member) map[grid.NodeID]cluster.State {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := map[grid.NodeID]cluster.State{}
	for _, member := range members {
		known := p.byID[member.Node]
		if member.State != cluster.Left || known == nil || !known.born.After(member.Since) {
			states[member.Node] = member.State
		}
	}
	return states
}

// isGone reports whether a node is lost, or was taken out of the cluster, and has not been heard
// from since.
func (p *nodeTable) isGone(node grid.NodeID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	return known == nil || known.dead
}

// isLost reports whether a node of the cluster is lost and has not been heard from since.
func (p *nodeTable) isLost(node grid.NodeID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	return known != nil && known.dead
}

// nodeLoss says how a node was lost.
type nodeLoss struct {
	reason string
	left   bool // in good order: it has reported what became of its attempts
}

// removeUnknown removes the nodes that were taken out of the cluster, and returns them.
func (p *nodeTable) removeUnknown(known func(grid.NodeID) bool) (forgotten []grid.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for node := range p.byID {
		if !known(node) {
			delete(p.byID, node)
			forgotten = append(forgotten, node)
		}
	}
	return forgotten
}

// takeLost returns the nodes that have been lost since the last call. Silence counts from since at
// the earliest; while this node itself is away, only nodes that announced that they leave are lost.
func (p *nodeTable) takeLost(now, since time.Time, away bool, gossip map[grid.NodeID]cluster.State, o *Outage) map[grid.NodeID]nodeLoss {
	p.mu.Lock()
	defer p.mu.Unlock()
	lost := map[grid.NodeID]nodeLoss{}
	for node, known := range p.byID {
		if known.dead || !known.isSilent(now) || now.Sub(known.restarting) < restartLimit {
			continue
		}
		how, left := known.lossReason(node, now, since, gossip[node], o)
		if how == "" || (away && !left) {
			continue
		}
		known.dead = true
		lost[node] = nodeLoss{how, left}
	}
	return lost
}

// reportIntervalFor returns the time between two reports of each of so many nodes at work.
func reportIntervalFor(busy int) time.Duration {
	return min(time.Duration(busy)*reportCost, slowestPace)
}

// countBusy returns how many responsive nodes hold leases.
func (p *nodeTable) countBusy(now time.Time) (busy int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, known := range p.byID {
		if known.busy && !known.dead && !known.isSilent(now) {
			busy++
		}
	}
	return busy
}

// keysBehind reports whether a responsive node has another keyring.
func (p *nodeTable) keysBehind(keys uint64, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, known := range p.byID {
		if !known.dead && !known.isSilent(now) && known.keys != keys {
			return true
		}
	}
	return false
}

// drainApplied reports whether a node drains as it should, or is not heard from.
func (p *nodeTable) drainApplied(node grid.NodeID, drain bool, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	return known == nil || known.dead || known.isSilent(now) || known.draining == drain
}

// drainTimeout is how long AwaitDrain waits for a node.
const drainTimeout = 3 * time.Second

// AwaitDrain waits until a node that is heard from takes no more leases, or takes them again.
func (m *Master) AwaitDrain(ctx context.Context, node grid.NodeID, drain bool) {
	ctx, stop := context.WithTimeout(ctx, drainTimeout)
	defer stop()
	m.await(ctx, func() bool { return m.nodes.drainApplied(node, drain, time.Now()) })
}

// AwaitKeys waits until all nodes that are heard from have the gossip keyring, or ctx ends.
func (m *Master) AwaitKeys(ctx context.Context, keys uint64) {
	m.await(ctx, func() bool { return !m.nodes.keysBehind(keys, time.Now()) })
}

// awaitInterval is how often AwaitDrain and AwaitKeys check.
const awaitInterval = 20 * time.Millisecond

func (m *Master) await(ctx context.Context, done func() bool) {
	tick := time.NewTicker(awaitInterval)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// watchNodes answers heartbeats and detects which nodes have died.
func (m *Master) watchNodes(ctx context.Context) error {
	if m.cfg.Nodes == nil {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	defer m.cfg.Store.Calls.HandleHeartbeats(m.handleHeartbeat)()
	defer m.cfg.Store.Calls.RefuseLeases(m.refusesLeases)()
	var asking sync.WaitGroup
	defer asking.Wait()
	stopEnds, err := m.cfg.Nodes.Disconnections(func(node grid.NodeID) {
		if m.nodes.recordDisconnect(node, time.Now()) {
			m.log.Debug("connection of a node ended", "node", node)
			asking.Go(func() { m.probeAgent(ctx, node) })
		}
	})
	if err != nil {
		return err
	}
	defer stopEnds()
	tick := time.NewTicker(nodeCheckInterval)
	defer tick.Stop()
	var p selfCheck
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			now := time.Now() // a tick may have waited while this process was stopped
			m.checkNodes(ctx, &p, now)
		}
	}
}

// refusesLeases reports whether a node gets no leases of a lane: it is drained or was taken out of
// the cluster, or trials of the lane are withheld from it. Its directives say so as well, but they
// reach the node only with its next heartbeat.
func (m *Master) refusesLeases(node grid.NodeID, lane grid.Lane) bool {
	if known := m.cfg.Nodes.Known; known != nil && !known(node) {
		return true
	}
	drained, _, _ := m.cfg.Nodes.Drain(node)
	return drained || m.cfg.Nodes.Withheld(node)[grid.ScopeOfLane(lane)] != ""
}

// handleHeartbeat records what a node reports and returns its directives.
func (m *Master) handleHeartbeat(node grid.NodeID, b *jetstream.Heartbeat) jetstream.Directives {
	if known := m.cfg.Nodes.Known; known != nil && !known(node) {
		return jetstream.Directives{Drain: true, Reason: "the node was taken out of the cluster"}
	}
	now := time.Now()
	held := boundedHeld(b.Leases)
	reborn, mark := m.nodes.recordHeartbeat(node, b, now)
	if reborn {
		if void := m.leases.staleLeases(node, held); len(void) > 0 {
			m.post(func(s *scheduler) { s.dropStaleLeases(node, void) })
		}
	}
	if b.Sample != nil {
		m.samples.add(node, b.Sample, now)
	}
	o := jetstream.Directives{Keys: m.cfg.Nodes.Keys(), Pace: time.Duration(m.reportInterval.Load()), Mark: mark, Curves: m.cfg.History.CurveShare()}
	open, shortened := m.leases.recordHeld(node, held, &o, now)
	if len(shortened) > 0 {
		m.post(func(s *scheduler) { s.shortenLeases(node, shortened) })
	}
	if len(open) > 0 && b.Mark == mark && !b.Leaving && !b.Restarting {
		m.post(func(s *scheduler) { s.decideReconnected(context.Background(), node, open) }) // calls of the store have their own timeout
	}
	if cas := m.cfg.Nodes.CAs; cas != nil {
		o.CAs = cas()
	}
	o.Drain, o.Quarantine, o.Reason = m.cfg.Nodes.Drain(node)
	o.Without = m.cfg.Nodes.Withheld(node)
	return o
}

// probeAgent probes the gossip port of a node whose connection has ended, until the node is heard
// from again or is lost.
func (m *Master) probeAgent(ctx context.Context, node grid.NodeID) {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	for {
		try, stop := context.WithTimeout(ctx, probeTimeout)
		refused := m.cfg.Nodes.Refused(try, node)
		stop()
		if !m.nodes.recordProbe(node, refused, time.Now()) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// checkNodes makes the scheduler requeue what lost nodes held.
func (m *Master) checkNodes(ctx context.Context, p *selfCheck, now time.Time) {
	gossip := m.nodes.gossipStates(m.cfg.Nodes.Members())
	if known := m.cfg.Nodes.Known; known != nil {
		for _, node := range m.nodes.removeUnknown(known) { // nothing waits for it any more
			m.samples.removeNode(node)
			m.log.Info("node was taken out of the cluster; its leases are taken back", "node", node)
			m.post(func(s *scheduler) {
				s.handleNodeDeath(ctx, node, nodeLoss{reason: fmt.Sprintf("the node %s was taken out of the cluster", node), left: true})
				s.health.forgetNode(node)
			})
		}
	}
	busy := m.nodes.countBusy(now)
	m.reportInterval.Store(int64(reportIntervalFor(busy)))
	others, silent := m.nodes.countOthers(m.cfg.Nodes.Self, now)
	linked := silent == 0 || m.cfg.Nodes.LinkUp == nil || m.cfg.Nodes.LinkUp()
	why := p.update(now, linked, others, silent)
	m.logAway(why)
	o := m.outage()
	for node, l := range m.nodes.takeLost(now, p.lastAway, why != "", gossip, &o) {
		if node == m.cfg.Nodes.Self && !l.left {
			continue
		}
		m.log.Warn("node is lost; its leases are taken back", "node", node, "how", l.reason)
		m.post(func(s *scheduler) { s.handleNodeDeath(ctx, node, l) })
	}
}

// logAway logs when this master starts or stops considering itself disconnected.
func (m *Master) logAway(why string) {
	if m.awayReason == why {
		return
	}
	if m.awayReason = why; why != "" {
		m.log.Warn("this master considers itself disconnected, and takes back no trials of other nodes", "why", why)
		return
	}
	m.log.Info("this master hears from the other nodes again")
}
