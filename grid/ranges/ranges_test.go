package ranges

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestRangesAgreeWithMap compares every operation with a plain set of integers.
func TestRangesAgreeWithMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s, kept Set
		want, wantKept := map[int64]bool{}, map[int64]bool{}
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
			if rapid.IntRange(0, 9).Draw(t, "clone") == 0 {
				kept, wantKept = s.Clone(), maps.Clone(want)
			}
			checkRanges(t, &kept, wantKept)
		}
	})
}

func checkRanges(t *rapid.T, s *Set, want map[int64]bool) {
	if got := s.Count(); got != int64(len(want)) {
		t.Fatalf("count: got %d, want %d (%v)", got, len(want), slices.Collect(s.All()))
	}
	free := map[int64]bool{}
	s.Gaps(0, 61, func(g Range) {
		for i := g.Lo; i < g.Hi; i++ {
			free[i] = true
		}
	})
	for i := range int64(61) {
		if s.Has(i) != want[i] || free[i] == want[i] {
			t.Fatalf("index %d: has %v, free %v, want %v (%v)", i, s.Has(i), free[i], want[i], slices.Collect(s.All()))
		}
	}
	all := slices.Collect(s.All())
	if s.Len() != len(all) {
		t.Fatalf("length: got %d, want that of %v", s.Len(), all)
	}
	for k := 1; k < len(all); k++ {
		if all[k-1].Hi >= all[k].Lo {
			t.Fatalf("ranges %v touch or overlap", all)
		}
	}
}

func BenchmarkRangesInOrder(b *testing.B) {
	var s Set
	for i := 0; b.Loop(); i++ {
		s.Add(int64(i), int64(i)+1)
	}
}

// BenchmarkRangesFragmented changes a set in which every other trial has ended, so that it has as
// many ranges as trials.
func BenchmarkRangesFragmented(b *testing.B) {
	for _, fragments := range []int64{1_000, 1_000_000} {
		var s Set
		for i := range fragments {
			s.Add(2*i, 2*i+1)
		}
		r := rand.New(rand.NewPCG(1, 2))
		b.Run(fmt.Sprint(fragments), func(b *testing.B) {
			for b.Loop() {
				i := 2 * r.Int64N(fragments)
				s.Remove(i, i+1)
				s.Add(i, i+1)
			}
		})
		b.Run(fmt.Sprintf("%d/clone", fragments), func(b *testing.B) {
			for b.Loop() {
				i := 2 * r.Int64N(fragments)
				c := s.Clone()
				c.Add(i+1, i+2)
			}
		})
	}
}
