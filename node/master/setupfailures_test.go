package master

import (
	"strings"
	"testing"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/node/history"
)

// TestBrokenSetupPausesItsSweep lets the setup step of a sweep fail again and again: the sweep is
// paused with the reason, and no trial has failed for good. Its user resumes it, and the count
// starts over.
func TestBrokenSetupPausesItsSweep(t *testing.T) {
	c := startMaster(t, 4)
	id := c.submit(40, nil)
	paused := func() bool { r, _ := c.Sweep(id); return r.Sweep.State == grid.SweepPaused }
	for n := range setupLimit {
		if paused() {
			t.Fatalf("the sweep is paused after %d failures", n)
		}
		c.workers.finishLease(c.workers.waitAndTakeLease(id), grid.ClassSetup, time.Millisecond)
	}
	c.waitFor("the sweep is paused", func(*scheduler) bool { return paused() })
	r, _ := c.Sweep(id)
	if why := r.Sweep.Problem; !strings.Contains(why, "setup failed 3 times") ||
		!strings.Contains(why, "mlfnode logs "+string(id)) {
		t.Errorf("got the reason %q", why)
	}
	if n := c.counts(id); n.Failed != 0 {
		t.Errorf("%d trials have failed for good", n.Failed)
	}
	if _, err := c.Resume(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if r, _ := c.Sweep(id); r.Sweep.Problem != "" || !r.Sweep.Active() {
		t.Errorf("a sweep that goes on: got %s, %q", r.Sweep.State, r.Sweep.Problem)
	}
	for _, class := range []grid.Class{grid.ClassSetup, grid.ClassSetup, grid.ClassNone, grid.ClassSetup,
		grid.ClassSetup, grid.ClassExit} {
		c.workers.finishLease(c.workers.waitAndTakeLease(id), class, time.Millisecond)
	}
	if paused() {
		t.Error("a sweep is paused whose trials run in between")
	}
}

// TestSetupThatFailsEverywhere fails a setup step on several nodes.
func TestSetupThatFailsEverywhere(t *testing.T) {
	member := func(node grid.NodeID, s cluster.State) cluster.Member {
		return cluster.Member{Node: node, State: s, Self: cluster.Self{Roles: []grid.NodeRole{grid.Worker}}}
	}
	members := []cluster.Member{member("a", cluster.Alive), member("b", cluster.Alive), member("c", cluster.Dead)}
	s := &setupMonitor{
		m:       &Master{cfg: Config{Nodes: &Nodes{Members: func() []cluster.Member { return members }}}},
		bySweep: map[grid.SweepID]*setupFailures{},
	}
	fails := func(node grid.NodeID) bool {
		s.record(&history.Transition{Sweep: "s", Node: node, Change: grid.Retry, Class: grid.ClassSetup})
		return s.failsEverywhere(newFeed(newSweep(t, "s", 1)), s.bySweep["s"])
	}
	if fails("a") {
		t.Error("one of two nodes is not everywhere")
	}
	if !fails("b") {
		t.Error("both nodes that are there are everywhere")
	}
	members[0].Drained, members[1].Drained = true, true
	if members = append(members, member("d", cluster.Alive)); fails("b") {
		t.Error("a node that has not tried may be able to")
	}
}
