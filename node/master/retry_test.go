package master

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// failTrials stores that the trials [lo,hi) of a sweep have failed, and waits until history knows.
func (c *testMaster) failTrials(id grid.SweepID, lo, hi int64) {
	c.t.Helper()
	var last uint64
	for lo < hi {
		b := &grid.Batch{V: grid.EventVersion, Sweep: id, Node: "n"}
		for ; lo < hi && len(b.Events) < maxReopened; lo++ {
			now := time.Now().UnixMicro()
			b.Events = append(b.Events, grid.Event{
				Kind: grid.Finished, Index: lo, Attempt: 1, Run: fmt.Sprintf("n.0.%d", lo), Time: now,
				Result: &grid.Result{Class: grid.ClassExit, ExitCode: 1, Reason: "exit code 1", Started: now - 1000,
					Usage: grid.Usage{Wall: 1000}},
			})
		}
		var err error
		if last, err = c.store.Events.Publish(c.t.Context(), b); err != nil {
			c.t.Fatal(err)
		}
	}
	if err := c.waitApplied(c.t.Context(), last); err != nil {
		c.t.Fatal(err)
	}
}

// submitFailed submits a sweep of which all trials have failed.
func (c *testMaster) submitFailed(count int64) grid.SweepID {
	c.t.Helper()
	id := c.submit(int(count), nil)
	c.waitForLeases(id, 8)
	c.failTrials(id, 0, count)
	c.waitUntilRecordFinished(id)
	c.waitFor("what was leased before is taken out of the queue", func(s *scheduler) bool { return s.feeds[id] == nil })
	return id
}

// runToEnd finishes all leases of a sweep until it is finished, and returns how many trials have
// succeeded.
func (c *testMaster) runToEnd(id grid.SweepID) int64 {
	c.t.Helper()
	for {
		ended := false
		c.waitFor("a lease, or the end", func(s *scheduler) bool {
			r, _ := c.Sweep(id)
			ended = r.Sweep.State == grid.SweepFinished
			return ended || s.feeds[id] != nil && len(s.feeds[id].leases) > 0
		})
		if ended {
			return c.counts(id).Succeeded
		}
		c.workers.finishLease(c.workers.takeLease(id), grid.ClassNone, time.Millisecond)
	}
}

// TestCancelDuringARetry cancels a sweep while a large retry reopens its trials: it stays
// cancelled, and a further retry runs all.
func TestCancelDuringARetry(t *testing.T) {
	const count = 20_000
	c := startMaster(t, 4)
	id := c.submitFailed(count)
	done := make(chan error, 1)
	go func() {
		_, _, err := c.Retry(t.Context(), id, api.Retry{Index: -1})
		done <- err
	}()
	c.workers.waitAndTakeLease(id)
	if _, err := c.Cancel(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	err := <-done
	if r, _ := c.Sweep(id); r.Sweep.State != grid.SweepCancelled {
		t.Fatalf("the sweep is %s behind the retry (%v), want it cancelled", r.Sweep.State, err)
	}
	if err != nil && !strings.Contains(err.Error(), "was cancelled while") { // it may have been done before
		t.Errorf("the retry: got %v, want that the sweep was cancelled", err)
	}
	c.inLoop(func(s *scheduler) {
		f := s.feeds[id]
		for lease := range f.leases { // as nodes give them back
			if err := s.deleteLease(t.Context(), f, lease); err != nil {
				t.Error(err)
			}
			s.dropLease(f, lease)
		}
	})
	if _, _, err := c.Retry(t.Context(), id, api.Retry{Index: -1}); err != nil {
		t.Fatal(err)
	}
	if n := c.runToEnd(id); n != count {
		t.Errorf("%d of %d have succeeded", n, count)
	}
}

// TestClientLeavesDuringARetry ends the context of a large retry after its first trials are leased:
// what is reopened runs before the sweep is finished, and a further retry runs the others.
func TestClientLeavesDuringARetry(t *testing.T) {
	const count = 20_000
	c := startMaster(t, 4)
	id := c.submitFailed(count)
	ctx, leave := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, _, err := c.Retry(ctx, id, api.Retry{Index: -1})
		done <- err
	}()
	h := c.workers.waitAndTakeLease(id)
	leave()
	err := <-done
	if err != nil && !errors.Is(err, context.Canceled) { // it may have been done before
		t.Errorf("the retry: got %v, want that its client left", err)
	}
	c.workers.finishLease(h, grid.ClassNone, time.Millisecond)
	n := c.runToEnd(id)
	if all := c.counts(id); n == 0 || all.Done() != count {
		t.Errorf("got %+v at the end, want %d results, some of which are successes", all, count)
	}
	if _, _, err := c.Retry(t.Context(), id, api.Retry{Index: -1}); err != nil {
		t.Fatal(err)
	}
	if n = c.runToEnd(id); n != count {
		t.Errorf("%d of %d have succeeded", n, count)
	}
}

