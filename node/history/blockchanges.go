package history

import (
	"slices"
	"sync"

	"mlfnode/grid"
)

// maxKnownChanges bounds the blocks whose last change is known. While a sweep runs at full rate,
// they last for some ten seconds.
const maxKnownChanges = 8192

// blockChanges tells readers which blocks have changed since they last read. Transactions are
// numbered, and a mark is the number of the last one: what is read after a mark was taken holds all
// changes up to it. The zero value knows of no change.
type blockChanges struct {
	mu      sync.Mutex
	last    uint64
	since   uint64           // changes are known of the transactions after this one
	changes map[int64]uint64 // the last transaction that changed a block
	open    []int64          // blocks that the current transaction changes; only its goroutine uses them
}

// mark returns the number of the last transaction.
func (c *blockChanges) mark() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last
}

// add adds a block to those that the current transaction changes.
func (c *blockChanges) add(block int64) {
	if n := len(c.open); n == 0 || c.open[n-1] != block {
		c.open = append(c.open, block)
	}
}

// publish makes the result of a transaction visible, once it has ended, and its changes known. A
// reader that saw the one without the other would keep what it reads for longer than it is valid.
func (c *blockChanges) publish(result func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	result()
	c.last++
	if len(c.changes)+len(c.open) > maxKnownChanges {
		c.since, c.changes = c.last, nil
	} else {
		if c.changes == nil {
			c.changes = map[int64]uint64{}
		}
		for _, block := range c.open {
			c.changes[block] = c.last
		}
	}
	c.open = c.open[:0]
}

// forget makes all marks worthless: what is in memory has been replaced.
func (c *blockChanges) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	c.since, c.changes, c.open = c.last, nil, nil
}

// changedSince reports for each block whether it has changed since a mark, or may have.
func (c *blockChanges) changedSince(mark uint64, blocks []int64) []bool {
	changed := make([]bool, len(blocks))
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, block := range blocks {
		changed[i] = mark < c.since || c.changes[block] > mark
	}
	return changed
}

// Mark returns a mark for Unchanged: what is read after it holds all changes up to it.
func (x *index) Mark() uint64 { return x.blocks.changes.mark() }

// Unchanged reports whether the trials [lo,hi) of a sweep are those of a mark. It may report false
// although they are.
func (x *index) Unchanged(id grid.SweepID, lo, hi int64, mark uint64) bool {
	s := x.sweep(id)
	if s == nil || lo < 0 || hi > maxIndex || lo >= hi {
		return false
	}
	var blocks []int64
	for b := rowID(s.Number, lo) >> blockBits; b <= rowID(s.Number, hi-1)>>blockBits; b++ {
		blocks = append(blocks, b)
	}
	return !slices.Contains(x.blocks.changes.changedSince(mark, blocks), true)
}
