package master

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"mlfnode/cluster"
	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/history"
)

// fakeCluster is the cluster that a master sees. The test decides which nodes are alive.
type fakeCluster struct {
	mu           sync.Mutex
	states       map[grid.NodeID]cluster.State
	refusing     map[grid.NodeID]bool
	quarantined  map[grid.NodeID]string
	machines     map[grid.NodeID]*inventory.Machine // may be nil
	removed      map[grid.NodeID]bool
	withheld     map[grid.NodeID]map[grid.Scope]string
	onDisconnect func(grid.NodeID)
	outage       Outage
}

func newFakeCluster() *fakeCluster {
	return &fakeCluster{outage: Outage{AgentTimeout: 100 * time.Millisecond, Reconcile: LongestRunning},
		states: map[grid.NodeID]cluster.State{}, refusing: map[grid.NodeID]bool{},
		quarantined: map[grid.NodeID]string{}, removed: map[grid.NodeID]bool{},
		withheld: map[grid.NodeID]map[grid.Scope]string{}}
}

func (w *fakeCluster) setState(node grid.NodeID, s cluster.State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[node] = s
}

func (w *fakeCluster) nodes() *Nodes {
	return &Nodes{
		CrashLimit: 3, Outage: w.outage, Keys: func() uint64 { return 1 },
		Members: func() (all []cluster.Member) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for node, s := range w.states {
				all = append(all, cluster.Member{Node: node, State: s,
					Self: cluster.Self{Roles: []grid.NodeRole{grid.Worker}, Inventory: w.machines[node]}})
			}
			return all
		},
		Refused: func(_ context.Context, node grid.NodeID) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.refusing[node]
		},
		Disconnections: func(fn func(grid.NodeID)) func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.onDisconnect = fn
			return func() {}
		},
		Known: func(node grid.NodeID) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			return !w.removed[node]
		},
		Scheduling: w.scheduling(),
	}
}

func (w *fakeCluster) scheduling() Scheduling {
	return Scheduling{
		Drain: func(node grid.NodeID) (bool, bool, string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			reason, ok := w.quarantined[node]
			return ok, ok, reason
		},
		Quarantine: func(node grid.NodeID, reason string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.quarantined[node] = reason
		},
		Withhold: func(node grid.NodeID, part grid.Scope, reason string, _ time.Time) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.withheld[node] = map[grid.Scope]string{part: reason}
		},
		Withheld: func(node grid.NodeID) map[grid.Scope]string {
			w.mu.Lock()
			defer w.mu.Unlock()
			return w.withheld[node]
		},
	}
}

// remove takes a node out of the cluster.
func (w *fakeCluster) remove(node grid.NodeID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.removed[node] = true
}

// disconnect ends the connection of a node, whose machine then refuses new ones.
func (w *fakeCluster) disconnect(node grid.NodeID) {
	w.mu.Lock()
	w.refusing[node] = true
	ended := w.onDisconnect
	w.mu.Unlock()
	ended(node)
}

func (c *testMaster) attempts(id grid.SweepID, index int64) []history.Attempt {
	c.t.Helper()
	all, err := c.cfg.History.Attempts(c.t.Context(), grid.TrialID{Sweep: id, Index: index})
	if err != nil {
		c.t.Fatal(err)
	}
	return all
}

