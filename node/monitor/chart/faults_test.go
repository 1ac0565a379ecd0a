package chart

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// TestOnlyResultsAreValues assigns values, some of them infinite, to trials in every state: what a
// trial has reported before its end is in no chart, and an infinite value is never the best.
func TestOnlyResultsAreValues(t *testing.T) {
	s := spaceOf(t, nil, numbers("a", "0 1 2 3 4 5 6 7"), numbers("b", "1 2"))
	for _, maximize := range []bool{false, true} {
		sign := map[bool]float64{false: 1, true: -1}[maximize] // with this sign, smaller is better
		d := dataOf(t, s, func(i int64, _ map[string]string) trial {
			return trial{state: grid.Succeeded, value: sign * float64(10+i), start: float64(i), wall: 1}
		})
		d.Maximize = maximize
		for row, change := range map[int32]struct {
			state grid.State
			value float64
		}{2: {grid.Running, 1}, 3: {grid.Pending, 2}, 4: {grid.Succeeded, math.Inf(-1)}, 5: {grid.Succeeded,
			math.Inf(1)}, 0: {grid.Succeeded, math.Inf(1)}} {
			d.State[row], d.Value[row] = code(change.state), float32(sign*change.value)
		}
		v := viewOf(t, d, "")
		const best = 1
		if m := v.Marginals(); m.N != 11 || m.Trial != best || m.Axes[0].N[1] != 0 ||
			math.IsNaN(float64(m.Axes[0].Mean[6])) {
			t.Errorf("maximize %v: marginals have %d values, the best in %d", maximize, m.N, m.Trial)
		}
		if h := v.History(); h.Trial[len(h.Trial)-1] != best || slices.ContainsFunc(h.Best, func(n Number) bool {
			return !finite(float64(n))
		}) {
			t.Errorf("maximize %v: history ends with %v in %v", maximize, h.Best, h.Trial)
		}
		heat, err := v.Heat("a", "b", "", StatBest)
		if err != nil {
			t.Fatal(err)
		}
		wantNumbers(t, "best by a where nothing has ended",
			[]Number{heat.Cells[0].Value[0][1], heat.Cells[0].Value[1][1]}, math.NaN(), math.NaN())
		p, err := v.Parallel(nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, trial := range p.Lines.Trial {
			if trial == 2 || trial == 3 || trial == 4 || i == 0 && trial != best {
				t.Errorf("maximize %v: line %d is of trial %d", maximize, i, trial)
			}
		}
		slices, err := v.Slices(best)
		if err != nil {
			t.Fatal(err)
		}
		wantNumbers(t, "the neighbour that runs", slices.Axes[0].Value[1:2], math.NaN())
		if g, err := v.Groups([]string{"b"}, true); err != nil || g.Trial[0] != best {
			t.Errorf("maximize %v: the best group is that of trial %v, %v", maximize, g.Trial, err)
		}
	}
}

// TestBusyOfAPart examines one of four blocks of a sweep whose running trials are all in the other
// blocks.
func TestBusyOfAPart(t *testing.T) {
	s := spaceOf(t, nil, space.Axis{Key: "a", Interval: []json.Number{"0", "64"}},
		space.Axis{Key: "b", Interval: []json.Number{"0", "256"}})
	index := make([]int64, s.Count())
	for i := range index {
		index[i] = int64(i)
	}
	const slots = 8
	whole, rest := simulate(t, s, index, slots, 0.55, func(map[string]string) float64 { return 10 })
	part := &Data{
		Space: s, Stride: 4, Name: whole.Name, Nodes: whole.Nodes, Now: whole.Now, Done: whole.Done,
		Columns: Columns{Metrics: whole.Metrics},
	}
	ran := false
	for b := 0; b < len(whole.Blocks); b += part.Stride {
		from, to := b*BlockTrials, (b+1)*BlockTrials
		part.Blocks = append(part.Blocks, whole.Blocks[b])
		part.State, part.Class, part.Cause = append(part.State, whole.State[from:to]...),
			append(part.Class, whole.Class[from:to]...), append(part.Cause, whole.Cause[from:to]...)
		part.Node, part.Started = append(part.Node, whole.Node[from:to]...),
			append(part.Started, whole.Started[from:to]...)
		part.Ended = append(part.Ended, whole.Ended[from:to]...)
		part.Wall, part.Value = append(part.Wall, whole.Wall[from:to]...), append(part.Value, whole.Value[from:to]...)
		ran = ran || slices.Contains(whole.State[from:to], running)
	}
	if ran {
		t.Fatal("trials run in blocks that are looked at")
	}
	part.Recent.Runs = viewOf(t, whole, "").d.recent()
	e := viewOf(t, part, "").ETA()
	if ratio := float64(e.Seconds) / rest; math.Abs(float64(e.Busy)-slots) > 0.5 || ratio < 0.85 || ratio > 1.15 {
		t.Errorf("got %v at a time and %.2f of the true rest, want %d and about 1", e.Busy, ratio, slots)
	}
	part.Recent.From = part.Now - 20 // only what has ended in the last 20 s is included
	part.Recent.Runs = slices.DeleteFunc(part.Recent.Runs, func(r Run) bool {
		return !r.Running && r.End < part.Recent.From
	})
	if e := viewOf(t, part, "").ETA(); math.Abs(float64(e.Busy)-slots) > 0.5 {
		t.Errorf("from the newest trials: got %v at a time, want %d", e.Busy, slots)
	}
}

// TestAxesAreNamedOnce checks that repeating a name does not make a chart larger.
func TestAxesAreNamedOnce(t *testing.T) {
	v := viewOf(t, hand(t), "")
	if p, err := v.Parallel([]string{"a", "b", "a"}); err == nil {
		t.Errorf("got %d axes", len(p.Axes))
	}
	if g, err := v.Groups([]string{"a", "a"}, false); err == nil {
		t.Errorf("got groups over %v", g.Over)
	}
	var many []space.Axis
	for k := range 100 {
		many = append(many, numbers(fmt.Sprintf("k%d", k), "1"))
	}
	for k := range 50 {
		many[k] = numbers(many[k].Key, "1 2")
	}
	s, err := space.New(many[:60], nil)
	if err != nil {
		t.Fatal(err)
	}
	d := &Data{Space: s, Name: "loss"}
	p, err := viewOf(t, d, "").Parallel(nil)
	if err != nil || len(p.Axes) != maxParallel {
		t.Errorf("of 50 axes %d are drawn, %v; want %d", len(p.Axes), err, maxParallel)
	}
}

// TestLevelsOfHugeAxes checks that the levels of an axis of any size are consecutive and contain
// the positions that levelOf assigns to them.
func TestLevelsOfHugeAxes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.OneOf(rapid.Int64Range(2, 1000), rapid.Int64Range(1<<50, math.MaxInt64)).Draw(t, "size")
		s := spaceOf(t, nil, space.Axis{Key: "a", Interval: []json.Number{"0", json.Number(fmt.Sprint(size))}})
		a := newAxis(s, 0, "a")
		at := int64(0)
		for l, level := range a.Levels {
			if level.Lo != at || level.Hi <= level.Lo || a.levelOf(level.Lo) != uint8(l) ||
				a.levelOf(level.Hi-1) != uint8(l) {
				t.Fatalf("level %d of %d is %+v, and its ends are in %d and %d", l, size, level, a.levelOf(level.Lo),
					a.levelOf(level.Hi-1))
			}
			if level.Points != level.Hi-level.Lo || float64(level.Number) < float64(level.Lo) {
				t.Fatalf("level %d of %d is %+v", l, size, level)
			}
			at = level.Hi
		}
		if at != size {
			t.Fatalf("the levels end at %d, want %d", at, size)
		}
		if size > 1<<50 { // in a space with excluded points, a sample is examined, which ends
			large := spaceOf(t, nil,
				space.Axis{Key: "a", Interval: []json.Number{"0", json.Number(fmt.Sprint(size / 3))}}, numbers("b",
					"1 2 3"))
			for _, p := range large.Products() {
				if w := eachPoint(large, p, func([][]int64, int) {}); w < 1 {
					t.Fatalf("each point stands for %v", w)
				}
			}
		}
	})
}

