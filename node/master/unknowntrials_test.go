package master

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// TestEventsOutsideOfTheSpace lets a node report trials that the sweep does not have: they change
// nothing, do not count, and the sweep's own trials run as usual.
func TestEventsOutsideOfTheSpace(t *testing.T) {
	for name, indexes := range map[string][]int64{
		"as many as the sweep has": {100, 101, 102}, "the next one": {3}, "far away": {1 << 41, 1<<41 + 2, 1<<42 - 1},
		"negative": {-1, -2, -1 << 60}, "beyond any index": {1 << 42, 1<<63 - 1}, "beside good ones": {0, 3, 4, 5},
	} {
		t.Run(name, func(t *testing.T) {
			c := startMaster(t, 4)
			id := c.submit(3, nil)
			c.waitForLeases(id, 3)
			now := time.Now().UnixMicro()
			b := &grid.Batch{V: grid.EventVersion, Sweep: id, Node: "evil"}
			good := int64(0)
			for n, i := range indexes {
				run := fmt.Sprint("evil.1.", n)
				b.Events = append(b.Events,
					grid.Event{Kind: grid.Started, Index: i, Attempt: 1, Run: run, Time: now},
					grid.Event{Kind: grid.Finished, Index: i, Attempt: 1, Run: run, Time: now + 1,
						Result: &grid.Result{Started: now}},
					grid.Event{Kind: grid.Started, Index: i + 1000, Attempt: 1, Run: run + "x", Time: now})
				if i >= 0 && i < 3 {
					good++
				}
			}
			seq, err := c.store.Events.Publish(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			c.waitFor("the events are followed", func(s *scheduler) bool { return s.applied >= seq })
			c.inLoop(func(s *scheduler) {
				f := s.feeds[id]
				if f.complete() || f.done.Count() != good || len(f.started) != 0 || f.retries.len() != 0 {
					t.Errorf("the feed: %d of 3 done, began %v, %d wait; want only the sweep's own", f.done.Count(),
						f.started, f.retries.len())
				}
			})
			if n := c.counts(id); n.Done() != good || n.Running != 0 {
				t.Errorf("history counts %+v, want %d ended", n, good)
			}
			for range 3 {
				c.workers.finishLease(c.workers.takeLease(id), grid.ClassNone, time.Millisecond)
			}
			c.waitUntilRecordFinished(id)
			if n := c.counts(id); n.Succeeded != 3 {
				t.Errorf("in the end history counts %+v, want 3 succeeded", n)
			}
		})
	}
}

// TestFeedLoadsOnlyItsOwn loads trials that an earlier version may have accepted.
func TestFeedLoadsOnlyItsOwn(t *testing.T) {
	f := newFeed(newSweep(t, "t-1", 10))
	left := &history.Remaining{Open: []grid.Trial{{Index: 5, Attempts: 1}, {Index: 700, Attempts: 1}},
		Reopened: []history.Reopened{{Range: ranges.Range{Lo: 600, Hi: 700}}}}
	left.Terminal.Add(2, 4)
	left.Terminal.Add(8, 500)
	left.Terminal.Add(1000, 2000)
	f.loadHistory(left, time.Now())
	if f.complete() || f.done.Count() != 4 || f.retries.len() != 1 {
		t.Errorf("done %d, waiting %d, complete %v; want 4, 1 and not", f.done.Count(), f.retries.len(), f.complete())
	}
}

// TestExcludeIsEvaluatedOnce changes the record of a sweep with exclude expressions: the master and
// its scheduler keep the points that they leave.
func TestExcludeIsEvaluatedOnce(t *testing.T) {
	c := startMaster(t, 1)
	id := c.submit(10, func(s *api.Submit) {
		var err error
		axes, _ := s.Space.Definition()
		if s.Space, err = space.New(axes, []string{"i > 4"}); err != nil {
			t.Fatal(err)
		}
	})
	c.waitForLeases(id, 2)
	blocks := map[uintptr]bool{}
	see := func(s *grid.Sweep) { blocks[reflect.ValueOf(s.Space).FieldByName("products").Pointer()] = true }
	for range 3 {
		for _, change := range []func() (jetstream.Record, error){
			func() (jetstream.Record, error) { return c.Pause(t.Context(), id, false) },
			func() (jetstream.Record, error) { return c.Resume(t.Context(), id) },
		} {
			r, err := change()
			if err != nil {
				t.Fatal(err)
			}
			see(r.Sweep)
			c.waitFor("the loop follows", func(s *scheduler) bool {
				return s.feeds[id] == nil || s.feeds[id].sweep.State == r.Sweep.State
			})
			c.inLoop(func(s *scheduler) {
				if f := s.feeds[id]; f != nil {
					see(f.sweep)
				}
			})
		}
	}
	if len(blocks) != 1 {
		t.Errorf("after six changes there are %d spaces, want that of the submission", len(blocks))
	}
}

// waitUntilRecordFinished waits until the record says that the sweep is finished.
func (c *testMaster) waitUntilRecordFinished(id grid.SweepID) {
	c.t.Helper()
	c.waitFor(fmt.Sprintf("%s is finished", id), func(*scheduler) bool {
		r, _ := c.Sweep(id)
		return r.Sweep.State == grid.SweepFinished
	})
}
