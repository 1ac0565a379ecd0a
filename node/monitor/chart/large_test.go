package chart

import (
	"cmp"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// TestLargeSelections compares charts of so many trials that their loops are divided with plain
// loops over the same trials.
func TestLargeSelections(t *testing.T) {
	interval := func(key, n string) space.Axis {
		return space.Axis{Key: key, Interval: []json.Number{"0", json.Number(n)}}
	}
	s := spaceOf(t, nil, interval("a", "10"), interval("f", "100"), interval("b", "300"))
	d := dataOf(t, s, func(int64, map[string]string) trial { return trial{state: grid.Succeeded} })
	random := rand.New(rand.NewPCG(1, 2))
	d.Now = 5000
	for r := range d.State {
		d.Started[r], d.Ended[r] = float32(r)/100, float32(r)/100+float32(random.IntN(900))
		d.Value[r] = float32(math.Round(random.NormFloat64()*1000) / 100) // many are equal
		switch random.IntN(20) {
		case 0:
			d.Value[r] = float32(math.NaN())
		case 1:
			d.State[r] = failed
		case 2:
			d.State[r] = running
		}
	}
	for _, maximize := range []bool{false, true} {
		d.Maximize = maximize
		v := viewOf(t, d, "d[f]=3..90")
		if len(v.rows) < 3*leastRows {
			t.Fatalf("%d trials are too few for this test", len(v.rows))
		}
		var want []int32
		for i := range int64(len(d.State)) {
			if f := i / 300 % 100; i < s.Count() && f >= 3 && f <= 90 {
				want = append(want, int32(i))
			}
		}
		if !slices.Equal(v.rows, want) {
			t.Fatalf("selected: got %d trials, want %d, or others", len(v.rows), len(want))
		}
		compareOrder(t, v)
		compareHistory(t, v)
		compareMedians(t, v)
		compareMarginals(t, v)
		compareTimeline(t, v)
		h := v.Histogram()
		sorted, _ := v.order()
		if total := sum(h.Counts) + h.Below + h.Above; total != int64(len(sorted)) || h.N != total {
			t.Errorf("histogram: %d values in bins, %d counted, want %d", total, h.N, len(sorted))
		}
		done, runs, failures := countStates(v, 1)
		for l := range done {
			var want [3]int64
			for _, r := range v.rows {
				if int(v.levels[1][r]) != l {
					continue
				}
				switch d.State[r] {
				case running:
					want[1]++
				case failed:
					want[2]++
					fallthrough
				default:
					want[0]++
				}
			}
			if got := [3]int64{done[l], runs[l], failures[l]}; got != want {
				t.Errorf("done, running and failed of level %d: got %v, want %v", l, got, want)
			}
		}
	}
}

// compareOrder compares the order and the ranks of a selection with those of a plain sort.
func compareOrder(t *testing.T, v *View) {
	t.Helper()
	var want []int32
	for _, r := range v.rows {
		if v.value[r] == v.value[r] {
			want = append(want, r)
		}
	}
	slices.SortStableFunc(want, func(a, b int32) int {
		if v.d.Maximize {
			a, b = b, a
		}
		return cmp.Compare(v.value[a], v.value[b])
	})
	sorted, values := v.order()
	if !slices.Equal(sorted, want) || len(values) != len(want) {
		t.Fatal("the order is not that of the values")
	}
	for i, r := range want {
		if values[i] != v.value[r] {
			t.Fatalf("value in place %d: got %g, want %g", i, values[i], v.value[r])
		}
	}
	ranks := v.ranks()
	for lo := 0; lo < len(want); {
		hi := lo
		for hi < len(want) && v.value[want[hi]] == v.value[want[lo]] {
			hi++
		}
		rank := float64(lo+hi-1) / 2 / float64(len(want)-1)
		for ; lo < hi; lo++ {
			if got := float64(ranks[want[lo]]); math.Abs(got-rank) > 1e-5 {
				t.Fatalf("rank of row %d: got %g, want %g", want[lo], got, rank)
			}
		}
	}
}

// compareHistory compares the best values so far with a walk over all trials in the order of their
// ends.
func compareHistory(t *testing.T, v *View) {
	t.Helper()
	rows := slices.Clone(v.rows)
	slices.SortStableFunc(rows, func(a, b int32) int { return cmp.Compare(v.d.Ended[a], v.d.Ended[b]) })
	var want []int64
	best := float32(math.NaN())
	for _, r := range rows {
		if f := v.value[r]; f == f && ended(v.d.State[r]) && (best != best || v.better(f, best)) {
			best = f
			want = append(want, v.d.index(r))
		}
	}
	if got := v.History().Trial; !slices.Equal(got, want) {
		t.Errorf("history: got %v, want %v", got, want)
	}
}

// compareMedians compares a heat map with the sorted values of each cell.
func compareMedians(t *testing.T, v *View) {
	t.Helper()
	for _, stat := range []string{StatMedian, StatBest, StatMean, StatFailed} {
		h, err := v.Heat("a", "f", "", stat)
		if err != nil {
			t.Fatal(err)
		}
		values, fails := map[[2]uint8][]float64{}, map[[2]uint8]float64{}
		for _, r := range v.rows {
			at := [2]uint8{v.levels[1][r], v.levels[0][r]}
			if stat == StatFailed && ended(v.d.State[r]) {
				values[at] = append(values[at], 0)
				if v.d.State[r] == failed {
					fails[at]++
				}
			} else if f := float64(v.value[r]); stat != StatFailed && f == f {
				values[at] = append(values[at], f)
			}
		}
		for at, all := range values {
			slices.Sort(all)
			n, total := len(all), 0.0
			for _, f := range all {
				total += f
			}
			want := map[string]float64{StatMedian: (all[(n-1)/2] + all[n/2]) / 2, StatBest: all[0],
				StatMean: total / float64(n), StatFailed: fails[at] / float64(n)}[stat]
			if v.d.Maximize && stat == StatBest {
				want = all[n-1]
			}
			if got := float64(h.Cells[0].Value[at[0]][at[1]]); h.Cells[0].N[at[0]][at[1]] != int64(n) ||
				math.Abs(got-want) > 1e-9 {
				t.Fatalf("%s of %v: got %g of %d, want %g of %d", stat, at, got, h.Cells[0].N[at[0]][at[1]], want, n)
			}
		}
	}
}

// compareMarginals compares the sums for each level of each axis with plain sums.
func compareMarginals(t *testing.T, v *View) {
	t.Helper()
	m := v.Marginals()
	for a := range v.axes {
		n := len(v.axes[a].Levels)
		counts, sums, ranks := make([]int64, n), make([]float64, n), make([]float64, n)
		best, done, fails := make([]float32, n), make([]int64, n), make([]int64, n)
		for _, r := range v.rows {
			l, f := v.levels[a][r], v.value[r]
			if ended(v.d.State[r]) {
				done[l]++
			}
			if v.d.State[r] == failed {
				fails[l]++
			}
			if f != f {
				continue
			}
			if counts[l] == 0 || v.better(f, best[l]) {
				best[l] = f
			}
			counts[l]++
			sums[l] += float64(f)
			ranks[l] += float64(v.ranks()[r])
		}
		got := m.Axes[a]
		if !slices.Equal(got.N, counts) || !slices.Equal(got.Done, done) || !slices.Equal(got.Failed, fails) {
			t.Errorf("axis %d: got %v, %v and %v, want %v, %v and %v", a, got.N, got.Done, got.Failed,
				counts, done, fails)
		}
		for l, k := range counts {
			if k == 0 {
				continue
			}
			mean, rank := sums[l]/float64(k), ranks[l]/float64(k)
			if math.Abs(float64(got.Mean[l])-mean) > 1e-9 || math.Abs(float64(got.Rank[l])-rank) > 1e-9 ||
				got.Best[l] != Number(best[l]) {
				t.Errorf("axis %d, level %d: got %g, %g and %g, want %g, %g and %g", a, l, got.Mean[l], got.Rank[l],
					got.Best[l], mean, rank, best[l])
			}
		}
	}
}

// compareTimeline compares the numbers of trials that ended and ran in each bin with sums over all
// of them.
func compareTimeline(t *testing.T, v *View) {
	t.Helper()
	line := v.Timeline()
	width := float64(line.Edges[1] - line.Edges[0])
	states, ran, busy := map[uint8]int64{}, 0.0, 0.0
	for _, r := range v.rows {
		states[v.d.State[r]]++
		ran += float64(v.barEnd(r) - v.d.Started[r])
	}
	for _, lane := range line.Lanes {
		for _, f := range lane.Busy {
			busy += float64(f) * width
		}
	}
	if math.Abs(busy/ran-1) > 1e-3 {
		t.Errorf("trials ran for %g s in the bins, want %g", busy, ran)
	}
	if a, b := sum(line.Rate.Succeeded), sum(line.Rate.Failed); a != states[succeeded] || b != states[failed] {
		t.Errorf("got %d and %d trials that ended, want %d and %d", a, b, states[succeeded], states[failed])
	}
}

// TestJoints sums up by pairs of factors, several of which may share a pass, and compares the sums
// with one pass for each pair.
func TestJoints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const rows = 700
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		var factors []factor
		for range rapid.IntRange(1, 7).Draw(t, "factors") {
			n := rapid.IntRange(1, maxLevels).Draw(t, "levels")
			levels := make([]uint8, rows)
			for r := range levels {
				levels[r] = uint8(random.IntN(n))
			}
			factors = append(factors,
				newFactor(levels, n, rapid.SampledFrom([]int{3, 16, maxLevels}).Draw(t, "merged")))
		}
		place := rapid.IntRange(0, len(factors)-1)
		var pairs [][2]int
		for range rapid.IntRange(1, 20).Draw(t, "pairs") {
			pairs = append(pairs, [2]int{place.Draw(t, "x"), place.Draw(t, "y")})
		}
		var some []int32
		y := make([]float32, rows)
		for r := range y {
			if y[r] = float32(random.IntN(100)); random.IntN(9) == 0 {
				y[r] = float32(math.NaN())
			}
			if random.IntN(3) > 0 {
				some = append(some, int32(r))
			}
		}
		for i, got := range sumPairs(factors, pairs, some, y) {
			x, z := &factors[pairs[i][0]], &factors[pairs[i][1]]
			want := pairSums{make([]int64, x.size*z.size), make([]float64, x.size*z.size)}
			for _, r := range some {
				if f := y[r]; f == f {
					at := int(z.merged[z.levels[r]])*x.size + int(x.merged[x.levels[r]])
					want.n[at]++
					want.sum[at] += float64(f)
				}
			}
			if !slices.Equal(got.n, want.n) || !slices.Equal(got.sum, want.sum) {
				t.Fatalf("pair %v of %d: got %v, want %v", pairs[i], len(factors), got, want)
			}
		}
		for _, j := range cover(factors, pairs) {
			if j.size > maxJoint && len(j.places) > 2 {
				t.Fatalf("a joint of %d combinations", j.size)
			}
		}
	})
}
