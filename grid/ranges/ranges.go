// Package ranges provides sets of trial indexes that are stored as ranges.
package ranges

import (
	"iter"

	"github.com/google/btree"
)

// Range is the half-open range [Lo,Hi) of trial indexes.
type Range struct{ Lo, Hi int64 }

// Set is a set of trial indexes, stored as sorted, disjoint, non-adjacent ranges: sweeps run mostly
// in order, so a million finished trials are a handful of ranges. With many ranges, each operation
// takes time logarithmic in their number. The zero value is empty. Copy a set only with Clone.
type Set struct {
	tree  *btree.BTreeG[Range] // by Lo; nil until something is added
	count int64
}

// degree is the degree of the tree: a node with this many ranges fits a page.
const degree = 64

// Count returns the number of indexes in the set.
func (s *Set) Count() int64 { return s.count }

// Len returns the number of ranges in the set.
func (s *Set) Len() int {
	if s.tree == nil {
		return 0
	}
	return s.tree.Len()
}

// First returns the first range; ok is false for the empty set.
func (s *Set) First() (r Range, ok bool) {
	if s.tree == nil {
		return r, false
	}
	return s.tree.Min()
}

// Clone returns a copy. Its cost does not depend on the size of the set: both sets share the parts
// that neither changes. The set may be read concurrently, but not cloned by two goroutines at once.
func (s *Set) Clone() Set {
	c := Set{count: s.count}
	if s.tree != nil {
		c.tree = s.tree.Clone()
	}
	return c
}

// All yields the ranges in order. The set must not be changed during the iteration.
func (s *Set) All() iter.Seq[Range] {
	return func(yield func(Range) bool) {
		if s.tree != nil {
			s.tree.Ascend(yield)
		}
	}
}

// Has reports whether i is in the set.
func (s *Set) Has(i int64) bool {
	r, ok := s.before(i)
	return ok && i < r.Hi
}

// before returns the last range that begins at or before i.
func (s *Set) before(i int64) (found Range, ok bool) {
	if s.tree != nil {
		s.tree.DescendLessOrEqual(Range{Lo: i}, func(r Range) bool {
			found, ok = r, true
			return false
		})
	}
	return found, ok
}

// from returns the first range that begins at or after i.
func (s *Set) from(i int64) (found Range, ok bool) {
	if s.tree != nil {
		s.tree.AscendGreaterOrEqual(Range{Lo: i}, func(r Range) bool {
			found, ok = r, true
			return false
		})
	}
	return found, ok
}

// Add adds [lo,hi) to the set.
func (s *Set) Add(lo, hi int64) {
	if lo >= hi {
		return
	}
	if s.tree == nil {
		s.tree = btree.NewG(degree, func(a, b Range) bool { return a.Lo < b.Lo })
	}
	added := hi - lo
	if r, ok := s.before(lo); ok && r.Hi >= lo { // or one that ends exactly at lo
		if r.Hi >= hi {
			return
		}
		added -= r.Hi - lo
		lo = r.Lo // it is replaced below
	}
	for r, ok := s.from(lo + 1); ok && r.Lo <= hi; r, ok = s.from(lo + 1) {
		added -= max(min(r.Hi, hi)-r.Lo, 0)
		hi = max(hi, r.Hi)
		s.tree.Delete(r)
	}
	s.tree.ReplaceOrInsert(Range{lo, hi})
	s.count += added
}

// Remove removes [lo,hi) from the set.
func (s *Set) Remove(lo, hi int64) {
	if lo >= hi {
		return
	}
	if r, ok := s.before(lo); ok && lo < r.Hi {
		s.count -= min(r.Hi, hi) - lo
		if r.Lo < lo {
			s.tree.ReplaceOrInsert(Range{r.Lo, lo})
		} else {
			s.tree.Delete(r)
		}
		if r.Hi > hi {
			s.tree.ReplaceOrInsert(Range{hi, r.Hi})
		}
	}
	for r, ok := s.from(lo); ok && r.Lo < hi; r, ok = s.from(lo) {
		s.count -= min(r.Hi, hi) - r.Lo
		s.tree.Delete(r)
		if r.Hi > hi {
			s.tree.ReplaceOrInsert(Range{hi, r.Hi})
		}
	}
}

// Gap returns the first range of indexes in [from,end) that are not in the set; ok is false if
// there is none.
func (s *Set) Gap(from, end int64) (gap Range, ok bool) {
	if r, ok := s.before(from); ok && from < r.Hi {
		from = r.Hi
	}
	if from >= end {
		return Range{}, false
	}
	if r, ok := s.from(from); ok {
		end = min(end, r.Lo)
	}
	return Range{from, end}, true
}

// Gaps calls fn for every range in [from,end) that is not in the set, in order. fn must not change
// the set.
func (s *Set) Gaps(from, end int64, fn func(Range)) {
	for gap, ok := s.Gap(from, end); ok; gap, ok = s.Gap(gap.Hi, end) {
		fn(gap)
	}
}
