package grid

import (
	"encoding/json"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// TestPositions: the numbers of a point's values, found for a run of points at once, lead to the values of At and back to its index, in
// spaces that are extended and have points taken out.
func TestPositions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var axes []Axis
		for k := range rapid.IntRange(0, 4).Draw(t, "axes") {
			n := rapid.IntRange(1, 5).Draw(t, "values")
			axes = append(axes, Axis{Key: string(rune('a' + k)), Interval: []json.Number{"0", json.Number(strconv.Itoa(n))}})
		}
		var exclude []string
		if len(axes) > 1 && rapid.Bool().Draw(t, "exclude") {
			exclude = []string{"a == 1 and b > 0"}
		}
		s, err := NewSpace(axes, exclude)
		if err != nil {
			t.Fatal(err)
		}
		if len(axes) > 0 && rapid.Bool().Draw(t, "extend") {
			if s, err = s.Extend([]Axis{{Key: "a", Interval: []json.Number{"0", "8"}}}); err != nil {
				t.Fatal(err)
			}
		}
		lo := rapid.Int64Range(0, s.Count()-1).Draw(t, "lo")
		n := rapid.Int64Range(1, 300).Draw(t, "n")
		dest := make([][]int64, len(axes))
		for k := range dest {
			dest[k] = make([]int64, n)
		}
		if err := s.Positions(lo, lo+n, dest); err != nil {
			t.Fatal(err)
		}
		at := make([]int64, len(axes))
		for i := lo; i < min(lo+n, s.Count()); i++ {
			p, err := s.At(i)
			if err != nil {
				t.Fatal(err)
			}
			for k := range at {
				at[k] = dest[k][i-lo]
				if got := s.Value(k, at[k]); got != p[k].Value {
					t.Fatalf("point %d, axis %d: got %v, want %v", i, k, got, p[k].Value)
				}
			}
			if got, ok := s.IndexAt(at); !ok || got != i {
				t.Fatalf("point %d: got index %d, %t", i, got, ok)
			}
		}
		total := int64(0)
		for _, p := range s.Products() {
			total += p.Count
		}
		if len(axes) > 0 && total != s.Count() {
			t.Fatalf("parts have %d points, want %d", total, s.Count())
		}
	})
}
