package space

import (
	"math"
	"math/bits"
	"sync"

	"mlfnode/grid/condition"
	"mlfnode/grid/problem"
)

// maxFiltered bounds the combinations on which exclude expressions are evaluated: about two
// seconds, and one bit of memory each.
const maxFiltered = 10_000_000

// product is all combinations of ranges of values, except for the excluded ones. A new space has
// one product; extending a space adds more.
type product struct {
	lo, hi []int64      // the range of positions of each factor
	kept   int64        // number of combinations of the first factors that remain; the other factors stay a formula
	tail   int64        // number of points for each of these
	start  int64        // index of the first point
	drawn  *sampleRange // the sampled points and their order; nil for all of them
	once   sync.Once
	bits   *bitmap // the combinations that remain; nil without expressions
	broken error   // the record contradicts the expressions
}

func (b *product) count() int64 {
	if b.drawn != nil {
		return (b.drawn.hi - b.drawn.lo) * b.drawn.each
	}
	return b.kept * b.tail
}

// combination returns the number of the product's point i among the combinations that are not
// excluded.
func (b *product) combination(i int64) int64 {
	if b.drawn == nil {
		return i
	}
	d := b.drawn
	return d.shuffle.at(d.lo+i/d.each)*d.each + i%d.each
}

// index is the inverse of combination.
func (b *product) index(combination int64) (i int64, ok bool) {
	if b.drawn == nil {
		return combination, true
	}
	d := b.drawn
	i = d.shuffle.inverse(combination / d.each)
	return (i-d.lo)*d.each + combination%d.each, i >= d.lo && i < d.hi
}

// countPoints sets kept and tail of a product without exclusions, with the first split factors in
// kept.
func (b *product) countPoints(split int) *problem.Error {
	b.kept, b.tail = 1, 1
	for k := range b.lo {
		n := b.hi[k] - b.lo[k]
		var ok bool
		if k < split {
			b.kept, ok = multiply(b.kept, n)
		} else {
			b.tail, ok = multiply(b.tail, n)
		}
		if !ok {
			return tooMany()
		}
	}
	if _, ok := multiply(b.kept, b.tail); !ok {
		return tooMany()
	}
	return nil
}

func tooMany() *problem.Error {
	return problem.Errorf("Give fewer values or split it into several sweeps.",
		"the space has more points than 64 bits can count")
}

func multiply(a, b int64) (int64, bool) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	return int64(lo), hi == 0 && lo <= math.MaxInt64
}

// filter evaluates the expressions on every combination of the axes up to the last one that they
// mention.
func (b *product) filter(s *Space) (*bitmap, int64, error) {
	split := s.split()
	n := int64(1)
	for k := range split {
		var ok bool
		if n, ok = multiply(n, b.hi[k]-b.lo[k]); !ok || n > maxFiltered {
			return nil, 0, problem.Errorf("Move the axes that exclude names to the top of the file, or give them fewer values.",
				"the exclude expressions would have to look at more than %d combinations, those of all axes down to %s", maxFiltered, s.dims[s.rules.last].key)
		}
	}
	left := newBitmap(n)
	values := make([]condition.Value, len(s.dims))
	digits := append([]int64(nil), b.lo[:split]...)
	for k := range split {
		s.operands(values, k, digits[k])
	}
	for i := range n {
		out, err := s.rules.exclude(values)
		if err != nil {
			return nil, 0, err
		}
		if !out {
			left.set(i)
		}
		b.step(s, digits, values)
	}
	return left, left.buildRanks(), nil
}

// step advances to the next combination; the last factor varies fastest.
func (b *product) step(s *Space, digits []int64, values []condition.Value) {
	for k := len(digits) - 1; k >= 0; k-- {
		if digits[k]++; digits[k] == b.hi[k] {
			digits[k] = b.lo[k]
		}
		s.operands(values, k, digits[k])
		if digits[k] != b.lo[k] {
			return
		}
	}
}

// operands sets the values of a factor's axes at a position.
func (s *Space) operands(values []condition.Value, k int, position int64) {
	w := s.factors[k]
	for c, d := range s.dims[w.at : w.at+w.n] {
		values[w.at+c] = operand(d.at(w.digit(position, c)))
	}
}

// exclude reports whether one of the expressions is true at a point.
func (r *excludeRules) exclude(values []condition.Value) (bool, error) {
	for k, c := range r.conditions {
		if holds, err := c.Holds(values); err != nil {
			return false, badExpression(r.sources[k], err)
		} else if holds {
			return true, nil
		}
	}
	return false, nil
}

// remaining returns the bitmap, which a space decoded from its record builds on first use. It
// returns an error if the record contradicts the expressions: someone has modified it, or a program
// of another version interprets expressions differently.
func (b *product) remaining(s *Space) (*bitmap, error) {
	b.once.Do(func() {
		if b.bits != nil {
			return
		}
		left, kept, err := b.filter(s)
		if err == nil && kept != b.kept {
			err = problem.Errorf("Submit the sweep again.",
				"the sweep's record says that exclude leaves %d combinations, but it leaves %d", b.kept, kept)
		}
		b.bits, b.broken = left, err
	})
	return b.bits, b.broken
}