// TestFiltersOfLongAxes checks that an axis with more values than a table is filtered in the same
// way as a short one, and by words, too.
func TestFiltersOfLongAxes(t *testing.T) {
	s := spaceOf(t, nil, space.Axis{Key: "a", Interval: []json.Number{"0", "70000"}})
	s, err := s.Extend([]space.Axis{numbers("a", "low -5 high")})
	if err != nil {
		t.Fatal(err)
	}
	d := dataOf(t, s, func(i int64, _ map[string]string) trial { return trial{state: grid.Succeeded} })
	for query, want := range map[string]int{
		"p[a]=10..19": 10, "p[a]=69990..": 10, "p[a]=..2": 4, "p[a]=low": 1, "p[a]=low&p[a]=high&p[a]=7": 3,
		"p[a]=7.0": 1, "p[a]=none": 0,
		"p[a]=1..3&p[a]=2..4": 4,
	} {
		if v := viewOf(t, d, query); len(v.rows) != want {
			t.Errorf("%s: got %d trials, want %d", query, len(v.rows), want)
		}
	}
}

// TestChanceIsNotConfounding draws random points of a large space: long axes have few trials for
// each pair of values, which does not mean that they varied together.
func TestChanceIsNotConfounding(t *testing.T) {
	s := spaceOf(t, nil, space.Axis{Key: "a", Interval: []json.Number{"0", "40"}},
		space.Axis{Key: "b", Interval: []json.Number{"0", "40"}}, numbers("c", "1 2 3"))
	r := rand.New(rand.NewPCG(1, 2))
	d := dataOf(t, s, func(i int64, p map[string]string) trial {
		if r.IntN(8) > 0 {
			return trial{}
		}
		return trial{state: grid.Succeeded, value: float64(i/120) + r.NormFloat64()}
	})
	for _, share := range viewOf(t, d, "").Importance(false).Axes {
		if share.Why != "" {
			t.Errorf("%s: %s", share.Key, share.Why)
		}
	}
}