// TestDrainedNodesGetNoLeases asks for leases in the name of nodes that have not seen their newest
// directives: one that is quarantined, one from which the lane is withheld, and one that was taken
// out of the cluster. They are refused, and another node gets what there is.
func TestDrainedNodesGetNoLeases(t *testing.T) {
	w := newFakeCluster()
	for _, node := range []grid.NodeID{"b", "c", "d", "e"} {
		w.setState(node, cluster.Alive)
	}
	c := startWithNodes(t, t.TempDir(), 4, w.nodes())
	id := c.submit(4, nil)
	r, _ := c.Sweep(id)
	lane := r.Sweep.Lane()
	c.waitFor("a lease lies in the queue", func(s *scheduler) bool { return len(s.feedsByLease()) > 0 })
	w.nodes().Quarantine("b", "its disk is full")
	w.nodes().Withhold("c", grid.ScopeOfLane(lane), "such trials failed there", time.Time{})
	w.remove("d")
	take := func(node grid.NodeID) ([]jetstream.GrantedLease, error) {
		return c.store.Calls.LocalClient(node).TakeLeases(t.Context(), string(lane), 1)
	}
	for _, node := range []grid.NodeID{"b", "c", "d"} {
		if held, err := take(node); len(held) != 0 || err == nil {
			t.Errorf("%s got %d leases, %v, want none, and not the answer of an empty lane", node, len(held), err)
		}
	}
	if held, err := take("e"); len(held) != 1 || err != nil {
		t.Errorf("e got %d leases, %v, want 1", len(held), err)
	}
}

// TestDeadNode lets a node die with a running trial, in each way that counts: the trial is leased
// again immediately, the attempt names the node, and when the node is back it is told that it holds
// nothing.
func TestDeadNode(t *testing.T) {
	for name, die := range map[string]func(*fakeCluster){
		"silent in gossip and connection": func(w *fakeCluster) { w.setState("b", cluster.Dead) },
		"killed agent":                    func(w *fakeCluster) { w.disconnect("b") },
	} {
		t.Run(name, func(t *testing.T) {
			w := newFakeCluster()
			w.setState("b", cluster.Alive)
			c := startWithNodes(t, t.TempDir(), 1, w.nodes())
			id := c.submit(1, nil)
			h := c.workers.waitForLease(id)
			if o := c.workers.heartbeat("b", "1", h); len(o.Stop) > 0 {
				t.Fatalf("a node that holds its lease was told: %v", o.Stop)
			}
			run := c.workers.startTrial("b", h)
			began := time.Now()
			die(w)
			again := c.workers.waitForLease(id)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("the trial was leased again after %v, want it within 3 s", took)
			}
			if again.Seq == h.Seq || again.Lo != 0 || again.Attempt != 2 {
				t.Errorf("lease: got %+v, want a new one for attempt 2 of trial 0", again.Lease)
			}
			c.waitFor("the attempt crashed with node b", func(*scheduler) bool {
				all := c.attempts(id, 0)
				return len(all) == 1 && all[0].Node == "b" && all[0].Result.Class == grid.ClassCrash &&
					strings.Contains(all[0].Result.Reason, "node b")
			})
			if o := c.workers.heartbeat("b", "1", h); !slices.Equal(o.Stop, []grid.LeaseID{h.ID}) {
				t.Errorf("the node is back: got lost leases %v, want %s", o.Stop, h.ID)
			}
			c.workers.publishEvent("b", h, grid.Event{Kind: grid.Finished, Index: 0, Attempt: 1, Run: run,
				Result: &grid.Result{Class: grid.ClassLost, Started: 1}})
			if n := c.counts(id); n.Succeeded+n.Failed != 0 {
				t.Errorf("that it was lost ended the trial: %+v", n)
			}
			c.workers.finishLease(again, grid.ClassNone, time.Millisecond)
			if n := c.counts(id); n.Succeeded != 1 {
				t.Errorf("counts: got %+v, want one success", n)
			}
		})
	}
}

// TestOneSignalIsNotDeath leaves leases where they are when there is only one of the two signals.
func TestOneSignalIsNotDeath(t *testing.T) {
	t.Parallel()
	w := newFakeCluster()
	w.setState("b", cluster.Dead) // but its beats come
	w.setState("c", cluster.Alive)
	c := startWithNodes(t, t.TempDir(), 2, w.nodes())
	id := c.submit(2, nil)
	b, d := c.workers.waitForLease(id), c.workers.waitForLease(id)
	c.workers.heartbeat("c", "1", d) // and is silent from now on, alive in gossip
	deadline := time.Now().Add(jetstream.HeartbeatTimeout + time.Second)
	c.waitFor("some time has passed", func(*scheduler) bool {
		if o := c.workers.heartbeat("b", "1", b); len(o.Stop) > 0 {
			t.Fatal("a node that beats lost its lease")
		}
		return time.Now().After(deadline)
	})
	if o := c.workers.heartbeat("c", "1", d); len(o.Stop) > 0 {
		t.Errorf("a node that gossip has as alive lost its lease")
	}
}

