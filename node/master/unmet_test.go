package master

import (
	"testing"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestSubmitRefusesUnmet: a master refuses what no node obeys, whatever the client checks, and whether it stands alone or not.
func TestSubmitRefusesUnmet(t *testing.T) {
	alone := start(t, 4)
	nodes := newWorld().nodes()
	many := perform(t, t.TempDir(), 4, nodes)
	for name, edit := range map[string]func(*grid.Task){
		"image": func(t *grid.Task) { t.Image = "python:3.12" },
	} {
		s := points(t, "t-1", 2)
		edit(&s.Task)
		for where, m := range map[string]*stage{"alone": alone, "in a cluster": many} {
			if _, err := m.Submit(t.Context(), &api.Submit{Project: "t", Task: s.Task, Space: s.Space}); err == nil {
				t.Errorf("%s, %s: got no error, want a refusal", name, where)
			}
			if n := len(m.Sweeps()); n > 0 {
				t.Errorf("%s, %s: got %d sweeps stored, want none", name, where, n)
			}
		}
	}
}
