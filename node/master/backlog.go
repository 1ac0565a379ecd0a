package master

import (
	"iter"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/grid/space"
)

// backlog says which trials of a sweep have ended, which somebody has, and in which order the
// others start.
type backlog struct {
	count    int64
	done     ranges.Set // terminal
	assigned ranges.Set // done, leased, or in retries

	order      blockOrder    // nil for trials that start by index
	longest    *longestFirst // the order with grid.OrderLongest; else nil
	firstBlock int64         // the blocks before this one are assigned
	reordered  bool          // leases in the previous order wait in the queue
}

// blockOrder divides the trials of a sweep into blocks, which start one after the other.
type blockOrder interface {
	Blocks() int64
	Block(n int64) ranges.Range
}

// setSpace sets the trials, or adds those by which the space was extended.
func (b *backlog) setSpace(order grid.Order, s space.Space) {
	count := s.Count()
	if count == b.count {
		return
	}
	b.count, b.firstBlock = count, 0
	switch {
	case order == grid.OrderSpread:
		b.order = grid.NewSpread(count)
	case b.longest != nil:
		b.longest.extend(s)
	case order == grid.OrderLongest:
		b.longest = newLongestFirst(s)
		b.order = b.longest
	}
}

// missing yields the trials that nobody has, in the order in which they start.
func (b *backlog) missing() iter.Seq[ranges.Range] {
	return func(yield func(ranges.Range) bool) {
		blocks, block := int64(1), ranges.Range{Lo: 0, Hi: b.count}
		if b.order != nil {
			blocks = b.order.Blocks()
		}
		for n := b.firstBlock; n < blocks; n++ {
			if b.order != nil {
				block = b.order.Block(n)
			}
			gap, some := b.assigned.Gap(block.Lo, block.Hi)
			if !some && n == b.firstBlock {
				b.firstBlock++
			}
			for ; some; gap, some = b.assigned.Gap(gap.Hi, block.Hi) {
				if !yield(gap) {
					return
				}
			}
		}
	}
}

// complete reports whether every trial of the sweep is terminal.
func (b *backlog) complete() bool { return b.done.Count() >= b.count }

// addRunTime records how long a trial ran that has succeeded. When the first order by run times is
// known, leases that wait in the queue are to be withdrawn.
func (b *backlog) addRunTime(index int64, ran time.Duration) {
	if b.longest == nil {
		return
	}
	b.longest.addRunTime(index, ran)
	first := b.longest.order == nil
	if b.longest.reorder() {
		b.firstBlock = 0
		b.reordered = b.reordered || first
	}
}
