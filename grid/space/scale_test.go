package space

import (
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func interval3(key string, n ...json.Number) Axis { return Axis{Key: key, Interval: n} }

func TestTrillionPointsCostNothing(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s := mustSpace(t, []Axis{interval3("a", "0", "1e9"), interval3("b", "0", "100", "0.1")})
	record, err := json.Marshal(s)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 {
		t.Errorf("bytes allocated: got %d, want at most 64 KiB", got)
	}
	if want := `{"axes":[{"key":"a","interval":[0,1e9]},{"key":"b","interval":[0,100,0.1]}]}`; string(record) != want {
		t.Errorf("record: got %s, want %s", record, want)
	}
	if got := s.Count(); got != 1e12 {
		t.Errorf("count: got %d, want 10^12", got)
	}
	if got, want := text(mustAt(s, 999_999_999_999)),
		`[{"a" {"999999999" '\x01'}} {"b" {"99.9" '\x01'}}]`; got != want {
		t.Errorf("last point: got %s, want %s", got, want)
	}
}

func TestLargeSpacesHaveInverse(t *testing.T) {
	s := mustSpace(t, []Axis{interval3("a", "-1e9", "1e9", "0.5"), interval3("b", "3", "-3", "-0.01"),
		{Key: "c", Linspace: []json.Number{"0", "1", "1001"}}, {Key: "d", Logspace: []json.Number{"-4", "4", "999"}}})
	s, err := s.Extend([]Axis{interval3("a", "0", "2e9", "0.5"), interval3("b", "5", "6", "0.25")})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := s.Count(), int64(6e9*604*1001*999); got != want {
		t.Errorf("count: got %d, want %d", got, want)
	}
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.Int64Range(0, s.Count()-1).Draw(t, "i")
		p := mustAt(s, i)
		if back, ok := reread(t, s).Index(p); !ok || back != i {
			t.Fatalf("index of point %d %q: got %d, %v", i, p, back, ok)
		}
	})
}

func TestTooManyPoints(t *testing.T) {
	for _, axes := range [][]Axis{
		{interval3("a", "0", "1e19")},
		{interval3("a", "0", "1e10"), interval3("b", "0", "1e10")},
		{interval3("a", "0", "9e18"), interval3("b", "0", "2")},
	} {
		if s, err := New(axes, nil); err == nil {
			t.Errorf("%v: got %d points, want an error", axes, s.Count())
		}
	}
	s := mustSpace(t, []Axis{interval3("a", "0", "9e18")})
	if _, err := s.Extend([]Axis{interval3("a", "9e18", "18e18")}); err == nil {
		t.Errorf("extend past 64 bits: got no error")
	}
}

func TestExtendLongIntervals(t *testing.T) {
	for _, c := range []struct {
		old, extra Axis
		added      int64 // 0 expects an error
	}{
		{interval3("a", "0", "1e9"), interval3("a", "0", "2e9"), 1e9},
		{interval3("a", "0", "1e9"), interval3("a", "-5", "1e9"), 5},
		{interval3("a", "0", "1e9"), interval3("a", "2e9", "-1", "-1"), 1e9 + 1},
		{interval3("a", "0", "1e9"), interval3("a", "0", "1e9", "2"), 0},
		{interval3("a", "0", "1e9"), interval3("a", "1", "3e9", "2"), 1e9},
		{interval3("a", "0", "1e9", "2"), interval3("a", "0", "1e9"), 0}, // interleaved: rejected
		{interval3("a", "0", "1e9"), interval3("a", "0.5", "1e9"), 0},
		{interval3("a", "0", "1e9"), interval3("a", "1e9", "2e9", "0.5"), 2e9},
		{interval3("a", "0", "1e9"), Axis{Key: "a", Values: []Value{{"7", Number}, {"-1", Number}, {"x", Text}}}, 2},
		{Axis{Key: "a", Values: []Value{{"7", Number}, {"9", Text}, {"x", Text}}}, interval3("a", "0", "1e9"), 1e9 - 2},
		{Axis{Key: "a", Values: []Value{{"7", Number}}},
			Axis{Key: "a", Linspace: []json.Number{"0", "1e6", "1000001"}}, 0},
		{interval3("a", "0", "10"), interval3("a", "5", "20"), 10},
		{interval3("a", "0", "10"), interval3("b", "5", "20"), 0},
	} {
		s := mustSpace(t, []Axis{c.old})
		next, err := s.Extend([]Axis{c.extra})
		switch {
		case c.added == 0 && err == nil:
			t.Errorf("%v by %v: got %d more, want an error", c.old, c.extra, next.Count()-s.Count())
		case c.added > 0 && err != nil:
			t.Errorf("%v by %v: %v", c.old, c.extra, err)
		case c.added > 0 && next.Count()-s.Count() != c.added:
			t.Errorf("%v by %v: got %d more, want %d", c.old, c.extra, next.Count()-s.Count(), c.added)
		}
	}
}

