package chart

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// tester is the common interface of *testing.T and *rapid.T.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
}

// numbers makes an axis from values, with their source texts.
func numbers(key, texts string) space.Axis {
	a := space.Axis{Key: key}
	for _, text := range strings.Fields(texts) {
		v := space.Value{Text: text, Kind: space.Text}
		if strings.ContainsAny(text[:1], "-0123456789") {
			v.Kind = space.Number
		}
		a.Values = append(a.Values, v)
	}
	return a
}

func spaceOf(t tester, exclude []string, axes ...space.Axis) space.Space {
	t.Helper()
	s, err := space.New(axes, exclude)
	if err != nil {
		t.Fatalf("make space: %v", err)
	}
	return s
}

// trial is one entry of a hand-made grid.
type trial struct {
	state       grid.State // "" for none
	value, wall float64
	start       float64
	cause       uint8
	node        uint16
}

// dataOf makes columns from the results of fn for each point.
func dataOf(t tester, s space.Space, fn func(index int64, p map[string]string) trial) *Data {
	t.Helper()
	n := int((s.Count() + BlockTrials - 1) / BlockTrials)
	d := &Data{Space: s, Name: "loss", Nodes: []grid.NodeID{"n1", "n2"}}
	d.Metrics = map[string][]float32{}
	for b := range n {
		d.Blocks = append(d.Blocks, int64(b)*BlockTrials)
	}
	rows := n * BlockTrials
	d.State, d.Class, d.Cause, d.Node = make([]uint8, rows), make([]uint8, rows), make([]uint8, rows),
		make([]uint16, rows)
	d.Started, d.Ended, d.Wall, d.Value = make([]float32, rows), make([]float32, rows), make([]float32, rows),
		make([]float32, rows)
	for i := range s.Count() {
		p, err := s.At(i)
		if err != nil {
			t.Fatalf("point %d: %v", i, err)
		}
		values := map[string]string{}
		for _, q := range p {
			values[q.Key] = label(q.Value)
		}
		x := fn(i, values)
		d.Started[i], d.Ended[i], d.Wall[i], d.Value[i] = float32(math.NaN()), float32(math.NaN()),
			float32(math.NaN()), float32(math.NaN())
		if x.state == "" {
			continue
		}
		d.State[i], d.Cause[i], d.Node[i] = code(x.state), x.cause, x.node
		d.Started[i] = float32(x.start)
		if ended(d.State[i]) {
			d.Ended[i], d.Wall[i], d.Value[i] = float32(x.start)+float32(x.wall), float32(x.wall), float32(x.value)
			d.Done++
		}
		d.Now = max(d.Now, x.start+x.wall)
	}
	return d
}

