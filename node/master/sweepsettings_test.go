package master

import (
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestSetPriority moves the waiting leases of a sweep to the lane of its new priority immediately;
// a lease that a node holds stays known in its old lane until it has ended. A sweep that shared the
// old lane keeps it.
func TestSetPriority(t *testing.T) {
	t.Parallel()
	c := startMaster(t, 2)
	id := c.submit(20, nil)
	c.waitForLeases(id, queueDepth*2)
	first, _ := c.Sweep(id)
	old, need := first.Sweep.Lane(), first.Sweep.Task.Resources.Initial()
	h := c.workers.takeLeaseIn(old)
	urgent := 5
	r, err := c.Set(t.Context(), id, api.Set{Priority: &urgent})
	if err != nil || r.Sweep.Priority != urgent || r.AllLanes()[old] != need || r.AllLanes()[r.Sweep.Lane()] != need ||
		r.Sweep.Lane() == old {
		t.Fatalf("got priority %d and lanes %v, %v; want both lanes", r.Sweep.Priority, r.AllLanes(), err)
	}
	c.waitFor("all but what is held wait in the new lane", func(s *scheduler) bool {
		f := s.feeds[id]
		return f.leasesInLane[old] == 1 && f.leasesInLane[r.Sweep.Lane()] == queueDepth*2
	})
	c.workers.finishLease(h, grid.ClassNone, time.Second)
	for range 19 {
		c.workers.finishLease(c.workers.takeLeaseIn(r.Sweep.Lane()), grid.ClassNone, time.Second)
	}
	c.waitFor("the sweep has ended", func(s *scheduler) bool { return s.feeds[id] == nil })
	if n := c.counts(id); n.Succeeded != 20 {
		t.Errorf("got %+v, want all 20 succeeded", n)
	}
	if r, _ := c.Sweep(id); len(r.Lanes) != 0 {
		t.Errorf("lanes at the end: got %v, want that of the new priority alone", r.AllLanes())
	}
}

// TestSetMaxParallel raises and lowers how many trials may run while some wait in the queue.
func TestSetMaxParallel(t *testing.T) {
	t.Parallel()
	c := startMaster(t, 4)
	id := c.submit(100, nil)
	c.waitForLeases(id, queueDepth*4)
	h := c.workers.takeLease(id)
	for _, n := range []int{1, 3, 0, 2} {
		if _, err := c.Set(t.Context(), id, api.Set{MaxParallel: &n}); err != nil {
			t.Fatal(err)
		}
		want := n
		if n == 0 {
			want = queueDepth * 4
		}
		c.waitForLeases(id, want)
	}
	c.workers.finishLease(h, grid.ClassNone, time.Second)
	c.waitForLeases(id, 2)
}

// TestSetOfAPausedSweep changes a paused sweep and one that has ended: it takes effect when they
// continue.
func TestSetOfAPausedSweep(t *testing.T) {
	t.Parallel()
	c := startMaster(t, 1)
	id := c.submit(1, nil)
	if _, err := c.Pause(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	for priority := 1; priority <= 4; priority++ {
		if _, err := c.Set(t.Context(), id, api.Set{Priority: &priority}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := c.Resume(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	c.workers.finishLease(c.workers.takeLeaseIn(r.Sweep.Lane()), grid.ClassNone, time.Second)
	c.waitFor("the sweep has ended", func(s *scheduler) bool { return s.feeds[id] == nil })
	if _, err := c.Set(t.Context(), id, api.Set{Priority: new(int)}); err != nil {
		t.Errorf("set of a sweep that has ended: %v", err)
	}
}
