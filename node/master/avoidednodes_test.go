package master

import (
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mlfnode/cluster"
	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// TestRetriesAvoidWhereTheyFailed follows the leases of a trial that fails on several nodes.
func TestRetriesAvoidWhereTheyFailed(t *testing.T) {
	t.Parallel()
	w := newFakeCluster()
	titan := &inventory.Machine{GPUs: []inventory.GPU{{Name: "TITAN V"}}}
	w.machines = map[grid.NodeID]*inventory.Machine{"a": titan, "b": titan,
		"c": {GPUs: []inventory.GPU{{Name: "TITAN V"}, {Name: "A100"}}}}
	for _, node := range []grid.NodeID{"a", "b", "c"} {
		w.setState(node, cluster.Alive)
	}
	c := startWithNodes(t, t.TempDir(), 1, w.nodes())
	id := c.submit(1, func(s *api.Submit) {
		s.Task.Retries = grid.Retries{grid.ClassStorage: 9, grid.ClassGPUModel: 9,
			grid.ClassImage: 9, grid.ClassPort: 9}
	})
	for i, step := range []struct {
		node  grid.NodeID
		class grid.Class
		want  []grid.NodeID // of the next lease
	}{
		{"a", grid.ClassPort, nil},
		{"a", grid.ClassImage, []grid.NodeID{"a"}},
		{"b", grid.ClassImage, []grid.NodeID{"a", "b"}},
		{"c", grid.ClassPort, []grid.NodeID{"a", "b"}},
		{"b", grid.ClassGPUModel, []grid.NodeID{"a", "b"}},
		{"c", grid.ClassImage, nil}, // nobody is left
	} {
		h := c.workers.waitForLease(id)
		c.workers.finishOn(step.node, h, step.class)
		h = c.workers.waitForLease(id)
		got := slices.Sorted(slices.Values(h.Avoid))
		if !slices.Equal(got, step.want) {
			t.Errorf("step %d, %s failed in %s: got %v to avoid, want %v", i, step.node, step.class, got, step.want)
		}
		if err := c.workers.client().PostponeLease(t.Context(), h, 0); err != nil {
			t.Fatal(err)
		}
	}
	c.inLoop(func(s *scheduler) {
		if got := s.feeder.failedNodes([]failedPlace{{"a", grid.ScopeModel, time.Now()}},
			&laneFeeds{}); !slices.Equal(slices.Sorted(slices.Values(got)), []grid.NodeID{"a", "b"}) {
			t.Errorf("a model to avoid: got %v, want all nodes that have no other", got)
		}
		w.setState("b", cluster.Dead)
		w.setState("c", cluster.Dead)
		if got := s.feeder.failedNodes([]failedPlace{{"a", grid.ScopeNode, time.Now()}}, &laneFeeds{}); got != nil {
			t.Errorf("the only node: got %v to avoid", got)
		}
	})
}

// TestRetriesWaitForAnotherNode makes the node on which a trial failed give its lease back again
// and again: that is not an attempt, and the trial does not return there as long as another node
// could run it.
func TestRetriesWaitForAnotherNode(t *testing.T) {
	w := newFakeCluster()
	for _, node := range []grid.NodeID{"a", "b"} {
		w.setState(node, cluster.Alive)
	}
	nodes := w.nodes()
	var small atomic.Bool
	nodes.Fits = func(m *cluster.Member, r grid.Resources) bool {
		return r.CPUs == grid.One && (m.Node == "a" || !small.Load())
	}
	c := startWithNodes(t, t.TempDir(), 1, nodes)
	id := c.submit(1, func(s *api.Submit) { s.Task.Retries = grid.Retries{grid.ClassImage: 1} })
	c.workers.finishOn("a", c.workers.waitForLease(id), grid.ClassImage)
	for i := range 4 {
		h := c.workers.waitForLease(id)
		if want := i < 3; !slices.Equal(h.Avoid, []grid.NodeID{"a"}) == want || h.Elsewhere != want || h.Attempt != 2 {
			t.Errorf(
				"lease %d: got attempt %d that avoids %v, elsewhere %t; want attempt 2, and a avoided while b has room for it",
				i, h.Attempt, h.Avoid, h.Elsewhere)
		}
		small.Store(i == 2) // before the next lease
		c.workers.releaseLease(h)
	}
	small.Store(false)
	said := jetstream.Heartbeat{Start: "b.1."}
	for _, refusal := range []grid.RefusalCode{grid.RefusedBusy, grid.RefusedEngine, grid.RefusedModel} {
		said.Refusals = map[grid.Lane]grid.Refusal{newSweep(t, "", 1).Lane(): {Code: refusal}}
		c.handleHeartbeat("b", &said)
		c.workers.releaseLease(c.workers.waitForLease(id)) // it was leased before
		if h := c.workers.waitForLease(id); h.Elsewhere != (refusal == grid.RefusedBusy) {
			t.Errorf("b says %s: got elsewhere %t", refusal, h.Elsewhere)
		} else {
			c.workers.releaseLease(h)
		}
	}
	gpus := func(n int) *inventory.Machine { return &inventory.Machine{GPUs: make([]inventory.GPU, n)} }
	c.inLoop(func(s *scheduler) {
		now, lane := time.Now(), &laneFeeds{need: grid.Resources{CPUs: grid.One}}
		for _, tt := range []struct {
			name string
			shun failedPlace
			gpus int
			want bool
		}{
			{"a node", failedPlace{"a", grid.ScopeNode, now}, 0, true},
			{"long ago", failedPlace{"a", grid.ScopeNode, now.Add(-2 * avoidFor)}, 0, false},
			{"the only device", failedPlace{"a", grid.ScopeDevice, now}, 1, true},
			{"one of two devices", failedPlace{"a", grid.ScopeDevice, now}, 2, false},
		} {
			w.mu.Lock()
			w.machines = map[grid.NodeID]*inventory.Machine{"a": gpus(tt.gpus), "b": gpus(1)}
			w.mu.Unlock()
			if got := s.feeder.failedNodes([]failedPlace{tt.shun}, lane); (len(got) == 1) != tt.want {
				t.Errorf("%s: got %v to avoid, want a: %t", tt.name, got, tt.want)
			}
		}
	})
}

// TestAvoidedNodesAreRemembered reclaims, as if nobody held it, a lease that the node which it
// avoids defers.
func TestAvoidedNodesAreRemembered(t *testing.T) {
	w := newFakeCluster()
	for _, node := range []grid.NodeID{"a", "b"} {
		w.setState(node, cluster.Alive)
	}
	c := startWithNodes(t, t.TempDir(), 1, w.nodes())
	id := c.submit(1, func(s *api.Submit) { s.Task.Retries = grid.Retries{grid.ClassImage: 1} })
	c.workers.finishOn("a", c.workers.waitForLease(id), grid.ClassImage)
	h := c.workers.waitForLease(id)
	c.inLoop(func(s *scheduler) {
		f := s.feeds[id]
		gone := s.reconciler.reclaimAbandoned(t.Context(), f, h.ID, time.Now().Add(holderTimeout+time.Second)) ||
			s.reconciler.reclaimAbandoned(t.Context(), f, h.ID, time.Now().Add(3*holderTimeout))
		if !gone || len(f.failedOn[0]) != 1 {
			t.Errorf("taken back: %t; the trial avoids %+v, want a", gone, f.failedOn[0])
		}
	})
}

// TestSuspectNodeIsQuarantined lets trials fail on a node for reasons of the node, and end
// otherwise on another one.
func TestSuspectNodeIsQuarantined(t *testing.T) {
	at := int64(0)
	see := func(node grid.NodeID, index int64, change grid.Change, class grid.Class) *history.Transition {
		at++
		return &history.Transition{Sweep: "s", Index: index, Node: node, Change: change, Class: class, Ended: at}
	}
	full := func(i int64) *history.Transition { return see("b", i, grid.Retry, grid.ClassDisk) }
	good := func(node grid.NodeID, i int64) *history.Transition { return see(node, i, grid.Done, grid.ClassNone) }
	later := func(t *history.Transition) *history.Transition { t.Ended += 2 * streakAge.Microseconds(); return t }
	for name, c := range map[string]struct {
		seen []*history.Transition
		want bool
	}{
		"the same trials end elsewhere": {[]*history.Transition{full(1), full(2), full(3), good("a", 1),
			good("a", 2), good("a", 3)}, true},
		"or fail there of their own": {[]*history.Transition{full(1), full(2), full(3),
			see("a", 1, grid.Done, grid.ClassExit), good("a", 2), good("a", 3)}, true},
		"they only began elsewhere": {[]*history.Transition{full(1), full(2), full(3),
			see("a", 1, grid.Began, ""), see("a", 2, grid.Began, ""), see("a", 3, grid.Began, "")}, false},
		"other trials end elsewhere": {[]*history.Transition{full(1), full(2), full(3), good("a", 4),
			good("a", 5), good("a", 6)}, false},
		"they fail so elsewhere, too": {[]*history.Transition{full(1), full(2), full(3),
			see("a", 1, grid.Retry, grid.ClassDisk), good("a", 2), good("a", 3)}, false},
		"a trial ended here in between": {[]*history.Transition{full(1), full(2), good("b", 9), full(3),
			good("a", 1), good("a", 2), good("a", 3)}, false},
		"trials begin here all the time": {[]*history.Transition{full(1), see("b", 2, grid.Began, ""), full(2),
			see("b", 3, grid.Began, ""), full(3), good("a", 1), good("a", 2), good("a", 3)}, true},
		"hours lie between": {[]*history.Transition{full(1), full(2), later(full(3)), good("a", 1),
			good("a", 2), good("a", 3)}, false},
		"in another way each time": {[]*history.Transition{full(1), see("b", 2, grid.Retry, grid.ClassStorage),
			full(3), good("a", 1), good("a", 2), good("a", 3)}, false},
		"other failures lie between": {[]*history.Transition{full(1), see("b", 4, grid.Retry, grid.ClassStorage),
			full(2), see("b", 5, grid.Retry, grid.ClassStart), full(3), good("a", 1), good("a", 2), good("a", 3)},
			true},
		"ports are nobody's fault": {[]*history.Transition{see("b", 1, grid.Retry, grid.ClassPort),
			see("b", 2, grid.Retry, grid.ClassPort), see("b", 3, grid.Retry, grid.ClassPort), good("a", 1),
			good("a", 2), good("a", 3)}, false},
		"only nodes that are gone are good": {[]*history.Transition{full(1), full(2), full(3), good("gone", 1),
			good("gone", 2), good("gone", 3)}, false},
	} {
		h := newScheduler(&Master{}).health
		h.takesTrials = func(node grid.NodeID) bool { return node != "gone" }
		got := map[grid.NodeID]string{}
		for _, seen := range c.seen {
			h.record(seen)
			for node, b := range h.takeBroken() {
				if got[node] = b.reason; b.part != grid.ScopeNode {
					t.Errorf("%s: got %s to blame", name, b.part)
				}
			}
		}
		if (got["b"] != "") != c.want || len(got) > 1 {
			t.Errorf("%s: got %v, want b: %v", name, got, c.want)
		}
		if c.want && !strings.Contains(got["b"],
			"a disk or a quota is full (disk): 3 attempts of s in a row failed so here, and their trials did not on a; ") {
			t.Errorf("%s: got reason %q", name, got["b"])
		}
	}
}

// TestPartsOfANodeAreWithheld lets trials fail for lack of a driver, or of a container engine, on
// one node alone: it keeps its other trials.
func TestPartsOfANodeAreWithheld(t *testing.T) {
	w := newFakeCluster()
	w.setState("a", cluster.Alive)
	w.setState("b", cluster.Alive)
	c := startWithNodes(t, t.TempDir(), 1, w.nodes())
	id := c.submit(9, nil)
	r, _ := c.Sweep(id)
	for class, part := range map[grid.Class]grid.Scope{
		grid.ClassDriver: grid.ScopeOfLane(r.Sweep.Lane()), grid.ClassGPULost: grid.ScopeGPUs,
		grid.ClassEngine: grid.ScopeContainers,
	} {
		c.inLoop(func(s *scheduler) {
			for i := range int64(3) {
				s.health.record(&history.Transition{Sweep: id, Index: i, Node: "b", Change: grid.Retry,
					Class: class, Ended: i})
			}
			for i := range int64(3) {
				s.health.record(&history.Transition{Sweep: id, Index: i, Node: "a", Change: grid.Done, Ended: 10 + i})
			}
			s.m.quarantine(s.health)
		})
		if o := c.workers.heartbeat("b", "1"); o.Drain || !strings.Contains(o.Without[part], "did not on a") {
			t.Errorf("%s: got orders %+v, want %s withheld", class, o, part)
		}
		if o := c.workers.heartbeat("a", "1"); o.Without != nil {
			t.Errorf("%s: got %v withheld from the node that works", class, o.Without)
		}
	}
}