func viewOf(t tester, d *Data, query string) *View {
	t.Helper()
	q, err := url.ParseQuery(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	w, err := ParseWhere(q)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	v, err := New(d, w)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

// hand is a grid of 3 × 2 × 1 trials, of which one failed and one has not run. Its losses are a +
// 10·b, with the seed 7 for all:
//
//	       a=1  a=2  a=3
//	b=0      1    2    3
//	b=1     11    -    ✕
func hand(t tester) *Data {
	s := spaceOf(t, nil, numbers("a", "1 2 3"), numbers("b", "0 1"), numbers("seed", "7"))
	return dataOf(t, s, func(i int64, p map[string]string) trial {
		x := trial{state: grid.Succeeded, start: float64(i), wall: 2, node: 1}
		a, b := float64(p["a"][0]-'0'), float64(p["b"][0]-'0')
		x.value = a + 10*b
		switch {
		case a == 2 && b == 1:
			x.state = ""
		case a == 3 && b == 1:
			x.state, x.value, x.cause, x.node = grid.Failed, math.NaN(), 1, 2
		}
		return x
	})
}

func ints[T int | int64](n ...T) []T { return n }

func wantNumbers(t tester, what string, got []Number, want ...float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
	for i := range got {
		g := float64(got[i])
		if math.Abs(g-want[i]) > 1e-6*max(1, math.Abs(want[i])) || math.IsNaN(g) != math.IsNaN(want[i]) {
			t.Fatalf("%s: got %v, want %v", what, got, want)
		}
	}
}

func TestMarginalsOfAHandMadeGrid(t *testing.T) {
	v := viewOf(t, hand(t), "")
	m := v.Marginals()
	nan := math.NaN()
	if m.N != 4 || m.Missing != 1 || m.Trial != 0 || m.Matched != 5 || m.Count != 6 ||
		!slices.Equal(m.Hidden, []string{"seed"}) {
		t.Errorf("got %+v", m)
	}
	a := m.Axes[0]
	wantNumbers(t, "means of a", a.Mean, 6, 2, 3)
	wantNumbers(t, "best of a", a.Best, 1, 2, 3)
	wantNumbers(t, "ranks of a", a.Rank, 0.5, 1./3, 2./3)
	wantNumbers(t, "deviations of a", a.SD, math.Sqrt(50), nan, nan)
	wantNumbers(t, "confidence of a", a.Half, 12.706*5, nan, nan)
	if !slices.Equal(a.Done, ints[int64](2, 1, 2)) || !slices.Equal(a.Failed, ints[int64](0, 0, 1)) ||
		a.Levels[1].Points != 2 {
		t.Errorf("a: got %+v", a)
	}
	wantNumbers(t, "means of b", m.Axes[1].Mean, 2, 11)
}

func TestHeatOfAHandMadeGrid(t *testing.T) {
	v := viewOf(t, hand(t), "")
	nan := math.NaN()
	for stat, want := range map[string][]float64{
		StatMean: {1, 2, 3, 11, nan, nan}, StatBest: {1, 2, 3, 11, nan, nan}, StatMedian: {1, 2, 3, 11, nan, nan},
		StatCount: {1, 1, 1, 1, 0, 0}, StatDone: {1, 1, 1, 1, 0, 1}, StatFailed: {0, 0, 0, 0, nan, 1},
	} {
		h, err := v.Heat("a", "b", "", stat)
		if err != nil {
			t.Fatal(err)
		}
		wantNumbers(t, stat, slices.Concat(h.Cells[0].Value...), want...)
	}
	for _, bad := range [][4]string{{"x", "b", "", "mean"}, {"a", "seed", "", "mean"}, {"a", "b", "x", "mean"},
		{"a", "b", "", "mode"}} {
		if h, err := v.Heat(bad[0], bad[1], bad[2], bad[3]); err == nil {
			t.Errorf("%v: got %v, want an error", bad, h)
		}
	}
}

// TestMedian checks the median of an odd number of values, the middle one, and of an even number,
// the mean of the two middle ones.
func TestMedian(t *testing.T) {
	s := spaceOf(t, nil, numbers("a", "1 2"), numbers("b", "1 2"), numbers("seed", "1 2 3"))
	d := dataOf(t, s, func(i int64, p map[string]string) trial {
		x := trial{state: grid.Succeeded, value: []float64{5, 1, 9}[i%3]}
		if p["a"] == "2" && p["seed"] == "3" {
			x.state = ""
		}
		return x
	})
	h, err := viewOf(t, d, "").Heat("a", "b", "", StatMedian)
	if err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, "medians", h.Cells[0].Value[0], 5, 3)
}

func TestHistogramAndHistory(t *testing.T) {
	v := viewOf(t, hand(t), "")
	h := v.Histogram()
	sum := int64(0)
	for _, n := range h.Counts {
		sum += n
	}
	if sum != 4 || h.Counts[0] != 1 || h.Counts[bins-1] != 1 || len(h.Edges) != bins+1 {
		t.Errorf("histogram: got %+v", h)
	}
	wantNumbers(t, "quantiles", h.Quantiles[:1], 1)
	d := hand(t)
	d.Maximize = true
	got := viewOf(t, d, "").History()
	wantNumbers(t, "best so far", got.Best, 1, 11)
	wantNumbers(t, "times", got.Time, 2, 3)
}

func TestFilters(t *testing.T) {
	d := hand(t)
	d.Metrics["acc"] = slices.Clone(d.Value)
	d.Metrics["tenth"] = slices.Clone(d.Value)
	for r, v := range d.Value {
		d.Metrics["tenth"][r] = map[float32]float32{1: 0.1, 2: 0.9}[v] // 0 for all others
	}
	d.Classes = []grid.Class{grid.ClassExit}
	d.Class[5] = 1
	for query, want := range map[string][]int64{
		"":                              {0, 1, 2, 4, 5},
		"p[a]=1":                        {0, 1},
		"p[a]=1..2&p[b]=0":              {0, 2},
		"p[a]=1&p[a]=3":                 {0, 1, 4, 5},
		"p[a]=2..":                      {2, 4, 5},
		"d[a]=0..0":                     {0, 1},
		"d[a]=..1&d[b]=1":               {1},
		"m[acc]=2..3":                   {2, 4},
		"m[tenth]=0.9":                  {2}, // which the column's type cannot represent
		"m[tenth]=0.9..":                {2},
		"m[tenth]=0.05..0.1":            {0},
		"state=failed":                  {5},
		"state=failed&state=succeeded":  {0, 1, 2, 4, 5},
		"class=exit":                    {5},
		"class=oom":                     nil,
		"cause=1":                       {5},
		"node=n2":                       {5},
		"node=n9":                       nil,
		"t=1..2":                        {1, 2},
		"unknown=1&value=x&p=1&state[]": {0, 1, 2, 4, 5},
	} {
		v := viewOf(t, d, query)
		var got []int64
		for _, r := range v.rows {
			got = append(got, d.index(r))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got trials %v, want %v", query, got, want)
		}
		if want == nil && (len(v.head("").Parts) == 0 ||
			v.head("").Sentence != "No trial that has run matches the filter.") {
			t.Errorf("%s: got %+v, want the parts of the filter", query, v.head(""))
		}
	}
	for _, query := range []string{"d[a]=x", "m[acc]=1..x", "t=..", "state=lost", "cause=999", "p[c]=1", "m[f1]=1.."} {
		q, _ := url.ParseQuery(query)
		w, err := ParseWhere(q)
		if err == nil {
			_, err = New(d, w)
		}
		if err == nil {
			t.Errorf("%s: got no error", query)
		}
	}
}

func TestSlicesOfAHandMadeGrid(t *testing.T) {
	s, err := viewOf(t, hand(t), "state=failed").Slices(1) // a=1, b=1
	if err != nil {
		t.Fatal(err)
	}
	a := s.Axes[0]
	if a.At != 0 || !slices.Equal(a.Index, ints[int64](1, 3, 5)) ||
		!slices.Equal(a.State, []string{"succeeded", "pending", "failed"}) {
		t.Errorf("got %+v", a)
	}
	wantNumbers(t, "along a", a.Value, 11, math.NaN(), math.NaN())
	wantNumbers(t, "along b", s.Axes[1].Value, 1, 11)
	if _, err := viewOf(t, hand(t), "").Slices(6); err == nil {
		t.Error("a trial that is not there has slices")
	}
}

// TestImportanceOfAKnownFunction checks the shares of y = 2·a + b + a·b on a whole grid of -1, 0
// and 1 twice: variances of 8/3, 2/3 and 4/9.
func TestImportanceOfAKnownFunction(t *testing.T) {
	s := spaceOf(t, nil, numbers("a", "-1 0 1"), numbers("b", "-1 0 1"), numbers("none", "1 2"),
		numbers("rep", "1 2 3 4 5 6"))
	d := dataOf(t, s, func(_ int64, p map[string]string) trial {
		a, b := float64(number(space.Value{Text: p["a"], Kind: space.Number})),
			float64(number(space.Value{Text: p["b"], Kind: space.Number}))
		return trial{state: grid.Succeeded, value: 2*a + b + a*b}
	})
	got := viewOf(t, d, "").Importance(true)
	total := 8./3 + 2./3 + 4./9
	if got.Axes[0].Key != "a" || math.Abs(float64(got.Axes[0].Share)-8./3/total) > 0.01 {
		t.Errorf("a: got %+v, want %.3f", got.Axes[0], 8./3/total)
	}
	if got.Axes[1].Key != "b" || math.Abs(float64(got.Axes[1].Share)-2./3/total) > 0.01 {
		t.Errorf("b: got %+v, want %.3f", got.Axes[1], 2./3/total)
	}
	if got.Axes[2].Share != 0 || got.Axes[3].Share != 0 {
		t.Errorf("the others: got %+v, want nothing", got.Axes[2:])
	}
	if p := got.Pairs[0]; p.X != "a" || p.Y != "b" || math.Abs(float64(p.Share)-4./9/total) > 0.01 {
		t.Errorf("pair: got %+v, want %.3f", p, 4./9/total)
	}
	half := viewOf(t, d, "p[a]=1").Importance(true)
	if i := slices.IndexFunc(half.Axes,
		func(s AxisShare) bool { return s.Key == "a" }); half.Axes[i].Why != "only one value has run" {
		t.Errorf("one value of a: got %+v", half.Axes[i])
	}
}

// TestSampledRows samples a very large number of rows, in whose order the last axis changes
// fastest: each of its values is as frequent in the sample as in all rows.
func TestSampledRows(t *testing.T) {
	const rows = 100_001
	for _, turn := range []int{2, 3, 4, 6} {
		for _, step := range []int{1, 2, 3, 4, 12} {
			some, counts := oneOfEach(rows, step), make([]float64, turn)
			for i, r := range some {
				if i > 0 && r <= some[i-1] {
					t.Fatalf("rows %d and %d stand in another order", some[i-1], r)
				}
				counts[r%turn]++
			}
			if n := rows / step; len(some) < n || len(some) > n+1 {
				t.Errorf("one of %d: got %d of %d rows", step, len(some), rows)
			}
			for v, n := range counts {
				if got, want := n/float64(len(some)), 1/float64(turn); math.Abs(got-want) > 0.02 {
					t.Errorf("one of %d: value %d of %d has a share of %.3f, want %.3f", step, v, turn, got, want)
				}
			}
		}
	}
}

// TestConfounded checks that of two parameters that only varied together, neither has a share.
func TestConfounded(t *testing.T) {
	s := spaceOf(t, nil, numbers("a", "1 2"), numbers("b", "1 2"), numbers("rep", "1 2 3 4 5 6 7 8 9"))
	d := dataOf(t, s, func(i int64, p map[string]string) trial {
		if p["a"] != p["b"] {
			return trial{}
		}
		return trial{state: grid.Succeeded, value: float64(i)}
	})
	for _, share := range viewOf(t, d, "").Importance(false).Axes {
		if (share.Key != "rep") != strings.HasSuffix(share.Why, "have run together only") {
			t.Errorf("got %+v", share)
		}
	}
}

// TestFailuresAreLifted checks the lift of bs=512 when trials with bs=512 fail, and some others
// fail for another reason.
func TestFailuresAreLifted(t *testing.T) {
	s := spaceOf(t, nil, numbers("bs", "64 128 256 512"), numbers("opt", "adam sgd"),
		numbers("seed", "1 2 3 4 5 6 7 8 9 10"))
	d := dataOf(t, s, func(i int64, p map[string]string) trial {
		switch {
		case p["bs"] == "512":
			return trial{state: grid.Failed, cause: 1, node: 1, wall: 1, start: float64(i)}
		case i%13 == 0:
			return trial{state: grid.Failed, cause: 2, node: 2, wall: 1, start: float64(i)}
		}
		return trial{state: grid.Succeeded, node: uint16(1 + i%2), wall: 1, start: float64(i)}
	})
	d.Causes = []Cause{{ID: 1, Class: grid.ClassMemory, Attempts: 40, Trial: 60},
		{ID: 2, Class: grid.ClassExit, Signature: "KeyError: '…'"}}
	f := viewOf(t, d, "").Failures()
	if f.Failed != 25 || len(f.Groups) != 2 || f.Groups[0].Count != 20 || f.Groups[0].Attempts != 40 ||
		f.Groups[1].Signature != "KeyError: '…'" {
		t.Fatalf("got %+v", f)
	}
	l := f.Groups[0].Lifts[0]
	if l.Key != "bs" || l.Label != "512" || l.Share != 1 || l.Base != 0.25 || l.Lift != 4 || l.P > 1e-10 {
		t.Errorf("got %+v, want bs=512", l)
	}
	if len(f.Groups[1].Lifts) > 0 {
		t.Errorf("failures by chance: got %+v, want nothing that predicts them", f.Groups[1].Lifts)
	}
	if !strings.Contains(f.Sentence, "100 % have bs=512, expected 25 %") {
		t.Errorf("got %q", f.Sentence)
	}
}

// TestFisher compares fisher with the table of the lady tasting tea, and with a result of R's
// fisher.test(alternative = "greater").
func TestFisher(t *testing.T) {
	for _, c := range []struct {
		k, n, have, total int64
		want              float64
	}{{4, 4, 4, 8, 1. / 70}, {3, 4, 4, 8, 17. / 70}, {0, 3, 5, 10, 1}, {5, 5, 5, 5, 1}} {
		if got := fisher(c.k, c.n, c.have, c.total); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

// TestGroupsOverSeeds checks that the group with the best single trial is not the best group.
func TestGroupsOverSeeds(t *testing.T) {
	s := spaceOf(t, nil, numbers("lr", "1 2"), numbers("seed", "1 2 3"))
	values := []float64{3, 3.1, 2.9, 1, 9, 8}
	d := dataOf(t, s, func(i int64, _ map[string]string) trial {
		return trial{state: grid.Succeeded, value: values[i]}
	})
	g, err := viewOf(t, d, "").Groups([]string{"seed"}, false)
	if err != nil {
		t.Fatal(err)
	}
	wantNumbers(t, "means", g.Mean, 3, 6)
	if g.Total != 2 || g.Levels[0][0] != 0 || g.N[0] != 3 || g.Trial[0] != 2 {
		t.Errorf("got %+v", g)
	}
	if g.Lucky == nil || g.Lucky.Trial != 3 || g.Lucky.Place != 2 || g.Equal != 1 {
		t.Errorf("lucky: got %+v and %d equal", g.Lucky, g.Equal)
	}
	if _, err := viewOf(t, d, "").Groups([]string{"x"}, false); err == nil {
		t.Error("averaging over an unknown parameter worked")
	}
}

func TestTimeline(t *testing.T) {
	got := viewOf(t, hand(t), "").Timeline()
	if !slices.Equal(got.Bars.Lane, []int{0, 1, 0, 0, 0}) && !slices.Equal(got.Bars.Lane, []int{0, 1, 0, 1, 0}) {
		t.Errorf("lanes: got %v", got.Bars.Lane)
	}
	s := spaceOf(t, nil, numbers("a", "1 2"), space.Axis{Key: "b", Interval: []json.Number{"0", "2000"}})
	d := dataOf(t, s, func(i int64, _ map[string]string) trial {
		return trial{state: grid.Succeeded, start: float64(i / 4), wall: 1, node: 1 + uint16(i%2)}
	})
	many := viewOf(t, d, "").Timeline()
	if many.Bars != nil || len(many.Lanes) != 2 {
		t.Fatalf("got %d lanes, want 2 and no bars", len(many.Lanes))
	}
	for _, f := range many.Lanes[0].Busy[1 : laneBins-1] {
		if math.Abs(float64(f)-2) > 0.01 {
			t.Fatalf("busy: got %v, want 2 all the time", many.Lanes[0].Busy)
		}
	}
}

// simulate runs a sweep whose trials take as long as wall says, on a number of slots in the given
// order. It returns what was known when a share of them had ended, and the true remaining time.
func simulate(
	t tester, s space.Space, order []int64, slots int, share float64, wall func(map[string]string) float64,
) (*Data, float64) {
	t.Helper()
	r := rand.New(rand.NewPCG(3, 4))
	n := s.Count()
	took, start := make([]float64, n), make([]float64, n)
	for i := range n {
		p, err := s.At(i)
		if err != nil {
			t.Fatalf("point %d: %v", i, err)
		}
		values := map[string]string{}
		for _, q := range p {
			values[q.Key] = label(q.Value)
		}
		took[i] = wall(values) * math.Exp(0.15*r.NormFloat64())
	}
	free := make([]float64, slots)
	var ends []float64
	for _, i := range order {
		k := 0
		for j := range free {
			if free[j] < free[k] {
				k = j
			}
		}
		start[i] = free[k]
		free[k] += took[i]
		ends = append(ends, free[k])
	}
	slices.Sort(ends)
	now := ends[int(share*float64(n))]
	d := dataOf(t, s, func(i int64, _ map[string]string) trial {
		switch {
		case start[i]+took[i] <= now:
			return trial{state: grid.Succeeded, start: start[i], wall: took[i]}
		case start[i] <= now:
			return trial{state: grid.Running, start: start[i]}
		}
		return trial{}
	})
	d.Now = now
	return d, ends[len(ends)-1] - now
}

// TestETAOfSimulatedSweeps checks that the estimate is within 15 % of the truth from 25 % on. The
// old formula, which uses only the number of trials, is printed beside it.
func TestETAOfSimulatedSweeps(t *testing.T) {
	s := spaceOf(t, nil, numbers("epoch", "5 10 20 40 80"), numbers("batch", "32 64 128 256"),
		numbers("lr", "1e-4 3e-4 1e-3 3e-3 1e-2"),
		numbers("opt", "adam sgd rms"), numbers("seed", "1 2 3 4 5"))
	slow := func(p map[string]string) float64 {
		f := func(key string) float64 { return float64(number(space.Value{Text: p[key], Kind: space.Number})) }
		return f("epoch") * math.Pow(f("batch")/32, -0.4) * map[string]float64{"adam": 1.3, "sgd": 1,
			"rms": 1.1}[p["opt"]]
	}
	index := make([]int64, s.Count())
	for i := range index {
		index[i] = int64(i)
	}
	spread := slices.Clone(index)
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(spread), func(i, j int) { spread[i], spread[j] = spread[j], spread[i] })
	backwards := slices.Clone(index)
	slices.Reverse(backwards)
	for _, c := range []struct {
		name  string
		order []int64
		wall  func(map[string]string) float64
	}{
		{"slow axis first, by index", index, slow}, {"slow axis first, spread", spread, slow},
		{"longest first", backwards, slow},
		{"all alike", index, func(map[string]string) float64 { return 10 }},
	} {
		line := ""
		for _, share := range []float64{0.05, 0.1, 0.25, 0.5, 0.75, 0.95} {
			d, rest := simulate(t, s, c.order, 16, share, c.wall)
			e := viewOf(t, d, "").ETA()
			old := float64(s.Count()-d.Done) * d.Now / float64(d.Done)
			line += fmt.Sprintf("  %.0f %%: %.2f (old %.2f)", 100*share, float64(e.Seconds)/rest, old/rest)
			if e.Least {
				line += " at least"
			}
			if ratio := float64(e.Seconds) / rest; share >= 0.25 && share < 0.9 &&
				(ratio < 0.85 || ratio > 1.15) && !e.Least {
				t.Errorf("%s at %.0f %%: got %.2f of the true rest", c.name, 100*share, ratio)
			}
		}
		t.Logf("%s: predicted / true rest%s", c.name, line)
	}
}

// TestPartsOfAFilter checks that the selections of the single levels of an axis add up to the
// whole, in every sum of the marginals and whatever is excluded.
func TestPartsOfAFilter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var exclude []string
		if rapid.Bool().Draw(t, "exclude") {
			exclude = []string{"a == 1 and b == 2"}
		}
		s := spaceOf(t, exclude, numbers("a", "1 2 3"), numbers("b", "1 2"),
			space.Axis{Key: "c", Interval: []json.Number{"0", "200"}})
		states := append([]grid.State{""}, grid.States[:]...)
		d := dataOf(t, s, func(i int64, _ map[string]string) trial {
			return trial{state: states[rapid.IntRange(0, len(states)-1).Draw(t, "state")], value: float64(i % 17),
				wall: 1, start: float64(i)}
		})
		all := viewOf(t, d, "").Marginals()
		var n, done int64
		for _, b := range []string{"1", "2"} {
			part := viewOf(t, d, "p[b]="+b).Marginals()
			n, done = n+part.N, done+sum(part.Axes[2].Done)
		}
		if n != all.N || done != sum(all.Axes[2].Done) {
			t.Fatalf("parts: got %d values and %d ended, want %d and %d", n, done, all.N, sum(all.Axes[2].Done))
		}
		points := int64(0)
		for _, m := range all.Axes {
			if got := sum(m.N); got != all.N {
				t.Fatalf("values by %s: got %d, want %d", m.Key, got, all.N)
			}
			points = 0
			for _, l := range m.Levels {
				points += l.Points
			}
			if points != s.Count() {
				t.Fatalf("points by %s: got %d, want %d", m.Key, points, s.Count())
			}
		}
	})
}

