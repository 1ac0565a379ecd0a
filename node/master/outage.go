package master

import (
	"cmp"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/jetstream"
)

// Outage configures how a master treats nodes that it does not hear from.
type Outage struct {
	LostAfter time.Duration // silence of a node after which its trials also start elsewhere
	// AgentTimeout is how long programs wait for an agent that has died, on a node that does not
	// say so itself.
	AgentTimeout time.Duration
	Reconcile    Reconcile
}

const (
	// disconnectedTimeout is how long a node may be disconnected from the master alone: gossip
	// hears from it, so it works.
	disconnectedTimeout = 10 * time.Second
	// startupTimeout is how long a master that has just started waits for nodes that it knows from
	// history.
	startupTimeout = 15 * time.Second
	// refusalFresh is how long a refused connection proves that the machine answers.
	refusalFresh = time.Second
	// maxCheckDelay is how late the master's check of the nodes may run before the master considers
	// itself away: it was stopped, or its machine slept.
	maxCheckDelay = time.Second
	// majorityLimit is how long a master that hears from only a minority of the other nodes
	// considers itself disconnected. Some of them may be dead after all, for example because all
	// were in one rack.
	majorityLimit = time.Minute
)

// selfCheck determines whether this node itself is away. The silence of other nodes counts from the
// end of that.
type selfCheck struct {
	lastCheck    time.Time
	lastBootTime time.Duration // of the clock that goes on while the machine sleeps, at lastCheck
	lastAway     time.Time     // when this node was last known to be away
	minority     time.Time     // since when most other nodes have been silent
}

// update says why this node considers itself away, "" when it does not.
func (p *selfCheck) update(now time.Time, linked bool, others, silent int) (why string) {
	var ts unix.Timespec                            // of the time since the start of the machine, sleep included
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // where the system does not provide it, it stays 0
	boot := time.Duration(ts.Nano())
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

// countOthers counts the nodes that a master should hear from, itself excluded, and the silent ones
// among them. A node whose machine refuses connections is not silent: it is there without an agent.
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

// hostAnswers reports whether a recent probe found that the machine answers and no agent listens
// there.
func (p *nodeState) hostAnswers(now time.Time) bool {
	return !p.refused.IsZero() && now.Sub(p.refused) < refusalFresh
}

// expect adds a node that has not been heard from since this master started, although it may run
// trials.
func (p *nodeTable) expect(node grid.NodeID, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byID[node] == nil {
		p.byID[node] = &nodeState{lastHeartbeat: now, expected: true}
	}
}

// isResponsive reports whether a node has been heard from lately, and is not about to restart.
func (p *nodeTable) isResponsive(node grid.NodeID, now time.Time) bool {
	known, _ := p.get(node)
	return known.isThere(now) && now.Sub(known.restarting) >= restartLimit
}

// lossReason says why a silent node is lost: it left, its agent died, it is silent as a whole, or
// its connection is cut. It is "" for a node that may still come back in time. Silence counts from
// since at the earliest.
func (p *nodeState) lossReason(
	node grid.NodeID, now, since time.Time, gossip cluster.State, o *Outage,
) (how string, left bool) {
	quiet := now.Sub(later(p.lastHeartbeat, since))
	lostAfter := max(o.LostAfter, jetstream.HeartbeatTimeout)
	switch {
	case gossip == cluster.Left || p.leaving:
		return "node " + string(node) + " left", true
	case now.Sub(p.returned) < disconnectedTimeout: // another agent starts
	case p.hostAnswers(now):
		outlive := cmp.Or(p.outlive, o.AgentTimeout)
		if now.Sub(later(p.disconnected, since)) > outlive+restartGrace {
			return fmt.Sprintf("the agent of node %s died, and no other agent took over its programs within %s",
				node, outlive), false
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
