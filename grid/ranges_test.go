package grid

import (
	"testing"

	"pgregory.net/rapid"
)

// TestRangesAgreeWithMap compares every operation with a plain set of integers.
func TestRangesAgreeWithMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Ranges
		want := map[int64]bool{}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			lo := rapid.Int64Range(0, 60).Draw(t, "lo")
			hi := rapid.Int64Range(0, 60).Draw(t, "hi")
			add := rapid.Bool().Draw(t, "add")
			if add {
				s.Add(lo, hi)
			} else {
				s.Remove(lo, hi)
			}
			for i := lo; i < hi; i++ {
				if add {
					want[i] = true
				} else {
					delete(want, i)
				}
			}
			checkRanges(t, &s, want)
		}
	})
}

func checkRanges(t *rapid.T, s *Ranges, want map[int64]bool) {
	if got := s.Count(); got != int64(len(want)) {
		t.Fatalf("count: got %d, want %d (%v)", got, len(want), s.r)
	}
	free := map[int64]bool{}
	s.Gaps(0, 61, func(g Range) {
		for i := g.Lo; i < g.Hi; i++ {
			free[i] = true
		}
	})
	for i := range int64(61) {
		if s.Has(i) != want[i] || free[i] == want[i] {
			t.Fatalf("index %d: has %v, free %v, want %v (%v)", i, s.Has(i), free[i], want[i], s.r)
		}
	}
	for k := 1; k < len(s.r); k++ {
		if s.r[k-1].Hi >= s.r[k].Lo {
			t.Fatalf("ranges %v touch or overlap", s.r)
		}
	}
}

func BenchmarkRangesInOrder(b *testing.B) {
	var s Ranges
	for i := 0; b.Loop(); i++ {
		s.Add(int64(i), int64(i)+1)
	}
}