func TestFormulaTexts(t *testing.T) {
	for _, c := range []struct {
		axis Axis
		want string
	}{
		{interval3("a", "1", "1.3", "0.1"), "1 1.1 1.2"},
		{interval3("a", "5", "20", "5"), "5 10 15"},
		{interval3("a", "1", "3"), "1 2"},
		{interval3("a", "1.0", "2.50", "0.5"), "1 1.5 2"},
		{interval3("a", "1", "-1", "-0.5"), "1 0.5 0 -0.5"},
		{interval3("a", "1e-3", "3e-3", "1e-3"), "0.001 0.002"},
		{interval3("a", "-0.05", "0.1", "0.05"), "-0.05 0 0.05"},
		{interval3("a", "1e30", "3e30", "1e30"), "1e30 2e30"},
		{interval3("a", "1e-30", "3e-30", "1e-30"), "1e-30 2e-30"},
		{interval3("a", "123456789012345678901", "123456789012345678903"),
			"123456789012345678901 123456789012345678902"},
		{Axis{Key: "a", Linspace: []json.Number{"0", "1", "11"}}, "0 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 0.9 1"},
		{Axis{Key: "a", Linspace: []json.Number{"0", "1", "4"}}, "0 0.3333333333333333 0.6666666666666666 1"},
		{Axis{Key: "a", Linspace: []json.Number{"3", "-3", "3"}}, "3 0 -3"},
		{Axis{Key: "a", Linspace: []json.Number{"5", "9", "1"}}, "5"},
		{Axis{Key: "a", Logspace: []json.Number{"-4", "-1", "4"}}, "0.0001 0.001 0.01 0.1"},
		{Axis{Key: "a", Logspace: []json.Number{"0", "1", "3"}}, "1 3.1622776601683795 10"},
		{Axis{Key: "a", Logspace: []json.Number{"2", "-2", "3"}}, "100 1 0.01"},
	} {
		s := mustSpace(t, []Axis{c.axis})
		var got []string
		for i := range s.Count() {
			got = append(got, mustAt(s, i)[0].Value.Text)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%v: got %s, want %s", c.axis, strings.Join(got, " "), c.want)
		}
	}
}

// TestPowersAreClose compares powers with math.Pow, which is accurate to about one unit in the last
// place.
func TestPowersAreClose(t *testing.T) {
	s := mustSpace(t, []Axis{{Key: "a", Logspace: []json.Number{"-300", "300", "4001"}}})
	for i := range s.Count() {
		var got float64
		if _, err := fmt.Sscan(mustAt(s, i)[0].Value.Text, &got); err != nil {
			t.Fatal(err)
		}
		want := math.Pow(10, -300+600*float64(i)/4000)
		if math.Abs(got/want-1) > 1e-12 {
			t.Fatalf("value %d: got %v, want %v", i, got, want)
		}
	}
}

func TestZeroSpaceHasOnePoint(t *testing.T) {
	var read Space
	if err := json.Unmarshal([]byte("{}"), &read); err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Space{"zero": {}, "no axes": mustSpace(t, nil), "from {}": read} {
		i, ok := s.Index(nil)
		if s.Count() != 1 || len(mustAt(s, 0)) != 0 || i != 0 || !ok {
			t.Errorf("%s: got %d points, %v, index %d %v, want one without params", name, s.Count(), mustAt(s, 0), i,
				ok)
		}
		if _, err := s.Extend([]Axis{interval3("a", "0", "2")}); err == nil {
			t.Errorf("%s: extend by an unknown axis: got no error", name)
		}
	}
}

func TestAtOutOfRange(t *testing.T) {
	for _, s := range []Space{mustSpace(t, []Axis{interval3("a", "0", "3")}),
		mustSpace(t, []Axis{interval3("a", "0", "4")}, "a == 3")} {
		for _, i := range []int64{math.MinInt64, -1, 3, math.MaxInt64} {
			if p, err := s.At(i); err == nil {
				t.Errorf("At(%d) of %d points: got %v, want an error", i, s.Count(), p)
			}
		}
	}
	if p, err := (Space{}).At(1); err == nil {
		t.Errorf("second point of a space without axes: got %v, want an error", p)
	}
}

// mustAt returns At(i) for a point that exists.
func mustAt(s Space, i int64) Params {
	p, err := s.At(i)
	if err != nil {
		panic(err)
	}
	return p
}

func TestDamagedSpaceRecord(t *testing.T) {
	for _, record := range []string{
		`[]`, `{"axes":[{"key":"a"}]}`, `{"axes":[{"key":"a","values":[1,1]}]}`,
		`{"axes":[{"key":"a","values":[1],"interval":[0,1]}]}`,
		`{"axes":[{"key":"a","values":[1]},{"key":"b","values":[1]},{"key":"a","values":[2]}]}`,
		`{"axes":[{"key":"a","values":[1]}],"exclude":["b > 1"]}`,
		`{"axes":[{"key":"a","values":[1]}],"blocks":[{"lo":[0],"hi":[2],"kept":1}]}`,
		`{"axes":[{"key":"a","values":[1]}],"blocks":[{"lo":[0],"hi":[1],"kept":2}]}`,
		`{"axes":[{"key":"a","values":[1]}],"blocks":[{"lo":[],"hi":[],"kept":1}]}`,
		`{"axes":[{"key":"a","interval":[0,1e400000000]}]}`, `{"axes":[{"key":"a","interval":[0,5,0]}]}`,
	} {
		var s Space
		if err := json.Unmarshal([]byte(record), &s); err == nil {
			t.Errorf("%s: got %d points, want an error", record, s.Count())
		}
	}
}
