package grid

import (
	"fmt"
	"math"
	"slices"
)

// Space is the parameter space of a sweep: all combinations of its axes' values, less those that are excluded. The last axis
// varies fastest. Points are computed from their index, so a space of 10^12 points takes as little memory as its axes do.
// The zero value has one point without parameters. A Space never changes and may be used by several goroutines.
type Space struct {
	dims   []*dimension
	rules  *rules // nil without exclude expressions
	blocks []*block
}

// NewSpace makes the space of the axes without the points for which an exclude expression is true. Expressions name the axes
// and compare numbers with numbers and text with text: `batchsize == 500 and unit > 100`.
func NewSpace(axes []Axis, exclude []string) (Space, error) {
	if len(axes) > maxOptions {
		return Space{}, flawf("Make those with one value constants in a file.", "the space has %d axes, more than %d", len(axes), maxOptions)
	}
	dims, f := newDimensions(axes)
	if f != nil {
		return Space{}, f
	}
	s := Space{dims: dims}
	if len(exclude) > 0 {
		r, err := compile(slices.Clone(exclude), dims)
		if err != nil {
			return Space{}, err
		}
		s.rules = r
	}
	if err := s.add(s.whole()); err != nil {
		return Space{}, err
	}
	if s.Count() == 0 {
		return Space{}, flawf("Loosen them.", "the exclude expressions leave no point of the space")
	}
	return s, nil
}

func newDimensions(axes []Axis) ([]*dimension, *flaw) {
	var dims []*dimension
	seen := map[string]bool{}
	for _, a := range axes {
		d, f := newDimension(a)
		if f != nil {
			return nil, f
		}
		if seen[a.Key] {
			return nil, flawf("Put all its values in one place.", "the axis %s is given twice", a.Key)
		}
		seen[a.Key] = true
		dims = append(dims, d)
	}
	return dims, nil
}

// whole is the block of all values of all axes.
func (s Space) whole() *block {
	b := &block{}
	for _, d := range s.dims {
		b.lo, b.hi = append(b.lo, 0), append(b.hi, d.count())
	}
	return b
}

// add appends a block and takes the excluded points out of it.
func (s *Space) add(b *block) error {
	if f := b.measure(s.split()); f != nil {
		return f
	}
	if s.rules != nil {
		left, kept, err := b.filter(s.dims, s.rules)
		if err != nil {
			return err
		}
		b.bits, b.kept = left, kept
	}
	return s.place(b)
}

// place puts a measured block behind the others.
func (s *Space) place(b *block) error {
	if b.start = s.Count(); len(s.blocks) == 0 {
		b.start = 0
	}
	if b.count() > math.MaxInt64-b.start {
		return tooMany()
	}
	s.blocks = append(s.blocks, b)
	return nil
}

// split is the number of axes that expressions look at.
func (s Space) split() int {
	if s.rules == nil {
		return 0
	}
	return s.rules.last + 1
}

// Keys are the axes in their order.
func (s Space) Keys() []string {
	keys := make([]string, len(s.dims))
	for k, d := range s.dims {
		keys[k] = d.key
	}
	return keys
}

// Axes gives the axes as they were given. Those that an extended space got later follow the one of the same key.
func (s Space) Axes() []Axis {
	var all []Axis
	for _, d := range s.dims {
		all = append(all, d.axes...)
	}
	return all
}

// Exclude gives the exclude expressions.
func (s Space) Exclude() []string {
	if s.rules == nil {
		return nil
	}
	return slices.Clone(s.rules.sources)
}

// Count is the number of points.
func (s Space) Count() int64 {
	if len(s.blocks) == 0 {
		return 1
	}
	last := s.blocks[len(s.blocks)-1]
	return last.start + last.count()
}

// At gives the point with index i. It is an error when i is not from 0 up to Count, and when the space was read from a record that
// contradicts itself.
func (s Space) At(i int64) (Params, error) {
	if i < 0 || i >= s.Count() {
		return nil, fmt.Errorf("the space has %d points, so there is no point %d", s.Count(), i)
	}
	p := make(Params, len(s.dims))
	if len(s.dims) == 0 {
		return p, nil
	}
	b := s.blocks[s.blockOf(i)]
	i -= b.start
	if s.rules != nil {
		left, err := b.members(s.dims, s.rules)
		if err != nil {
			return nil, err
		}
		head := left.pick(i / b.tail)
		s.fill(p, b, s.split(), len(p), i%b.tail)
		s.fill(p, b, 0, s.split(), head)
		return p, nil
	}
	s.fill(p, b, 0, len(p), i)
	return p, nil
}

func (s Space) blockOf(i int64) int {
	k := len(s.blocks) - 1
	for s.blocks[k].start > i {
		k--
	}
	return k
}

// fill sets the axes from up to to from the number of their combination.
func (s Space) fill(p Params, b *block, from, to int, i int64) {
	for k := to - 1; k >= from; k-- {
		n := b.hi[k] - b.lo[k]
		p[k] = Param{Key: s.dims[k].key, Value: s.dims[k].at(b.lo[k] + i%n)}
		i /= n
	}
}

// Index is the inverse of At. The parameters may come in any order; ok is false when they are no point of the space.
func (s Space) Index(p Params) (index int64, ok bool) {
	if len(p) != len(s.dims) {
		return 0, false
	}
	at := make([]int64, len(s.dims))
	for k, d := range s.dims {
		q := &p[k]
		if q.Key != d.key {
			if q = p.find(d.key); q == nil {
				return 0, false
			}
		}
		if at[k], ok = d.find(q.Value); !ok {
			return 0, false
		}
	}
	for _, b := range s.blocks {
		if i, ok := s.indexIn(b, at); ok {
			return i, true
		}
	}
	return 0, len(s.dims) == 0
}

func (p Params) find(key string) *Param {
	for k := range p {
		if p[k].Key == key {
			return &p[k]
		}
	}
	return nil
}

// indexIn gives the index of a combination of values if the block holds it.
func (s Space) indexIn(b *block, at []int64) (int64, bool) {
	for k := range at {
		if at[k] < b.lo[k] || at[k] >= b.hi[k] {
			return 0, false
		}
	}
	head, tail := int64(0), int64(0)
	for k := range at {
		n := b.hi[k] - b.lo[k]
		if k < s.split() {
			head = head*n + at[k] - b.lo[k]
		} else {
			tail = tail*n + at[k] - b.lo[k]
		}
	}
	if s.rules != nil {
		left, err := b.members(s.dims, s.rules)
		if err != nil || !left.has(head) {
			return 0, false
		}
		head = left.rank(head)
	}
	return b.start + head*b.tail + tail, true
}
