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
	newest  uint64
	leases  map[uint64]claim
	early   map[uint64]claim // of leases that the loop has published but not yet added
	passed  []passing
	changed chan struct{} // holds a token when passed is not empty
}

// claim is a node's word that it holds a lease; the queue has then delivered it so many times.
type claim struct {
	node       grid.NodeID
	deliveries int
}

// passing is a lease that went from one node to another because the first was not heard of.
type passing struct {
	lease    uint64
	from, to grid.NodeID
}

func newLedger() *ledger {
	return &ledger{leases: map[uint64]claim{}, early: map[uint64]claim{}, changed: make(chan struct{}, 1)}
}

// add makes a lease known.
func (l *ledger) add(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leases[seq] = l.early[seq]
	delete(l.early, seq)
	l.newest = max(l.newest, seq)
}

// remove forgets a lease: whoever says that he holds it is told that he does not.
func (l *ledger) remove(seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.leases, seq)
}

// complete says that all leases of the queue are known. Until then nobody is told that he has lost one.
func (l *ledger) complete() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ready = true
}

// claim takes over what a node says it holds, and gives what it does not.
func (l *ledger) claim(node grid.NodeID, held []jetstream.HeldLease) (lost []uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range held {
		mine := claim{node: node, deliveries: h.Deliveries}
		now, known := l.leases[h.Seq]
		switch {
		case !l.ready:
		case !known && h.Seq > l.newest:
			l.early[h.Seq] = mine
		case !known:
			lost = append(lost, h.Seq)
		case now.node == "" || now.node == node:
			l.leases[h.Seq] = mine
		case h.Deliveries > now.deliveries:
			l.leases[h.Seq] = mine
			l.passLocked(passing{lease: h.Seq, from: now.node, to: node})
		default:
			lost = append(lost, h.Seq)
		}
	}
	return lost
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
func (l *ledger) of(node grid.NodeID) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []uint64
	for seq, c := range l.leases {
		if c.node == node {
			all = append(all, seq)
		}
	}
	return all
}

// void lists the leases that a node held in an earlier life and does not hold any more.
func (l *ledger) void(node grid.NodeID, held []jetstream.HeldLease) []uint64 {
	return slices.DeleteFunc(l.of(node), func(seq uint64) bool {
		return slices.ContainsFunc(held, func(h jetstream.HeldLease) bool { return h.Seq == seq })
	})
}

// holder is the node that holds a lease, "" while nobody has said so.
func (l *ledger) holder(seq uint64) grid.NodeID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leases[seq].node
}
