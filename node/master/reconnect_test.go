package master

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// loseNode silences a node that works on a lease, until its trial waits to be leased again, or is.
func (c *testMaster) loseNode(
	w *fakeCluster, node grid.NodeID, h *jetstream.GrantedLease, others ...func() jetstream.Directives,
) {
	c.t.Helper()
	w.setState(node, cluster.Dead)
	c.waitFor(fmt.Sprintf("node %s is lost", node), func(s *scheduler) bool {
		for _, beat := range others {
			beat()
		}
		f := s.feeds[h.Sweep]
		_, held := f.leases[h.ID]
		return !held && c.Applied() >= s.lastDecision && s.lastDecision > 0
	})
	w.setState(node, cluster.Alive)
}

// trial returns what history knows of a trial.
func (c *testMaster) trial(id grid.SweepID, index int64) grid.Trial {
	c.t.Helper()
	t, _, err := c.cfg.History.Trial(c.t.Context(), grid.TrialID{Sweep: id, Index: index})
	if err != nil {
		c.t.Fatal(err)
	}
	return t
}

// waitUntilContinues waits until a run gives a trial its state and its node may keep its lease;
// others that hold one are told to stop.
func (c *testMaster) waitUntilContinues(id grid.SweepID, run string, beat func() jetstream.Directives) {
	c.t.Helper()
	c.waitFor("run "+run+" goes on", func(s *scheduler) bool {
		if o := beat(); len(o.Stop) > 0 {
			c.t.Fatalf("the node of %s was told to stop %v", run, o.Stop)
		}
		t := c.trial(id, 0)
		return t.State == grid.Running && t.Run == run && len(s.feeds[id].leases) == 1
	})
}

// waitUntilStopped waits until a node is told to stop what it holds.
func (c *testMaster) waitUntilStopped(h *jetstream.GrantedLease, beat func() jetstream.Directives) {
	c.t.Helper()
	c.waitFor("the node is told to stop", func(*scheduler) bool {
		return slices.Equal(beat().Stop, []grid.LeaseID{h.ID})
	})
}

// TestNodeIsBackWithItsAttempt silences a node while its attempt goes on, and brings it back at
// each stage of the replacement. One attempt goes on, the other one is stopped, neither counts as a
// failure, and there is one result.
func TestNodeIsBackWithItsAttempt(t *testing.T) {
	t.Parallel()
	const young, old = time.Second, time.Minute
	for _, test := range []struct {
		name      string
		reconcile Reconcile
		replaced  string        // how far the replacement is: "", "pulled" or "running"
		age       time.Duration // of the replacement; the attempt itself is a minute old, or a second
		own       time.Duration
		original  bool // goes on
	}{
		{name: "nothing ran elsewhere", reconcile: LongestRunning, own: old, original: true},
		{name: "nothing ran elsewhere, and replacements are kept", reconcile: KeepReplacement,
			own: old, original: true},
		{name: "replacement was pulled", reconcile: LongestRunning, replaced: "pulled", own: old, original: true},
		{name: "original ran longest", reconcile: LongestRunning, replaced: "running", age: young,
			own: old, original: true},
		{name: "replacement ran longest", reconcile: LongestRunning, replaced: "running", age: 2 * old, own: old},
		{name: "original is kept", reconcile: KeepOriginal, replaced: "running", age: old, own: young, original: true},
		{name: "replacement is kept", reconcile: KeepReplacement, replaced: "running", age: young, own: old},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newFakeCluster()
			w.outage.Reconcile = test.reconcile
			c := startWithNodes(t, t.TempDir(), 1, w.nodes())
			id := c.submit(1, nil)
			h := c.workers.waitForLease(id)
			c.workers.heartbeatRunning("b", h, "", 0)
			run := c.workers.startTrial("b", h)
			leftover := jetstream.Heartbeat{Start: "1", Leases: []jetstream.HeldLease{heldLease(h, run, 0)},
				Mark: c.workers.marks["b"]}
			original := func() jetstream.Directives {
				if o := c.handleHeartbeat("b", &leftover); test.original && len(o.Stop) > 0 {
					t.Errorf("a beat from before the outage has the attempt stopped")
				}
				return c.workers.heartbeatRunning("b", h, run, test.own)
			}
			c.loseNode(w, "b", h)
			if n := c.trial(id, 0).Failures[grid.ClassCrash]; n != 1 {
				t.Errorf("while the node is lost %d crashes count, want 1", n)
			}
			var again *jetstream.GrantedLease
			var other string
			replacement := func() jetstream.Directives { return jetstream.Directives{} }
			switch test.replaced {
			case "pulled":
				again = c.workers.waitForLease(id)
				c.workers.heartbeat("d", "1", again)
				replacement = func() jetstream.Directives { return c.workers.heartbeat("d", "1", again) }
			case "running":
				again = c.workers.waitForLease(id)
				c.workers.heartbeatRunning("d", again, "d.1.9", 0)
				other = c.workers.startTrial("d", again)
				replacement = func() jetstream.Directives {
					return c.workers.heartbeatRunning("d", again, other, test.age)
				}
				replacement()
			}
			if !test.original {
				c.waitUntilStopped(h, original)
				c.waitUntilContinues(id, other, replacement)
				c.workers.publishEvent("b", h, grid.Event{Kind: grid.Finished, Index: 0, Attempt: 1, Run: run,
					Result: &grid.Result{Class: grid.ClassLost, Started: 1}})
				c.waitUntilContinues(id, other, replacement)
				c.workers.publishEvent("d", again,
					grid.Event{Kind: grid.Finished, Index: 0, Attempt: 2, Run: other, Result: &grid.Result{Started: 1}})
			} else {
				c.waitUntilContinues(id, run, original)
				if again != nil {
					c.waitUntilStopped(again, replacement)
				}
				if other != "" {
					c.workers.publishEvent("d", again,
						grid.Event{Kind: grid.Finished, Index: 0, Attempt: 2, Run: other,
							Result: &grid.Result{Class: grid.ClassLost, Started: 1}})
					c.waitUntilContinues(id, run, original)
				}
				if f := c.trial(id, 0).Failures; len(f) > 0 {
					t.Errorf("on the trial's record: %v, want nothing", f)
				}
				c.workers.publishEvent("b", h, grid.Event{Kind: grid.Finished, Index: 0, Attempt: 1, Run: run,
					Result: &grid.Result{Started: 1}})
			}
			c.waitUntilFinished(id)
			if n := c.counts(id); n.Succeeded != 1 || n.Failed != 0 {
				t.Errorf("counts: got %+v, want one success", n)
			}
		})
	}
}

