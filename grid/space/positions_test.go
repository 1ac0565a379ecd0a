package space

import (
	"encoding/json"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid/ranges"
)

// TestPositions checks that the numbers of values, computed for a range of points at once, lead to
// the values of At and back to the index, in spaces with extensions and excluded points.
func TestPositions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var axes []Axis
		for k := range rapid.IntRange(0, 4).Draw(t, "axes") {
			n := rapid.IntRange(1, 5).Draw(t, "values")
			axes = append(axes,
				Axis{Key: string(rune('a' + k)), Interval: []json.Number{"0", json.Number(strconv.Itoa(n))}})
		}
		var exclude []string
		if len(axes) > 1 && rapid.Bool().Draw(t, "exclude") {
			exclude = []string{"a == 1 and b > 0"}
		}
		s, err := New(axes, exclude)
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
				if got := s.Values()[k].At(at[k]); got != p[k].Value {
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

// TestWithin compares Within with a test of each value, for every form of axis and for extensions.
func TestWithin(t *testing.T) {
	number := func(n int) json.Number { return json.Number(strconv.Itoa(n)) }
	rapid.Check(t, func(t *rapid.T) {
		a, b, n := rapid.IntRange(-9, 9).Draw(t, "a"), rapid.IntRange(-9, 9).Draw(t, "b"),
			rapid.IntRange(2, 30).Draw(t, "n")
		if a == b {
			b++
		}
		forms := []Axis{
			{Interval: []json.Number{number(a), number(b), number((b - a) / max(1, max(a-b, b-a)))}},
			{Linspace: []json.Number{number(a), number(b), number(n)}},
			{Logspace: []json.Number{number(a), number(b), number(n)}},
			{Values: []Value{{Text: "3", Kind: Number}, {Text: "x", Kind: Text}, {Text: "-2", Kind: Number},
				{Kind: True}, {Text: "0.5", Kind: Number}}},
		}
		axis := rapid.SampledFrom(forms).Draw(t, "axis")
		axis.Key = "k"
		s, err := New([]Axis{axis}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if more, err := s.Extend([]Axis{{Key: "k", Interval: []json.Number{"20", "10", "-2"}}}); err == nil &&
			rapid.Bool().Draw(t, "extend") {
			s = more
		}
		lo := rapid.SampledFrom([]float64{-9, -2, -0.5, 0, 1, 3, 11}).Draw(t, "lo")
		hi := lo + rapid.SampledFrom([]float64{0, 1, 2.5, 30}).Draw(t, "reach")
		var got ranges.Set
		s.Values()[0].Within(lo, hi, &got)
		for i := range s.Count() {
			v := s.Values()[0].At(i)
			f, err := strconv.ParseFloat(v.Text, 64)
			if want := v.Kind == Number && err == nil && f >= lo && f <= hi; got.Has(i) != want {
				t.Fatalf("%v from %v to %v: value %d is in %v, want %v", v, lo, hi, i, got.Has(i), want)
			}
		}
		if got.Count() > s.Count() {
			t.Fatalf("%d of %d values are in", got.Count(), s.Count())
		}
	})
}
