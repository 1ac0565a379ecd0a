// Package space implements the parameter spaces of sweeps: axes and their values, parsed from
// parameters.yml, tables and --set, and the points, which are computed from their index and never
// materialised.
//
// A Space is all combinations of the values of its Axes, except for those that exclude expressions
// remove, or a random sample of them. Extending a space keeps the indexes of its points. Each Value
// keeps the text that the user wrote, and programs receive that text.
package space

import (
	"fmt"
	"slices"

	"mlfnode/grid/problem"
)

// Space is the parameter space of a sweep: all combinations of its axes' values, except for the
// excluded ones. The last axis varies fastest. Points are computed from their index, so a space of
// 10^12 points takes only as much memory as its axes. The zero value has one point without
// parameters. A Space is immutable and safe for concurrent use.
type Space struct {
	axes     axisSet
	products products
}

// New returns the space of the axes without the points for which an exclude expression is true.
// Expressions refer to axes by name and compare numbers with numbers and text with text: `batchsize
// == 500 and unit > 100`.
func New(axes []Axis, exclude []string) (Space, error) {
	if len(axes) > maxAxes {
		return Space{}, tooManyAxes(len(axes))
	}
	var s Space
	for _, a := range axes {
		if f := s.axes.add(a); f != nil {
			return Space{}, f
		}
	}
	if len(exclude) > 0 {
		r, err := compileExclude(slices.Clone(exclude), s.axes.values)
		if err != nil {
			return Space{}, err
		}
		s.axes.rules = r
	}
	if err := s.products.add(s.axes.product(), &s.axes); err != nil {
		return Space{}, err
	}
	if s.Count() == 0 {
		return Space{}, problem.Errorf("Loosen them.", "the exclude expressions leave no point of the space")
	}
	return s, nil
}

// Definition returns the axes as they were given, and the exclude expressions. The extensions of an
// axis follow it, with the same key.
func (s Space) Definition() (axes []Axis, exclude []string) {
	for _, w := range s.axes.factors {
		if w.isZip() {
			axes = append(axes, w.axes...)
		} else {
			axes = append(axes, s.axes.values[w.at].axes...)
		}
	}
	if s.axes.rules != nil {
		exclude = slices.Clone(s.axes.rules.sources)
	}
	return axes, exclude
}

// Keys returns the keys of the axes in order.
func (s Space) Keys() []string { return s.axes.keys() }

// Values returns the values of each axis, in the order of Keys.
func (s Space) Values() []*Values { return slices.Clip(s.axes.values) }

// Count returns the number of points.
func (s Space) Count() int64 {
	if len(s.products) == 0 {
		return 1
	}
	return s.products.end()
}

// At returns the point with index i. It returns an error if i is not in [0,Count), or if the space
// was decoded from a record that contradicts itself.
func (s Space) At(i int64) (Params, error) {
	if i < 0 || i >= s.Count() {
		return nil, fmt.Errorf("the space has %d points, so there is no point %d", s.Count(), i)
	}
	p := make(Params, len(s.axes.values))
	if len(p) == 0 {
		return p, nil
	}
	b := s.products.of(i)
	i = b.combination(i - b.start)
	factors, split := len(s.axes.factors), 0
	if s.axes.rules != nil {
		left, err := b.remaining(&s.axes)
		if err != nil {
			return nil, err
		}
		split = s.axes.split()
		s.axes.fill(p, b, 0, split, left.nth(i/b.tail))
		i %= b.tail
	}
	s.axes.fill(p, b, split, factors, i)
	return p, nil
}

// Index is the inverse of At. The parameters may be in any order; ok is false if they are not a
// point of the space.
func (s Space) Index(p Params) (index int64, ok bool) {
	if len(p) != len(s.axes.values) {
		return 0, false
	}
	at := make([]int64, len(p))
	for k, v := range s.axes.values {
		q := &p[k]
		if q.Key != v.key {
			if q = p.Find(v.key); q == nil {
				return 0, false
			}
		}
		if at[k], ok = v.Find(q.Value); !ok {
			return 0, false
		}
	}
	return s.IndexAt(at)
}

// IndexAt returns the index of the point whose values have these numbers; ok is false if there is
// none.
func (s Space) IndexAt(at []int64) (index int64, ok bool) {
	if len(at) != len(s.axes.values) {
		return 0, false
	}
	positions := make([]int64, len(s.axes.factors))
	for k, w := range s.axes.factors {
		if positions[k], ok = w.position(at); !ok {
			return 0, false
		}
	}
	for _, b := range s.products {
		if i, ok := b.indexOf(&s.axes, positions); ok {
			return i, true
		}
	}
	return 0, len(s.axes.values) == 0
}

// Positions stores in dest, for each axis, the numbers of the values of the points from lo up to
// hi. dest has one slice per axis, with one element per point. It returns an error if the space was
// read from a record that contradicts itself. Elements past the last point are not changed.
func (s Space) Positions(lo, hi int64, dest [][]int64) error {
	hi = min(hi, s.Count())
	if len(s.axes.values) == 0 {
		return nil
	}
	for at := lo; at < hi; {
		b := s.products.of(at)
		end := min(hi, b.start+b.count())
		if err := b.positions(&s.axes, at-b.start, end-b.start, at-lo, dest); err != nil {
			return err
		}
		at = end
	}
	return nil
}

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
	all, values := make([]Product, len(s.products)), s.axes.values
	for i, b := range s.products {
		p := Product{Lo: make([]int64, len(values)), Hi: make([]int64, len(values)), Start: b.start, Count: b.count(),
			Whole: true}
		n := int64(1)
		for k, w := range s.axes.factors {
			n *= b.hi[k] - b.lo[k] // does not overflow: the size was checked
			if !w.isZip() {
				p.Lo[w.at], p.Hi[w.at] = b.lo[k], b.hi[k]
				continue
			}
			p.Whole = false
			for c, v := range values[w.at : w.at+w.n] {
				p.Hi[w.at+c] = v.Count()
			}
		}
		p.Whole = p.Whole && n == p.Count
		all[i] = p
	}
	return all
}

// Find returns the parameter with the given key, or nil.
func (p Params) Find(key string) *Param {
	for k := range p {
		if p[k].Key == key {
			return &p[k]
		}
	}
	return nil
}
