package master

import (
	"fmt"
	"testing"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// TestSweepsOfOneLaneShareIt serves a lane lease by lease: every sweep gets its share, also where
// there are more sweeps than leases in the queue.
func TestSweepsOfOneLaneShareIt(t *testing.T) {
	for _, cpus := range []float64{1, 4} {
		c := startMaster(t, cpus)
		served := map[grid.SweepID]int{}
		ids := []grid.SweepID{c.submit(1000, nil), c.submit(1000, nil), c.submit(1000, nil), c.submit(1000, nil)}
		for _, id := range ids {
			c.waitFor("every sweep has a feed", func(s *scheduler) bool { return s.feeds[id] != nil })
		}
		const each = 10
		for range each * len(ids) {
			h := c.workers.takeLease(ids[0])
			served[h.Sweep]++
			c.workers.finishLease(h, grid.ClassNone, time.Minute)
		}
		// What was in the queue before the other sweeps were submitted goes first.
		for _, id := range ids {
			if d := served[id] - each; d < -queueDepth*int(cpus) || d > queueDepth*int(cpus) {
				t.Errorf("%v CPUs: got %v leases served, want about %d of each sweep", cpus, served, each)
			}
		}
	}
}

// TestNewSweepIsServedAtOnce submits a sweep beside one that has filled the queue and all slots: it
// gets the first free slots until both have as many, and from then on they take turns.
func TestNewSweepIsServedAtOnce(t *testing.T) {
	for _, again := range []bool{false, true} { // it has been there before, and was paused
		c := startMaster(t, 4)
		old := c.submit(1_000_000, nil)
		c.waitForLeases(old, queueDepth*4)
		running := map[grid.SweepID][]*jetstream.GrantedLease{}
		for range 4 {
			running[old] = append(running[old], c.workers.takeLease(old))
		}
		fresh := c.submit(100, nil)
		if again {
			c.waitForLeases(fresh, queueDepth*4/2)
			if _, err := c.Pause(t.Context(), fresh, false); err != nil {
				t.Fatal(err)
			}
			c.waitForLeases(old, queueDepth*4)
			if _, err := c.Resume(t.Context(), fresh); err != nil {
				t.Fatal(err)
			}
		}
		c.waitForLeases(fresh, queueDepth*4/2)
		for n, want := range []grid.SweepID{fresh, fresh, old, fresh, old, fresh} {
			from := old
			if len(running[fresh]) > 2 || n > 2 && want == fresh {
				from = fresh
			}
			c.workers.finishLease(running[from][0], grid.ClassNone, time.Hour)
			running[from] = running[from][1:]
			h := c.workers.takeLease(old)
			if running[h.Sweep] = append(running[h.Sweep], h); h.Sweep != want {
				t.Fatalf("slot %d went to %s, want %s (again: %t)", n, h.Sweep, want, again)
			}
		}
		if len(running[old]) != 2 || len(running[fresh]) != 2 {
			t.Errorf("got %d and %d running, want 2 of each", len(running[old]), len(running[fresh]))
		}
		c.stopMaster()
	}
}

// TestLanesAreFedApart checks that what waits in one lane takes no room from another, whether of
// more urgent sweeps or of larger trials.
func TestLanesAreFedApart(t *testing.T) {
	c := startMaster(t, 4)
	small := c.submit(1_000_000_000, nil)
	c.waitForLeases(small, queueDepth*4)
	urgent := c.submit(100, func(s *api.Submit) { s.Priority = 5 })
	big := c.submit(100, func(s *api.Submit) { s.Task.Resources.CPUs = 4 * grid.One })
	c.waitForLeases(urgent, queueDepth*4)
	c.waitForLeases(big, queueDepth)
	c.waitForLeases(small, queueDepth*4)
	for _, id := range []grid.SweepID{urgent, big} {
		if h := c.workers.takeLease(id); h.Sweep != id || h.Lo != 0 {
			t.Errorf("head of the lane of %s: got %s [%d,%d)", id, h.Sweep, h.Lo, h.Hi)
		}
	}
}

func TestMaxParallelBoundsLeases(t *testing.T) {
	c := startMaster(t, 8)
	id := c.submit(1000, func(s *api.Submit) { s.MaxParallel = 3 })
	other := c.submit(1000, nil)
	for range 5 {
		c.waitForLeases(id, 3)
		c.waitForLeases(other, queueDepth*8-3)
		h := c.workers.takeLease(id)
		for h.Sweep != id {
			c.workers.releaseLease(h)
			h = c.workers.takeLease(id)
		}
		c.workers.finishLease(h, grid.ClassExit, time.Millisecond)
	}
}

func TestPauseActsAtOnce(t *testing.T) {
	c := startMaster(t, 2)
	id := c.submit(100, nil)
	c.waitForLeases(id, queueDepth*2)
	running := c.workers.takeLease(id)
	r, err := c.Pause(t.Context(), id, false)
	if err != nil || r.Sweep.State != grid.SweepPaused {
		t.Fatalf("pause: got %v, %v", r.Sweep.State, err)
	}
	c.waitForLeases(id, 1) // the others are taken out of the queue
	c.workers.finishLease(running, grid.ClassNone, time.Millisecond)
	if n, err := c.Outstanding(t.Context(), id); n != 0 || err != nil {
		t.Errorf("outstanding leases of a paused sweep: got %d, %v, want 0", n, err)
	}
	if all, err := c.store.Queue.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("queue: got %d leases, %v; want none", len(all), err)
	}
	if _, err := c.Resume(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	c.waitForLeases(id, queueDepth*2)
	if h := c.workers.takeLease(id); h.Lo != running.Hi || h.Attempt != 1 {
		t.Errorf("after resume: got [%d,%d), attempt %d, want to go on at %d with attempt 1", h.Lo, h.Hi,
			h.Attempt, running.Hi)
	}
}

func TestCancelActsAtOnce(t *testing.T) {
	c := startMaster(t, 2)
	id := c.submit(100, nil)
	c.waitForLeases(id, queueDepth*2)
	running := c.workers.takeLease(id)
	if _, err := c.Cancel(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	c.waitForLeases(id, 1)
	c.workers.finishLease(running, grid.ClassCancel, time.Millisecond)
	if n, err := c.Outstanding(t.Context(), id); n != 0 || err != nil {
		t.Errorf("outstanding leases of a cancelled sweep: got %d, %v, want 0", n, err)
	}
}

// TestLostLeaseIsLeasedAgain removes a lease from the queue without the master, as a crash of the
// store may.
func TestLostLeaseIsLeasedAgain(t *testing.T) {
	t.Parallel()
	c := startMaster(t, 1)
	id := c.submit(2, nil)
	c.waitForLeases(id, 2)
	running := c.workers.takeLease(id)
	var lost grid.LeaseID
	c.inLoop(func(s *scheduler) {
		for id := range s.feeds[id].leases {
			if id != running.ID {
				lost = id
			}
		}
	})
	if err := c.store.Queue.Delete(t.Context(), lost); err != nil {
		t.Fatal(err)
	}
	c.runReconcile() // misses the lease; an event may still be on its way
	c.waitForLeases(id, 2)
	c.runReconcile()
	c.workers.finishLease(running, grid.ClassNone, time.Millisecond) // the loop feeds the queue with this
	h := c.workers.takeLease(id)
	if h.Lo != 1 || h.Hi != 2 || h.Attempt != 1 || h.ID == lost {
		t.Errorf("made again: got %d [%d,%d) attempt %d, want trial 1 in a new lease", h.Seq, h.Lo, h.Hi, h.Attempt)
	}
	c.workers.finishLease(h, grid.ClassNone, time.Millisecond)
	c.waitUntilFinished(id)
	if n := c.counts(id); n.Succeeded != 2 {
		t.Errorf("history: got %+v, want 2 succeeded", n)
	}
}

// TestRestOfALeaseIsLeasedToOthers makes a node give back what it has not started of a wide lease:
// others get it, and the lease goes on. A master that starts in the meantime finds the whole lease
// in the queue, and is told of it too.
func TestRestOfALeaseIsLeasedToOthers(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %t", restarted), func(t *testing.T) {
			w, dir := newFakeCluster(), t.TempDir()
			w.setState("n", cluster.Alive)
			c := startWithNodes(t, dir, 1, w.nodes())
			id := c.submit(100, nil)
			h := c.workers.waitAndTakeLease(id)
			for h.Hi-h.Lo < 3 {
				c.workers.finishLease(h, grid.ClassNone, time.Millisecond)
				h = c.workers.waitAndTakeLease(id)
			}
			kept := func(s *scheduler) bool {
				held := heldLease(h, "n.1.0", time.Second)
				held.Hi = h.Lo + 1
				c.workers.recordMark("n", c.handleHeartbeat("n",
					&jetstream.Heartbeat{Start: "1", Leases: []jetstream.HeldLease{held}, Mark: c.workers.marks["n"]}))
				l := s.feeds[id].leases[h.ID]
				return l.lo == h.Lo && l.hi == h.Lo+1
			}
			c.waitFor("what was given back is missing", kept)
			if restarted {
				c.stopMaster()
				c = startWithNodes(t, dir, 1, w.nodes())
				c.waitFor("a restarted master knows that it was given back", kept)
			}
			got := map[int64]int{}
			for n := c.counts(id).Succeeded; n < 99; n = c.counts(id).Succeeded {
				other := c.workers.waitAndTakeLease(id)
				for i := other.Lo; i < other.Hi; i++ {
					got[i]++
				}
				c.workers.finishLease(other, grid.ClassNone, time.Minute)
				c.waitFor("the lease goes on", kept)
			}
			for i := h.Lo + 1; i < h.Hi; i++ {
				if got[i] != 1 {
					t.Errorf("trial %d, which was given back, was leased %d times", i, got[i])
				}
			}
			if got[h.Lo] != 0 {
				t.Error("the trial that runs was leased once more")
			}
			h.Hi = h.Lo + 1
			c.workers.finishLease(h, grid.ClassNone, time.Minute)
			c.waitUntilRecordFinished(id)
		})
	}
}

