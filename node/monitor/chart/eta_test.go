package chart

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// recording is the course of a sweep: when each of its trials started and how long it took, by
// index.
type recording struct {
	space       space.Space
	order       grid.Order
	start, wall []float64
	ends        []float64 // ascending
}

// record simulates a sweep on a number of slots, with the noise of a shared machine: durations
// vary, the machine is faster and slower for a while, and the first trial of each slot reads its
// program from the disk.
func record(
	t tester, s space.Space, order grid.Order, slots int, seed uint64, wall func(get func(key string) string) float64,
) *recording {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 4))
	n := s.Count()
	rec := &recording{space: s, order: order, start: make([]float64, n), wall: make([]float64, n)}
	free, ran := make([]float64, slots), make([]int, slots)
	load, at := 0.0, 0.0 // the logarithm of the machine's slowdown, and the time at which it applied
	run := func(i int64) {
		p, err := s.At(i)
		if err != nil {
			t.Fatalf("point %d: %v", i, err)
		}
		k := 0
		for j := range free {
			if free[j] < free[k] {
				k = j
			}
		}
		took := wall(func(key string) string {
			return label(p[slices.IndexFunc(p, func(q space.Param) bool { return q.Key == key })].Value)
		})
		keeps := math.Exp(-(free[k] - at) / 20)
		load, at = load*keeps+0.06*math.Sqrt(1-keeps*keeps)*r.NormFloat64(), free[k]
		took *= math.Exp(load + 0.06*r.NormFloat64())
		if ran[k]++; ran[k] == 1 {
			took += 0.5
		}
		rec.start[i], rec.wall[i] = free[k]+0.01, took // the next one starts a moment later
		free[k] += took + 0.01
		rec.ends = append(rec.ends, free[k])
	}
	if order == grid.OrderSpread {
		spread := grid.NewSpread(n)
		for b := range spread.Blocks() {
			for i := spread.Block(b).Lo; i < spread.Block(b).Hi; i++ {
				run(i)
			}
		}
	} else {
		for i := range n {
			run(i)
		}
	}
	slices.Sort(rec.ends)
	return rec
}

// at returns what was known when a share of the trials had ended, and how long the sweep ran after
// that.
func (r *recording) at(t tester, share float64) (d *Data, rest float64) {
	t.Helper()
	now := r.ends[int(math.Ceil(share*float64(len(r.ends))))-1]
	d = dataOf(t, r.space, func(i int64, _ map[string]string) trial {
		switch {
		case r.start[i]+r.wall[i] <= now:
			return trial{state: grid.Succeeded, start: r.start[i], wall: r.wall[i]}
		case r.start[i] <= now:
			return trial{state: grid.Running, start: r.start[i]}
		}
		return trial{}
	})
	d.Now, d.Order = now, r.order
	return d, r.ends[len(r.ends)-1] - now
}

// TestETAOfRecordedSweeps checks that the model is within 15 % of the truth from a quarter on, for
// sweeps like those of `make bench`; within 20 % if the start-up of programs hides most of how
// their durations grow.
func TestETAOfRecordedSweeps(t *testing.T) {
	num := func(get func(string) string, key string) float64 {
		f, err := strconv.ParseFloat(get(key), 64)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	for _, c := range []struct {
		name  string
		order grid.Order
		axes  []space.Axis
		wall  func(get func(string) string) float64
		most  float64 // how far nineteen of twenty looks may be off
	}{
		{"chainer", grid.OrderSpread,
			[]space.Axis{numbers("epoch", "5 10 15"), numbers("batchsize", "20 100"), numbers("unit", "100 1000"),
				numbers("seed", "0 1 2 3 4")},
			func(get func(string) string) float64 {
				return 0.5 + 0.1*num(get, "epoch")*math.Pow(num(get, "batchsize")/20,
					-0.7)*math.Pow(num(get, "unit")/100, 0.6)
			}, 0.15},
		{"bowcnn", grid.OrderSpread,
			[]space.Axis{numbers("maxiter", "2 4 6"), numbers("minibatchsize", "50 100"), numbers("nfolds", "2 3"),
				numbers("seed", "0 1 2 3")},
			func(get func(string) string) float64 {
				return 0.4 + 0.3*num(get, "maxiter")*num(get, "nfolds")*math.Pow(num(get, "minibatchsize")/50, -0.3)
			}, 0.15},
		{"slow axis first", grid.OrderIndex,
			[]space.Axis{numbers("work", "1 2 3 4 5 6 7 8"), numbers("way", "1 2"),
				numbers("repeat", "0 1 2 3 4 5 6 7")},
			func(get func(string) string) float64 { return 0.1 + 0.5*num(get, "work")*num(get, "way") }, 0.15},
		{"slow axis first, mostly start-up", grid.OrderIndex,
			[]space.Axis{numbers("work", "1 2 3 4 5 6 7 8"), numbers("way", "1 2"), numbers("repeat", "0 1 2 3 4 5")},
			func(get func(string) string) float64 { return 0.09 + 0.028*num(get, "work")*num(get, "way") }, 0.2},
		{"seed first", grid.OrderIndex,
			[]space.Axis{numbers("seed", "1 2 3 4 5 6 7 8"), numbers("way", "1 2"),
				numbers("repeat", "0 1 2 3 4 5 6 7")},
			func(get func(string) string) float64 { return 3 * num(get, "way") }, 0.15},
	} {
		s := spaceOf(t, nil, c.axes...)
		var model, simple []float64
		for seed := range uint64(20) {
			rec := record(t, s, c.order, 2, seed, c.wall)
			line := ""
			for _, share := range []float64{0.25, 0.5, 0.75} {
				d, rest := rec.at(t, share)
				ratio := float64(viewOf(t, d, "").ETA().Seconds) / rest
				formula := float64(s.Count()-d.Done) * d.Now / float64(d.Done) / rest
				line += fmt.Sprintf("  %.2f (%.2f)", ratio, formula)
				model, simple = append(model, math.Abs(ratio-1)), append(simple, math.Abs(formula-1))
			}
			t.Logf("%s %d, said / true at 25, 50 and 75 %%, and by the number of trials: %s", c.name, seed, line)
		}
		slices.Sort(model)
		slices.Sort(simple)
		// The last few trials may take longer or shorter than any model can predict.
		if got := model[len(model)*95/100]; got > c.most || model[len(model)-1] > 0.3 {
			t.Errorf("%s: off by %.2f in 5 %% of the looks, and %.2f at worst; want at most %.2f and 0.3", c.name, got,
				model[len(model)-1], c.most)
		}
		t.Logf("%s: off by %.2f in the middle, the formula by %.2f", c.name, model[len(model)/2], simple[len(simple)/2])
	}
}
