package master

import (
	"slices"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestCancelOneTrial cancels one trial that has not started, one whose node is to stop it and then
// dies, and one of a paused sweep. All other trials run, the sweep finishes, and a retry runs the
// cancelled ones as well. Nothing of it is left in the record.
func TestCancelOneTrial(t *testing.T) {
	t.Parallel()
	c := restartMaster(t, t.TempDir(), 4)
	id := c.submit(5, nil)
	cancel := func(index int64) {
		t.Helper()
		if _, err := c.CancelTrial(t.Context(), grid.TrialID{Sweep: id, Index: index}); err != nil {
			t.Fatal(err)
		}
	}
	cancelling := func() []int64 {
		r, _ := c.Sweep(id)
		return r.Sweep.Cancelling
	}
	ended := func(n int64) {
		t.Helper()
		c.waitFor("trials are cancelled", func(*scheduler) bool { return c.counts(id).Cancelled == n })
	}
	runs := c.workers.takeLease(id)
	run := c.workers.startTrial("n", runs)
	cancel(4)
	cancel(4)
	ended(1)
	cancel(runs.Lo)
	if got := cancelling(); !slices.Contains(got, runs.Lo) {
		t.Fatalf("the record says that %v are to be stopped, want %d among them", got, runs.Lo)
	}
	c.waitFor("the other is out of the record", func(*scheduler) bool {
		return slices.Equal(cancelling(), []int64{runs.Lo})
	})
	now := time.Now().UnixMicro()
	lost := grid.Event{Kind: grid.Finished, Index: runs.Lo, Attempt: runs.Attempt, Run: run, Time: now,
		Result: &grid.Result{Class: grid.ClassHalt, Started: now}}
	c.workers.closeLease(runs, &grid.Batch{V: grid.EventVersion, Sweep: id, Node: "n", Events: []grid.Event{lost}})
	ended(2)
	if _, err := c.CancelTrial(t.Context(), grid.TrialID{Sweep: id, Index: 4}); err == nil {
		t.Error("a trial that has ended is cancelled")
	}
	if _, err := c.Pause(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	cancel(3)
	ended(3)
	if _, err := c.Resume(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h := c.workers.takeLease(id)
		if h.Lo == 3 || h.Lo == 4 || h.Lo == runs.Lo {
			t.Errorf("trial %d is leased although it is cancelled", h.Lo)
		}
		c.workers.finishOn("n", h, grid.ClassNone)
	}
	c.waitFor("the sweep has finished", func(s *scheduler) bool { return s.feeds[id] == nil })
	if got := cancelling(); len(got) > 0 {
		t.Errorf("the record of the finished sweep has %v as being cancelled", got)
	}
	if _, again, err := c.Retry(t.Context(), id, api.Retry{Index: -1}); err != nil || again != 3 {
		t.Fatalf("retry: got %d trials, %v; want 3", again, err)
	}
	for range 3 {
		c.workers.finishOn("n", c.workers.takeLease(id), grid.ClassNone)
	}
	c.waitFor("the retry has finished", func(s *scheduler) bool { return c.counts(id).Succeeded == 5 })
}

// TestCancelWithinALease cancels a trial that is leased with others before a node takes the lease:
// the node is told so until it has given the lease back.
func TestCancelWithinALease(t *testing.T) {
	t.Parallel()
	c := restartMaster(t, t.TempDir(), 4)
	id := c.submit(1000, nil)
	for range 5 {
		c.workers.finishOn("n", c.workers.takeLease(id), grid.ClassNone) // so quickly that leases are of many trials
	}
	index := int64(-1)
	c.waitFor("a lease of several trials waits", func(s *scheduler) bool {
		for lease, l := range s.feeds[id].leases {
			if l.hi-l.lo > 2 && !c.store.Queue.WasGranted(lease) {
				index = l.lo + 1
			}
		}
		return index >= 0
	})
	if _, err := c.CancelTrial(t.Context(), grid.TrialID{Sweep: id, Index: index}); err != nil {
		t.Fatal(err)
	}
	c.waitFor("the trial is cancelled", func(*scheduler) bool { return c.counts(id).Cancelled == 1 })
	cancelling := func() bool {
		r, _ := c.Sweep(id)
		return slices.Contains(r.Sweep.Cancelling, index)
	}
	for {
		h := c.workers.takeLease(id)
		covers := h.Lo <= index && index < h.Hi
		if covers && !cancelling() {
			t.Errorf("a node that takes trials %d to %d does not hear that %d is cancelled", h.Lo, h.Hi-1, index)
		}
		c.workers.finishOn("n", h, grid.ClassNone)
		if covers {
			break
		}
	}
	c.waitFor("the record forgets the trial", func(*scheduler) bool { return !cancelling() })
	if _, err := c.Cancel(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
}
