package grid

import "testing"

// TestNodeSet tests nodes for membership in sets.
func TestNodeSet(t *testing.T) {
	for _, c := range []struct {
		set    NodeSet
		node   NodeID
		labels []string
		want   bool
	}{
		{"", "gpu1", nil, true},
		{"gpu1", "gpu1", nil, true},
		{"gpu1", "gpu10", nil, false},
		{"gpu*,cpu1", "gpu10", nil, true},
		{"gpu?", "gpu10", nil, false},
		{"label=a100", "gpu1", []string{"fast", "a100"}, true},
		{"label=a100", "a100", []string{"a10"}, false},
		{"cpu1,label=a100", "cpu1", nil, true},
		{"*", "any", nil, true},
	} {
		if err := c.set.Check(); err != nil {
			t.Errorf("%q: %v", c.set, err)
		}
		if got := c.set.Has(c.node, c.labels); got != c.want {
			t.Errorf("%q has %s with %q: got %t, want %t", c.set, c.node, c.labels, got, c.want)
		}
	}
	for _, set := range []NodeSet{",", "gpu 1", "gpu1,", "label=", "label=a*", "tag=a", "gpu[1]", "label=a b"} {
		if set.Check() == nil {
			t.Errorf("%q is accepted", set)
		}
	}
	if LaneOf(0, Resources{CPUs: One, Nodes: "a"}, "") == LaneOf(0, Resources{CPUs: One, Nodes: "b"}, "") {
		t.Error("trials for other nodes share a lane")
	}
}
