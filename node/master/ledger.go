package master

import (
	"slices"
	"sync"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// ledger says which node holds which lease. Nodes tell what they hold with each beat; the loop adds and removes leases. It has
// a lock of its own, so that beats are answered at once, however busy the loop is.
type ledger struct {
	mu      sync.Mutex
	ready   bool // all leases of the queue are known
	leases  map[grid.LeaseID]claim
	bySeq   map[uint64]grid.LeaseID // for nodes that go by sequences
	passed  []passing
	changed chan struct{} // holds a token when passed is not empty
}

// claim is a node's word that it holds a lease; the queue has then delivered it so many times.
type claim struct {
	node       grid.NodeID
	deliveries int
	seq        uint64 // in the queue; 0 while it is being published
}

// passing is a lease that went from one node to another because the first was not heard of.
type passing struct {
	lease    grid.LeaseID
	from, to grid.NodeID
}

func newLedger() *ledger {
	return &ledger{leases: map[grid.LeaseID]claim{}, bySeq: map[uint64]grid.LeaseID{}, changed: make(chan struct{}, 1)}
}

// add makes a lease known. It comes before the lease is published, so that no node claims one that is not known.
func (l *ledger) add(id grid.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leases[id] = claim{}
}

// published notes where in the queue a lease lies.
func (l *ledger) published(id grid.LeaseID, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.leases[id]
	c.seq = seq
	l.leases[id], l.bySeq[seq] = c, id
}

// remove forgets a lease: a node that says that it holds it is told that it does not.
func (l *ledger) remove(id grid.LeaseID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if seq := l.leases[id].seq; l.bySeq[seq] == id {
		delete(l.bySeq, seq)
	}
	delete(l.leases, id)
}

// complete says that all leases of the queue are known. Until then nobody is told that he has lost one.
func (l *ledger) complete() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = true
}

// claim takes over what a node says it holds, and gives what it does not.
func (l *ledger) claim(node grid.NodeID, held []jetstream.HeldLease) (stop []grid.LeaseID, lost []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range held {
		if l.holdsLocked(node, &h) || !l.ready {
			continue
		}
		if h.ID == "" {
			lost = append(lost, h.Seq)
		} else {
			stop = append(stop, h.ID)
		}
	}
	return stop, lost
}

// holdsLocked notes a node's claim to a lease, and reports whether it is right.
func (l *ledger) holdsLocked(node grid.NodeID, h *jetstream.HeldLease) bool {
	id := h.ID
	if id == "" {
		id = l.bySeq[h.Seq]
	}
	now, known := l.leases[id]
	if !known {
		return false
	}
	mine := claim{node: node, deliveries: h.Deliveries, seq: now.seq}
	switch {
	case now.node == "" || now.node == node:
		l.leases[id] = mine
	case h.Deliveries > now.deliveries:
		l.leases[id] = mine
		l.passLocked(passing{lease: id, from: now.node, to: node})
	default:
		return false
	}
	return true
}

func (l *ledger) passLocked(p passing) {
	l.passed = append(l.passed, p)
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// passings gives what has passed since the last call.
func (l *ledger) passings() []passing {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.passed
	l.passed = nil
	return all
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

// void lists the leases that a node held in an earlier life and does not hold any more.
func (l *ledger) void(node grid.NodeID, held []jetstream.HeldLease) []grid.LeaseID {
	return slices.DeleteFunc(l.of(node), func(id grid.LeaseID) bool {
		return slices.ContainsFunc(held, func(h jetstream.HeldLease) bool { return l.named(&h) == id })
	})
}

// named gives the ID of a lease that a node tells of, "" for one that is not known by its sequence.
func (l *ledger) named(h *jetstream.HeldLease) grid.LeaseID {
	if h.ID != "" {
		return h.ID
	}
	return l.at(h.Seq)
}

// at gives the lease with this sequence in the queue.
func (l *ledger) at(seq uint64) grid.LeaseID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bySeq[seq]
}

// holder is the node that holds a lease, "" while nobody has said so.
func (l *ledger) holder(id grid.LeaseID) grid.NodeID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leases[id].node
}
