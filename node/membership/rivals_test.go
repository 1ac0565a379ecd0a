package membership

import (
	"strings"
	"testing"

	"mlfnode/node/api"
)

// TestTwoMastersAreShown checks that the list of members says that the cluster has two masters.
func TestTwoMastersAreShown(t *testing.T) {
	all := []api.Member{
		{Node: "a", State: "alive", Roles: []string{"master", "worker"}},
		{Node: "b", State: "alive", Roles: []string{"worker"}},
		{Node: "c", State: "dead", Roles: []string{"master"}},
	}
	markRivals(all)
	for _, m := range all {
		if m.Reason != "" {
			t.Errorf("with one living master: got reason %q of %s", m.Reason, m.Node)
		}
	}
	all[2].State = "alive"
	markRivals(all)
	if !strings.Contains(all[0].Reason, "has 2 masters, also c") ||
		!strings.Contains(all[2].Reason, "has 2 masters, also a") || all[1].Reason != "" {
		t.Errorf("with two: got %q, %q and %q", all[0].Reason, all[1].Reason, all[2].Reason)
	}
}
