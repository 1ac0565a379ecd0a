package master

import (
	"context"
	"errors"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
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
	c.goesOn(id, run, func() jetstream.Orders { return c.works("b", h, run, time.Minute) })
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
	if !f.longest.Known() || !f.reordered {
		t.Errorf("run times are known: %v, leases are to be taken back: %v; want both", f.longest.Known(), f.reordered)
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
