package master

import (
	"maps"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

const gib = 1 << 30

// escalatingTask makes retries after a lack of memory get half as much again.
func escalatingTask(s *api.Submit) {
	s.Task.Resources.Memory = 4 * gib
	s.Task.Retries = grid.Retries{grid.ClassMemory: 3}
	s.Task.Escalate = map[grid.Class]float64{grid.ClassMemory: 1.5}
}

// TestRetryGetsMoreMemory runs out of memory again and again: each attempt is in a lane that gives
// it more than the one before.
func TestRetryGetsMoreMemory(t *testing.T) {
	t.Parallel()
	c := startMaster(t, 1)
	id := c.submit(2, escalatingTask)
	need := grid.Resources{CPUs: grid.One, Memory: 4 * gib}
	for attempt, memory := range []int64{4 * gib, 6 * gib, 9 * gib, 27 * gib / 2} {
		need.Memory = memory
		h := c.workers.takeLeaseOf(id, need)
		if h.Lo != 0 || h.Attempt != attempt+1 {
			t.Fatalf("got attempt %d of trial %d, want attempt %d of trial 0", h.Attempt, h.Lo, attempt+1)
		}
		c.workers.finishLease(h, grid.ClassMemory, time.Second)
	}
	need.Memory = 4 * gib
	c.workers.finishLease(c.workers.takeLeaseOf(id, need), grid.ClassNone, time.Second)
	c.waitFor("the sweep has ended", func(s *scheduler) bool { return s.feeds[id] == nil })
	if n := c.counts(id); n.Failed != 1 || n.Succeeded != 1 {
		t.Errorf("got %+v, want one trial that failed and one that succeeded", n)
	}
}

// TestMoreMemorySurvivesTheMaster stops the master while a retry waits, and while it is leased.
func TestMoreMemorySurvivesTheMaster(t *testing.T) {
	dir := t.TempDir()
	need := grid.Resources{CPUs: grid.One, Memory: 6 * gib}
	c := restartMaster(t, dir, 1)
	id := c.submit(3, escalatingTask)
	h := c.workers.takeLeaseOf(id, grid.Resources{CPUs: grid.One, Memory: 4 * gib})
	c.workers.finishLease(h, grid.ClassMemory, time.Second)
	c.stopMaster()
	for range 2 {
		c = restartMaster(t, dir, 1)
		c.waitFor("the sweep has a feed", func(s *scheduler) bool { return s.feeds[id] != nil })
		h := c.workers.takeLeaseOf(id, need)
		if h.Lo != 0 || h.Attempt != 2 {
			t.Fatalf("got attempt %d of trial %d, want attempt 2 of trial 0", h.Attempt, h.Lo)
		}
		if err := c.store.Queue.Purge(t.Context()); err != nil { // as a node that stands alone does at its start
			t.Fatal(err)
		}
		c.stopMaster()
	}
}

// TestLanesMakeRoom puts trials into more lanes than a record may have: those that are no longer
// used are removed.
func TestLanesMakeRoom(t *testing.T) {
	c := startMaster(t, 1)
	id := c.submit(2, escalatingTask)
	c.waitFor("the sweep has a feed", func(s *scheduler) bool { return s.feeds[id] != nil })
	for i := range jetstream.MaxLanes + 3 {
		c.inLoop(func(s *scheduler) {
			f := s.feeds[id]
			lane := &laneFeeds{need: grid.Resources{CPUs: grid.One, Memory: int64(i+5) * gib}}
			lane.name = f.laneFor(lane.need)
			if ok, err := s.feeder.recordLane(t.Context(), f, lane); !ok || err != nil {
				t.Errorf("lane %d: %v, %v", i, ok, err)
			}
			r, _ := c.Sweep(id)
			if want := map[grid.Lane]grid.Resources{lane.name: lane.need}; !maps.Equal(r.Lanes, want) {
				t.Errorf("lanes of the record: got %v, want %v", r.Lanes, want)
			}
		})
	}
	c.inLoop(func(s *scheduler) {
		f := s.feeds[id]
		for i := range jetstream.MaxLanes {
			need := grid.Resources{CPUs: grid.One, Memory: int64(i+50) * gib}
			if ok, err := s.feeder.recordLane(t.Context(), f, &laneFeeds{name: f.laneFor(need), need: need}); !ok ||
				err != nil {
				t.Errorf("lane %d that is in use: got %v, %v", i, ok, err)
			}
			f.leasesInLane[f.laneFor(need)]++
			defer func() { f.leasesInLane[f.laneFor(need)]-- }()
		}
		lane := &laneFeeds{need: grid.Resources{CPUs: grid.One, Memory: 100 * gib}}
		lane.name = f.laneFor(lane.need)
		if ok, err := s.feeder.recordLane(t.Context(), f, lane); ok || err != nil {
			t.Errorf("a lane too many: got %v, %v, want it to wait", ok, err)
		}
	})
}
