package monitor

import (
	"context"
	"strconv"
	"testing"
	"time"

	"mlfnode/grid"
)

// TestHubOutlivesPanics makes reading one topic panic: the other topics continue.
func TestHubOutlivesPanics(t *testing.T) {
	looks := 0
	h := &hub{
		observe: func(_ context.Context, of topic, _ *rates) (map[string]observed, error) {
			if of.kind == "overview" {
				panic("a bug")
			}
			looks++
			return map[string]observed{"nodes": {"nodes", looks}}, nil
		},
		applied: func() uint64 { return 1 }, changed: func() <-chan struct{} { return nil }, log: testLog(t),
		clients: map[*eventClient]struct{}{}, topics: map[topic]*topicClients{}, kick: make(chan struct{}, 1),
	}
	c, err := h.join("x", []topic{{kind: "overview"}, {kind: "nodes"}}, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer h.leave(c)
	for range 2 { // and again in the next round
		select {
		case <-c.wake:
		case <-time.After(time.Minute):
			t.Fatal("nothing comes")
		}
		if got := h.drain(c); len(got) != 1 || got[0].name != "nodes" {
			t.Errorf("got %v", got)
		}
	}
}

// TestRatesAreForgotten reads sweeps that come and go: nothing is kept of those that are gone.
func TestRatesAreForgotten(t *testing.T) {
	r := &rates{marks: map[grid.SweepID][2]sample{}}
	now := time.Now()
	for i := range 1000 {
		r.prune(now)
		r.update("stays", int64(i), now)
		r.update(grid.SweepID(strconv.Itoa(i)), 0, now)
		now = now.Add(time.Second)
	}
	if len(r.marks) > 50 {
		t.Errorf("rates of %d sweeps are kept", len(r.marks))
	}
	if got := r.update("stays", 1000, now); got < 0.9 || got > 1.1 {
		t.Errorf("the rate of the sweep that stays is %v, want 1", got)
	}
}