// TestManyOutages loses a node and brings it back more often than nodes may die under a trial: that
// does not count, since the attempt goes on each time.
func TestManyOutages(t *testing.T) {
	t.Parallel()
	w := newFakeCluster()
	c := startWithNodes(t, t.TempDir(), 1, w.nodes())
	id := c.submit(1, nil)
	h := c.workers.waitForLease(id)
	c.workers.heartbeatRunning("b", h, "", 0)
	run := c.workers.startTrial("b", h)
	for range w.nodes().CrashLimit + 1 {
		c.loseNode(w, "b", h, func() jetstream.Directives { return c.workers.heartbeat("d", "1") })
		again := c.workers.waitForLease(id)
		c.workers.heartbeatRunning("d", again, c.workers.startTrial("d", again), time.Millisecond)
		c.waitUntilContinues(id, run, func() jetstream.Directives {
			return c.workers.heartbeatRunning("b", h, run, time.Minute)
		})
	}
	if trial := c.trial(id, 0); len(trial.Failures) > 0 || trial.Attempt != 1 {
		t.Errorf("got %v on the record and attempt %d, want nothing and the first", trial.Failures, trial.Attempt)
	}
}

// TestResultOfALostNode checks that the result of a lost node counts if it comes first: the
// replacement is stopped, whatever its state.
func TestResultOfALostNode(t *testing.T) {
	t.Parallel()
	for _, running := range []bool{false, true} {
		t.Run(fmt.Sprintf("replacement runs: %v", running), func(t *testing.T) {
			w := newFakeCluster()
			c := startWithNodes(t, t.TempDir(), 1, w.nodes())
			id := c.submit(2, func(s *api.Submit) { s.MaxParallel = 1 })
			h := c.workers.waitForLease(id)
			c.workers.heartbeatRunning("b", h, "", 0)
			run := c.workers.startTrial("b", h)
			c.loseNode(w, "b", h)
			var again *jetstream.GrantedLease
			var other string
			if running {
				again = c.workers.waitForLease(id)
				c.workers.heartbeatRunning("d", again, "", 0)
				other = c.workers.startTrial("d", again)
			}
			c.workers.publishEvent("b", h, grid.Event{Kind: grid.Finished, Index: 0, Attempt: 1, Run: run,
				Result: &grid.Result{Started: 1}})
			if running {
				c.waitUntilStopped(again, func() jetstream.Directives {
					return c.workers.heartbeatRunning("d", again, other, time.Second)
				})
				c.workers.publishEvent("d", again,
					grid.Event{Kind: grid.Finished, Index: 0, Attempt: 2, Run: other,
						Result: &grid.Result{Class: grid.ClassLost, Started: 1}})
			}
			if next := c.workers.waitForLease(id); next.Lo != 1 {
				t.Errorf("got a lease of trial %d, want the other trial", next.Lo)
			}
			if trial := c.trial(id, 0); trial.State != grid.Succeeded || trial.Run != run {
				t.Errorf("got %s by %s, want success by %s", trial.State, trial.Run, run)
			}
		})
	}
}

