package master

import (
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/jetstream"
)

// Outage configures how a master treats nodes that it does not hear from.
type Outage struct {
	LostAfter    time.Duration // silence of a node after which its trials also start elsewhere
	AgentTimeout time.Duration // how long programs wait for an agent that has died, on a node that does not say so itself
	Reconcile    Reconcile
}

const (
	// cutLimit is how long a node may be cut off from the master alone: gossip hears of it, so it works.
	disconnectedTimeout = 10 * time.Second
	// unheardLimit is how long a master that has just started waits for nodes that it knows from history.
	startupTimeout = 15 * time.Second
	// refusalFresh is how long a refused connection says that the machine answers.
	refusalFresh = time.Second
	// stallLimit is how late the master's check of the nodes may run before it considers itself the one that was away: it was stopped, or
	// its machine slept.
	maxCheckDelay = time.Second
	// majorityLimit is how long a master that hears from only a minority of the other nodes considers itself the one that is cut off. Some
	// of them may be dead after all, for example because all were in one rack.
	majorityLimit = time.Minute
)

// presence determines whether this node itself is away. The silence of other nodes counts from the end of that.
type selfCheck struct {
	lastCheck    time.Time
	lastBootTime time.Duration // of the clock that goes on while the machine sleeps, when it was looked
	lastAway     time.Time     // when this node was last known to be away
	minority     time.Time     // since when most others are silent
}

// away reports whether this node considers itself the one that is away, and why.
func (p *selfCheck) update(now time.Time, linked bool, others, silent int) (why string) {
	boot := bootTime()
	late := max(now.Sub(p.lastCheck), boot-p.lastBootTime)
	first := p.lastCheck.IsZero()
	p.lastCheck, p.lastBootTime = now, boot
	most := others >= 2 && 2*silent > others
	if !most {
		p.minority = time.Time{}
	} else if p.minority.IsZero() {
		p.minority = now
	}
	switch {
	case first:
	case late > maxCheckDelay:
		why = "this agent was stopped, or its machine slept"
	case !linked:
		why = "this machine's own link is down"
	case most && now.Sub(p.minority) < majorityLimit:
		why = "most nodes fell silent at once"
	}
	if why != "" {
		p.lastAway = now
	}
	return why
}

// bootTime is the time since the start of the machine, sleep included; 0 where the system does not tell.
func bootTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// others counts the nodes that a master should hear of, itself left out, and how many of them it does not. One whose machine
// refuses connections is heard of: it is there without an agent.
func (p *nodeTable) countOthers(self grid.NodeID, now time.Time) (all, silent int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for node, known := range p.byID {
		if node == self || known.dead || known.leaving || now.Sub(known.restarting) < restartLimit {
			continue
		}
		all++
		if known.isSilent(now) && !known.hostAnswers(now) {
			silent++
		}
	}
	return all, silent
}

// answers reports whether the machine has just said that no agent listens there.
func (p *nodeState) hostAnswers(now time.Time) bool {
	return !p.refused.IsZero() && now.Sub(p.refused) < refusalFresh
}

// expect registers a node that has not been heard from since this master started, although it may run trials.
func (p *nodeTable) expect(node grid.NodeID, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID[node] == nil {
		p.byID[node] = &nodeState{lastHeartbeat: now, expected: true}
	}
}

// hears reports whether a node has been heard from lately, and is not about to restart.
func (p *nodeTable) isResponsive(node grid.NodeID, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.byID[node]
	return known != nil && !known.dead && !known.isSilent(now) && now.Sub(known.restarting) >= restartLimit
}

// judged says how a node that is not heard of stands: it left, its agent died, it is silent as a whole, or its connection is cut.
// It is "" for one that is waited for. Silence counts from since at the earliest.
func (p *nodeState) lossReason(node grid.NodeID, now, since time.Time, gossip cluster.State, o *Outage) (how string, left bool) {
	quiet := now.Sub(later(p.lastHeartbeat, since))
	lostAfter := max(o.LostAfter, jetstream.HeartbeatTimeout)
	switch {
	case gossip == cluster.Left || p.leaving:
		return "node " + string(node) + " left", true
	case now.Sub(p.returned) < disconnectedTimeout: // another agent begins
	case p.hostAnswers(now):
		outlive := p.outlive
		if outlive == 0 {
			outlive = o.AgentTimeout
		}
		if now.Sub(later(p.disconnected, since)) > outlive+restartGrace {
			return "the agent of node " + string(node) + " died, and no other agent took over its programs within " + outlive.String(), false
		}
	case p.expected:
		if quiet > max(lostAfter, startupTimeout) {
			return "node " + string(node) + " died: it has not been heard from since the master started", false
		}
	case gossip == cluster.Dead:
		if quiet > lostAfter {
			return "node " + string(node) + " died: it is silent in gossip and on its connection", false
		}
	case quiet > max(lostAfter, disconnectedTimeout):
		return "node " + string(node) + " is cut off from the master", false
	}
	return "", false
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
