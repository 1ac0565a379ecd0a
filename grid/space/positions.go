package space

import (
	"math/bits"

	"mlfnode/grid/ranges"
)

// Product is a part of a space with its own range of indexes: all combinations of ranges of values,
// except for the excluded ones.
type Product struct {
	Lo, Hi []int64 // the range of values of each axis
	Start  int64   // index of the first point
	Count  int64   // number of points
	Whole  bool    // it has all combinations: none is excluded or missing from a sample, and no axes are zipped
}

// Products returns the parts of the space in the order of their points.
func (s Space) Products() []Product {
	all := make([]Product, len(s.products))
	for i, b := range s.products {
		p := Product{Lo: make([]int64, len(s.dims)), Hi: make([]int64, len(s.dims)), Start: b.start, Count: b.count(),
			Whole: true}
		n := int64(1)
		for k, w := range s.factors {
			n *= b.hi[k] - b.lo[k] // does not overflow: the size was checked
			if !w.isZip() {
				p.Lo[w.at], p.Hi[w.at] = b.lo[k], b.hi[k]
				continue
			}
			p.Whole = false
			for c, d := range s.dims[w.at : w.at+w.n] {
				p.Hi[w.at+c] = d.count()
			}
		}
		p.Whole = p.Whole && n == p.Count
		all[i] = p
	}
	return all
}

// Sizes returns the number of values of each axis.
func (s Space) Sizes() []int64 {
	sizes := make([]int64, len(s.dims))
	for k, d := range s.dims {
		sizes[k] = d.count()
	}
	return sizes
}

// Value returns value number i of an axis, for i from 0 up to its size.
func (s Space) Value(axis int, i int64) Value { return s.dims[axis].at(i) }

// Find returns the number of a value of an axis.
func (s Space) Find(axis int, v Value) (int64, bool) { return s.dims[axis].find(v) }

// Within adds the numbers of an axis's numeric values from lo to hi, inclusive, to into.
func (s Space) Within(axis int, lo, hi float64, into *ranges.Set) { s.dims[axis].within(lo, hi, into) }

// IndexAt returns the index of the point whose values have these numbers; ok is false if there is
// none.
func (s Space) IndexAt(at []int64) (index int64, ok bool) {
	if len(at) != len(s.dims) {
		return 0, false
	}
	positions := make([]int64, len(s.factors))
	for k, w := range s.factors {
		if positions[k], ok = w.position(at); !ok {
			return 0, false
		}
	}
	for _, b := range s.products {
		if i, ok := s.indexIn(b, positions); ok {
			return i, true
		}
	}
	return 0, len(s.dims) == 0
}

// Positions stores in dest, for each axis, the numbers of the values of the points from lo up to
// hi. dest has one slice per axis, with one element per point. It returns an error if the space was
// read from a record that contradicts itself. Elements past the last point are not changed.
func (s Space) Positions(lo, hi int64, dest [][]int64) error {
	hi = min(hi, s.Count())
	if len(s.dims) == 0 {
		return nil
	}
	for at := lo; at < hi; {
		b := s.products[s.productOf(at)]
		end := min(hi, b.start+b.count())
		if err := s.positions(b, at-b.start, end-b.start, at-lo, dest); err != nil {
			return err
		}
		at = end
	}
	return nil
}

// positions stores the points from lo up to hi of a product at index to.
func (s *Space) positions(b *product, lo, hi, to int64, dest [][]int64) error {
	n := len(s.factors)
	split := s.split()
	var left *bitmap
	if s.rules != nil {
		var err error
		if left, err = b.remaining(s); err != nil {
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
		for k, w := range s.factors {
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

// next returns the member after i, which must exist.
func (b *bitmap) next(i int64) int64 {
	i++
	for w := i / 64; ; w++ {
		word := b.words[w]
		if w == i/64 {
			word &= ^uint64(0) << (i % 64)
		}
		if word != 0 {
			return w*64 + int64(bits.TrailingZeros64(word))
		}
	}
}
