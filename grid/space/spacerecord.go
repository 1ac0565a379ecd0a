package space

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"mlfnode/grid/problem"
)

// record is the JSON form of a Space. Consecutive axes with the same key are one axis that was
// extended.
type record struct {
	Axes    []Axis          `json:"axes,omitempty"`
	Exclude []string        `json:"exclude,omitempty"`
	Blocks  []productRecord `json:"blocks,omitempty"` // omitted for a single product of all values without exclusions
}

type productRecord struct {
	Lo   []int64 `json:"lo"`
	Hi   []int64 `json:"hi"`
	Kept int64   `json:"kept"` // combinations of the axes that exclude expressions mention, less the excluded ones

	// Drawn is set for part of a sample. Kept is then negative, namely -1 minus its usual value, so
	// that programs that do not know samples reject the record instead of running all points.
	Drawn *sampleRecord `json:"drawn,omitempty"`
}

// sampleRecord is the sampled part of a product, by positions in the shuffled product.
type sampleRecord struct {
	Seed uint64 `json:"seed,omitempty"`
	Lo   int64  `json:"lo"`
	Hi   int64  `json:"hi"`
	Each int64  `json:"each,omitempty"` // runs of each point, if more than one: the values of the last axis
}

// MarshalJSON encodes the axes as they were given, never their points.
func (s Space) MarshalJSON() ([]byte, error) {
	var r record
	r.Axes, r.Exclude = s.Definition()
	if s.axes.rules != nil || len(s.products) > 1 || len(s.products) == 1 && s.products[0].drawn != nil {
		for _, b := range s.products {
			record := productRecord{Lo: b.lo, Hi: b.hi, Kept: b.kept}
			if d := b.drawn; d != nil {
				record.Kept, record.Drawn = -1-b.kept, &sampleRecord{Seed: d.shuffle.seed, Lo: d.lo, Hi: d.hi}
				if d.each > 1 {
					record.Drawn.Each = d.each
				}
			}
			r.Blocks = append(r.Blocks, record)
		}
	}
	return json.Marshal(r)
}

// UnmarshalJSON is the inverse of MarshalJSON. It does not evaluate exclude expressions; the first
// access to a point does.
func (s *Space) UnmarshalJSON(data []byte) error {
	var r record
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

func (r *record) space() (Space, error) {
	var s Space
	var err error
	for _, a := range r.Axes {
		if f := s.axes.addRecorded(a); f != nil {
			return Space{}, f
		}
	}
	if len(r.Exclude) > 0 {
		if s.axes.rules, err = compileExclude(r.Exclude, s.axes.values); err != nil {
			return Space{}, err
		}
	}
	if len(r.Blocks) == 0 {
		return s, s.products.add(s.axes.product(), &s.axes)
	}
	for _, recorded := range r.Blocks {
		b, err := recorded.product(&s.axes)
		if err == nil {
			err = s.products.append(b)
		}
		if err != nil {
			return Space{}, err
		}
	}
	return s, nil
}

// Reuse returns old if s is the same space, and s otherwise. Its exclude expressions would be
// evaluated on all combinations again if a space were decoded with each revision of its record.
func Reuse(s, old Space) Space {
	if s.axes.rules == nil || old.axes.rules == nil || len(s.products) == 0 || len(s.products) != len(old.products) ||
		s.Count() != old.Count() || s.products[0] == old.products[0] {
		return s
	}
	a, err := json.Marshal(s)
	b, err2 := json.Marshal(old)
	if err != nil || err2 != nil || !bytes.Equal(a, b) {
		return s
	}
	return old
}

// addRecorded adds an axis, or further values of the axis before it.
func (x *axisSet) addRecorded(a Axis) *problem.Error {
	a = a.unzipped()
	at := len(x.factors) - 1
	if at < 0 {
		return x.add(a)
	}
	w := x.factors[at]
	if !slices.EqualFunc(x.values[w.at:], a.keys(), func(v *Values, key string) bool { return v.key == key }) {
		return x.add(a)
	}
	e, values, f := newFactor(a, 0)
	if f != nil {
		return f
	}
	if w.isZip() {
		x.factors[at], values, _, f = w.append(x.values, e, values, true)
	} else {
		values[0], f = x.values[w.at].append(values[0])
	}
	if f != nil {
		return f
	}
	copy(x.values[w.at:], values)
	return x.checkCells()
}

// product returns the recorded product of the axes.
func (r productRecord) product(x *axisSet) (*product, error) {
	b := &product{lo: r.Lo, hi: r.Hi}
	if len(b.lo) != len(x.factors) || len(b.hi) != len(x.factors) {
		return nil, fmt.Errorf("a block has %d axes of %d", len(b.lo), len(x.factors))
	}
	for k, w := range x.factors {
		if n := w.count(x.values); b.lo[k] < 0 || b.lo[k] >= b.hi[k] || b.hi[k] > n {
			return nil, fmt.Errorf("a block has values %d to %d of %s, which has %d",
				b.lo[k], b.hi[k], x.values[w.at].key, n)
		}
	}
	if f := b.countPoints(x.split()); f != nil {
		return nil, f
	}
	if r.Drawn != nil {
		r.Kept = -1 - r.Kept
	}
	if r.Kept < 0 || r.Kept > b.kept || (x.rules == nil && r.Kept != b.kept) {
		return nil, fmt.Errorf("a block keeps %d of %d combinations", r.Kept, b.kept)
	}
	b.kept = r.Kept
	if r.Drawn != nil {
		each, last := max(r.Drawn.Each, 1), len(x.factors)-1
		if each > 1 && (last < x.split() || b.hi[last]-b.lo[last] != each) {
			return nil, fmt.Errorf("a block of a sample has each point %d times, but the last axis does not", each)
		}
		of, lo, hi := b.kept*b.tail/each, r.Drawn.Lo, r.Drawn.Hi
		if lo < 0 || lo >= hi || hi > of {
			return nil, fmt.Errorf("a block has points %d to %d of a sample of %d", lo, hi, of)
		}
		b.drawn = &sampleRange{shuffle: newShuffle(of, r.Drawn.Seed), lo: lo, hi: hi, each: each}
	}
	return b, nil
}
