package space

import (
	"math/bits"
	"slices"

	"mlfnode/grid/problem"
)

// Sample is a random part of a space: Size of its points, drawn without replacement. The same seed
// draws the same points in the same order, so a larger sample begins with a smaller one.
type Sample struct {
	Size int64  `json:"size"`
	Seed uint64 `json:"seed,omitempty"`
}

// RepeatKey is the axis by which a task with Repeat runs the same point repeatedly.
const RepeatKey = "repeat"

// Sampled returns a sample of a space that has never been extended. A sample of all points is the
// space itself. If repeated is set, the last axis is RepeatKey: points are drawn without it, and
// each of them takes all of its values.
func (s Space) Sampled(sample Sample, repeated bool) (Space, error) {
	each := int64(1)
	if last := len(s.axes.factors) - 1; repeated {
		switch {
		case last < 0 || s.axes.values[len(s.axes.values)-1].key != RepeatKey || s.axes.factors[last].isZip():
			return Space{}, problem.Errorf("Put it last.", "the axis %s is not the last one", RepeatKey)
		case s.axes.split() > last:
			return Space{}, problem.Errorf("Leave it out of exclude, or run all points.",
				"exclude names %s, but all points of a sample run equally often", RepeatKey)
		}
		each = s.axes.factors[last].count(s.axes.values)
	}
	switch {
	case sample.Size < 1:
		return Space{}, problem.Errorf("Give the number of points, from 1.", "the sample has %d points", sample.Size)
	case sample.Size >= s.Count()/each:
		return s, nil
	case len(s.products) != 1 || s.products[0].drawn != nil:
		return Space{}, problem.Errorf("Draw from the space as it was given.",
			"the space was sampled or extended already")
	}
	b := s.products[0]
	part := &product{lo: b.lo, hi: b.hi, kept: b.kept, tail: b.tail, bits: b.bits}
	part.drawn = &sampleRange{shuffle: newShuffle(b.count()/each, sample.Seed), hi: sample.Size, each: each}
	s.products = products{part}
	return s, nil
}

// Sample returns the space's sample, as far as it has been drawn, and the number of points that it
// was drawn from; ok is false if the space is not a sample.
func (s Space) Sample() (sample Sample, of int64, ok bool) {
	for _, b := range s.products {
		if b.drawn != nil {
			sample, of, ok = Sample{Size: b.drawn.hi, Seed: b.drawn.shuffle.seed}, b.drawn.shuffle.n, true
		}
	}
	return sample, of, ok
}

// Draw adds points to a sample, at most as many as remain. The old ones keep their indexes.
func (s Space) Draw(more int64) (Space, error) {
	sample, of, ok := s.Sample()
	switch {
	case !ok:
		return Space{}, problem.Errorf("Add values to an axis.",
			"the sweep is not a sample, so all points of its grid are there")
	case more < 1:
		return Space{}, problem.Errorf("Give the number of points, from 1.", "%d points are to be added to the sample",
			more)
	case sample.Size >= of:
		return Space{}, problem.Errorf("Add values to an axis.", "all %d points of the grid are there", of)
	}
	first := s.products[0]
	b := &product{lo: first.lo, hi: first.hi, kept: first.kept, tail: first.tail, bits: first.bits}
	b.drawn = &sampleRange{shuffle: first.drawn.shuffle, lo: sample.Size, hi: sample.Size + min(more, of-sample.Size),
		each: first.drawn.each}
	s.products = slices.Clip(s.products)
	return s, s.products.append(b)
}

// sampleRange is the sampled part of a product: the points from lo up to hi of the shuffled order.
type sampleRange struct {
	shuffle shuffle
	lo, hi  int64
	each    int64 // runs of each of these points
}

// shuffle is a pseudo-random permutation of the numbers below n, without a list of them: a Feistel
// network over the next power of 4, repeated until the result is below n (Black and Rogaway 2002,
// "Ciphers with arbitrary finite domains").
type shuffle struct {
	n    int64
	seed uint64
	half uint // bits in each half of a number
}

func newShuffle(n int64, seed uint64) shuffle {
	return shuffle{n: n, seed: seed, half: uint(bits.Len64(uint64(n-1))+1) / 2}
}

// shuffleRounds is more than the 4 rounds that make a Feistel network a good permutation, because
// its halves are small here.
const shuffleRounds = 8

// at returns the number at position i.
func (s shuffle) at(i int64) int64 {
	for x := uint64(i); ; {
		left, right := x>>s.half, x&s.mask()
		for round := range uint64(shuffleRounds) {
			left, right = right, left^s.scramble(round, right)
		}
		if x = left<<s.half | right; x < uint64(s.n) {
			return int64(x)
		}
	}
}

// inverse is the inverse of at.
func (s shuffle) inverse(v int64) int64 {
	for x := uint64(v); ; {
		left, right := x>>s.half, x&s.mask()
		for round := uint64(shuffleRounds); round > 0; round-- {
			left, right = right^s.scramble(round-1, left), left
		}
		if x = left<<s.half | right; x < uint64(s.n) {
			return int64(x)
		}
	}
}

func (s shuffle) mask() uint64 { return 1<<s.half - 1 }

// scramble is the round function: the finalizer of SplitMix64 (Steele, Lea and Flood 2014) over the
// seed, the round and a half.
func (s shuffle) scramble(round, half uint64) uint64 {
	z := s.seed + (half<<4|round+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return (z ^ z>>31) & s.mask()
}