// TestHarmfulSecondRun waits for the node, however long it is away, and runs the trial again only
// once the attempt is known to have ended.
func TestHarmfulSecondRun(t *testing.T) {
	t.Parallel()
	w := newFakeCluster()
	c := startWithNodes(t, t.TempDir(), 2, w.nodes())
	id := c.submit(1, func(s *api.Submit) { s.Task.NoReplace = true })
	other := c.submit(1, nil)
	h, o := c.workers.waitForLease(id), c.workers.waitForLease(other)
	if h.Sweep != id {
		h, o = o, h
	}
	both := func(run string) jetstream.Directives {
		return c.handleHeartbeat("b",
			&jetstream.Heartbeat{Start: "1", Mark: c.workers.marks["b"],
				Leases: []jetstream.HeldLease{heldLease(h, run, time.Minute), heldLease(o, "b.1.8", time.Minute)}})
	}
	both("b.1.7")
	run := c.workers.startTrial("b", h)
	c.workers.startTrial("b", o)
	c.loseNode(w, "b", o)
	c.waitForLeases(id, 1)
	if trial := c.trial(id, 0); trial.State != grid.Running || trial.Run != run {
		t.Errorf("while its node is lost the trial is %s by %s, want running by %s", trial.State, trial.Run, run)
	}
	if o := both(run); slices.Contains(o.Stop, h.ID) {
		t.Errorf("the node is back and was told to stop it")
	}
	c.handleHeartbeat("b", &jetstream.Heartbeat{Start: "2"}) // its machine has restarted
	c.workers.publishEvent("b", h, grid.Event{Kind: grid.Finished, Index: 0, Attempt: 1, Run: run,
		Result: &grid.Result{Class: grid.ClassLost, Started: 1}})
	var again *jetstream.GrantedLease
	c.waitFor("the trial is leased again", func(*scheduler) bool {
		held, err := c.workers.client().TakeLeases(t.Context(), "p0_c1_m0", 1)
		if r, _ := c.Sweep(id); err == nil && len(held) == 0 {
			held, err = c.workers.client().TakeLeases(t.Context(), string(r.Sweep.Lane()), 1)
		}
		if err == nil && len(held) == 1 && held[0].Sweep == id {
			again = &held[0]
		}
		return again != nil
	})
	if again.Attempt != 2 {
		t.Errorf("got attempt %d, want 2", again.Attempt)
	}
}

// TestQueueLostLeases starts a master whose queue has lost the lease of a running attempt: it waits
// for the node, which keeps it, and nothing runs twice.
func TestQueueLostLeases(t *testing.T) {
	dir := t.TempDir()
	c := startWithNodes(t, dir, 1, newFakeCluster().nodes())
	id := c.submit(1, nil)
	h := c.workers.waitForLease(id)
	c.workers.heartbeatRunning("b", h, "", 0)
	run := c.workers.startTrial("b", h)
	if err := c.store.Queue.Delete(t.Context(), h.ID); err != nil {
		t.Fatal(err)
	}
	c.stopMaster()
	w := newFakeCluster()
	w.setState("b", cluster.Alive)
	c = startWithNodes(t, dir, 1, w.nodes())
	c.waitForLeases(id, 1)
	c.waitUntilContinues(id, run, func() jetstream.Directives {
		return c.workers.heartbeatRunning("b", h, run, time.Minute)
	})
	c.runReconcile()
	c.runReconcile()
	c.waitUntilContinues(id, run, func() jetstream.Directives {
		return c.workers.heartbeatRunning("b", h, run, time.Minute)
	})
	if held, err := c.workers.client().TakeLeases(t.Context(), h.Shape, 1); err != nil || len(held) > 0 {
		t.Errorf("got %v, %v from the queue, want nothing", held, err)
	}
	c.workers.publishEvent("b", h, grid.Event{Kind: grid.Finished, Index: 0, Attempt: 1, Run: run,
		Result: &grid.Result{Started: 1}})
	c.waitUntilFinished(id)
}

