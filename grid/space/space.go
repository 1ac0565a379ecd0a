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
	"math"
	"slices"

	"mlfnode/grid/problem"
)

// Space is the parameter space of a sweep: all combinations of its axes' values, except for the
// excluded ones. The last axis varies fastest. Points are computed from their index, so a space of
// 10^12 points takes only as much memory as its axes. The zero value has one point without
// parameters. A Space is immutable and safe for concurrent use.
type Space struct {
	dims     []*dimension  // one for each key
	factors  []*factor     // the factors of the combinations
	rules    *excludeRules // nil without exclude expressions
	products []*product
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
		if f := s.append(a); f != nil {
			return Space{}, f
		}
	}
	if len(exclude) > 0 {
		r, err := compileExclude(slices.Clone(exclude), s.dims)
		if err != nil {
			return Space{}, err
		}
		s.rules = r
	}
	if err := s.appendFiltered(s.whole()); err != nil {
		return Space{}, err
	}
	if s.Count() == 0 {
		return Space{}, problem.Errorf("Loosen them.", "the exclude expressions leave no point of the space")
	}
	return s, nil
}

func tooManyAxes(n int) *problem.Error {
	return problem.Errorf("Turn those with one value into constants in a file.", "the space has %d axes, more than %d",
		n, maxAxes)
}

// append adds an axis after the others.
func (s *Space) append(a Axis) *problem.Error {
	if n := len(s.dims) + len(a.keys()); n > maxAxes {
		return tooManyAxes(n)
	}
	w, dims, f := newFactor(a, len(s.dims))
	if f != nil {
		return f
	}
	for i, d := range dims {
		if s.dim(d.key) >= 0 || slices.ContainsFunc(dims[:i], func(e *dimension) bool { return e.key == d.key }) {
			return problem.Errorf("Put all its values in one place.", "the axis %s is given twice", d.key)
		}
	}
	s.factors, s.dims = append(s.factors, w), append(s.dims, dims...)
	return s.checkCells()
}

// checkCells bounds the memory of zipped axes.
func (s *Space) checkCells() *problem.Error {
	cells := 0
	for _, w := range s.factors {
		cells += len(w.rows)
	}
	if cells > maxCells {
		return tooManyCells()
	}
	return nil
}

// dim returns the index of an axis, or -1.
func (s *Space) dim(key string) int {
	return slices.IndexFunc(s.dims, func(d *dimension) bool { return d.key == key })
}

// whole returns the product of all values of all axes.
func (s Space) whole() *product {
	b := &product{}
	for _, w := range s.factors {
		b.lo, b.hi = append(b.lo, 0), append(b.hi, w.count(s.dims))
	}
	return b
}

// appendFiltered appends a product without its excluded points.
func (s *Space) appendFiltered(b *product) error {
	if f := b.countPoints(s.split()); f != nil {
		return f
	}
	if s.rules != nil {
		left, kept, err := b.filter(s)
		if err != nil {
			return err
		}
		b.bits, b.kept = left, kept
	}
	return s.appendProduct(b)
}

// appendProduct appends a product whose size is known.
func (s *Space) appendProduct(b *product) error {
	if b.start = s.Count(); len(s.products) == 0 {
		b.start = 0
	}
	if b.count() > math.MaxInt64-b.start {
		return tooMany()
	}
	s.products = append(s.products, b)
	return nil
}

// split returns the number of factors that expressions depend on.
func (s *Space) split() int {
	if s.rules == nil {
		return 0
	}
	for k, w := range s.factors {
		if w.at > s.rules.last {
			return k
		}
	}
	return len(s.factors)
}

// Keys returns the keys of the axes in order.
func (s Space) Keys() []string {
	keys := make([]string, len(s.dims))
	for k, d := range s.dims {
		keys[k] = d.key
	}
	return keys
}