// TestRetryOfManyTrials runs the first trials of a large retry while it goes on and the others in
// leases of many, and finishes the sweep when all have run, even when those that are reopened first
// end before the last ones are reopened.
func TestRetryOfManyTrials(t *testing.T) {
	const count = 5000
	c := startMaster(t, 4)
	id := c.submitFailed(count)
	done := make(chan error, 1)
	go func() {
		_, n, err := c.Retry(t.Context(), id, api.Retry{Index: -1, FailedOnly: true})
		if err == nil && n != count {
			err = fmt.Errorf("reopened %d", n)
		}
		done <- err
	}()
	leases := 0
	for ran := int64(0); ran < count; leases++ {
		h := c.workers.waitAndTakeLease(id)
		if h.Attempt != 2 || !h.Quiet {
			t.Fatalf("got %+v, want a lease of attempt 2 that nobody need tell of", h.Lease)
		}
		ran += h.Hi - h.Lo
		c.workers.finishLease(h, grid.ClassNone, time.Millisecond)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.waitUntilRecordFinished(id)
	if n := c.counts(id); n.Succeeded != count || leases > count/4 {
		t.Errorf("%d of %d have succeeded in %d leases", n.Succeeded, count, leases)
	}
}

// TestReopenedTrialsAreKnownAsRanges checks that what is read of reopened trials at a restart does
// not depend on how many they are.
func TestReopenedTrialsAreKnownAsRanges(t *testing.T) {
	const count = 3000
	c := startMaster(t, 4)
	id := c.submit(count, nil)
	c.failTrials(id, 0, count)
	if _, _, err := c.Retry(t.Context(), id, api.Retry{Index: -1, FailedOnly: true}); err != nil {
		t.Fatal(err)
	}
	left, err := c.cfg.History.Remaining(t.Context(), id)
	if err != nil || len(left.Open) != 0 || len(left.Reopened) != 1 ||
		left.Reopened[0] != (history.Reopened{Range: ranges.Range{Hi: count}, Attempts: 1}) {
		t.Fatalf("history gives %+v, %v; want one range", left, err)
	}
	if left.Terminal.Count() != 0 {
		t.Errorf("%d are terminal, want none", left.Terminal.Count())
	}
}

// TestRetryLeavesWhatFailsMeanwhile lets trials fail after a retry has read which ones it applies
// to: they stay as they are.
func TestRetryLeavesWhatFailsMeanwhile(t *testing.T) {
	const before, count = 1500, 3000
	c := startMaster(t, 4)
	id := c.submit(count, nil)
	c.failTrials(id, 0, before)
	trials, err := c.toReopen(t.Context(), id, api.Retry{Index: -1, FailedOnly: true})
	if err != nil || trials.Count() != before {
		t.Fatalf("%d trials are run again, %v; want %d", trials.Count(), err, before)
	}
	c.failTrials(id, before, count)
	o := &reopening{m: c.Master, sweep: id, at: time.Now().UnixMicro()}
	if err := o.reopen(t.Context(), trials); err != nil {
		t.Fatal(err)
	}
	if n := c.counts(id); n.Retrying != before || n.Failed != count-before || o.count != before {
		t.Errorf("got %+v after %d were reopened, want %d of both", n, o.count, before)
	}
}
