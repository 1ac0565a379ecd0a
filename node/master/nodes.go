package master

import (
	"context"
	"fmt"
	"sync"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/jetstream"
)

// Nodes is what the master knows of the cluster's nodes; the parts are given by who wires them.
type Nodes struct {
	// Members is the view of gossip, this node included.
	Members func() []cluster.Member
	// Refused reports whether the node's machine answers while its agent does not.
	Refused func(ctx context.Context, node grid.NodeID) bool
	// Disconnections calls fn when the connection of a node has ended.
	Disconnections func(fn func(grid.NodeID)) (stop func(), err error)
	// Fits reports whether a node that is known, there or not, can run an attempt with these resources; true while none is known.
	Fits func(grid.Resources) bool
	// Drain says whether a node may take leases, whether that is because it is broken, and why in words.
	Drain func(grid.NodeID) (drain, broken bool, reason string)
	// Quarantine drains a node that is broken.
	Quarantine func(node grid.NodeID, reason string)
	// Keys names the gossip keyring in force.
	Keys func() uint64
	// CrashLimit is how many nodes may die under a trial before it is set aside.
	CrashLimit int
}

const (
	// lifeInterval is how often the signs of life are looked at.
	lifeInterval = 100 * time.Millisecond
	// restartGrace is how long an agent that died may take to be back before its leases go to others. A service manager starts
	// one within a few hundred milliseconds.
	restartGrace = time.Second
	// restartLimit is how long one may take that said that it would be back.
	restartLimit = 15 * time.Second
	// refusalInterval is how often the gossip port of a node without a connection is tried, refusalTime how long.
	refusalInterval = 200 * time.Millisecond
	refusalTime     = 10 * time.Second
	// reportCost is how long a report of a node keeps the store busy: a flush of the disk for its output and one for its events.
	// Nodes at work report so seldom that the store has that time for each of them in turn; with up to ten of them that
	// changes nothing. Beyond slowestPace, output would not be live.
	reportCost  = 1500 * time.Microsecond
	slowestPace = 500 * time.Millisecond
)

// peer is one node as its beats and its connection show it.
type peer struct {
	start      string // life of its agent
	keys       uint64 // the keyring that it has
	beat       time.Time
	gone       time.Time // when its connection ended; zero while it has one, or has had none
	refused    time.Time // when its agent was found dead while its machine answered; zero if it was not, the last time
	restarting time.Time // when it said that it would be back
	busy       bool      // it held leases
	draining   bool
	leaving    bool
	dead       bool
}

// silent reports whether the node's connection says that it is dead.
func (p *peer) silent(now time.Time) bool {
	return !p.gone.IsZero() || now.Sub(p.beat) > jetstream.BeatLimit
}

// peers are the nodes that have been heard of in this life of the master.
type peers struct {
	mu   sync.Mutex
	byID map[grid.NodeID]*peer
}

// heard notes a beat. It reports whether the node's agent has begun a new life.
func (p *peers) heard(node grid.NodeID, b *jetstream.Beat, now time.Time) (reborn bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	if known == nil {
		known = &peer{start: b.Start}
		p.byID[node] = known
	}
	reborn = known.start != b.Start || known.dead
	*known = peer{start: b.Start, keys: b.Keys, beat: now, busy: len(b.Held) > 0, draining: b.Draining, leaving: b.Leaving}
	if b.Restarting {
		known.restarting = now
	}
	return reborn
}

// lost notes that a connection has ended, and reports whether that says something of the node: not if it was heard of later.
func (p *peers) lost(node grid.NodeID, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	if known == nil || !known.gone.IsZero() || known.dead {
		return false
	}
	known.gone = now
	return true
}

// refuse notes whether the agent was found dead: one whose successor listens already is not. It gives false when the node has
// been heard of again.
func (p *peers) refuse(node grid.NodeID, refused bool, now time.Time) (waiting bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	if known == nil || known.gone.IsZero() || known.dead {
		return false
	}
	known.refused = time.Time{}
	if refused {
		known.refused = now
	}
	return true
}

// dying gives the nodes that have died since the last call, by both signals, and how each went.
func (p *peers) dying(now time.Time, gossip map[grid.NodeID]cluster.State) map[grid.NodeID]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	dead := map[grid.NodeID]string{}
	for node, known := range p.byID {
		if known.dead || !known.silent(now) || now.Sub(known.restarting) < restartLimit {
			continue
		}
		switch state := gossip[node]; {
		case state == cluster.Left || known.leaving:
			dead[node] = fmt.Sprintf("node %s left", node)
		case state == cluster.Dead:
			dead[node] = fmt.Sprintf("node %s died: neither gossip nor its connection heard of it", node)
		case !known.refused.IsZero() && now.Sub(known.gone) > restartGrace:
			dead[node] = fmt.Sprintf("the agent of node %s died: its connection ended, and its machine refuses new ones", node)
		default:
			continue
		}
		known.dead = true
	}
	return dead
}