// Axes returns the axes as they were given. The extensions of an axis follow it, with the same key.
func (s Space) Axes() []Axis {
	var all []Axis
	for _, w := range s.factors {
		if w.isZip() {
			all = append(all, w.axes...)
		} else {
			all = append(all, s.dims[w.at].axes...)
		}
	}
	return all
}

// Exclude returns the exclude expressions.
func (s Space) Exclude() []string {
	if s.rules == nil {
		return nil
	}
	return slices.Clone(s.rules.sources)
}

// HasLists reports whether a value of the space is a list of arguments.
func (s Space) HasLists() bool {
	return slices.ContainsFunc(s.dims, func(d *dimension) bool {
		return slices.ContainsFunc(d.pieces, func(p series) bool {
			l, ok := p.(*list)
			return ok && l.lists
		})
	})
}

// HasZip reports whether the space has zipped axes.
func (s Space) HasZip() bool { return slices.ContainsFunc(s.factors, (*factor).isZip) }

// Count returns the number of points.
func (s Space) Count() int64 {
	if len(s.products) == 0 {
		return 1
	}
	last := s.products[len(s.products)-1]
	return last.start + last.count()
}

// At returns the point with index i. It returns an error if i is not in [0,Count), or if the space
// was decoded from a record that contradicts itself.
func (s Space) At(i int64) (Params, error) {
	if i < 0 || i >= s.Count() {
		return nil, fmt.Errorf("the space has %d points, so there is no point %d", s.Count(), i)
	}
	p := make(Params, len(s.dims))
	if len(s.dims) == 0 {
		return p, nil
	}
	b := s.products[s.productOf(i)]
	i = b.combination(i - b.start)
	if s.rules != nil {
		left, err := b.remaining(&s)
		if err != nil {
			return nil, err
		}
		head := left.nth(i / b.tail)
		s.fill(p, b, s.split(), len(s.factors), i%b.tail)
		s.fill(p, b, 0, s.split(), head)
		return p, nil
	}
	s.fill(p, b, 0, len(s.factors), i)
	return p, nil
}

func (s Space) productOf(i int64) int {
	k := len(s.products) - 1
	for s.products[k].start > i {
		k--
	}
	return k
}

// fill sets the axes of the factors from up to to according to the number of their combination.
func (s *Space) fill(p Params, b *product, from, to int, i int64) {
	for k := to - 1; k >= from; k-- {
		n := b.hi[k] - b.lo[k]
		w, position := s.factors[k], b.lo[k]+i%n
		for c, d := range s.dims[w.at : w.at+w.n] {
			p[w.at+c] = Param{Key: d.key, Value: d.at(w.digit(position, c))}
		}
		i /= n
	}
}

// Index is the inverse of At. The parameters may be in any order; ok is false if they are not a
// point of the space.
func (s Space) Index(p Params) (index int64, ok bool) {
	if len(p) != len(s.dims) {
		return 0, false
	}
	at := make([]int64, len(s.dims))
	for k, d := range s.dims {
		q := &p[k]
		if q.Key != d.key {
			if q = p.Find(d.key); q == nil {
				return 0, false
			}
		}
		if at[k], ok = d.find(q.Value); !ok {
			return 0, false
		}
	}
	return s.IndexAt(at)
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

// indexIn returns the index of a combination of positions of the factors, if the product contains
// it.
func (s *Space) indexIn(b *product, at []int64) (int64, bool) {
	for k := range at {
		if at[k] < b.lo[k] || at[k] >= b.hi[k] {
			return 0, false
		}
	}
	head, tail := int64(0), int64(0)
	split := s.split()
	for k := range at {
		n := b.hi[k] - b.lo[k]
		if k < split {
			head = head*n + at[k] - b.lo[k]
		} else {
			tail = tail*n + at[k] - b.lo[k]
		}
	}
	if s.rules != nil {
		left, err := b.remaining(s)
		if err != nil || !left.has(head) {
			return 0, false
		}
		head = left.rank(head)
	}
	i, ok := b.index(head*b.tail + tail)
	return b.start + i, ok
}
