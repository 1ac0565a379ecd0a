package grid

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid/ranges"
	"mlfnode/grid/space"
)

// TestSpreadIsComplete checks that each trial is in exactly one block.
func TestSpreadIsComplete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.OneOf(rapid.Int64Range(1, 300), rapid.Int64Range(1, 200_000), rapid.Int64Range(1, 1<<42)).Draw(t,
			"count")
		s := NewSpread(count)
		if s.Blocks() > manyBlocks+groupSize || count >= fewBlocks && s.Blocks() < fewBlocks {
			t.Fatalf("got %d blocks", s.Blocks())
		}
		var all ranges.Set
		total := int64(0)
		for n := range s.Blocks() {
			r := s.Block(n)
			all.Add(r.Lo, r.Hi)
			total += r.Hi - r.Lo
		}
		if gap, ok := all.Gap(0, count); ok || total != count {
			t.Fatalf("of %d trials the blocks have %d, and not %v", count, total, gap)
		}
	})
}

// shares returns, for each axis, the share of each value's trials in the first blocks, and the
// number of blocks that the trials of a value fill.
func shares(s space.Space, blocks func(Spread) int64) (shares [][]float64, fill []float64) {
	order := NewSpread(s.Count())
	var sizes []int64
	for _, values := range s.Values() {
		sizes = append(sizes, values.Count())
	}
	at := make([][]int64, len(sizes))
	done, all := make([][]float64, len(sizes)), make([][]float64, len(sizes))
	for k, n := range sizes {
		at[k], done[k], all[k] = make([]int64, order.blockSize), make([]float64, n), make([]float64, n)
		shares = append(shares, make([]float64, n))
	}
	for n := range order.Blocks() {
		r := order.Block(n)
		if err := s.Positions(r.Lo, r.Hi, at); err != nil {
			panic(err)
		}
		for k := range sizes {
			for _, v := range at[k][:r.Hi-r.Lo] {
				all[k][v]++
				if n < blocks(order) {
					done[k][v]++
				}
			}
		}
	}
	for k, n := range sizes {
		for v := range shares[k] {
			shares[k][v] = done[k][v] / all[k][v]
		}
		fill = append(fill, float64(s.Count())/float64(n*order.blockSize))
	}
	return shares, fill
}

func half(s Spread) int64 { return s.Blocks() / 2 }

func axesOf(sizes ...int) []space.Axis {
	var axes []space.Axis
	for k, n := range sizes {
		axes = append(axes,
			space.Axis{Key: fmt.Sprint("a", k), Interval: []json.Number{"0", json.Number(fmt.Sprint(n))}})
	}
	return axes
}

// TestSpreadIsEven checks that, after half of the blocks of any grid, about half of the trials of
// each value of each axis have run: the more blocks they fill, the closer to half.
func TestSpreadIsEven(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var sizes []int
		count := 1
		for range rapid.IntRange(1, 7).Draw(t, "axes") {
			n := rapid.SampledFrom([]int{2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 50}).Draw(t, "size")
			if count*n <= 300_000 {
				sizes, count = append(sizes, n), count*n
			}
		}
		s, err := space.New(axesOf(sizes...), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, fill := shares(s, half)
		for k := range got {
			for v, share := range got[k] {
				if limit := 0.05 + 2.5/math.Sqrt(fill[k]); math.Abs(share-0.5) > limit {
					t.Errorf("of grid %v value %d of axis %d has had %.3f of its trials, want 0.5 ± %.3f", sizes, v, k,
						share, limit)
				}
			}
		}
	})
}

// TestSpreadOfUsualGrids checks, for typical grids, that after a quarter and after half of the
// blocks each value has had about that share of its trials.
func TestSpreadOfUsualGrids(t *testing.T) {
	for _, c := range []struct {
		sizes []int
		limit float64
	}{
		{[]int{5, 4, 5, 3, 5}, 0.12}, {[]int{10, 10, 10, 10}, 0.08}, {[]int{2, 3, 4, 5, 6, 7, 8}, 0.05},
		{[]int{6, 8, 4, 10, 5, 104}, 0.08},
		{[]int{4, 4, 4, 4, 4, 4, 4, 4}, 0.06}, {[]int{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2}, 0.06},
		{[]int{100, 1000}, 0.2},
	} {
		s, err := space.New(axesOf(c.sizes...), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []int64{4, 2} {
			got, _ := shares(s, func(s Spread) int64 { return s.Blocks() / part })
			for k := range got {
				for v, share := range got[k] {
					if want := 1 / float64(part); math.Abs(share-want) > c.limit {
						t.Errorf("%v after %.2f: value %d of axis %d has had %.3f of its trials", c.sizes, want, v, k,
							share)
					}
				}
			}
		}
	}
}
