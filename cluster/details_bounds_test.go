package cluster

import (
	"testing"

	"mlfnode/cluster/inventory"
)

// TestGroupsAreBounded: what a node tells of its devices decides how much others compute for it.
func TestGroupsAreBounded(t *testing.T) {
	m := inventory.Machine{More: true,
		Groups: []inventory.Group{{Total: 2_000_000_000, Ready: 2_000_000_000}, {Total: -1, Ready: -5},
			{Total: 2, Ready: 3}}}
	boundTexts(&m)
	for i, want := range []inventory.Group{{Total: maxGPUs * maxInstances, Ready: maxGPUs * maxInstances}, {},
		{Total: 2, Ready: 2}} {
		if got := m.Groups[i]; got.Total != want.Total || got.Ready != want.Ready {
			t.Errorf("group %d: got %d of %d, want %d of %d", i, got.Ready, got.Total, want.Ready, want.Total)
		}
	}
}
