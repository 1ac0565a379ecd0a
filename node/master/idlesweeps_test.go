package master

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// TestRetryBesideTheEnd retries trials in the moment in which the sweep's last trial ends, before
// the scheduler has applied that: they run, and the sweep is finished when they have ended.
func TestRetryBesideTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		classes []grid.Class // of all trials, the last one ends beside the retry
		retry   api.Retry
		again   int64
	}{
		"one of two": {[]grid.Class{grid.ClassExit, grid.ClassNone}, api.Retry{Index: 0}, 1},
		"all that failed": {[]grid.Class{grid.ClassExit, grid.ClassSignal, grid.ClassNone},
			api.Retry{Index: -1, FailedOnly: true}, 2},
		"the last one itself":  {[]grid.Class{grid.ClassNone, grid.ClassExit}, api.Retry{Index: 1}, 1},
		"one that was stopped": {[]grid.Class{grid.ClassCancel, grid.ClassNone}, api.Retry{Index: -1}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := startMaster(t, 4)
			id := m.submit(len(c.classes), nil)
			m.waitForLeases(id, len(c.classes))
			last := len(c.classes) - 1
			var held *jetstream.GrantedLease
			for i, class := range c.classes {
				h := m.workers.takeLease(id)
				if i == last {
					held = h
					break
				}
				m.workers.finishLease(h, class, time.Second)
			}
			busy, release := make(chan struct{}), make(chan struct{})
			m.post(func(*scheduler) { close(busy); <-release })
			<-busy
			now := time.Now().UnixMicro()
			seq, err := m.store.Events.Publish(t.Context(),
				&grid.Batch{V: grid.EventVersion, Sweep: id, Node: "n", Events: []grid.Event{
					{Kind: grid.Finished, Index: held.Lo, Attempt: 1, Run: "n.1.99", Time: now,
						Result: &grid.Result{Class: c.classes[last], Started: now}},
					{Kind: grid.Released, Lease: held.Seq, LeaseID: held.ID, Time: now},
				}})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.workers.client().ReturnLease(t.Context(), held); err != nil {
				t.Fatal(err)
			}
			if err := m.waitApplied(t.Context(), seq); err != nil {
				t.Fatal(err)
			}
			if _, n, err := m.Retry(t.Context(), id, c.retry); err != nil || n != c.again {
				t.Fatalf("retry: got %d, %v; want %d", n, err, c.again)
			}
			close(release)
			m.waitForLeases(id, int(c.again))
			for range c.again {
				if r, _ := m.Sweep(id); r.Sweep.State != grid.SweepRunning {
					t.Fatalf("the sweep is %s although a trial of it is to run", r.Sweep.State)
				}
				m.workers.finishLease(m.workers.takeLease(id), grid.ClassNone, time.Second)
			}
			m.waitUntilRecordFinished(id)
			if n := m.counts(id); n.Done() != int64(len(c.classes)) {
				t.Errorf("in the end %+v", n)
			}
		})
	}
}

// TestRetryOfAForgottenTrial retries a sweep that an earlier version finished with a trial that
// never ran again.
func TestRetryOfAForgottenTrial(t *testing.T) {
	c := startMaster(t, 4)
	s := newSweep(t, "old-1", 3)
	s.State = grid.SweepFinished
	if _, err := c.store.Records.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	c.waitFor("the record is known", func(*scheduler) bool { _, ok := c.Sweep("old-1"); return ok })
	if _, n, err := c.Retry(t.Context(), "old-1", api.Retry{Index: -1}); err != nil || n != 3 {
		t.Fatalf("retry: got %d, %v; want 3", n, err)
	}
	c.waitForLeases("old-1", 3)
}

// TestFinishAfterARestart restarts the master between a retry and the end of its trial.
func TestFinishAfterARestart(t *testing.T) {
	dir := t.TempDir()
	c := restartMaster(t, dir, 4)
	id := c.submit(1, nil)
	c.waitForLeases(id, 1)
	c.workers.finishLease(c.workers.takeLease(id), grid.ClassExit, time.Second)
	c.waitUntilRecordFinished(id)
	if _, _, err := c.Retry(t.Context(), id, api.Retry{Index: 0}); err != nil {
		t.Fatal(err)
	}
	c.waitForLeases(id, 1)
	h := c.workers.takeLease(id)
	now := time.Now().UnixMicro()
	if _, err := c.store.Events.Publish(t.Context(),
		&grid.Batch{V: grid.EventVersion, Sweep: id, Node: "n", Events: []grid.Event{
			{Kind: grid.Finished, Index: 0, Attempt: h.Attempt, Run: "n.1.77", Time: now,
				Result: &grid.Result{Started: now}},
		}}); err != nil {
		t.Fatal(err)
	}
	c.stopMaster() // whether it has followed the end or not
	c = restartMaster(t, dir, 4)
	c.waitUntilRecordFinished(id)
}

