package master

import (
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// ledger says which node holds which lease. Nodes tell what they hold with each beat; the loop adds and removes leases. It has
// a lock of its own, so that beats are answered at once, however busy the loop is.
type ledger struct {
	mu      sync.Mutex
	ready   bool // all leases of the queue are known
	leases  map[grid.LeaseID]claim
	stopped map[grid.LeaseID]grid.NodeID // not known any more, and what runs under them is to stop
}

// claim is a node's statement that it holds a lease.
type claim struct {
	node       grid.NodeID
	deliveries int // by the queue
	told       time.Time
	runs       []jetstream.RunningAttempt // as of told
	finish     bool                       // no further trial of it is to begin
	hi         int64                      // see jetstream.HeldLease
}

func newLedger() *ledger {
	return &ledger{leases: map[grid.LeaseID]claim{}, stopped: map[grid.LeaseID]grid.NodeID{}}
}

// add makes a lease known. It comes before the lease is published, so that no node claims one that is not known.
func (l *ledger) add(id grid.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leases[id] = claim{}
}

// assign makes a lease known, or has a known one that nobody claims, as held by a node that has not said so yet.
func (l *ledger) assign(id grid.LeaseID, node grid.NodeID, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.leases[id]; c.node == "" {
		c.node, c.told = node, now
		l.leases[id] = c
	}
}

// adopt makes a lease known that a node holds and that the queue does not have. What runs under it may go on.
func (l *ledger) adopt(node grid.NodeID, h *jetstream.HeldLease, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leases[h.ID] = claim{node: node, deliveries: h.Deliveries, told: now, runs: h.Attempts, finish: true}
	delete(l.stopped, h.ID)
}

// unclaim forgets who holds a lease.
func (l *ledger) unclaim(id grid.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.leases[id]; known {
		l.leases[id] = claim{}
	}
}

// remove forgets a lease: a node that says that it holds it is told that it does not.
func (l *ledger) remove(id grid.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.leases, id)
}

// stop has a node, when it says that it holds a lease that is not known, be told to stop what runs under it.
func (l *ledger) stop(id grid.LeaseID, node grid.NodeID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped[id] = node
}

// complete says that all leases of the queue are known. Until then nobody is told that it has lost one.
func (l *ledger) complete() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = true
}

// starting reports whether leases of the queue may still be unknown.
func (l *ledger) starting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.ready
}

// maxHeld bounds the leases, and the attempts under them, that a node is believed to hold. Each attempt is a process, and no machine runs
// as many.
const maxHeld = 1 << 14

// boundedHeld is as much of what a node says that it holds as is looked at.
func boundedHeld(said []jetstream.HeldLease) []jetstream.HeldLease {
	held, left := slices.Clone(said[:min(len(said), maxHeld)]), maxHeld
	for i := range held {
		h := &held[i]
		h.Attempts = h.Attempts[:min(len(h.Attempts), left)]
		left -= len(h.Attempts)
	}
	return held
}

func leasesOf(held []jetstream.HeldLease) map[grid.LeaseID]bool {
	all := make(map[grid.LeaseID]bool, len(held))
	for i := range held {
		all[held[i].ID] = true
	}
	return all
}

// claim takes over what a node says it holds, and puts what it does not into its orders. It gives the leases of which is to be
// decided whether what runs under them goes on: they are not known, as after the node was away. And it gives those of which the node
// gives back trials, and has not said so before.
func (l *ledger) claim(node grid.NodeID, held []jetstream.HeldLease, o *jetstream.Directives, now time.Time) (open, shortened []jetstream.HeldLease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range held {
		c, known := l.leases[h.ID]
		switch {
		case known && (c.node == "" || c.node == node):
			if h.Hi > 0 && (c.hi != h.Hi || c.node != node) {
				shortened = append(shortened, h)
			}
			c.node, c.deliveries, c.told, c.runs, c.hi = node, h.Deliveries, now, h.Attempts, h.Hi
			l.leases[h.ID] = c
			if c.finish {
				o.Finish = append(o.Finish, h.ID)
			}
		case !l.ready:
		case !known && len(h.Attempts) > 0 && l.stopped[h.ID] != node:
			open = append(open, h)
		default:
			o.Stop = append(o.Stop, h.ID)
		}
	}
	holds := leasesOf(held)
	for id, of := range l.stopped {
		if of == node && !holds[id] {
			delete(l.stopped, id) // it has stopped
		}
	}
	return open, shortened
}

// of lists the leases that a node holds.
func (l *ledger) of(node grid.NodeID) []grid.LeaseID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []grid.LeaseID
	for id, c := range l.leases {
		if c.node == node {
			all = append(all, id)
		}
	}
	return all
}

// void lists the leases that a node held in an earlier life and does not hold any more. One that is known by its attempt may be any that
// the node holds and that is not known: the attempt runs under it, or has ended, and the node has still to report that. What is not made
// good by the node's reports ends with claimLimit.
func (l *ledger) void(node grid.NodeID, held []jetstream.HeldLease) []grid.LeaseID {
	holds, unknown := leasesOf(held), l.lacks(held)
	return slices.DeleteFunc(l.of(node), func(id grid.LeaseID) bool { return holds[id] || isOfRun(id) && unknown })
}

// lacks reports whether some of these leases are not known.
func (l *ledger) lacks(held []jetstream.HeldLease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(held, func(h jetstream.HeldLease) bool { _, known := l.leases[h.ID]; return !known })
}

// decided reports whether it is known already what becomes of a lease that a node holds.
func (l *ledger) decided(id grid.LeaseID, node grid.NodeID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leases[id].node == node || l.stopped[id] == node
}

// holder is the node that holds a lease, "" while nobody has said so.
func (l *ledger) holder(id grid.LeaseID) grid.NodeID { return l.get(id).node }

// get gives what is known of a lease.
func (l *ledger) get(id grid.LeaseID) claim {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leases[id]
}
