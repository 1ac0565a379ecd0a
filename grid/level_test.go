package grid

import (
	"fmt"
	"testing"

	"mlfnode/grid/space"
)

// TestLevelAllocatesNothing asks for the level of a sweep as the master does for each lease.
func TestLevelAllocatesNothing(t *testing.T) {
	var axes []space.Axis
	for i := range 8 {
		axis, err := space.ParseSet(fmt.Sprintf("a%d=0:9", i))
		if err != nil {
			t.Fatal(err)
		}
		axes = append(axes, axis)
	}
	s, err := space.New(axes, nil)
	if err != nil {
		t.Fatal(err)
	}
	sweep := &Sweep{Space: s}
	if n := testing.AllocsPerRun(100, func() { sweep.Level() }); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
