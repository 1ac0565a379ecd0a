package grid

import (
	"encoding/json"
	"fmt"
	"slices"
)

// spaceRecord is a Space in JSON. Several axes of one key in a row are one axis that was extended.
type spaceRecord struct {
	Axes    []Axis        `json:"axes,omitempty"`
	Exclude []string      `json:"exclude,omitempty"`
	Blocks  []blockRecord `json:"blocks,omitempty"` // left out for the one block of all values with nothing excluded
}

type blockRecord struct {
	Lo   []int64 `json:"lo"`
	Hi   []int64 `json:"hi"`
	Kept int64   `json:"kept"` // combinations of the axes that exclude expressions look at, less the excluded ones
}

// MarshalJSON writes the axes as they were given, never their points.
func (s Space) MarshalJSON() ([]byte, error) {
	r := spaceRecord{Axes: s.Axes(), Exclude: s.Exclude()}
	if s.rules != nil || len(s.blocks) > 1 {
		for _, b := range s.blocks {
			r.Blocks = append(r.Blocks, blockRecord{Lo: b.lo, Hi: b.hi, Kept: b.kept})
		}
	}
	return json.Marshal(r)
}

// UnmarshalJSON is the inverse of MarshalJSON. It does not evaluate exclude expressions: that is done when a point is first
// asked for.
func (s *Space) UnmarshalJSON(data []byte) error {
	var r spaceRecord
	if err := json.Unmarshal(data, &r); err != nil {
		return fmt.Errorf("read space: %w", err)
	}
	t, err := r.space()
	if err != nil {
		return fmt.Errorf("read space: %w", err)
	}
	*s = t
	return nil
}

func (r *spaceRecord) space() (Space, error) {
	var s Space
	var err error
	if s.dims, err = r.dimensions(); err != nil {
		return Space{}, err
	}
	if len(r.Exclude) > 0 {
		if s.rules, err = compile(r.Exclude, s.dims); err != nil {
			return Space{}, err
		}
	}
	if len(r.Blocks) == 0 {
		return s, s.add(s.whole())
	}
	for _, b := range r.Blocks {
		if err := s.restore(b); err != nil {
			return Space{}, err
		}
	}
	return s, nil
}

func (r *spaceRecord) dimensions() ([]*dimension, error) {
	var dims []*dimension
	for _, a := range r.Axes {
		d, f := newDimension(a)
		if f == nil && len(dims) > 0 && dims[len(dims)-1].key == a.Key {
			d, f = dims[len(dims)-1].plus(d)
			dims = dims[:len(dims)-1]
		}
		if f != nil {
			return nil, f
		}
		if slices.ContainsFunc(dims, func(e *dimension) bool { return e.key == a.Key }) {
			return nil, fmt.Errorf("the axis %s is there twice", a.Key)
		}
		dims = append(dims, d)
	}
	return dims, nil
}

// restore appends a block as it was recorded.
func (s *Space) restore(r blockRecord) error {
	b := &block{lo: r.Lo, hi: r.Hi}
	if len(b.lo) != len(s.dims) || len(b.hi) != len(s.dims) {
		return fmt.Errorf("a block has %d axes of %d", len(b.lo), len(s.dims))
	}
	for k, d := range s.dims {
		if b.lo[k] < 0 || b.lo[k] >= b.hi[k] || b.hi[k] > d.count() {
			return fmt.Errorf("a block has values %d to %d of %s, which has %d", b.lo[k], b.hi[k], d.key, d.count())
		}
	}
	if f := b.measure(s.split()); f != nil {
		return f
	}
	if r.Kept < 0 || r.Kept > b.kept || (s.rules == nil && r.Kept != b.kept) {
		return fmt.Errorf("a block keeps %d of %d combinations", r.Kept, b.kept)
	}
	b.kept = r.Kept
	return s.place(b)
}
