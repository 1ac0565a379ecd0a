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

// products are the parts of a space in the order of their points.
type products []*product

// end returns the index after the last point.
func (p products) end() int64 {
	if len(p) == 0 {
		return 0
	}
	last := p[len(p)-1]
	return last.start + last.count()
}

// of returns the product that has point i.
func (p products) of(i int64) *product {
	k := len(p) - 1
	for p[k].start > i {
		k--
	}
	return p[k]
}

// add appends a product of which only the ranges are known, without its excluded points.
func (p *products) add(b *product, x *axisSet) error {
	if f := b.countPoints(x.split()); f != nil {
		return f
	}
	if x.rules != nil {
		left, kept, err := b.filter(x)
		if err != nil {
			return err
		}
		b.bits, b.kept = left, kept
	}
	return p.append(b)
}

// append appends a product whose size is known.
func (p *products) append(b *product) error {
	b.start = p.end()
	if b.count() > math.MaxInt64-b.start {
		return tooMany()
	}
	*p = append(*p, b)
	return nil
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

// indexOf returns the index of the point with these positions of the factors, if the product
// contains it.
func (b *product) indexOf(x *axisSet, at []int64) (int64, bool) {
	for k := range at {
		if at[k] < b.lo[k] || at[k] >= b.hi[k] {
			return 0, false
		}
	}
	head, tail := int64(0), int64(0)
	split := x.split()
	for k := range at {
		n := b.hi[k] - b.lo[k]
		if k < split {
			head = head*n + at[k] - b.lo[k]
		} else {
			tail = tail*n + at[k] - b.lo[k]
		}
	}
	if x.rules != nil {
		left, err := b.remaining(x)
		if err != nil || !left.has(head) {
			return 0, false
		}
		head = left.rank(head)
	}
	i := head*b.tail + tail
	d := b.drawn
	if d == nil {
		return b.start + i, true
	}
	drawn := d.shuffle.inverse(i / d.each)
	return b.start + (drawn-d.lo)*d.each + i%d.each, drawn >= d.lo && drawn < d.hi
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
func (b *product) filter(x *axisSet) (*bitmap, int64, error) {
	split := x.split()
	n := int64(1)
	for k := range split {
		var ok bool
		if n, ok = multiply(n, b.hi[k]-b.lo[k]); !ok || n > maxFiltered {
			return nil, 0, problem.Errorf(
				"Move the axes that exclude names to the top of the file, or give them fewer values.",
				"the exclude expressions would have to be evaluated on more than %d combinations, those of all axes "+
					"down to %s",
				maxFiltered, x.values[x.rules.last].key)
		}
	}
	left := newBitmap(n)
	values := make([]condition.Value, len(x.values))
	digits := append([]int64(nil), b.lo[:split]...)
	for k := range split {
		x.operands(values, k, digits[k])
	}
	for i := range n {
		out, err := x.rules.exclude(values)
		if err != nil {
			return nil, 0, err
		}
		if !out {
			left.set(i)
		}
		for k := split - 1; k >= 0; k-- { // the last factor varies fastest
			if digits[k]++; digits[k] == b.hi[k] {
				digits[k] = b.lo[k]
			}
			x.operands(values, k, digits[k])
			if digits[k] != b.lo[k] {
				break
			}
		}
	}
	return left, left.buildRanks(), nil
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
func (b *product) remaining(x *axisSet) (*bitmap, error) {
	b.once.Do(func() {
		if b.bits != nil {
			return
		}
		left, kept, err := b.filter(x)
		if err == nil && kept != b.kept {
			err = problem.Errorf("Submit the sweep again.",
				"the sweep's record says that exclude leaves %d combinations, but it leaves %d", b.kept, kept)
		}
		b.bits, b.broken = left, err
	})
	return b.bits, b.broken
}

// positions stores the points from lo up to hi at index to, as Space.Positions does.
func (b *product) positions(x *axisSet, lo, hi, to int64, dest [][]int64) error {
	n := len(x.factors)
	split := x.split()
	var left *bitmap
	if x.rules != nil {
		var err error
		if left, err = b.remaining(x); err != nil {
			return err
		}
	}
	digits := make([]int64, n)
	var head int64
	seek := func(i int64) {
		i = b.combination(i)
		if head = i / b.tail; left != nil {
			head = left.nth(head)
		}
		b.digits(digits, 0, split, head)
		b.digits(digits, split, n, i%b.tail)
	}
	seek(lo)
	for at := lo; at < hi; at++ {
		for k, w := range x.factors {
			for c := range w.n {
				dest[w.at+c][to] = w.digit(digits[k], c)
			}
		}
		to++
		if b.drawn != nil {
			if at+1 < hi {
				seek(at + 1)
			}
			continue
		}
		k := n - 1
		for ; k >= split; k-- {
			if digits[k]++; digits[k] < b.hi[k] {
				break
			}
			digits[k] = b.lo[k]
		}
		if k < split && left != nil && at+1 < hi {
			head = left.next(head)
			b.digits(digits, 0, split, head)
		}
	}
	return nil
}

// digits sets the factors from up to to according to the number of their combination.
func (b *product) digits(dest []int64, from, to int, i int64) {
	for k := to - 1; k >= from; k-- {
		n := b.hi[k] - b.lo[k]
		dest[k] = b.lo[k] + i%n
		i /= n
	}
}
