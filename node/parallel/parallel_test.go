package parallel

import (
	"sync/atomic"
	"testing"
)

// TestSplit divides loops: the parts are all of it, in order, and none is shorter than it should be.
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
		if at != n || len(spans) == 0 || len(spans) > most {
			t.Errorf("%d by %d: got %v", n, least, spans)
		}
	}
}

// TestEach has every round called once, and a panic reach the caller.
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
