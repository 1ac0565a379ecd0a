package master

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/api"
)

// TestStopAfter lets trials fail until the sweep is paused, continues, and lets as many fail again.
// Remaining retries do not count, and a sweep that is complete just ends.
func TestStopAfter(t *testing.T) {
	t.Parallel()
	c := startMaster(t, 1)
	id := c.submit(9, func(s *api.Submit) {
		s.Task.StopAfter, s.Task.Retries = 2, grid.Retries{grid.ClassSignal: 1}
	})
	paused := func(failed int) {
		t.Helper()
		c.waitFor("the sweep is paused", func(s *scheduler) bool { return s.feeds[id] == nil })
		r, _ := c.Sweep(id)
		if want := fmt.Sprintf("%d trials have failed", failed); r.Sweep.State != grid.SweepPaused ||
			!strings.Contains(r.Sweep.Problem, want) {
			t.Fatalf("got %s, %q; want it paused because %s", r.Sweep.State, r.Sweep.Problem, want)
		}
	}
	end := func(class grid.Class) { c.workers.finishLease(c.workers.takeLease(id), class, time.Second) }
	end(grid.ClassSignal) // it is run again
	end(grid.ClassExit)
	end(grid.ClassNone)
	c.waitFor("it goes on after one failure", func(s *scheduler) bool { return s.feeds[id].sweep.Active() })
	end(grid.ClassExit)
	paused(2)
	r, err := c.Resume(t.Context(), id)
	if err != nil || r.Sweep.Accepted != 2 || r.Sweep.Problem != "" {
		t.Fatalf("resume: got %+v, %v", r.Sweep, err)
	}
	end(grid.ClassExit)
	c.waitFor("it goes on after one more failure", func(s *scheduler) bool { return s.feeds[id].sweep.Active() })
	end(grid.ClassExit)
	paused(2)
	if n := c.counts(id); n.Failed != 4 {
		t.Errorf("got %+v, want 4 failed", n)
	}

	small := c.submit(1, func(s *api.Submit) { s.Task.StopAfter = 1; s.Task.Resources.CPUs = 500 })
	c.workers.finishLease(c.workers.takeLease(small), grid.ClassExit, time.Second)
	c.waitFor("the small sweep has ended", func(s *scheduler) bool { return s.feeds[small] == nil })
	if r, _ := c.Sweep(small); r.Sweep.State != grid.SweepFinished {
		t.Errorf("a sweep that is complete: got %s, want it finished", r.Sweep.State)
	}
}

// TestExtendAfterFailures extends a sweep of which as many trials have failed as pause it: the new
// ones run.
func TestExtendAfterFailures(t *testing.T) {
	t.Parallel()
	c := startMaster(t, 1)
	id := c.submit(1, func(s *api.Submit) { s.Task.StopAfter = 1 })
	c.workers.finishLease(c.workers.takeLease(id), grid.ClassExit, time.Second)
	c.waitUntilRecordFinished(id)
	axis, err := space.ParseSet("i=5")
	if err != nil {
		t.Fatal(err)
	}
	r, added, err := c.Extend(t.Context(), id, api.Extend{Axes: []space.Axis{axis}})
	if err != nil || added != 1 || r.Sweep.Accepted != 1 {
		t.Fatalf("got %d new trials with %d failures accepted, %v; want one of each", added, r.Sweep.Accepted, err)
	}
	c.workers.finishLease(c.workers.takeLease(id), grid.ClassNone, time.Second)
	c.waitUntilRecordFinished(id)
}
