package parallel

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
)

// TestSplit divides loops: the parts cover the whole loop, in order, and none is too short.
func TestSplit(t *testing.T) {
	for _, c := range [][2]int{{0, 1}, {1, 1}, {5, 0}, {15, 1}, {1000, 7}, {1 << 20, 1 << 16}, {100, 101}} {
		n, least := c[0], c[1]
		at := 0
		spans := Split(n, least)
		for _, s := range spans {
			if s.Lo != at || s.Hi < s.Lo || len(spans) > 1 && s.Hi-s.Lo < least {
				t.Errorf("%d by %d: got %v", n, least, spans)
			}
			at = s.Hi
		}
		if at != n || len(spans) == 0 || len(spans) > maxParts {
			t.Errorf("%d by %d: got %v", n, least, spans)
		}
	}
}

// TestEach checks that every round is called once, and that a panic reaches the caller.
func TestEach(t *testing.T) {
	var seen [100]atomic.Int32
	for n := range len(seen) {
		Each(n, func(i int) { seen[i].Add(1) })
	}
	for i := range seen {
		if got, want := int(seen[i].Load()), len(seen)-1-i; got != want {
			t.Errorf("round %d: got %d calls, want %d", i, got, want)
		}
	}
	defer func() {
		if r := recover(); r != "round 3" {
			t.Errorf("panic: got %v, want that of round 3", r)
		}
	}()
	Each(5, func(i int) {
		if i == 3 {
			panic("round 3")
		}
	})
}

// TestSort compares the order of few and of many rows, with keys of all sizes, with that of a
// stable sort.
func TestSort(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 7, 1000, 50_000} {
		for _, keysUpTo := range []uint32{1, 3, 1 << 12, math.MaxUint32} {
			keys, rows := make([]uint32, n), make([]int32, n)
			for i := range keys {
				keys[i], rows[i] = random.Uint32N(keysUpTo), int32(i)
			}
			byRow, want := slices.Clone(keys), slices.Clone(rows)
			slices.SortStableFunc(want, func(a, b int32) int { return cmp.Compare(byRow[a], byRow[b]) })
			if got := Sort(keys, rows, 100); !slices.Equal(got, want) {
				t.Errorf("%d rows with keys below %d: the order is wrong", n, keysUpTo)
			}
		}
	}
}
