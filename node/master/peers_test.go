package master

import (
	"context"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/jetstream"
)

// heardOf gives peers that have heard of node n, at the moment that it returns too.
func heardOf(b jetstream.Beat) (*peers, time.Time) {
	p, now := &peers{byID: map[grid.NodeID]*peer{}}, time.Now()
	p.heard("n", &b, now)
	return p, now
}

// TestDyingNeedsTwoSignals calls a node dead only when its connection and its machine both say so.
func TestDyingNeedsTwoSignals(t *testing.T) {
	const later = jetstream.BeatLimit + time.Millisecond
	for _, c := range []struct {
		name   string
		beat   jetstream.Beat
		gossip cluster.State
		before func(p *peers, now time.Time)
		after  time.Duration
		want   string // part of how it went; empty for alive
	}{
		{name: "beats", gossip: cluster.Dead},
		{name: "silent, gossip hears of it", gossip: cluster.Alive, after: later},
		{name: "silent, gossip suspects it", gossip: cluster.Suspect, after: later},
		{name: "silent and dead", gossip: cluster.Dead, after: later, want: "neither gossip nor"},
		{name: "left", gossip: cluster.Left, after: later, want: "left"},
		{name: "said goodbye", beat: jetstream.Beat{Leaving: true}, gossip: cluster.Alive, after: later, want: "left"},
		{name: "silent and dead, said that it restarts", beat: jetstream.Beat{Restarting: true}, gossip: cluster.Dead, after: later},
		{name: "did not restart", beat: jetstream.Beat{Restarting: true}, gossip: cluster.Dead, after: restartLimit + later, want: "neither"},
		{name: "connection ended", gossip: cluster.Alive, before: func(p *peers, now time.Time) { p.lost("n", now) }, after: later},
		{name: "connection ended, machine refuses", gossip: cluster.Alive, before: refusing, after: restartGrace + time.Millisecond, want: "refuses"},
		{name: "another agent listens by now", gossip: cluster.Alive, before: func(p *peers, now time.Time) {
			refusing(p, now)
			p.refuse("n", false, now)
		}, after: restartGrace + time.Millisecond},
		{name: "machine refuses a moment ago", gossip: cluster.Alive, before: refusing, after: restartGrace / 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, now := heardOf(c.beat)
			if c.before != nil {
				c.before(p, now)
			}
			states := map[grid.NodeID]cluster.State{"n": c.gossip}
			got := p.dying(now.Add(c.after), states)["n"]
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if again := p.dying(now.Add(c.after), states); got != "" && len(again) != 0 {
				t.Errorf("it died again: %v", again)
			}
		})
	}
}

func refusing(p *peers, now time.Time) {
	p.lost("n", now)
	p.refuse("n", true, now)
}

// TestDrainFollowed waits for a node that is heard of until it drains, and for no other.
func TestDrainFollowed(t *testing.T) {
	p, _ := heardOf(jetstream.Beat{})
	m := &Master{peers: p}
	m.DrainFollowed(t.Context(), "unknown", true)
	ctx, stop := context.WithTimeout(t.Context(), 5*awaitInterval)
	defer stop()
	if m.DrainFollowed(ctx, "n", true); ctx.Err() == nil {
		t.Error("it was waited for no longer although the node has not followed")
	}
	p.heard("n", &jetstream.Beat{Draining: true}, time.Now())
	m.DrainFollowed(t.Context(), "n", true)
	if !p.obeys("n", true, time.Now()) || p.obeys("n", false, time.Now()) {
		t.Error("the node drains, and it is not noted")
	}
}

// TestPace counts the nodes that share the store: those that are heard of and hold leases.
func TestPace(t *testing.T) {
	p, now := heardOf(jetstream.Beat{})
	held := []jetstream.HeldLease{{Seq: 1, Deliveries: 1}}
	for _, node := range []grid.NodeID{"busy-1", "busy-2", "silent"} {
		p.heard(node, &jetstream.Beat{Held: held}, now)
	}
	p.lost("silent", now)
	if there, busy := p.count(now); there != 3 || busy != 2 {
		t.Errorf("got %d nodes, %d at work; want 3 and 2", there, busy)
	}
	for busy, want := range map[int]time.Duration{0: 0, 1: reportCost, 10: 15 * time.Millisecond, 200: 300 * time.Millisecond, 4000: slowestPace} {
		if got := paceOf(busy); got != want {
			t.Errorf("pace of %d: got %v, want %v", busy, got, want)
		}
	}
}
