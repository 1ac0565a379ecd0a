package grid

import (
	"math/bits"

	"mlfnode/grid/ranges"
)

// Order is the order in which the trials of a sweep begin.
type Order string

// The orders.
const (
	OrderIndex  Order = ""       // by index: the first axis comes to its second value when all else has run with the first
	OrderSpread Order = "spread" // in blocks from all over the sweep, see Spread

	OrderLongest Order = "longest_first" // those that are expected to run longest
)

// Orders are the orders that this program knows beside that by index.
func Orders() []Order { return []Order{OrderSpread, OrderLongest} }

// Spread divides the trials of a sweep into blocks of neighbours and puts these in an order in which every part of the sweep is met
// early: of any share of the blocks, each value of each axis has had about that share of its trials. So what is known of a sweep that
// is half done holds for all of it. Neighbours stay together since history keeps them together.
//
// Eight neighbouring blocks make a group. One round after the other takes one block of each group, so that the axes that vary slowly are
// met evenly, and which one that is differs from group to group as if by chance, so that no axis that varies faster keeps step with it.
// Within a round the groups come in steps of about 0.618 of all: multiples of the golden ratio spread evenly over a circle.
type Spread struct {
	count     int64
	blockSize int64 // of a block
	groups    int64
	step      int64 // from one group to the next; it has no divisor in common with groups
}

const (
	// spreadBlock is how many trials a block has in a sweep of many: as many as history keeps together.
	spreadBlock = 512
	// fewBlocks is the least number of blocks of a smaller sweep, and manyBlocks the most of a large one.
	fewBlocks  = 1024
	manyBlocks = 1 << 16
	groupSize  = 8
)

// NewSpread divides so many trials.
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
	for divisor(s.step, s.groups) > 1 {
		s.step--
	}
	return s
}

// divisor is the greatest common one.
func divisor(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// Blocks is how many blocks there are; the last ones of the sweep may be empty.
func (s Spread) Blocks() int64 { return s.groups * groupSize }

// Block returns the trials of the block that is the nth in order, from 0 on.
func (s Spread) Block(n int64) ranges.Range {
	round, group := n/s.groups, n%s.groups*s.step%s.groups
	lo := (group*groupSize + shuffled(group)[round]) * s.blockSize
	return ranges.Range{Lo: min(lo, s.count), Hi: min(lo+s.blockSize, s.count)}
}

// shuffled returns the numbers below groupSize in an order that differs from group to group, by SplitMix64 (Steele, Lea and Flood 2014).
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
