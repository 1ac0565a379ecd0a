package monitor

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/api"
)

// TestSortByParameter compares listings in the order of a parameter, with numbers, words and
// Booleans, for trials that have run and trials that have not, with a plain sort.
func TestSortByParameter(t *testing.T) {
	number := func(text string) space.Value { return space.Value{Text: text, Kind: space.Number} }
	points, err := space.New([]space.Axis{
		{Key: "b", Interval: []json.Number{"0", "200"}},
		{Key: "a", Values: []space.Value{number("2"), {Text: "x", Kind: space.Text}, number("10"), number("2.0"),
			{Kind: space.True}, number("-1"), {Text: "m", Kind: space.Text}}},
	}, []string{"b == 7"})
	if err != nil {
		t.Fatal(err)
	}
	m, s := folded(t, points, func(i int64) *grid.Result {
		r := &grid.Result{Started: 1e15 + i}
		if i%5 == 0 {
			r.Class, r.ExitCode = grid.ClassExit, 1
		}
		if i%10 == 0 {
			r.Class = grid.ClassMemory
		}
		return r
	})
	ran := points.Count()
	if s.Space, err = points.Extend([]space.Axis{{Key: "a",
		Values: []space.Value{number("3"), number("0")}}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		states []grid.State
		class  grid.Class
	}{
		{}, {states: []grid.State{grid.Failed}}, {states: []grid.State{grid.Pending}},
		{states: []grid.State{grid.Succeeded, grid.Pending}},
		{class: grid.ClassMemory}, {states: []grid.State{grid.Failed, grid.Pending}, class: grid.ClassExit},
		{states: []grid.State{grid.Succeeded}, class: grid.ClassExit},
		{class: grid.ClassSetup},
	} {
		states := c.states
		for _, desc := range []bool{false, true} {
			var want []int64
			keys := map[int64]ranked{}
			for i := range s.Space.Count() {
				p, err := s.Space.At(i)
				if err != nil {
					t.Fatal(err)
				}
				state, class := grid.Pending, grid.ClassNone
				switch {
				case i >= ran:
				case i%10 == 0:
					state, class = grid.Failed, grid.ClassMemory
				case i%5 == 0:
					state, class = grid.Failed, grid.ClassExit
				default:
					state = grid.Succeeded
				}
				if (len(states) == 0 || slices.Contains(states, state)) && (c.class == "" || class == c.class) {
					want, keys[i] = append(want, i), newRanked(p[1].Value, 0)
				}
			}
			slices.SortStableFunc(want, func(i, j int64) int {
				a, b := keys[i], keys[j]
				switch less := a.number < b.number || a.text < b.text; {
				case a.class != b.class:
					return int(a.class) - int(b.class)
				case a.number == b.number && a.text == b.text:
					return 0
				case less != desc:
					return -1
				}
				return 1
			})
			for _, skip := range []int64{0, 500, 1200} {
				var got []int64
				l := &listing{
					listingPage: listingPage{
						sweep: s, q: api.TrialQuery{States: states, Class: c.class, Sort: "a", Desc: desc},
						left: 60, skip: skip,
						emit: func(t *grid.Trial) error { got = append(got, t.Index); return nil },
					},
					listingPlaces: listingPlaces{parameter: "a"}, trials: m.handlers.trials,
				}
				if err := l.byParameter(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}
				page := want[min(skip, int64(len(want))):]
				if page = page[:min(60, len(page))]; !slices.Equal(got, page) {
					t.Errorf("%v %s, descending %v, from %d: got %v, want %v", states, c.class, desc, skip, got, page)
				}
			}
		}
	}
	l := &listing{
		listingPage:   listingPage{sweep: &grid.Sweep{ID: "s-1", Space: spaceOf(t, math.MaxInt32)}, left: 1},
		listingPlaces: listingPlaces{parameter: "a"}, trials: m.handlers.trials,
	}
	if err := l.byParameter(t.Context(), "a"); err == nil {
		t.Error("a sweep of " + strconv.Itoa(math.MaxInt32) + " trials is sorted by a parameter")
	}
}

// TestAxisOrder compares the order of an axis, in spaces of several parts, with a plain sort: which
// trial is at each position, and which position follows each trial.
func TestAxisOrder(outer *testing.T) {
	rapid.Check(outer, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.IntRange(1, 5), 1, 4).Draw(t, "sizes")
		s := spaceOf(outer, sizes...)
		for _, axis := range rapid.SliceOfN(rapid.IntRange(0, len(sizes)-1), 0, 3).Draw(t, "extended") {
			value := space.Value{Text: strconv.Itoa(rapid.IntRange(-100, 100).Draw(t, "value")), Kind: space.Number}
			if wider, err := s.Extend([]space.Axis{{Key: s.Keys()[axis], Values: []space.Value{value}}}); err == nil {
				s = wider
			}
		}
		axis := rapid.IntRange(0, len(sizes)-1).Draw(t, "axis")
		places := valuePlaces(s, axis, rapid.Bool().Draw(t, "desc"))
		order, ok := newAxisOrder(s, axis, places)
		if !ok {
			t.Fatal("a space of whole parts has no such order")
		}
		values := make([]int64, s.Count())
		want := make([]int64, s.Count())
		at := make([][]int64, len(sizes))
		for k := range at {
			at[k] = make([]int64, s.Count())
		}
		if err := s.Positions(0, s.Count(), at); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			want[i], values[i] = int64(i), at[axis][i]
		}
		slices.SortStableFunc(want, func(i, j int64) int { return int(places[values[i]]) - int(places[values[j]]) })
		for n, index := range want {
			if got := order.from(int64(n), 3); !slices.Equal(got, want[n:min(n+3, len(want))]) {
				t.Fatalf("from place %d: got %v, want %v", n, got, want[n:min(n+3, len(want))])
			}
			if got := order.place(values[index], index); got != int64(n)+1 {
				t.Fatalf("behind trial %d: got place %d, want %d", index, got, n+1)
			}
		}
		if got := order.from(s.Count(), 3); len(got) > 0 {
			t.Fatalf("behind all: got %v", got)
		}
	})
}

// TestAxisOrderOfManyParts extends a space so often that each page would have to examine all of its
// parts for every value: then its trials are sorted.
func TestAxisOrderOfManyParts(t *testing.T) {
	s := spaceOf(t, 1)
	for i := range 1 << 10 {
		var err error
		if s, err = s.Extend([]space.Axis{{Key: "a",
			Values: []space.Value{{Text: strconv.Itoa(i + 1), Kind: space.Number}}}}); err != nil {
			t.Fatal(err)
		}
	}
	places := valuePlaces(s, 0, false)
	if parts := len(s.Products()); parts*len(places) <= maxRuns {
		t.Fatalf("the space has %d parts and %d values", parts, len(places))
	}
	if _, ok := newAxisOrder(s, 0, places); ok {
		t.Error("its trials have such an order")
	}
}
