package master

import (
	"sync"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/jetstream"
)

// nodeState is one node as its heartbeats and its connection show it.
type nodeState struct {
	nodeReport
	lostConnection
	start         string    // life of its agent
	born          time.Time // when that life was first heard from
	lastHeartbeat time.Time
	restarting    time.Time // when it announced its restart
	mark          uint64    // what heartbeats carry that were sent since it was heard from again
	expected      bool      // it has not been heard from in this life of the master
	dead          bool
}

// nodeReport is what the last heartbeat of a node says.
type nodeReport struct {
	keys     uint64 // the keyring that it has
	busy     bool   // it holds leases
	draining bool
	leaving  bool
	outlive  time.Duration // how long its programs go on without an agent; 0 when it does not say so
	refusals map[grid.Lane]grid.Refusal
}

// lostConnection is what is known of a node since its connection ended. It is zero while the node
// has a connection, or has had none.
type lostConnection struct {
	disconnected time.Time // when it ended
	refused      time.Time // when the last probe found its agent dead while its machine answered; else zero
	returned     time.Time // when a probe found another agent in its place
}

// isSilent reports whether the node's heartbeats or its connection say that it is dead.
func (p *nodeState) isSilent(now time.Time) bool {
	return !p.disconnected.IsZero() || now.Sub(p.lastHeartbeat) > jetstream.HeartbeatTimeout
}

// isThere reports whether the node is heard from.
func (p *nodeState) isThere(now time.Time) bool { return !p.dead && !p.isSilent(now) }

// nodeTable holds the nodes that have been heard from in this life of the master.
type nodeTable struct {
	mu    sync.Mutex
	byID  map[grid.NodeID]*nodeState
	marks uint64 // the newest mark; marks start at the time of this life's start
}

// get returns what is known of a node, false for one that has not been heard from.
func (p *nodeTable) get(node grid.NodeID) (nodeState, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	if known == nil {
		return nodeState{}, false
	}
	return *known, true
}

// count returns how many of the nodes that are heard from fulfil a condition.
func (p *nodeTable) count(now time.Time, is func(*nodeState) bool) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, known := range p.byID {
		if known.isThere(now) && is(known) {
			n++
		}
	}
	return n
}

// recordHeartbeat records a heartbeat. It reports whether the node's agent has started a new life,
// and returns the mark that tells heartbeats from leftovers of a time in which the node was not
// heard from.
func (p *nodeTable) recordHeartbeat(
	node grid.NodeID, b *jetstream.Heartbeat, now time.Time,
) (reborn bool, mark uint64) {
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
	*known = nodeState{mark: mark, born: born, start: b.Start, lastHeartbeat: now, nodeReport: nodeReport{
		keys: b.Keys, busy: len(b.Leases) > 0, draining: b.Draining, leaving: b.Leaving, outlive: b.Outlive,
		refusals: boundedRefusals(b.Refusals),
	}}
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
func (p *nodeTable) takeLost(
	now, since time.Time, away bool, gossip map[grid.NodeID]cluster.State, o *Outage,
) map[grid.NodeID]nodeLoss {
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

// drainApplied reports whether a node drains as it should, or is not heard from.
func (p *nodeTable) drainApplied(node grid.NodeID, drain bool, now time.Time) bool {
	known, _ := p.get(node)
	return !known.isThere(now) || known.draining == drain
}

// refusal returns a node's reason for not running trials of a lane; there is false when the node is
// not heard from.
func (p *nodeTable) refusal(node grid.NodeID, lane grid.Lane, now time.Time) (refusal grid.Refusal, there bool) {
	known, _ := p.get(node)
	if !known.isThere(now) {
		return refusal, false
	}
	return known.refusals[lane], true
}
