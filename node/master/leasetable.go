package master

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// leaseTable says which node holds which lease. Nodes report what they hold with each heartbeat;
// the scheduler adds and removes leases. It has a lock of its own, so that heartbeats are answered
// immediately, however busy the scheduler is.
type leaseTable struct {
	loaded atomic.Bool // all leases of the queue are known; until then no node is told that it has lost one

	mu      sync.Mutex
	holders map[grid.LeaseID]holder
	refused map[grid.LeaseID]grid.NodeID // leases that are no longer known, whose attempts are to stop
}

// holder is the node that holds a lease, and what it last reported about it.
type holder struct {
	node          grid.NodeID
	deliveries    int // by the queue
	lastHeartbeat time.Time
	attempts      []jetstream.RunningAttempt // as of lastHeartbeat
	startNoMore   bool                       // no further trial of it may start
	end           int64                      // see jetstream.HeldLease.Hi
}

func newLeaseTable() *leaseTable {
	return &leaseTable{holders: map[grid.LeaseID]holder{}, refused: map[grid.LeaseID]grid.NodeID{}}
}

// add makes a lease known. It is called before the lease is published, so that no node reports a
// lease that is not known.
func (l *leaseTable) add(id grid.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holders[id] = holder{}
}

// assign makes a lease known, or assigns a known one without a holder, as held by a node that has
// not reported it yet.
func (l *leaseTable) assign(id grid.LeaseID, node grid.NodeID, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.holders[id]; c.node == "" {
		c.node, c.lastHeartbeat = node, now
		l.holders[id] = c
	}
}

// adopt makes a lease known that a node holds and that the queue does not have. The attempts under
// it may go on.
func (l *leaseTable) adopt(node grid.NodeID, h *jetstream.HeldLease, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holders[h.ID] = holder{
		node: node, deliveries: h.Deliveries, lastHeartbeat: now, attempts: h.Attempts, startNoMore: true,
	}
	delete(l.refused, h.ID)
}

// clearHolder forgets who holds a lease.
func (l *leaseTable) clearHolder(id grid.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.holders[id]; known {
		l.holders[id] = holder{}
	}
}

// remove forgets a lease: a node that reports to hold it is told that it does not.
func (l *leaseTable) remove(id grid.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.holders, id)
}

// refuse makes a node that reports an unknown lease stop the attempts under it.
func (l *leaseTable) refuse(id grid.LeaseID, node grid.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused[id] = node
}

// maxHeld bounds the leases, and the attempts under them, that a node is believed to hold. Each
// attempt is a process, and no machine runs as many.
const maxHeld = 1 << 14

// boundedHeld returns as much of what a node reports to hold as the master considers.
func boundedHeld(said []jetstream.HeldLease) []jetstream.HeldLease {
	held, left := slices.Clone(said[:min(len(said), maxHeld)]), maxHeld
	for i := range held {
		h := &held[i]
		h.Attempts = h.Attempts[:min(len(h.Attempts), left)]
		left -= len(h.Attempts)
	}
	return held
}

func idsOf(held []jetstream.HeldLease) map[grid.LeaseID]bool {
	all := make(map[grid.LeaseID]bool, len(held))
	for i := range held {
		all[held[i].ID] = true
	}
	return all
}

// recordHeld records the leases that a node reports to hold, and adds those that it does not hold
// to its directives. It returns the leases that are not known, as after the node was away, for
// which the caller decides whether the attempts under them go on (open), and those of which the
// node gives back trials for the first time (shortened).
func (l *leaseTable) recordHeld(
	node grid.NodeID, held []jetstream.HeldLease, o *jetstream.Directives, now time.Time,
) (open, shortened []jetstream.HeldLease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range held {
		c, known := l.holders[h.ID]
		switch {
		case known && (c.node == "" || c.node == node):
			if h.Hi > 0 && (c.end != h.Hi || c.node != node) {
				shortened = append(shortened, h)
			}
			c.node, c.deliveries, c.lastHeartbeat, c.attempts, c.end = node, h.Deliveries, now, h.Attempts, h.Hi
			l.holders[h.ID] = c
			if c.startNoMore {
				o.Finish = append(o.Finish, h.ID)
			}
		case !l.loaded.Load():
		case !known && len(h.Attempts) > 0 && l.refused[h.ID] != node:
			open = append(open, h)
		default:
			o.Stop = append(o.Stop, h.ID)
		}
	}
	holds := idsOf(held)
	for id, of := range l.refused {
		if of == node && !holds[id] {
			delete(l.refused, id) // it has stopped
		}
	}
	return open, shortened
}

// heldBy returns the leases that a node holds.
func (l *leaseTable) heldBy(node grid.NodeID) []grid.LeaseID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []grid.LeaseID
	for id, c := range l.holders {
		if c.node == node {
			all = append(all, id)
		}
	}
	return all
}

// staleLeases returns the leases that a node held in an earlier life and no longer holds. A
// placeholder lease may be any unknown lease that the node holds: the attempt runs under it, or has
// ended and the node has still to report that. What the node's reports do not resolve ends with
// holderTimeout.
func (l *leaseTable) staleLeases(node grid.NodeID, held []jetstream.HeldLease) []grid.LeaseID {
	holds := idsOf(held)
	stale := l.heldBy(node)
	l.mu.Lock()
	defer l.mu.Unlock()
	unknown := false
	for i := range held {
		_, known := l.holders[held[i].ID]
		unknown = unknown || !known
	}
	return slices.DeleteFunc(stale, func(id grid.LeaseID) bool {
		return holds[id] || unknown && strings.HasPrefix(string(id), placeholderPrefix)
	})
}

// isDecided reports whether it is already known what becomes of a lease that a node holds.
func (l *leaseTable) isDecided(id grid.LeaseID, node grid.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holders[id].node == node || l.refused[id] == node
}

// holderOf returns the node that holds a lease, "" while no node has reported it.
func (l *leaseTable) holderOf(id grid.LeaseID) grid.NodeID { return l.get(id).node }

// get returns what is known of a lease.
func (l *leaseTable) get(id grid.LeaseID) holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.holders[id]
}
