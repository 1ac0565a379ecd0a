package master

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// TestWorseTrialsAreStopped lets trials report metrics and end: a worse one is named in the record
// while it runs, also by a master that has taken over in the meantime, and it ends as stopped on
// purpose. A retry of all that has not succeeded leaves it out.
func TestWorseTrialsAreStopped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := restartMaster(t, dir, 4)
	id := c.submit(5, func(s *api.Submit) {
		s.Task.Stop = &grid.EarlyStop{Metric: "loss", Goal: "minimize", Rule: grid.StopMedian, After: 2}
	})
	curve := func(value float32) (grid.Metric, grid.Curves) {
		points := []grid.Point{{Step: 1, Value: value + 1}, {Step: 2, Value: value}, {Step: 3, Value: value}}
		return grid.Metric{"loss": []byte(fmt.Sprint(value))}, grid.Curves{"loss": grid.PackCurve(points)}
	}
	ends := func(h *jetstream.GrantedLease, run string, class grid.Class, value float32) {
		t.Helper()
		now := time.Now()
		r := &grid.Result{Class: class, Started: now.Add(-time.Minute).UnixMicro(),
			Usage: grid.Usage{Wall: time.Minute.Microseconds()}}
		r.Metrics, r.Curves = curve(value)
		c.workers.closeLease(h, &grid.Batch{V: grid.EventVersion, Sweep: id, Node: "n", Events: []grid.Event{
			{Kind: grid.Finished, Index: h.Lo, Attempt: h.Attempt, Run: run, Time: now.UnixMicro(), Result: r},
		}})
	}
	reports := func(h *jetstream.GrantedLease, run string, value float32) {
		t.Helper()
		e := grid.Event{Kind: grid.Metrics, Index: h.Lo, Attempt: h.Attempt, Run: run, Time: time.Now().UnixMicro()}
		e.Metrics, e.Curves = curve(value)
		if err := c.store.Calls.LocalClient("n").SendMetrics(&grid.Batch{V: grid.EventVersion, Sweep: id,
			Node: "n", Events: []grid.Event{e}}); err != nil {
			t.Fatal(err)
		}
	}
	stopping := func() []grid.StoppedRun {
		r, _ := c.Sweep(id)
		return r.Sweep.Stopping
	}
	for i := range 3 {
		h := c.workers.takeLease(id)
		ends(h, c.workers.startTrial("n", h), grid.ClassNone, float32(i))
	}
	if err := c.store.Queue.Purge(t.Context()); err != nil { // as a node that stands alone does at its start
		t.Fatal(err)
	}
	c.stopMaster()
	c = restartMaster(t, dir, 4)
	c.workers.runCount = 100
	c.waitFor("the sweep has a feed", func(s *scheduler) bool { return s.feeds[id] != nil })
	good, bad := c.workers.takeLease(id), c.workers.takeLease(id)
	goodRun, badRun := c.workers.startTrial("n", good), c.workers.startTrial("n", bad)
	reports(good, goodRun, 0.5)
	reports(bad, badRun, 7)
	c.waitFor("the worse trial is to be stopped", func(*scheduler) bool { return len(stopping()) > 0 })
	all := stopping()
	if len(all) != 1 || all[0].Run != badRun || all[0].Index != bad.Lo ||
		!strings.Contains(all[0].Reason, "loss is at 7, and the median of") {
		t.Fatalf("got %+v, want run %s alone", all, badRun)
	}
	ends(bad, badRun, grid.ClassStopped, 7)
	ends(good, goodRun, grid.ClassNone, 0.5)
	c.waitFor("the sweep has ended", func(s *scheduler) bool { return s.feeds[id] == nil })
	n := c.counts(id)
	if n.Succeeded != 4 || n.Cancelled != 1 || n.Stopped != 1 || n.Failed != 0 {
		t.Errorf("got %+v, want 4 succeeded and one stopped early", n)
	}
	if _, again, err := c.Retry(t.Context(), id, api.Retry{Index: -1}); again != 0 || err != nil {
		t.Errorf("a retry of all: got %d, %v; want that the stopped one is left alone", again, err)
	}
	if _, again, err := c.Retry(t.Context(), id, api.Retry{Index: -1, Class: grid.ClassStopped}); again != 1 ||
		err != nil {
		t.Errorf("a retry of the class: got %d, %v; want 1", again, err)
	}
}

// TestRecordThatIsFullHoldsNobodyBack stops more trials than a record can hold: the others run to
// their ends, and trials of other sweeps are leased.
func TestRecordThatIsFullHoldsNobodyBack(t *testing.T) {
	t.Parallel()
	c := startMaster(t, 4)
	id := c.submit(5, func(s *api.Submit) {
		s.Task.Stop = &grid.EarlyStop{Metric: "loss", Goal: "minimize", Rule: grid.StopMedian, After: 2}
	})
	c.waitFor("the sweep has a feed", func(s *scheduler) bool { return s.feeds[id] != nil })
	c.inLoop(func(s *scheduler) {
		s.feeds[id].earlyStop.stopping[0] = grid.StoppedRun{Reason: strings.Repeat("x", 64<<20)}
		s.feeds[id].earlyStop.changed = true
	})
	other := c.submit(3, nil)
	c.waitFor("trials of another sweep are leased, and the record is given up", func(s *scheduler) bool {
		return s.feeds[other] != nil && len(s.feeds[other].leases) > 0 && !s.feeds[id].earlyStop.changed
	})
	if r, _ := c.Sweep(id); len(r.Sweep.Stopping) != 0 {
		t.Errorf("the record names %d trials, want none", len(r.Sweep.Stopping))
	}
}
