package space

import (
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// anyAxis draws an axis with few values of any form. Explicit values rarely coincide with formula
// values of other axes.
func anyAxis(t *rapid.T, key string) Axis {
	switch rapid.IntRange(0, 3).Draw(t, "form") {
	case 0:
		start, step := rapid.IntRange(-30, 30).Draw(t, "start"),
			rapid.SampledFrom([]int{-7, -1, 1, 2, 5}).Draw(t, "step")
		n := rapid.IntRange(1, 6).Draw(t, "n")
		tenth := func(i int) json.Number { return json.Number(fmt.Sprintf("%de-1", i)) }
		return Axis{Key: key, Interval: []json.Number{tenth(start), tenth(start + step*n), tenth(step)}}
	case 1:
		return Axis{Key: key, Linspace: []json.Number{"-1",
			"2", json.Number(fmt.Sprint(rapid.IntRange(1, 6).Draw(t, "n")))}}
	case 2:
		return Axis{Key: key, Logspace: []json.Number{"-4",
			"1", json.Number(fmt.Sprint(rapid.IntRange(1, 6).Draw(t, "n")))}}
	}
	values := rapid.SliceOfNDistinct(rapid.SampledFrom([]Value{
		{"1", Number}, {"1e-3", Number}, {"0.1", Number}, {"-1", Text}, {"010", Text}, {"", Text}, {"a b", Text},
		{"true", True}, {"false", False}, {"true", Text}, {"2", Number}, {"0", Number},
	}), 1, 6, rapid.ID[Value]).Draw(t, "values")
	return Axis{Key: key, Values: values}
}

func anyAxes(t *rapid.T) []Axis {
	var axes []Axis
	for k := range rapid.IntRange(0, 4).Draw(t, "axes") {
		axes = append(axes, anyAxis(t, string(rune('a'+k))))
	}
	return axes
}

// points lists a space by nested loops; the last axis varies fastest.
func points(axes []Axis) []Params {
	all := []Params{{}}
	for _, a := range axes {
		s, f := newSeries(a)
		if f != nil {
			panic(f)
		}
		var next []Params
		for _, p := range all {
			for i := range s.count() {
				next = append(next, append(p[:len(p):len(p)], Param{a.Key, s.at(i)}))
			}
		}
		all = next
	}
	return all
}

func text(p Params) string { return fmt.Sprintf("%q", p) }

func mustSpace(t interface{ Fatalf(string, ...any) }, axes []Axis, exclude ...string) Space {
	s, err := New(axes, exclude)
	if err != nil {
		t.Fatalf("NewSpace(%v, %q): %v", axes, exclude, err)
	}
	return s
}

// reread encodes the space as JSON and decodes it.
func reread(t *rapid.T, s Space) Space {
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatalf("marshal: %v", err)
	}
	var out Space
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("unmarshal %s: %v", b, err)
	}
	return out
}

// checkPoints compares a space with its expected points, in order, and checks that Index is the
// inverse of At.
func checkPoints(t *rapid.T, s Space, want []Params) {
	t.Helper()
	if got := s.Count(); got != int64(len(want)) {
		t.Fatalf("count: got %d, want %d", got, len(want))
	}
	seen := map[string]bool{}
	for i, w := range want {
		got := mustAt(s, int64(i))
		if text(got) != text(w) {
			t.Fatalf("point %d: got %q, want %q", i, got, w)
		}
		if seen[text(got)] {
			t.Fatalf("point %d: %q is there twice", i, got)
		}
		seen[text(got)] = true
		back, ok := s.Index(got)
		if !ok || back != int64(i) {
			t.Fatalf("index of point %d %q: got %d, %v", i, got, back, ok)
		}
	}
}

func TestSpaceIsOrderedProduct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		axes := anyAxes(t)
		s := mustSpace(t, axes)
		want := points(axes)
		checkPoints(t, s, want)
		checkPoints(t, reread(t, s), want)
		for i := range int64(len(want)) {
			p := mustAt(s, i)
			for k, j := 0, len(p)-1; k < j; k, j = k+1, j-1 {
				p[k], p[j] = p[j], p[k]
			}
			if back, ok := s.Index(p); !ok || back != i {
				t.Fatalf("index of %q in reverse: got %d, %v, want %d", p, back, ok, i)
			}
		}
	})
}