// TestHeldLeaseIsNotLost reconciles while a worker holds a lease: it is in the queue until it is
// acknowledged.
func TestHeldLeaseIsNotLost(t *testing.T) {
	c := startMaster(t, 1)
	id := c.submit(1, nil)
	c.waitForLeases(id, 1)
	h := c.workers.takeLease(id)
	for range 3 {
		c.runReconcile()
	}
	var seqs []uint64
	c.inLoop(func(s *scheduler) {
		for _, l := range s.feeds[id].leases {
			seqs = append(seqs, l.seq)
		}
	})
	if len(seqs) != 1 || seqs[0] != h.Seq {
		t.Errorf("leases: got %v, want only the held one, %d", seqs, h.Seq)
	}
}

// TestRestartLeasesWhatIsMissing starts a master over the folder of another one; the queue is
// emptied, as a start does.
func TestRestartLeasesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	var id grid.SweepID
	t.Run("first", func(t *testing.T) {
		c := restartMaster(t, dir, 1)
		id = c.submit(3, nil)
		h := c.workers.waitAndTakeLease(id)
		c.workers.finishLease(h, grid.ClassNone, time.Minute)
		// The trial then waits for its second attempt.
		c.workers.finishLease(c.workers.waitAndTakeLease(id), grid.ClassLost, time.Minute)
		if err := c.store.Queue.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	c := restartMaster(t, dir, 1)
	got := map[int64]int{}
	for range 2 {
		h := c.workers.waitAndTakeLease(id)
		got[h.Lo] = h.Attempt
		c.workers.finishLease(h, grid.ClassNone, time.Minute)
	}
	if len(got) != 2 || got[1] != 2 || got[2] != 1 {
		t.Errorf("leased after the restart, by trial: got attempts %v, want trial 1 again and trial 2", got)
	}
	c.waitUntilFinished(id)
}

func (c *testMaster) runReconcile() {
	c.t.Helper()
	c.inLoop(func(s *scheduler) {
		if err := s.reconciler.reconcile(c.t.Context()); err != nil {
			c.t.Error(err)
		}
	})
}

// waitUntilFinished waits until the sweep is marked as finished.
func (c *testMaster) waitUntilFinished(id grid.SweepID) {
	c.t.Helper()
	for {
		moved := c.Changed()
		if r, ok := c.Sweep(id); ok && r.Sweep.State == grid.SweepFinished {
			return
		}
		select {
		case <-moved:
		case <-time.After(time.Minute):
			c.t.Fatalf("%s is not marked as finished", id)
		}
	}
}

// TestRetryWaitsForWhatIsBeingStopped retries a cancelled sweep while a worker still holds a lease
// of it.
func TestRetryWaitsForWhatIsBeingStopped(t *testing.T) {
	c := startMaster(t, 1)
	id := c.submit(1, nil)
	c.waitForLeases(id, 1)
	h := c.workers.takeLease(id)
	if _, err := c.Cancel(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	retried := make(chan int64, 1)
	go func() {
		_, n, err := c.Retry(t.Context(), id, api.Retry{Index: -1})
		if err != nil {
			t.Errorf("retry: %v", err)
		}
		retried <- n
	}()
	c.waitFor("the retry waits", func(s *scheduler) bool { return len(s.feeds[id].drained) == 1 })
	c.workers.finishLease(h, grid.ClassCancel, time.Second)
	if n := <-retried; n != 1 {
		t.Errorf("retry reopened %d trials, want the one that was being stopped", n)
	}
	c.waitForLeases(id, 1)
	c.workers.finishLease(c.workers.takeLease(id), grid.ClassNone, time.Second)
	if n := c.counts(id); n.Succeeded != 1 {
		t.Errorf("got %+v, want the trial to have succeeded", n)
	}
}

// TestLongestTrialsFirst makes run times grow with the index: after three trials the longest
// remaining one goes first, also under a master that has taken over, and each trial runs once.
func TestLongestTrialsFirst(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %t", restarted), func(t *testing.T) {
			const count = 40
			dir := t.TempDir()
			c := restartMaster(t, dir, 1)
			id := c.submit(count, func(s *api.Submit) { s.Task.Order = grid.OrderLongest })
			ran, left := map[int64]int{}, int64(count-1)
			for n := range count {
				if restarted && n == 10 {
					c.stopMaster()
					c = restartMaster(t, dir, 1)
				}
				h := c.workers.waitAndTakeLease(id)
				if h.Hi != h.Lo+1 {
					t.Fatalf("got a lease of [%d,%d), want one trial", h.Lo, h.Hi)
				}
				for ran[left] > 0 {
					left--
				}
				if ran[h.Lo]++; n >= 3 && h.Lo != left || ran[h.Lo] > 1 {
					t.Fatalf("trial number %d is %d, run for time %d; want %d, the longest that is left", n,
						h.Lo, ran[h.Lo], left)
				}
				c.workers.finishLease(h, grid.ClassNone, time.Duration(h.Lo+1)*time.Minute)
			}
			c.waitUntilFinished(id)
		})
	}
}
