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

// escalating is a sweep whose retries after a lack of memory get half as much again.
func escalating(s *api.Submit) {
	s.Task.Resources.Memory = 4 * gib
	s.Task.Retries = grid.Retries{grid.ClassMemory: 3}
	s.Task.Escalate = map[grid.Class]float64{grid.ClassMemory: 1.5}
}

// pullFrom takes a lease of a lane, which must come.
func (c *stage) pullFrom(id grid.SweepID, need grid.Resources) *jetstream.GrantedLease {
	c.t.Helper()
	r, _ := c.Sweep(id)
	lane := grid.LaneOf(r.Sweep.Priority, need, r.Sweep.Task.Image)
	c.until("a lease is in the lane", func(s *state) bool { return s.feeds[id] != nil && s.feeds[id].held[lane] > 0 })
	r, _ = c.Sweep(id)
	if got, ok := r.AllLanes()[lane]; !ok || got != need {
		c.t.Fatalf("the record's lanes: got %v, want %s in it", r.AllLanes(), lane)
	}
	return c.pullLane(lane)
}

// TestRetryGetsMoreMemory runs out of memory again and again: each attempt is in a lane that gives it more than the one before.
func TestRetryGetsMoreMemory(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	id := c.submit(2, escalating)
	need := grid.Resources{CPUs: grid.One, Memory: 4 * gib}
	for attempt, memory := range []int64{4 * gib, 6 * gib, 9 * gib, 27 * gib / 2} {
		need.Memory = memory
		h := c.pullFrom(id, need)
		if h.Lo != 0 || h.Attempt != attempt+1 {
			t.Fatalf("got attempt %d of trial %d, want attempt %d of trial 0", h.Attempt, h.Lo, attempt+1)
		}
		c.finish(h, grid.ClassMemory, time.Second)
	}
	need.Memory = 4 * gib
	c.finish(c.pullFrom(id, need), grid.ClassNone, time.Second)
	c.until("the sweep has ended", func(s *state) bool { return s.feeds[id] == nil })
	if n := c.counts(id); n.Failed != 1 || n.Succeeded != 1 {
		t.Errorf("got %+v, want one trial that failed and one that succeeded", n)
	}
}

// TestMoreMemorySurvivesTheMaster lets the master end while a retry waits, and while it is leased.
func TestMoreMemorySurvivesTheMaster(t *testing.T) {
	dir := t.TempDir()
	need := grid.Resources{CPUs: grid.One, Memory: 6 * gib}
	c := restart(t, dir, 1)
	id := c.submit(3, escalating)
	c.finish(c.pullFrom(id, grid.Resources{CPUs: grid.One, Memory: 4 * gib}), grid.ClassMemory, time.Second)
	c.end()
	for range 2 {
		c = restart(t, dir, 1)
		c.until("the sweep has a feed", func(s *state) bool { return s.feeds[id] != nil })
		h := c.pullFrom(id, need)
		if h.Lo != 0 || h.Attempt != 2 {
			t.Fatalf("got attempt %d of trial %d, want attempt 2 of trial 0", h.Attempt, h.Lo)
		}
		if err := c.store.Queue.Purge(t.Context()); err != nil { // as a node that stands alone does at its start
			t.Fatal(err)
		}
		c.end()
	}
}

// TestLanesMakeRoom has trials wait in more lanes than a record may have: those that are not used any more make room.
func TestLanesMakeRoom(t *testing.T) {
	c := start(t, 1)
	id := c.submit(2, escalating)
	c.until("the sweep has a feed", func(s *state) bool { return s.feeds[id] != nil })
	for i := range jetstream.MaxLanes + 3 {
		c.on(func(s *state) {
			f := s.feeds[id]
			lane := &fedLane{need: grid.Resources{CPUs: grid.One, Memory: int64(i+5) * gib}}
			lane.name = f.lane(lane.need)
			if ok, err := s.announce(t.Context(), f, lane); !ok || err != nil {
				t.Errorf("lane %d: %v, %v", i, ok, err)
			}
			r, _ := c.Sweep(id)
			if want := map[grid.Lane]grid.Resources{lane.name: lane.need}; !maps.Equal(r.Lanes, want) {
				t.Errorf("lanes of the record: got %v, want %v", r.Lanes, want)
			}
		})
	}
	c.on(func(s *state) {
		f := s.feeds[id]
		for i := range jetstream.MaxLanes {
			need := grid.Resources{CPUs: grid.One, Memory: int64(i+50) * gib}
			if ok, err := s.announce(t.Context(), f, &fedLane{name: f.lane(need), need: need}); !ok || err != nil {
				t.Errorf("lane %d that is in use: got %v, %v", i, ok, err)
			}
			f.held[f.lane(need)]++
			defer func() { f.held[f.lane(need)]-- }()
		}
		lane := &fedLane{need: grid.Resources{CPUs: grid.One, Memory: 100 * gib}}
		lane.name = f.lane(lane.need)
		if ok, err := s.announce(t.Context(), f, lane); ok || err != nil {
			t.Errorf("a lane too many: got %v, %v, want it to wait", ok, err)
		}
	})
}