func TestIndexRefusesOtherPoints(t *testing.T) {
	s := mustSpace(t,
		[]Axis{{Key: "a", Interval: []json.Number{"0", "1", "0.1"}}, {Key: "b", Values: []Value{{"x", Text}}}})
	for _, p := range []Params{
		nil,
		{{"a", Value{"0.1", Number}}},
		{{"a", Value{"0.15", Number}}, {"b", Value{"x", Text}}},
		{{"a", Value{"0.10", Number}}, {"b", Value{"x", Text}}},
		{{"a", Value{"0.1", Text}}, {"b", Value{"x", Text}}},
		{{"a", Value{"1", Number}}, {"b", Value{"x", Text}}},
		{{"a", Value{"-0.1", Number}}, {"b", Value{"x", Text}}},
		{{"a", Value{"1e999999999", Number}}, {"b", Value{"x", Text}}},
		{{"a", Value{"0.1", Number}}, {"c", Value{"x", Text}}},
		{{"a", Value{"0.1", Number}}, {"a", Value{"0.1", Number}}},
	} {
		if i, ok := s.Index(p); ok {
			t.Errorf("Index(%q): got %d, want none", p, i)
		}
	}
}

// TestExtendKeepsIndexes extends a space in steps and compares each with the points found by brute
// force.
func TestExtendKeepsIndexes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		axes := anyAxes(t)
		s := mustSpace(t, axes)
		want := points(axes)
		for range rapid.IntRange(1, 3).Draw(t, "steps") {
			var extra []Axis
			for k := range axes {
				if rapid.Bool().Draw(t, "extend") {
					extra = append(extra, anyAxis(t, axes[k].Key))
				}
			}
			longer, grown := lengthen(axes, extra)
			next, err := s.Extend(extra)
			if !grown {
				if err == nil {
					t.Fatalf("extend by %v: got no error, want one", extra)
				}
				continue
			}
			if err != nil {
				t.Fatalf("extend by %v: %v", extra, err)
			}
			want = append(want, newPoints(want, longer)...)
			if rapid.Bool().Draw(t, "reread") {
				next = reread(t, next)
			}
			checkSame(t, next, want)
			for i := range s.Count() {
				if got, want := text(mustAt(next, i)), text(mustAt(s, i)); got != want {
					t.Fatalf("point %d after extending: got %s, want %s", i, got, want)
				}
			}
			axes, s = longer, next
		}
	})
}

// lengthen appends the new values of extra to those of axes.
func lengthen(axes, extra []Axis) (longer []Axis, grown bool) {
	for _, a := range axes {
		all := points([]Axis{a})
		known := map[Value]bool{}
		var values []Value
		for _, p := range all {
			values, known[untyped(p[0].Value)] = append(values, p[0].Value), true
		}
		for _, e := range extra {
			if e.Key != a.Key {
				continue
			}
			for _, p := range points([]Axis{e}) {
				if v := p[0].Value; !known[untyped(v)] {
					values, known[untyped(v)], grown = append(values, v), true, true
				}
			}
		}
		longer = append(longer, Axis{Key: a.Key, Values: values})
	}
	return longer, grown
}

func untyped(v Value) Value {
	if v.Kind == Number {
		v.Kind = Text
	}
	return v
}

// newPoints lists the points of the axes that are not among the old ones.
func newPoints(old []Params, axes []Axis) []Params {
	known := map[string]bool{}
	for _, p := range old {
		known[text(p)] = true
	}
	all := []Params{{}}
	for _, a := range axes {
		var next []Params
		for _, p := range all {
			for _, v := range a.Values {
				next = append(next, append(p[:len(p):len(p)], Param{a.Key, v}))
			}
		}
		all = next
	}
	var out []Params
	for _, p := range all {
		if !known[text(p)] {
			out = append(out, p)
		}
	}
	return out
}

// checkSame checks that the old points keep their indexes and that the new ones follow them in any
// order.
func checkSame(t *rapid.T, s Space, want []Params) {
	t.Helper()
	if got := s.Count(); got != int64(len(want)) {
		t.Fatalf("count: got %d, want %d", got, len(want))
	}
	left := map[string]bool{}
	for _, p := range want {
		left[text(p)] = true
	}
	for i := range s.Count() {
		p := mustAt(s, i)
		if !left[text(p)] {
			t.Fatalf("point %d: %q is there twice or not wanted", i, p)
		}
		delete(left, text(p))
		if back, ok := s.Index(p); !ok || back != i {
			t.Fatalf("index of point %d %q: got %d, %v", i, p, back, ok)
		}
	}
}