// TestHeldLeaseIsNotHandedOut lets another node ask for leases while one works on the only one, and
// return that one, also after a restart of the master.
func TestHeldLeaseIsNotHandedOut(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted: %v", restarted), func(t *testing.T) {
			dir := t.TempDir()
			c := startWithNodes(t, dir, 1, newFakeCluster().nodes())
			id := c.submit(1, nil)
			h := c.workers.waitForLease(id)
			c.workers.heartbeatRunning("b", h, "", 0)
			run := c.workers.startTrial("b", h)
			if restarted {
				c.stopMaster()
				c = startWithNodes(t, dir, 1, newFakeCluster().nodes())
			}
			for range 20 {
				if again, err := c.store.Calls.LocalClient("d").TakeLeases(t.Context(), h.Shape, 1); err != nil ||
					len(again) > 0 {
					t.Fatalf("taken by another node: got %+v, %v; want nothing", again, err)
				}
			}
			c.waitUntilContinues(id, run, func() jetstream.Directives {
				return c.workers.heartbeatRunning("b", h, run, time.Minute)
			})
			// The lease is not its to give.
			c.workers.publishEvent("d", h, grid.Event{Kind: grid.Released, Lease: h.Seq, LeaseID: h.ID})
			c.waitUntilContinues(id, run, func() jetstream.Directives {
				return c.workers.heartbeatRunning("b", h, run, time.Minute)
			})
			// later its ID says who has it
			if err := c.store.Calls.LocalClient("d").ReturnLease(t.Context(), h); err == nil && !restarted {
				t.Error("the lease is given back by a node that does not hold it")
			}
			if err := c.workers.client().ReturnLease(t.Context(), h); err != nil {
				t.Errorf("given back by its holder: %v", err)
			}
		})
	}
}

// TestAbandonedLease reclaims what was granted and that no node reports to hold, also when one held
// it before, and when it can't be deleted.
func TestAbandonedLease(t *testing.T) {
	for _, test := range []struct{ claimed, deletable bool }{{true, true}, {true, false},
		{false, true}, {false, false}} {
		claimed, ctx := test.claimed, t.Context()
		if !test.deletable {
			ctx = cancelledContext(t)
		}
		t.Run(fmt.Sprintf("claimed once: %v, deletable: %v", claimed, test.deletable), func(t *testing.T) {
			c := startWithNodes(t, t.TempDir(), 1, newFakeCluster().nodes())
			id := c.submit(3, nil)
			h := c.workers.waitForLease(id)
			if claimed {
				c.workers.heartbeat("b", "1", h)
			}
			look := func(later time.Duration) (gone bool) {
				if claimed {
					c.workers.heartbeat("b", "1")
					c.nodes.recordHeartbeat("b", &jetstream.Heartbeat{Start: "1"}, time.Now().Add(later))
				}
				c.inLoop(func(s *scheduler) {
					gone = s.reconciler.reclaimAbandoned(ctx, s.feeds[id], h.ID, time.Now().Add(later))
				})
				return gone
			}
			if look(0) {
				t.Fatal("it is taken back immediately")
			}
			if !look(holderTimeout+time.Second) && !look(3*holderTimeout) {
				t.Error("it is not taken back")
			}
			c.inLoop(func(s *scheduler) {
				for other, l := range s.feeds[id].leases {
					if other != h.ID && s.reconciler.reclaimAbandoned(t.Context(), s.feeds[id], other,
						time.Now().Add(time.Hour)) {
						t.Errorf("lease of trial %d waits in the queue, and is taken for abandoned", l.lo)
					}
				}
			})
		})
	}
}

// TestOrphanLeaseIsDeleted finds a lease in the queue that was published and not recorded.
func TestOrphanLeaseIsDeleted(t *testing.T) {
	c := startWithNodes(t, t.TempDir(), 1, newFakeCluster().nodes())
	id := c.submit(1, nil)
	h := c.workers.waitForLease(id)
	if _, err := c.store.Queue.Publish(t.Context(),
		jetstream.Lease{Sweep: id, Lo: 0, Hi: 1, Attempt: 1, Shape: h.Shape}); err != nil {
		t.Fatal(err)
	}
	c.runReconcile()
	present, err := c.store.Queue.List(t.Context())
	if err != nil || len(present) != 1 || present[0].ID != h.ID {
		t.Errorf("got %v, %v in the queue, want the lease that is known", present, err)
	}
}