// TestRestartingNodeKeepsItsLeases lets an agent announce its restart, end, and come back.
func TestRestartingNodeKeepsItsLeases(t *testing.T) {
	t.Parallel()
	w := newFakeCluster()
	w.setState("b", cluster.Alive)
	c := startWithNodes(t, t.TempDir(), 1, w.nodes())
	h := c.workers.waitForLease(c.submit(1, nil))
	c.handleHeartbeat("b", &jetstream.Heartbeat{Start: "1", Restarting: true,
		Leases: []jetstream.HeldLease{{Seq: h.Seq, Deliveries: 1, ID: h.ID}}})
	w.disconnect("b")
	deadline := time.Now().Add(2 * time.Second)
	c.waitFor("some time has passed", func(*scheduler) bool { return time.Now().After(deadline) })
	if o := c.workers.heartbeat("b", "2", h); len(o.Stop) > 0 {
		t.Errorf("got lost leases %v, want none", o.Stop)
	}
}

// TestNewLifeGivesUpOldLeases lets an agent come back that knows nothing of what the last one held.
func TestNewLifeGivesUpOldLeases(t *testing.T) {
	c := startWithNodes(t, t.TempDir(), 1, newFakeCluster().nodes())
	id := c.submit(1, nil)
	h := c.workers.waitForLease(id)
	c.workers.heartbeat("b", "1", h)
	c.workers.startTrial("b", h)
	c.workers.heartbeat("b", "2")
	if again := c.workers.waitForLease(id); again.Seq == h.Seq || again.Attempt != 2 {
		t.Errorf("lease: got %+v, want a new one for attempt 2", again.Lease)
	}
}

// TestCrashLimit sets a trial aside under which three nodes have died, and names them.
func TestCrashLimit(t *testing.T) {
	t.Parallel()
	w := newFakeCluster()
	c := startWithNodes(t, t.TempDir(), 1, w.nodes())
	id := c.submit(1, nil)
	for _, node := range []grid.NodeID{"a", "b", "d"} {
		h := c.workers.waitForLease(id)
		c.workers.heartbeat(node, "1", h)
		c.workers.startTrial(node, h)
		w.disconnect(node)
	}
	c.waitFor("the trial has failed", func(*scheduler) bool { return c.counts(id).Failed == 1 })
	trial, _, err := c.cfg.History.Trial(t.Context(), grid.TrialID{Sweep: id, Index: 0})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"node d died", "as did a and b before", "will not be retried",
		"3 nodes", "mlfnode retry"} {
		if !strings.Contains(strings.ReplaceAll(trial.Result.Reason, "agent of node d died", "node d died"), want) {
			t.Errorf("reason %q does not say %q", trial.Result.Reason, want)
		}
	}
}

