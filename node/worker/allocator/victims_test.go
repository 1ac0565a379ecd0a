package allocator

import (
	"slices"
	"testing"

	"mlfnode/grid"
)

// TestToFit selects what must be given up for one more trial, in the given order, and nothing more;
// the books stay unchanged.
func TestToFit(t *testing.T) {
	devices := []Device{
		{UUID: "GPU-0", Memory: 80 << 30, Group: -1, NUMA: -1},
		{UUID: "GPU-1", Index: 1, Memory: 80 << 30, Group: -1, NUMA: -1},
	}
	for name, c := range map[string]struct {
		others []grid.Resources
		need   grid.Resources
		want   []int
	}{
		"processors": {
			[]grid.Resources{{CPUs: 1 * grid.One}, {CPUs: 2 * grid.One}, {CPUs: 1 * grid.One}},
			grid.Resources{CPUs: 3 * grid.One}, []int{1, 0},
		},
		"room is there": {[]grid.Resources{{CPUs: grid.One}}, grid.Resources{CPUs: grid.One}, nil},
		"one is enough": {
			[]grid.Resources{{CPUs: 2 * grid.One}, {CPUs: 2 * grid.One}}, grid.Resources{CPUs: 2 * grid.One}, []int{0},
		},
		"an early one is of no use": {
			[]grid.Resources{{CPUs: grid.One / 2}, {CPUs: 3 * grid.One, Memory: 6 << 30}},
			grid.Resources{CPUs: grid.One, Memory: 4 << 30}, []int{1},
		},
		"never enough": {[]grid.Resources{{CPUs: 4 * grid.One}}, grid.Resources{CPUs: 5 * grid.One}, nil},
		"a device": {
			[]grid.Resources{{CPUs: grid.One, GPUs: grid.One}, {CPUs: grid.One, GPUs: grid.One}},
			grid.Resources{CPUs: grid.One, GPUs: grid.One}, []int{0},
		},
		"both devices": {
			[]grid.Resources{{CPUs: grid.One, GPUs: grid.One}, {CPUs: grid.One, GPUs: grid.One}},
			grid.Resources{CPUs: grid.One, GPUs: 2 * grid.One}, []int{1, 0},
		},
		"the whole of one": {
			[]grid.Resources{
				{CPUs: grid.One, GPUs: grid.One / 2}, {CPUs: grid.One, GPUs: grid.One / 2},
				{CPUs: grid.One, GPUs: grid.One},
			},
			grid.Resources{CPUs: grid.One, GPUs: grid.One}, []int{1, 0},
		},
		"more than there is": {
			[]grid.Resources{{CPUs: grid.One, GPUs: grid.One}}, grid.Resources{CPUs: grid.One, GPUs: 3 * grid.One}, nil,
		},
	} {
		a := New(Options{}, 4*grid.One, 8<<30, devices)
		var all []*Allocation
		for i := range c.others {
			al, why := a.Reserve("low", c.others[i])
			if al == nil {
				t.Fatalf("%s: trial %d does not fit: %v", name, i, why)
			}
			all = append(all, al)
		}
		before := a.used
		var got []int
		for _, al := range a.Victims("urgent", c.need, all) {
			got = append(got, slices.Index(all, al))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
		if a.used != before || len(a.allocations) != len(all) {
			t.Errorf("%s: the books have changed", name)
		}
		for _, i := range got {
			a.Release(all[i], false)
		}
		if al, why := a.Reserve("urgent", c.need); len(got) > 0 && al == nil {
			t.Errorf("%s: it does not fit after that: %v", name, why)
		}
	}
}
