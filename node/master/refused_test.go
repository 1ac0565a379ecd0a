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
	"mlfnode/node/history"
)

// refused gives a context with which the store and history do nothing.
func refused(t *testing.T) context.Context {
	ctx, end := context.WithCancel(t.Context())
	end()
	return ctx
}

// TestLeaseThatCannotBeDeleted takes leases out of the queue while none can be deleted: their trials are leased again, and a cancelled sweep
// is settled, also where no other nodes are.
func TestLeaseThatCannotBeDeleted(t *testing.T) {
	c := start(t, 2)
	id := c.submit(4, nil)
	c.leased(id, 4)
	before := map[grid.LeaseID]bool{}
	c.on(func(s *state) {
		for lease := range s.feeds[id].leases {
			before[lease] = true
		}
		s.withdrawAll(refused(t), s.feeds[id])
		if n := len(s.feeds[id].leases); n > 0 {
			t.Errorf("%d leases are left that no node can take", n)
		}
	})
	c.leased(id, 4)
	for range 2 {
		h := c.pull(id)
		if before[h.ID] {
			t.Errorf("lease %s is taken once more", h.ID)
		}
		c.finish(h, grid.ClassNone, time.Millisecond)
	}
	c.on(func(s *state) { s.withdrawAll(refused(t), s.feeds[id]) })
	if _, err := c.Cancel(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	if err := c.settle(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

// dies has a node be lost while the store and history refuse.
func (c *stage) dies(node grid.NodeID) {
	c.t.Helper()
	c.on(func(s *state) {
		c.peers.mu.Lock()
		c.peers.byID[node].dead = true
		c.peers.mu.Unlock()
		s.lose(refused(c.t), node, loss{how: "node " + string(node) + " died"})
	})
}

// TestNodeDiesWhileTheStoreRefuses leases the dead node's trials again at once, and fences its attempts when the store takes that, also of a
// sweep that is cancelled.
func TestNodeDiesWhileTheStoreRefuses(t *testing.T) {
	t.Parallel()
	c := perform(t, t.TempDir(), 1, newWorld().nodes())
	id := c.submit(1, nil)
	h := c.pulled(id)
	c.works("b", h, "", 0)
	c.begins("b", h)
	c.dies("b")
	crashed := func(n int) {
		t.Helper()
		c.until("the attempt is fenced", func(s *state) bool {
			all := c.attempts(id, 0)
			return len(all) == n && all[n-1].Node == "b" && all[n-1].Result.Class == grid.ClassCrash && len(s.unfenced) == 0
		})
	}
	crashed(1)
	again := c.pulled(id)
	if again.ID == h.ID || again.Attempt != 2 {
		t.Fatalf("got %+v, want a new lease for attempt 2", again.Lease)
	}
	c.works("b", again, "", 0)
	c.begins("b", again)
	if _, err := c.Cancel(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	c.dies("b")
	crashed(2)
	if n := c.counts(id); n.Running != 0 {
		t.Errorf("%d trials of the cancelled sweep still run", n.Running)
	}
}

// TestNodeIsBackBeforeItIsFenced has a node that was lost be heard of before its attempt could be fenced: the attempt goes on.
func TestNodeIsBackBeforeItIsFenced(t *testing.T) {
	t.Parallel()
	c := perform(t, t.TempDir(), 1, newWorld().nodes())
	id := c.submit(1, nil)
	h := c.pulled(id)
	c.works("b", h, "", 0)
	run := c.begins("b", h)
	c.on(func(s *state) { // the reconciler comes later
		c.peers.mu.Lock()
		c.peers.byID["b"].dead = true
		c.peers.mu.Unlock()
		s.lose(refused(t), "b", loss{how: "node b died"})
		c.works("b", h, run, time.Minute)
	})
	c.reconcile()
	c.goesOn(id, run, func() jetstream.Directives { return c.works("b", h, run, time.Minute) })
	c.on(func(s *state) {
		if len(s.unfenced) > 0 {
			t.Errorf("still to be fenced: %v", s.unfenced)
		}
	})
	if all := c.attempts(id, 0); len(all) != 1 || all[0].Run != run {
		t.Errorf("got attempts %+v, want the one that goes on", all)
	}
}

// TestOrderIsFoundTwiceBeforeItIsFollowed keeps that leases of the order before the first one are to be taken back.
func TestOrderIsFoundTwiceBeforeItIsFollowed(t *testing.T) {
	sweep := points(t, "t-1", 1000)
	sweep.Task.Order = grid.OrderLongest
	f := newFeed(sweep)
	for i := range int64(100) {
		f.noteTime(&history.Transition{Index: i, State: grid.Succeeded, Started: 1, Ended: 1 + (i+1)*1e6})
	}
	if !f.longest.hasOrder() || !f.reordered {
		t.Errorf("run times are known: %v, leases are to be taken back: %v; want both", f.longest.hasOrder(), f.reordered)
	}
}

// TestQuestionToAMasterThatHasEnded is answered, although whoever asks has all the time there is.
func TestQuestionToAMasterThatHasEnded(t *testing.T) {
	c := start(t, 1)
	id := c.submit(1, nil)
	c.leased(id, 1)
	c.end()
	if _, err := c.Outstanding(context.Background(), id); !errors.Is(err, errEnded) {
		t.Errorf("got %v, want that the master has ended", err)
	}
}

// alters runs a statement on the history in a folder.
func alters(t *testing.T, dir, statement string) {
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

// TestSweepThatCannotBeOpened has history refuse when the only sweep is to be opened: the sweep runs as soon as it does not.
func TestSweepThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	id := c.submit(1, nil)
	c.leased(id, 1)
	c.on(func(s *state) {
		r, _ := c.Sweep(id)
		s.withdrawAll(t.Context(), s.feeds[id])
		s.forget(id)
		if err := s.open(refused(t), &r, nil); err == nil {
			t.Error("it was opened")
		}
	})
	c.leased(id, 1)
}

// TestRestoreIsTriedAgain has history refuse when a master takes over: it goes on when that has passed, and nobody loses a lease.
func TestRestoreIsTriedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := perform(t, dir, 1, newWorld().nodes())
	other := c.submit(1, nil)
	h := c.pulled(other)
	c.works("b", h, "", 0)
	run := c.begins("b", h)
	c.end()
	c = prepare(t, dir, 1, newWorld().nodes(), nil)
	alters(t, dir, "ALTER TABLE known RENAME TO hidden")
	c.run()
	limit := time.After(time.Minute)
	for moved := c.Moved(); c.Problem() == ""; moved = c.Moved() {
		select {
		case <-moved:
		case <-limit:
			t.Fatal("after a minute the master says of no problem")
		}
	}
	if o := c.works("b", h, run, time.Minute); len(o.Stop) > 0 {
		t.Errorf("a node is told to stop %v, which may be its", o.Stop)
	}
	alters(t, dir, "ALTER TABLE hidden RENAME TO known")
	c.goesOn(other, run, func() jetstream.Directives { return c.works("b", h, run, time.Minute) })
	if problem := c.Problem(); problem != "" {
		t.Errorf("it goes on, and its problem is still %q", problem)
	}
}

// TestRunTimesThatCannotBeRead runs a sweep in some order when history can't say how long its trials have run.
func TestRunTimesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	c := restart(t, dir, 1)
	id := c.submit(10, func(s *api.Submit) { s.Task.Order = grid.OrderLongest })
	for range 2 {
		c.finish(c.pullSoon(id), grid.ClassNone, time.Second)
	}
	c.end()
	c = prepare(t, dir, 1, nil, nil)
	alters(t, dir, "UPDATE trial SET detail = 5 WHERE state = 2")
	c.run()
	for range 8 {
		c.finish(c.pullSoon(id), grid.ClassNone, time.Second)
	}
	c.ended(id)
}