// TestRestartedMaster restarts a master while other nodes hold leases: none loses one.
func TestRestartedMaster(t *testing.T) {
	dir := t.TempDir()
	c := startWithNodes(t, dir, 2, newFakeCluster().nodes())
	id := c.submit(3, nil)
	h, other := c.workers.waitForLease(id), c.workers.waitForLease(id)
	c.workers.heartbeat("b", "1", h, other)
	c.workers.startTrial("b", h)
	c.stopMaster()
	c = startWithNodes(t, dir, 2, newFakeCluster().nodes())
	c.waitForLeases(id, 3)
	if o := c.workers.heartbeat("b", "1", h, other); len(o.Stop) > 0 {
		t.Errorf("got lost leases %v, want none", o.Stop)
	}
	for range 3 { // the queue may not know any more what it handed out
		l := c.workers.waitForLease(id)
		if l.ID != h.ID && l.ID != other.ID {
			c.workers.finishLease(l, grid.ClassNone, time.Millisecond)
			continue
		}
		c.waitUntilStopped(l, func() jetstream.Directives { return c.workers.heartbeat("n", "1", l) })
		c.workers.publishEvent("b", l, grid.Event{Kind: grid.Finished, Index: l.Lo, Attempt: 1,
			Run: fmt.Sprintf("b.1.%d", 100+l.Lo), Result: &grid.Result{Started: 1}})
		c.workers.publishEvent("b", l, grid.Event{Kind: grid.Released, Lease: l.Seq, LeaseID: l.ID})
	}
	c.waitFor("the sweep ends", func(*scheduler) bool {
		r, _ := c.Sweep(id)
		return r.Sweep.State == grid.SweepFinished
	})
	if o := c.workers.heartbeat("b", "1", h); !slices.Equal(o.Stop, []grid.LeaseID{h.ID}) {
		t.Errorf("a lease that no longer exists: got lost %v, want %s", o.Stop, h.ID)
	}
}

