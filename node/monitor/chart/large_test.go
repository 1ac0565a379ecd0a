package chart

import (
	"cmp"
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"mlfnode/grid"
)

// TestLargeSelections compares charts of so many trials that their loops are divided with plain loops over the same trials.
func TestLargeSelections(t *testing.T) {
	interval := func(key, n string) grid.Axis {
		return grid.Axis{Key: key, Interval: []json.Number{"0", json.Number(n)}}
	}
	s := spaceOf(t, nil, interval("a", "10"), interval("f", "100"), interval("b", "300"))
	d := dataOf(t, s, func(int64, map[string]string) trial { return trial{state: grid.Succeeded} })
	random := rand.New(rand.NewPCG(1, 2))
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
		h := v.Histogram()
		if total := sum(h.Counts) + h.Below + h.Above; total != int64(len(v.order())) || h.N != total {
			t.Errorf("histogram: %d values in bins, %d counted, want %d", total, h.N, len(v.order()))
		}
		done, runs, failures := v.states(1)
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

// compareOrder holds the order and the ranks of a selection against a sort of its own.
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
	if !slices.Equal(v.order(), want) {
		t.Error("the order is not that of the values")
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

// compareHistory holds the best values so far against a walk over all trials by their ends.
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

// compareMedians holds a heat map against sorted values of each cell.
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
			want := map[string]float64{StatMedian: (all[(n-1)/2] + all[n/2]) / 2, StatBest: all[0], StatMean: total / float64(n), StatFailed: fails[at] / float64(n)}[stat]
			if v.d.Maximize && stat == StatBest {
				want = all[n-1]
			}
			if got := float64(h.Cells[0].Value[at[0]][at[1]]); h.Cells[0].N[at[0]][at[1]] != int64(n) || math.Abs(got-want) > 1e-9 {
				t.Fatalf("%s of %v: got %g of %d, want %g of %d", stat, at, got, h.Cells[0].N[at[0]][at[1]], want, n)
			}
		}
	}
}