// TestSweepsAtRestCostNothing gives a master sweeps that have ended or are paused, after their
// submission or from its start: it has no goroutine for them, its loop visits none of them and has
// no timer.
func TestSweepsAtRestCostNothing(t *testing.T) {
	const count = 150
	dir := t.TempDir()
	c := startWithNodes(t, dir, 4, newFakeCluster().nodes())
	idle := func() (goroutines int) {
		t.Helper()
		c.waitFor("the loop has nothing to look at", func(s *scheduler) bool {
			return len(s.feeds) == 0 && !s.hasTimers() && len(s.missing) == 0 && len(s.setups.bySweep) == 0
		})
		if busy, err := c.Busy(t.Context()); busy || err != nil {
			t.Errorf("busy: got %t, %v", busy, err)
		}
		return runtime.NumGoroutine()
	}
	ran := c.submit(1, nil)
	c.waitForLeases(ran, 1)
	c.workers.finishLease(c.workers.takeLease(ran), grid.ClassExit, time.Second)
	c.waitUntilRecordFinished(ran)
	alone := idle()
	for i := range count {
		s := newSweep(t, grid.SweepID(fmt.Sprintf("rest-%d", i)), 1000)
		s.State = []grid.SweepState{grid.SweepFinished, grid.SweepCancelled, grid.SweepPaused}[i%3]
		if _, err := c.store.Records.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	known := func(*scheduler) bool { return len(c.Sweeps()) == count+1 }
	c.waitFor("the records are known", known)
	if with := idle(); with >= alone+count/10 {
		t.Errorf("%d goroutines with %d sweeps at rest, %d with one", with, count, alone)
	}
	c.stopMaster()
	c = startWithNodes(t, dir, 4, newFakeCluster().nodes())
	c.waitFor("the records are known", known)
	if with := idle(); with >= alone+count/10 {
		t.Errorf("%d goroutines after a restart with %d sweeps at rest, %d with one", with, count, alone)
	}
}

// TestRestWithoutAWorker pauses and cancels sweeps of a cluster in which no node takes trials, or
// in which one is away: the leases that no node holds go, the others stay.
func TestRestWithoutAWorker(t *testing.T) {
	for name, c := range map[string]struct {
		cancel  bool
		held    bool // one of the leases is a node's
		began   bool // a trial of one of them was seen to run, and its node is not heard of
		outside int  // leases that are out in the end
	}{
		"cancelled": {cancel: true}, "paused": {},
		"cancelled, one is held": {cancel: true, held: true, outside: 1},
		"paused, one is held":    {held: true, outside: 1},
		"cancelled, one runs":    {cancel: true, began: true, outside: 1},
		"paused, one runs":       {began: true, outside: 1},
	} {
		t.Run(name, func(t *testing.T) {
			m := startWithNodes(t, t.TempDir(), 2, newFakeCluster().nodes())
			id := m.submit(10, nil)
			m.waitForLeases(id, queueDepth*2)
			var h *jetstream.GrantedLease
			if c.held || c.began {
				h = m.workers.takeLease(id)
			}
			if c.held {
				heartbeatStops(m.leases, "n", jetstream.HeldLease{Seq: h.Seq, ID: h.ID, Deliveries: 1})
			}
			if c.began {
				seq, err := m.store.Events.Publish(t.Context(),
					&grid.Batch{V: grid.EventVersion, Sweep: id, Node: "n", Events: []grid.Event{
						{Kind: grid.Started, Index: h.Lo, Attempt: 1, Run: "n.1.1", Time: time.Now().UnixMicro()},
					}})
				if err != nil {
					t.Fatal(err)
				}
				m.waitFor("the start is followed", func(s *scheduler) bool { return s.applied >= seq })
			}
			var err error
			if c.cancel {
				_, err = m.Cancel(t.Context(), id, false)
			} else {
				_, err = m.Pause(t.Context(), id, false)
			}
			if err != nil {
				t.Fatal(err)
			}
			m.waitFor("the others are taken out", func(s *scheduler) bool {
				f := s.feeds[id]
				return f == nil || len(f.leases) == c.outside
			})
			m.runReconcile()
			if n, err := m.Outstanding(t.Context(), id); n != c.outside || err != nil {
				t.Errorf("leases out: got %d, %v; want %d", n, err, c.outside)
			}
			if all, err := m.store.Queue.List(t.Context()); err != nil || len(all) != c.outside {
				t.Errorf("in the queue: got %d, %v; want %d", len(all), err, c.outside)
			}
			if c.cancel && c.outside == 0 {
				if _, _, err := m.Retry(t.Context(), id, api.Retry{Index: -1}); err != nil {
					t.Errorf("retry of the cancelled sweep: %v", err)
				}
				m.waitForLeases(id, queueDepth*2)
			}
		})
	}
}