// TestQuarantine drains a node on which trials fail at their start while they run elsewhere, and no
// other.
func TestQuarantine(t *testing.T) {
	failed := func(node grid.NodeID, sweep grid.SweepID) *history.Transition {
		return &history.Transition{Sweep: sweep, Node: node, Change: grid.Retry, Class: grid.ClassStart}
	}
	began := func(node grid.NodeID, sweep grid.SweepID) *history.Transition {
		return &history.Transition{Sweep: sweep, Node: node, Change: grid.Began}
	}
	failedAt := func(node grid.NodeID, index int64) *history.Transition {
		return &history.Transition{Sweep: "s", Index: index, Node: node, Change: grid.Retry, Class: grid.ClassStart}
	}
	lastAt := func(node grid.NodeID, index int64) *history.Transition {
		return &history.Transition{Sweep: "s", Index: index, Node: node, Change: grid.Done, Class: grid.ClassStart}
	}
	begun := func(node grid.NodeID, index int64) *history.Transition {
		return &history.Transition{Sweep: "s", Index: index, Node: node, Change: grid.Began}
	}
	for name, test := range map[string]struct {
		seen []*history.Transition
		want []grid.NodeID
	}{
		"broken node": {[]*history.Transition{began("a", "s"), failed("b", "s"),
			failed("b", "s"), failed("b", "s")}, []grid.NodeID{"b"}},
		"evidence that comes late": {[]*history.Transition{failed("b", "s"), failed("b", "s"),
			failed("b", "s"), began("a", "s")}, []grid.NodeID{"b"}},
		"broken program": {[]*history.Transition{failed("a", "s"), failed("b", "s"),
			failed("a", "s"), failed("b", "s"), failed("a", "s"), failed("b", "s")}, nil},
		"alone": {[]*history.Transition{failed("b", "s"), failed("b", "s"),
			failed("b", "s"), failed("b", "s")}, nil},
		"not in a row": {[]*history.Transition{began("a", "s"), failed("b", "s"),
			failed("b", "s"), began("b", "s"), failed("b", "s")}, nil},
		"of several sweeps": {[]*history.Transition{began("a", "s"), failed("b", "s"),
			failed("b", "r"), failed("b", "s")}, nil},
		"other trials ran": {[]*history.Transition{begun("a", 1), begun("a", 2), failedAt("b", 3),
			failedAt("b", 4), failedAt("b", 5)}, nil},
		"one trial that ran elsewhere": {[]*history.Transition{failedAt("b", 3), begun("a", 3),
			failedAt("b", 4), failedAt("b", 5)}, nil},
		"the same trials ran": {[]*history.Transition{failedAt("b", 3), failedAt("b", 4),
			begun("a", 3), failedAt("b", 5), begun("a", 4), begun("c", 9), begun("a", 5)}, []grid.NodeID{"b"}},
		"ran here in between": {[]*history.Transition{failedAt("b", 3), begun("a", 3),
			failedAt("b", 4), begun("a", 4), begun("b", 6), failedAt("b", 5), begun("a", 5)}, nil},
		"failed for good, and retried by a user": {[]*history.Transition{lastAt("b", 3), lastAt("b", 4), lastAt("b", 5),
			begun("a", 3), begun("a", 4), begun("a", 5)}, []grid.NodeID{"b"}},
		"other sweep ran": {[]*history.Transition{began("a", "r"), failed("b", "s"),
			failed("b", "s"), failed("b", "s")}, nil},
	} {
		h := newScheduler(&Master{}).health
		got := map[grid.NodeID]string{}
		for _, seen := range test.seen {
			h.record(seen)
			for node, b := range h.takeBroken() {
				got[node] = b.reason
			}
		}
		for _, node := range test.want {
			if !strings.Contains(got[node], "3 trials of s in a row failed at their start here, and ran on a") {
				t.Errorf("%s: got reason %q", name, got[node])
			}
		}
		if len(got) != len(test.want) {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// TestQuarantineWithSweepsThatTakeTurns lets trials of two sweeps fail in turns on a node, at their
// start or for lack of disk space, and end on another one.
func TestQuarantineWithSweepsThatTakeTurns(t *testing.T) {
	for class, want := range map[grid.Class]string{grid.ClassStart: "3 trials of r, s in a row",
		grid.ClassDisk: "3 attempts of r, s in a row"} {
		h := newScheduler(&Master{}).health
		for i := range int64(3) {
			sweep := []grid.SweepID{"r", "s"}[i%2]
			h.record(&history.Transition{Sweep: sweep, Index: i, Node: "b", Change: grid.Retry, Class: class, Ended: i})
			h.record(&history.Transition{Sweep: sweep, Index: i, Node: "a", Change: grid.Done})
		}
		if got := h.takeBroken(); !strings.Contains(got["b"].reason, want) || len(got) != 1 {
			t.Errorf("%s: got %v, want b for %s", class, got, want)
		}
	}
}

// TestQuarantineLeavesANode lets each of two nodes fail at what the other one runs: one of them
// must stay. A sweep over programs of which some do not exist quarantines no node.
func TestQuarantineLeavesANode(t *testing.T) {
	h := newScheduler(&Master{}).health
	gone := map[grid.NodeID]bool{"c": true}
	h.takesTrials = func(node grid.NodeID) bool { return !gone[node] }
	note := func(node grid.NodeID, index int64, change grid.Change, class grid.Class) {
		h.record(&history.Transition{Sweep: "s", Index: index, Node: node, Change: change, Class: class})
	}
	took := 0
	see := func() {
		for node := range h.takeBroken() {
			gone[node] = true
			took++
		}
	}
	for i := range int64(3) { // c is not there any more
		note("a", i, grid.Retry, grid.ClassStart)
		note("c", i, grid.Done, grid.ClassNone)
		see()
	}
	if took != 0 {
		t.Errorf("the last node that works was taken: %v", gone)
	}
	h = newScheduler(&Master{}).health
	h.takesTrials = func(node grid.NodeID) bool { return !gone[node] }
	for i := range int64(3) {
		note("a", i, grid.Retry, grid.ClassStart)
		note("b", 10+i, grid.Retry, grid.ClassStart)
	}
	for i := range int64(3) { // without what they ran being told as of the nodes themselves
		h.trials["s"][i].ran["b"] = true
		h.trials["s"][10+i].ran["a"] = true
	}
	for range 3 {
		see()
	}
	if took != 1 {
		t.Errorf("got %v, want one of two nodes to go on", gone)
	}
	h = newScheduler(&Master{}).health
	for i, node := range []grid.NodeID{"a", "b", "c"} {
		note(node, int64(i), grid.Done, grid.ClassNone)
	}
	for i := range int64(12) {
		note([]grid.NodeID{"a", "b", "c"}[i%3], 10+i, grid.Done, grid.ClassStart)
		if broken := h.takeBroken(); len(broken) > 0 {
			t.Errorf("a program that is nowhere: got %v", broken)
		}
	}
}