func sum(n []int64) (total int64) {
	for _, k := range n {
		total += k
	}
	return total
}

// TestSortRows compares sortRows with a comparison sort, for any values.
func TestSortRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		column := rapid.SliceOf(rapid.OneOf(rapid.Float32(),
			rapid.SampledFrom([]float32{0, 1, float32(math.NaN()), float32(math.Inf(-1))}))).Draw(t, "values")
		desc := rapid.Bool().Draw(t, "descending")
		var rows, want []int32
		for i, f := range column {
			rows = append(rows, int32(i))
			if f == f {
				want = append(want, int32(i))
			}
		}
		slices.SortStableFunc(want, func(i, j int32) int {
			a, b := column[i], column[j]
			if desc {
				a, b = b, a
			}
			switch {
			case a < b:
				return -1
			case a > b:
				return 1
			}
			return 0
		})
		if got := sortRows(rows, column, desc); !slices.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	})
}

// FuzzWhere parses filters that any client may send: parsing does not panic, and a filter that is
// formatted and parsed again is the same.
func FuzzWhere(f *testing.F) {
	for _, seed := range []string{"p[lr]=0.001..0.01", "d[lr]=3..7&state=failed", "m[acc]=0.9..",
		"class=oom&node=gpu-2&t=1..2", "p[]=..&p[=x", "m[acc]=NaN..Inf"} {
		f.Add(seed)
	}
	d := hand(f)
	d.Metrics["acc"] = d.Value
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		w, err := ParseWhere(q)
		if err != nil {
			return
		}
		again, err := ParseWhere(w.Query())
		if err != nil || again.Query().Encode() != w.Query().Encode() {
			t.Errorf("%q: got %v, %v, want the same filter", query, again, err)
		}
		if v, err := New(d, w); err == nil && v.known != 5 {
			t.Errorf("%q: %d trials are known, want 5", query, v.known)
		}
	})
}
