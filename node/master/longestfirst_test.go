package master

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"mlfnode/grid/space"
)

// longestOf makes a space of some axes.
func longestOf(t testing.TB, sets ...string) space.Space {
	t.Helper()
	var axes []space.Axis
	for _, text := range sets {
		a, err := space.ParseSet(text)
		if err != nil {
			t.Fatal(err)
		}
		axes = append(axes, a)
	}
	s, err := space.New(axes, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLongestFirst runs sweeps block by block: each trial is met once, and those that take long
// come first as soon as some have run, although most of them are met only then.
func TestLongestFirst(t *testing.T) {
	for name, c := range map[string]struct {
		sets  []string
		took  func(at []int64) float64 // seconds
		after int                      // trials, from which on the order holds
		level float64                  // how much times of values differ that are taken together
	}{
		"one long value": {[]string{"a=1:9", "b=1:9"}, func(at []int64) float64 { return 1 + 9*float64(at[1]/7) }, 24,
			0},
		"a product": {[]string{"epoch=1:20", "unit=1:10"}, func(at []int64) float64 {
			return float64((at[0] + 1) * (at[1] + 1))
		}, 60, 0},
		"all alike":       {[]string{"a=1:100"}, func([]int64) float64 { return 3 }, 0, 0},
		"an axis of many": {[]string{"a=0:2000"}, func(at []int64) float64 { return 1 + float64(at[0]) }, 300, 32},
		"many trials": {[]string{"seed=0:500", "lr=0:200"}, func(at []int64) float64 {
			return 1 + float64(at[1]%7) + float64(at[0])/20
		}, 30_000, 0},
		"without any axis": {nil, func([]int64) float64 { return 1 }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := longestOf(t, c.sets...)
			l, met, pos := newLongestFirst(s), make([]int, s.Count()), make([][]int64, len(c.sets))
			for k := range pos {
				pos[k] = make([]int64, 1)
			}
			var order []float64
			for n := int64(0); n < l.Blocks(); n++ {
				b := l.Block(n)
				if met[min(b.Lo, s.Count()-1)] > 0 {
					continue // the order has changed since
				}
				for i := b.Lo; i < b.Hi; i++ {
					if err := s.Positions(i, i+1, pos); err != nil {
						t.Fatal(err)
					}
					var at []int64
					for k := range pos {
						at = append(at, pos[k][0])
					}
					took := c.took(at)
					met[i]++
					order = append(order, took)
					l.addRunTime(i, time.Duration(took*(0.9+0.2*rand.Float64())*float64(time.Second)))
				}
				if l.reorder() {
					n = -1
				}
			}
			if i := slices.IndexFunc(met, func(n int) bool { return n != 1 }); i >= 0 ||
				int64(len(order)) != s.Count() {
				t.Fatalf("trial %d was met %d times", i, met[max(i, 0)])
			}
			rest := order[c.after:]
			// of what is left, the longest is not much longer than what is taken
			for i := range rest[:min(len(rest), 5000)%5000] {
				if longest := slices.Max(rest[i:]); longest > 1.6*rest[i]+c.level {
					t.Fatalf("trial %d of the order takes %.3g s, and one of %.3g s is left",
						c.after+i, rest[i], longest)
				}
			}
			if half := len(rest) / 2; len(rest) >= 5000 && sum(rest[:half]) < 1.2*sum(rest[half:]) {
				t.Errorf("the first half takes %.4g s, the second %.4g s", sum(rest[:half]), sum(rest[half:]))
			}
		})
	}
}

func sum(all []float64) (s float64) {
	for _, x := range all {
		s += x
	}
	return s
}

// TestLongestOfUnseenValues extends a sweep by values that have not run: a line through the others
// says how long they take.
func TestLongestOfUnseenValues(t *testing.T) {
	s := longestOf(t, "epoch=1:20")
	l := newLongestFirst(s)
	for _, i := range []int64{2, 5, 9} {
		l.addRunTime(i, time.Duration(i)*time.Minute)
	}
	if !l.reorder() || l.Block(0).Lo != 18 {
		t.Errorf("got trial %d first, want the last one", l.Block(0).Lo)
	}
	more, err := space.ParseSet("epoch=100,200")
	if err != nil {
		t.Fatal(err)
	}
	wider, err := s.Extend([]space.Axis{more})
	if err != nil {
		t.Fatal(err)
	}
	l.extend(wider)
	if !l.reorder() || l.Block(0).Lo != 20 {
		t.Errorf("got trial %d first, want the added one", l.Block(0).Lo)
	}
}

// BenchmarkLongest finds the order of a large sweep once.
func BenchmarkLongest(b *testing.B) {
	s := longestOf(b, "seed=0:1000", "lr=0:100", "unit=1:11")
	l := newLongestFirst(s)
	for i := range int64(2 * knownTimes) {
		l.addRunTime(i*100%s.Count(), time.Duration(1+math.Abs(rand.NormFloat64()))*time.Second)
	}
	for b.Loop() {
		l.due = 0
		l.reorder()
	}
}
