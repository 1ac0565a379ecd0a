package grid

import (
	"math/bits"

	"mlfnode/grid/ranges"
)

// Order is the order in which the trials of a sweep start.
type Order string

// The orders.
const (
	// By index: the first axis moves on once all other axes have run with its current value.
	OrderIndex  Order = ""
	OrderSpread Order = "spread" // in blocks from all over the sweep, see Spread

	OrderLongest Order = "longest_first" // the trials with the longest expected run time first
)

// Orders returns the orders that this program knows besides OrderIndex.
func Orders() []Order { return []Order{OrderSpread, OrderLongest} }

// Spread divides the trials of a sweep into blocks of neighbours and orders the blocks so that
// every part of the sweep is reached early: after any share of the blocks, each value of each axis
// has had about that share of its trials. Statistics of a half finished sweep therefore hold for
// all of it. Neighbours stay together because history stores them together.
//
// Eight neighbouring blocks form a group. Each round takes one block of every group, so that slow
// axes are covered evenly; which one differs pseudo-randomly between groups, so that no faster axis
// is in phase with the rounds. Within a round, the groups are visited in steps of about 0.618 of
// their number: multiples of the golden ratio spread evenly over a circle.
type Spread struct {
	count     int64
	blockSize int64 // trials per block
	groups    int64
	step      int64 // from one group to the next; coprime to groups
}

const (
	// spreadBlock is the number of trials per block in a large sweep: as many as history stores
	// together.
	spreadBlock = 512
	// fewBlocks is the minimum number of blocks in a smaller sweep, and manyBlocks the maximum in a
	// large one.
	fewBlocks  = 1024
	manyBlocks = 1 << 16
	groupSize  = 8
)

// NewSpread divides count trials.
func NewSpread(count int64) Spread {
	s := Spread{count: count, blockSize: 1}
	for s.blockSize < spreadBlock && s.blockSize*2*fewBlocks <= count {
		s.blockSize *= 2
	}
	for count/s.blockSize >= manyBlocks {
		s.blockSize *= 2
	}
	s.groups = (count + groupSize*s.blockSize - 1) / (groupSize * s.blockSize)
	s.step = max(1, int64(float64(s.groups)*0.6180339887498949+0.5))
	for !coprime(s.step, s.groups) {
		s.step--
	}
	return s
}

func coprime(a, b int64) bool {
	for b != 0 {
		a, b = b, a%b
	}
	return a <= 1
}

// Blocks returns the number of blocks; the last ones of the sweep can be empty.
func (s Spread) Blocks() int64 { return s.groups * groupSize }

// Block returns the trials of the nth block in order, counting from 0.
func (s Spread) Block(n int64) ranges.Range {
	round, group := n/s.groups, n%s.groups*s.step%s.groups
	lo := (group*groupSize + shuffled(group)[round]) * s.blockSize
	return ranges.Range{Lo: min(lo, s.count), Hi: min(lo+s.blockSize, s.count)}
}

// shuffled returns the numbers below groupSize in an order that depends on the group, by SplitMix64
// (Steele, Lea and Flood 2014).
func shuffled(group int64) (order [groupSize]int64) {
	for i := range order {
		order[i] = int64(i)
	}
	x := uint64(group)
	for i := groupSize - 1; i > 0; i-- {
		x += 0x9e3779b97f4a7c15
		z := (x ^ x>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		k, _ := bits.Mul64(z^z>>31, uint64(i+1))
		order[i], order[k] = order[k], order[i]
	}
	return order
}
