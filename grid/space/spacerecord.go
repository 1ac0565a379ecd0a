package space

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
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
	r := record{Axes: s.Axes(), Exclude: s.Exclude()}
	if s.rules != nil || len(s.products) > 1 || len(s.products) == 1 && s.products[0].drawn != nil {
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
		if err := s.appendRecorded(a); err != nil {
			return Space{}, err
		}
	}
	if len(r.Exclude) > 0 {
		if s.rules, err = compileExclude(r.Exclude, s.dims); err != nil {
			return Space{}, err
		}
	}
	if len(r.Blocks) == 0 {
		return s, s.appendFiltered(s.whole())
	}
	for _, b := range r.Blocks {
		if err := s.appendProductRecord(b); err != nil {
			return Space{}, err
		}
	}
	return s, nil
}

// Reuse shares the results of old's exclude expressions if both spaces are the same. Otherwise, a
// space that is decoded again with each revision of its record would evaluate them on all
// combinations each time.
func (s *Space) Reuse(old Space) {
	if s.rules == nil || old.rules == nil || len(s.products) == 0 || len(s.products) != len(old.products) ||
		s.Count() != old.Count() || s.products[0] == old.products[0] {
		return
	}
	a, err := json.Marshal(*s)
	b, err2 := json.Marshal(old)
	if err == nil && err2 == nil && bytes.Equal(a, b) {
		*s = old
	}
}

// appendRecorded adds an axis, or further values of the axis before it.
func (s *Space) appendRecorded(a Axis) error {
	a = a.unzipped()
	at := len(s.factors) - 1
	if at < 0 || !slices.Equal(a.keys(), s.Keys()[s.factors[at].at:]) {
		if f := s.append(a); f != nil {
			return f
		}
		return nil
	}
	w := s.factors[at]
	e, dims, f := newFactor(a, 0)
	if f != nil {
		return f
	}
	if w.isZip() {
		s.factors[at], dims, _, f = w.append(s.dims, e, dims, true)
	} else {
		dims[0], f = s.dims[w.at].append(dims[0])
	}
	if f == nil {
		f = s.checkCells()
	}
	if f != nil {
		return f
	}
	copy(s.dims[w.at:], dims)
	return nil
}

// appendProductRecord appends a recorded product.
func (s *Space) appendProductRecord(r productRecord) error {
	b := &product{lo: r.Lo, hi: r.Hi}
	if len(b.lo) != len(s.factors) || len(b.hi) != len(s.factors) {
		return fmt.Errorf("a block has %d axes of %d", len(b.lo), len(s.factors))
	}
	for k, w := range s.factors {
		if n := w.count(s.dims); b.lo[k] < 0 || b.lo[k] >= b.hi[k] || b.hi[k] > n {
			return fmt.Errorf("a block has values %d to %d of %s, which has %d", b.lo[k], b.hi[k], s.dims[w.at].key, n)
		}
	}
	if f := b.countPoints(s.split()); f != nil {
		return f
	}
	if r.Drawn != nil {
		r.Kept = -1 - r.Kept
	}
	if r.Kept < 0 || r.Kept > b.kept || (s.rules == nil && r.Kept != b.kept) {
		return fmt.Errorf("a block keeps %d of %d combinations", r.Kept, b.kept)
	}
	b.kept = r.Kept
	if r.Drawn != nil {
		each, last := max(r.Drawn.Each, 1), len(s.factors)-1
		if each > 1 && (last < s.split() || b.hi[last]-b.lo[last] != each) {
			return fmt.Errorf("a block of a sample has each point %d times, but the last axis does not", each)
		}
		of := b.kept * b.tail / each
		d := &sampleRange{shuffle: newShuffle(of, r.Drawn.Seed), lo: r.Drawn.Lo, hi: r.Drawn.Hi, each: each}
		if err := d.check(of); err != nil {
			return err
		}
		b.drawn = d
	}
	return s.appendProduct(b)
}
