package node_test

import (
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/inventory/inventorytest"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestExplainSaysWhyTrialsWait asks why trials wait on a node with two GPUs of which one trial has
// both.
func TestExplainSaysWhyTrialsWait(t *testing.T) {
	fake, err := inventorytest.New("2xA100-40", "test", "")
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t)
	cfg.GPUs = fake
	c := attach(t, cfg).Client()
	ask := func(what string, edit func(*api.Submit)) grid.SweepID {
		s := script(t, what, "n=0:2")
		edit(&s)
		return submit(t, c, s).Sweep
	}
	big := ask("sleep 60", func(s *api.Submit) { s.Task.Resources.GPUs = 2 * grid.One })
	until(t, c, big, func(v api.Sweep) bool { return v.Running > 0 })
	share := ask("true", func(s *api.Submit) { s.Task.Resources.GPUs = 250 })
	explained := func(id grid.SweepID, index int64, text, code, why string) {
		t.Helper()
		var e api.Explanation
		for end := time.Now().Add(20 * time.Second); ; <-time.After(20 * time.Millisecond) {
			if e, err = c.Trials().Explain(t.Context(), grid.TrialID{Sweep: id, Index: index}); err != nil {
				t.Fatal(err)
			}
			found := strings.Contains(e.Text, text) &&
				(code == "" && len(e.Nodes) == 0 || len(e.Nodes) == 1 && e.Nodes[0].Code == code &&
					strings.Contains(e.Nodes[0].Text, why))
			if found {
				return
			}
			if time.Now().After(end) {
				t.Errorf("%s/%d: got %+v, want %q, and %s: %q", id, index, e, text, code, why)
				return
			}
		}
	}
	explained(big, 0, "it runs on test since", "", "")
	explained(big, 1, "in the queue since", "busy", "0 GPUs free, and a trial needs 2 GPUs")
	// What is free as the big one ends is kept for its next trial, which comes first.
	explained(share, 0, "in the queue since", "busy", "0 GPUs free, and a trial needs 0.25 GPUs")
	if _, err := c.Sweeps().Pause(t.Context(), share); err != nil {
		t.Fatal(err)
	}
	explained(share, 0, "its sweep is paused", "", "")
	if _, err := c.Trials().Explain(t.Context(), grid.TrialID{Sweep: share, Index: 2}); err == nil ||
		!strings.Contains(err.Error(), "no trial 2") {
		t.Errorf("a trial that is not there: got %v", err)
	}
	if _, err := c.Sweeps().Cancel(t.Context(), big, false); err != nil {
		t.Fatal(err)
	}
	wait(t, c, big)
	explained(big, 0, "it has ended", "", "")
}