// paceOf is the time between two reports of each of so many nodes at work.
func paceOf(busy int) time.Duration { return min(time.Duration(busy)*reportCost, slowestPace) }

// count gives how many nodes are heard of, and how many of them hold leases.
func (p *peers) count(now time.Time) (there, busy int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, known := range p.byID {
		if known.dead || known.silent(now) {
			continue
		}
		there++
		if known.busy {
			busy++
		}
	}
	return there, busy
}

// behind reports whether a node that is heard of has another keyring.
func (p *peers) behind(keys uint64, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, known := range p.byID {
		if !known.dead && !known.silent(now) && known.keys != keys {
			return true
		}
	}
	return false
}

// obeys reports whether a node drains as it should, or is not heard of.
func (p *peers) obeys(node grid.NodeID, drain bool, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	return known == nil || known.dead || known.silent(now) || known.draining == drain
}

// obeyTime is how long a node may take to follow an order, before whoever gave it is told that it will.
const obeyTime = 3 * time.Second

// DrainFollowed waits until a node that is heard of takes no more leases, or takes them again.
func (m *Master) DrainFollowed(ctx context.Context, node grid.NodeID, drain bool) {
	ctx, stop := context.WithTimeout(ctx, obeyTime)
	defer stop()
	m.await(ctx, func() bool { return m.peers.obeys(node, drain, time.Now()) })
}

// KeysFollowed waits until all nodes that are heard of have the gossip keyring, or ctx ends.
func (m *Master) KeysFollowed(ctx context.Context, keys uint64) {
	m.await(ctx, func() bool { return !m.peers.behind(keys, time.Now()) })
}

// awaitInterval is how often it is looked whether nodes have followed.
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

// watchNodes answers beats and finds out who has died.
func (m *Master) watchNodes(ctx context.Context) error {
	if m.cfg.Nodes == nil {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	stopBeats, err := m.cfg.Store.Calls.ServeBeats(m.beat)
	if err != nil {
		return err
	}
	defer stopBeats()
	var asking sync.WaitGroup
	defer asking.Wait()
	stopEnds, err := m.cfg.Nodes.Disconnections(func(node grid.NodeID) {
		if m.peers.lost(node, time.Now()) {
			m.log.Debug("connection of a node ended", "node", node)
			asking.Go(func() { m.ask(ctx, node) })
		}
	})
	if err != nil {
		return err
	}
	defer stopEnds()
	tick := time.NewTicker(lifeInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case now := <-tick.C:
			m.judge(ctx, now)
		}
	}
}

// beat takes over what a node says and gives it its orders.
func (m *Master) beat(node grid.NodeID, b *jetstream.Beat) jetstream.Orders {
	if m.peers.heard(node, b, time.Now()) {
		if void := m.ledger.void(node, b.Held); len(void) > 0 {
			m.tell(func(s *state) { s.void(node, void) })
		}
	}
	o := jetstream.Orders{Keys: m.cfg.Nodes.Keys(), Pace: time.Duration(m.pace.Load())}
	o.Stop, o.Lost = m.ledger.claim(node, b.Held)
	o.Drain, o.Quarantine, o.Reason = m.cfg.Nodes.Drain(node)
	return o
}

// ask tries the gossip port of a node whose connection has ended, until the node is heard of again or judged.
func (m *Master) ask(ctx context.Context, node grid.NodeID) {
	ctx, stop := context.WithTimeout(ctx, refusalTime)
	defer stop()
	tick := time.NewTicker(refusalInterval)
	defer tick.Stop()
	for {
		refused := m.cfg.Nodes.Refused(ctx, node)
		if !m.peers.refuse(node, refused, time.Now()) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// judge has the loop take back what dead nodes held.
func (m *Master) judge(ctx context.Context, now time.Time) {
	gossip := map[grid.NodeID]cluster.State{}
	for _, member := range m.cfg.Nodes.Members() {
		gossip[member.Node] = member.State
	}
	there, busy := m.peers.count(now)
	m.pace.Store(int64(paceOf(busy)))
	m.cfg.Store.Queue.Nodes(there)
	for node, how := range m.peers.dying(now, gossip) {
		m.log.Warn("node is dead; what it held goes to others", "node", node, "how", how)
		m.tell(func(s *state) { s.bury(ctx, node, how) })
	}
}
