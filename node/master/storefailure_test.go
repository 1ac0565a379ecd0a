package master

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// cancelledContext returns a context with which the store and history fail.
func cancelledContext(t *testing.T) context.Context {
	ctx, end := context.WithCancel(t.Context())
	end()
	return ctx
}

// TestLeaseThatCannotBeDeleted withdraws leases while none can be deleted: their trials are leased
// again, and a cancelled sweep is drained, also where there are no other nodes.
func TestLeaseThatCannotBeDeleted(t *testing.T) {
	c := startMaster(t, 2)
	id := c.submit(4, nil)
	c.waitForLeases(id, 4)
	before := map[grid.LeaseID]bool{}
	c.inLoop(func(s *scheduler) {
		for lease := range s.feeds[id].leases {
			before[lease] = true
		}
		s.withdrawLeases(cancelledContext(t), s.feeds[id])
		if n := len(s.feeds[id].leases); n > 0 {
			t.Errorf("%d leases are left that no node can take", n)
		}
	})
	c.waitForLeases(id, 4)
	for range 2 {
		h := c.workers.takeLease(id)
		if before[h.ID] {
			t.Errorf("lease %s is taken once more", h.ID)
		}
		c.workers.finishLease(h, grid.ClassNone, time.Millisecond)
	}
	c.inLoop(func(s *scheduler) { s.withdrawLeases(cancelledContext(t), s.feeds[id]) })
	if _, err := c.Cancel(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if err := c.awaitDrained(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// killNode loses a node while the store and history fail.
func (c *testMaster) killNode(node grid.NodeID) {
	c.t.Helper()
	c.inLoop(func(s *scheduler) {
		c.nodes.mu.Lock()
		c.nodes.byID[node].dead = true
		c.nodes.mu.Unlock()
		s.fencer.handleNodeDeath(cancelledContext(c.t), node, nodeLoss{reason: "node " + string(node) + " died"})
	})
}

// TestNodeDiesWhileTheStoreRefuses leases the dead node's trials again immediately, and fences its
// attempts when the store works again, also of a sweep that is cancelled.
func TestNodeDiesWhileTheStoreRefuses(t *testing.T) {
	t.Parallel()
	c := startWithNodes(t, t.TempDir(), 1, newFakeCluster().nodes())
	id := c.submit(1, nil)
	h := c.workers.waitForLease(id)
	c.workers.heartbeatRunning("b", h, "", 0)
	c.workers.startTrial("b", h)
	c.killNode("b")
	crashed := func(n int) {
		t.Helper()
		c.waitFor("the attempt is fenced", func(s *scheduler) bool {
			all := c.attempts(id, 0)
			return len(all) == n && all[n-1].Node == "b" && all[n-1].Result.Class == grid.ClassCrash &&
				len(s.fencer.pending) == 0
		})
	}
	crashed(1)
	again := c.workers.waitForLease(id)
	if again.ID == h.ID || again.Attempt != 2 {
		t.Fatalf("got %+v, want a new lease for attempt 2", again.Lease)
	}
	c.workers.heartbeatRunning("b", again, "", 0)
	c.workers.startTrial("b", again)
	if _, err := c.Cancel(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	c.killNode("b")
	crashed(2)
	if n := c.counts(id); n.Running != 0 {
		t.Errorf("%d trials of the cancelled sweep still run", n.Running)
	}
}

// TestNodeIsBackBeforeItIsFenced hears from a lost node before its attempt could be fenced: the
// attempt goes on.
func TestNodeIsBackBeforeItIsFenced(t *testing.T) {
	t.Parallel()
	c := startWithNodes(t, t.TempDir(), 1, newFakeCluster().nodes())
	id := c.submit(1, nil)
	h := c.workers.waitForLease(id)
	c.workers.heartbeatRunning("b", h, "", 0)
	run := c.workers.startTrial("b", h)
	c.inLoop(func(s *scheduler) { // the reconciler comes later
		c.nodes.mu.Lock()
		c.nodes.byID["b"].dead = true
		c.nodes.mu.Unlock()
		s.fencer.handleNodeDeath(cancelledContext(t), "b", nodeLoss{reason: "node b died"})
		c.workers.heartbeatRunning("b", h, run, time.Minute)
	})
	c.runReconcile()
	c.waitUntilContinues(id, run, func() jetstream.Directives {
		return c.workers.heartbeatRunning("b", h, run, time.Minute)
	})
	c.inLoop(func(s *scheduler) {
		if len(s.fencer.pending) > 0 {
			t.Errorf("still to be fenced: %v", s.fencer.pending)
		}
	})
	if all := c.attempts(id, 0); len(all) != 1 || all[0].Run != run {
		t.Errorf("got attempts %+v, want the one that goes on", all)
	}
}

// TestOrderIsFoundTwiceBeforeItIsFollowed checks that leases in the first order are still withdrawn
// when the order is computed twice.
func TestOrderIsFoundTwiceBeforeItIsFollowed(t *testing.T) {
	sweep := newSweep(t, "t-1", 1000)
	sweep.Task.Order = grid.OrderLongest
	f := newFeed(sweep)
	for i := range int64(100) {
		f.addRunTime(i, time.Duration(i+1)*time.Second)
	}
	if f.longest.order == nil || !f.reordered {
		t.Errorf("run times are known: %v, leases are to be taken back: %v; want both",
			f.longest.order != nil, f.reordered)
	}
}

// TestQuestionToAMasterThatHasEnded gets an answer although its context never ends.
func TestQuestionToAMasterThatHasEnded(t *testing.T) {
	c := startMaster(t, 1)
	id := c.submit(1, nil)
	c.waitForLeases(id, 1)
	c.stopMaster()
	if _, err := c.Outstanding(context.Background(), id); !errors.Is(err, errEnded) {
		t.Errorf("got %v, want that the master has ended", err)
	}
}

// alterHistory runs a statement on the history in a folder.
func alterHistory(t *testing.T, dir, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "history.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

// TestSweepThatCannotBeOpened makes history fail when the only sweep is to be opened: the sweep
// runs as soon as history works again.
func TestSweepThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	c := startMaster(t, 1)
	id := c.submit(1, nil)
	c.waitForLeases(id, 1)
	c.inLoop(func(s *scheduler) {
		r, _ := c.Sweep(id)
		s.withdrawLeases(t.Context(), s.feeds[id])
		s.closeFeed(id)
		if err := s.openFeed(cancelledContext(t), &r, nil); err == nil {
			t.Error("it was opened")
		}
	})
	c.waitForLeases(id, 1)
}

// TestRestoreIsTriedAgain makes history fail when a master takes over: it continues once history
// works again, and no node loses a lease.
func TestRestoreIsTriedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := startWithNodes(t, dir, 1, newFakeCluster().nodes())
	other := c.submit(1, nil)
	h := c.workers.waitForLease(other)
	c.workers.heartbeatRunning("b", h, "", 0)
	run := c.workers.startTrial("b", h)
	c.stopMaster()
	c = newTestMaster(t, dir, 1, newFakeCluster().nodes(), nil)
	alterHistory(t, dir, "ALTER TABLE known RENAME TO hidden")
	c.run()
	limit := time.After(time.Minute)
	for moved := c.Changed(); c.Problem() == ""; moved = c.Changed() {
		select {
		case <-moved:
		case <-limit:
			t.Fatal("after a minute the master says of no problem")
		}
	}
	if o := c.workers.heartbeatRunning("b", h, run, time.Minute); len(o.Stop) > 0 {
		t.Errorf("a node is told to stop %v, which may be its", o.Stop)
	}
	alterHistory(t, dir, "ALTER TABLE hidden RENAME TO known")
	c.waitUntilContinues(other, run, func() jetstream.Directives {
		return c.workers.heartbeatRunning("b", h, run, time.Minute)
	})
	if problem := c.Problem(); problem != "" {
		t.Errorf("it goes on, and its problem is still %q", problem)
	}
}

// TestRunTimesThatCannotBeRead runs a sweep in some order when history can't say how long its
// trials have run.
func TestRunTimesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	c := restartMaster(t, dir, 1)
	id := c.submit(10, func(s *api.Submit) { s.Task.Order = grid.OrderLongest })
	for range 2 {
		c.workers.finishLease(c.workers.waitAndTakeLease(id), grid.ClassNone, time.Second)
	}
	c.stopMaster()
	c = newTestMaster(t, dir, 1, nil, nil)
	alterHistory(t, dir, "UPDATE trial SET detail = 5 WHERE state = 2")
	c.run()
	for range 8 {
		c.workers.finishLease(c.workers.waitAndTakeLease(id), grid.ClassNone, time.Second)
	}
	c.waitUntilFinished(id)
}
