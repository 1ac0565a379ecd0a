package monitor

import (
	"testing"

	"mlfnode/node/api"
)

// TestKeptPagesAreBounded adds pages of a table, of which few are kept, and none that is large.
func TestKeptPagesAreBounded(t *testing.T) {
	p := newTrialPages()
	add := func(key string, columns int) {
		p.add(&trialPage{key: key, table: api.TrialTable{Count: 500, Columns: make([]api.Column, columns)}})
	}
	add("large", 1000)
	if len(p.recent.kept) != 0 {
		t.Errorf("a page of 500 trials with 1000 columns is kept")
	}
	for i := range 2 * keptTrialPages {
		add(string(rune('a'+i)), 20)
	}
	if len(p.recent.kept) != keptTrialPages {
		t.Errorf("pages that are kept: got %d, want %d", len(p.recent.kept), keptTrialPages)
	}
	p.recent.expiry.Stop()
}
