package grid

import (
	"slices"
	"sort"
)

// Range is the half-open range [Lo,Hi) of trial indexes.
type Range struct{ Lo, Hi int64 }

// Ranges is a set of trial indexes, kept as sorted, disjoint, non-adjacent ranges: sweeps run mostly in order, so a million
// finished trials are a handful of ranges. The zero value is empty.
type Ranges struct {
	r     []Range
	count int64
}

// Count is how many indexes are in the set.
func (s *Ranges) Count() int64 { return s.count }

// Has reports whether i is in the set.
func (s *Ranges) Has(i int64) bool {
	k := s.after(i)
	return k < len(s.r) && s.r[k].Lo <= i
}

// after finds the first range that ends behind i.
func (s *Ranges) after(i int64) int {
	if n := len(s.r); n > 0 && s.r[n-1].Hi <= i {
		return n
	}
	return sort.Search(len(s.r), func(k int) bool { return s.r[k].Hi > i })
}

// Add puts [lo,hi) into the set.
func (s *Ranges) Add(lo, hi int64) {
	if lo >= hi {
		return
	}
	first := s.after(lo - 1) // joins a range that ends exactly at lo
	last := first
	for last < len(s.r) && s.r[last].Lo <= hi {
		s.count -= s.r[last].Hi - s.r[last].Lo
		lo, hi = min(lo, s.r[last].Lo), max(hi, s.r[last].Hi)
		last++
	}
	s.count += hi - lo
	if last == first+1 {
		s.r[first] = Range{lo, hi}
		return
	}
	s.r = slices.Replace(s.r, first, last, Range{lo, hi})
}

// Remove takes [lo,hi) out of the set.
func (s *Ranges) Remove(lo, hi int64) {
	if lo >= hi {
		return
	}
	first := s.after(lo)
	last := first
	var keep []Range
	for last < len(s.r) && s.r[last].Lo < hi {
		r := s.r[last]
		s.count -= min(r.Hi, hi) - max(r.Lo, lo)
		if r.Lo < lo {
			keep = append(keep, Range{r.Lo, lo})
		}
		if r.Hi > hi {
			keep = append(keep, Range{hi, r.Hi})
		}
		last++
	}
	s.r = slices.Replace(s.r, first, last, keep...)
}

// Gap gives the first range of indexes in [from,end) that are not in the set; ok is false when there is none.
func (s *Ranges) Gap(from, end int64) (gap Range, ok bool) {
	k := s.after(from)
	if k < len(s.r) && s.r[k].Lo <= from {
		from = s.r[k].Hi
		k++
	}
	if from >= end {
		return Range{}, false
	}
	if k < len(s.r) {
		end = min(end, s.r[k].Lo)
	}
	return Range{from, end}, true
}

// Gaps calls fn for every range of [from,end) that is not in the set, in order. fn must not change the set.
func (s *Ranges) Gaps(from, end int64, fn func(Range)) {
	for gap, ok := s.Gap(from, end); ok; gap, ok = s.Gap(gap.Hi, end) {
		fn(gap)
	}
}