// TestNoEffectNeedsPower checks that a parameter is said not to matter only when enough trials have
// shown it, and never if it matters together with another.
func TestNoEffectNeedsPower(t *testing.T) {
	for _, c := range []struct {
		reps  int
		wants bool
	}{{3, false}, {3000, true}} {
		s := spaceOf(t, nil, numbers("x", "0 1"), numbers("y", "0 1"), numbers("none", "1 2"),
			space.Axis{Key: "rep", Interval: []json.Number{"0", json.Number(fmt.Sprint(c.reps))}})
		for seed := range uint64(20) {
			r := rand.New(rand.NewPCG(seed, 3))
			d := dataOf(t, s, func(_ int64, p map[string]string) trial {
				value := r.NormFloat64()
				if p["x"] != p["y"] {
					value += 2
				}
				return trial{state: grid.Succeeded, value: value}
			})
			fixed := map[string]bool{}
			for _, suggestion := range viewOf(t, d, "").Suggestions().List {
				fixed[suggestion.Key] = suggestion.Kind == "fix"
			}
			if fixed["none"] != c.wants || fixed["x"] || fixed["y"] {
				t.Errorf("%d repetitions, seed %d: does not matter: %v; want none %v, and neither x nor y", c.reps,
					seed, fixed, c.wants)
			}
		}
	}
}

// TestSelectAgain checks that a filter always selects the same of all trials, whatever was selected
// before, and leaves other selections unchanged.
func TestSelectAgain(t *testing.T) {
	s := spaceOf(t, nil, numbers("a", "1 2 3"), space.Axis{Key: "b", Interval: []json.Number{"0", "300"}})
	d := dataOf(t, s, func(i int64, _ map[string]string) trial {
		return trial{state: grid.Succeeded, value: float64(i * 7 % 31), start: float64(i), wall: 1,
			node: uint16(1 + i%2)}
	})
	whole := viewOf(t, d, "")
	before := whole.Marginals()
	for _, query := range []string{"p[a]=2", "p[b]=10..20&node=n2", "d[b]=290..&p[a]=1&p[a]=3",
		"t=5..9", "p[a]=9", ""} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		w, err := ParseWhere(q)
		if err != nil {
			t.Fatal(err)
		}
		again, err := whole.Select(w)
		if err != nil {
			t.Fatal(err)
		}
		want := viewOf(t, d, query).Marginals()
		if got := again.Marginals(); text(t, got) != text(t, want) {
			t.Errorf("%s: got %+v, want %+v", query, got, want)
		}
	}
	if got := whole.Marginals(); text(t, got) != text(t, before) {
		t.Errorf("all trials: got %+v, want %+v", got, before)
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
