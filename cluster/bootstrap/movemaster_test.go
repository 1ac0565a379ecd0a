package bootstrap

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"mlfnode/cluster/bootstrap/protocol"
	"mlfnode/grid"
)

// cutOff is a cluster in which a move of the master from a to b ended between the copy and the new
// roles: a has what it had and does not start, and b has a copy.
func cutOff(t *testing.T) (*fakes, Options) {
	t.Helper()
	f := newFakes()
	f.roles["b"], f.moved = "master", map[string]bool{"a": true}
	f.down["a"] = true
	f.clusters = map[string]string{}
	for _, name := range []string{"a", "b", "c"} {
		f.clusters[name] = strings.Repeat("11", 32)
	}
	o := f.options()
	f.builtIn(t, &o)
	return f, o
}

// TestUpAfterAMoveThatWasCutOff: the old host must not found another cluster, whatever the roles of
// the machine that has the copy.
func TestUpAfterAMoveThatWasCutOff(t *testing.T) {
	for _, roles := range [][]grid.NodeRole{{grid.Worker}, {}} {
		f, o := cutOff(t)
		o.Cluster.Hosts[1].Roles = roles
		said := problems(Up(t.Context(), o))
		for _, want := range []string{"a move of this master to another machine was interrupted", "/home/a/",
			"mlfnode move-master HOST", "/state/moved"} {
			if !strings.Contains(said["a"], want) {
				t.Errorf("target with roles %v: got %q, want %q in it", roles, said["a"], want)
			}
		}
		if done := append(f.did(protocol.ActionStart), f.did(protocol.ActionStop)...); len(done) > 0 {
			t.Errorf("target with roles %v: %q were changed", roles, done)
		}
	}
}

// TestMoveMasterResumes has the roles fail to be saved, and runs the move again.
func TestMoveMasterResumes(t *testing.T) {
	f, o := cutOff(t)
	full := errors.New("no space left on device")
	_, err := MoveMaster(t.Context(), o, "b", func(*Cluster) error { return full })
	if p := ProblemOf(err); !strings.Contains(p.Cause,
		"b has the state of the master a, but cluster.yaml could not be changed: no space left") ||
		p.Cure != "fix that, and run this again: mlfnode move-master b" {
		t.Errorf("got %+v", p)
	}
	if done := append(f.did(protocol.ActionStart), f.did(protocol.ActionStop)...); len(done) > 0 {
		t.Errorf("%q were changed", done)
	}
	again := f.options() // as cluster.yaml still has it
	var saved []string
	all, err := MoveMaster(t.Context(), again, "b", func(c *Cluster) error {
		saved = shape(c)
		return nil
	})
	if err != nil || len(problems(all)) > 0 {
		t.Fatalf("got %v, %q", err, problems(all))
	}
	if len(saved) == 0 || again.Cluster.findHost(func(h *Host) bool { return h.HasRole(grid.Master) }).Name != "b" {
		t.Errorf("the roles that were saved: got %q", saved)
	}
	if f.copies() {
		t.Errorf("what is there already was copied again: %q", f.ran)
	}
	if started := f.did(protocol.ActionStart); !slices.Contains(started, "b") {
		t.Errorf("%q were started, want the new master among them", started)
	}
}

// TestMoveMasterElsewhere refuses another machine than the one that has the copy.
func TestMoveMasterElsewhere(t *testing.T) {
	f, o := cutOff(t)
	all, err := MoveMaster(t.Context(), o, "c", func(*Cluster) error { return errors.New("saved") })
	if said := problems(all); err != nil || !strings.Contains(said["a"], "was interrupted") {
		t.Errorf("got %v, %q", err, said)
	}
	if f.copies() || len(f.did(protocol.ActionStop)) > 0 {
		t.Errorf("%q and %q", f.asked, f.ran)
	}
}

// copies reports whether something of the master's was read or written.
func (f *fakes) copies() bool {
	return slices.ContainsFunc(f.ran, func(c string) bool {
		return strings.Contains(c, "backup") || strings.Contains(c, "restore")
	})
}
