package master

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/jetstream"
)

// tableWithNode returns a table that has heard from node n, and when.
func tableWithNode(b jetstream.Heartbeat) (*nodeTable, time.Time) {
	p, now := &nodeTable{byID: map[grid.NodeID]*nodeState{}}, time.Now()
	p.recordHeartbeat("n", &b, now)
	return p, now
}

// testOutage has short times, as far as they are settings.
var testOutage = Outage{LostAfter: 3 * time.Second, AgentTimeout: 5 * time.Second, Reconcile: LongestRunning}

// TestWhatIsLost distinguishes a machine that is silent, an agent that has died, and a connection
// that is cut.
func TestWhatIsLost(t *testing.T) {
	const ms = time.Millisecond
	later := testOutage.LostAfter + ms
	for _, c := range []struct {
		name   string
		beat   jetstream.Heartbeat
		gossip cluster.State
		before func(p *nodeTable, now time.Time) // what happens until it is looked
		after  time.Duration
		want   string // part of how it went; empty for one that is waited for
	}{
		{name: "beats", gossip: cluster.Dead},
		{name: "silent, gossip hears of it", gossip: cluster.Alive, after: later},
		{name: "silent, gossip suspects it", gossip: cluster.Suspect, after: later},
		{name: "cut off from the master alone", gossip: cluster.Alive,
			after: disconnectedTimeout + ms, want: "cut off"},
		{name: "silent and dead", gossip: cluster.Dead, after: later, want: "silent in gossip"},
		{name: "silent and dead for a moment", gossip: cluster.Dead, after: testOutage.LostAfter - ms},
		{name: "left", gossip: cluster.Left, after: later, want: "left"},
		{name: "said goodbye", beat: jetstream.Heartbeat{Leaving: true}, gossip: cluster.Alive,
			after: later, want: "left"},
		{name: "silent and dead, said that it restarts", beat: jetstream.Heartbeat{Restarting: true},
			gossip: cluster.Dead, after: later},
		{name: "did not restart", beat: jetstream.Heartbeat{Restarting: true}, gossip: cluster.Dead,
			after: restartLimit + later, want: "silent in gossip"},
		{name: "connection ended", gossip: cluster.Alive, before: func(p *nodeTable, now time.Time) {
			p.recordDisconnect("n", now)
		}, after: later},
		{name: "agent died", gossip: cluster.Dead, before: agentDied(later), after: later},
		{name: "agent died, and nobody comes", gossip: cluster.Dead,
			before: agentDied(5*time.Second + restartGrace + ms),
			after:  5*time.Second + restartGrace + ms, want: "the agent of node n died"},
		{name: "agent died, and its programs wait longer", beat: jetstream.Heartbeat{Outlive: time.Minute},
			gossip: cluster.Dead,
			before: agentDied(30 * time.Second), after: 30 * time.Second},
		{name: "agent died, and its programs wait no longer", beat: jetstream.Heartbeat{Outlive: time.Minute},
			gossip: cluster.Dead,
			before: agentDied(time.Minute + restartGrace + ms), after: time.Minute + restartGrace + ms,
			want: "within 1m0s"},
		{name: "agent died, then its machine", gossip: cluster.Dead, before: agentDied(time.Second), after: later,
			want: "silent in gossip"},
		{name: "another agent listens by now", gossip: cluster.Dead, before: func(p *nodeTable, now time.Time) {
			agentDied(later)(p, now)
			p.recordProbe("n", false, now.Add(later))
		}, after: later + restartGrace},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, now := tableWithNode(c.beat)
			if c.before != nil {
				c.before(p, now)
			}
			states := map[grid.NodeID]cluster.State{"n": c.gossip}
			if away := p.takeLost(now.Add(c.after), time.Time{}, true, states, &testOutage); len(away) > 0 &&
				!away["n"].left {
				t.Fatalf("while the master is away: got %v", away)
			}
			got := p.takeLost(now.Add(c.after), time.Time{}, false, states, &testOutage)["n"].reason
			if c.want == "left" {
				got = c.want // said already
			}
			if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if again := p.takeLost(now.Add(c.after), time.Time{}, false, states, &testOutage); got != "" &&
				len(again) != 0 {
				t.Errorf("it died again: %v", again)
			}
		})
	}
}

// agentDied ends the agent of n immediately, on a machine that refuses connections from then on
// until after.
func agentDied(after time.Duration) func(p *nodeTable, now time.Time) {
	return func(p *nodeTable, now time.Time) {
		p.recordDisconnect("n", now)
		p.recordProbe("n", true, now.Add(after))
	}
}

// TestSilenceCountsFromTheMastersReturn counts no silence against nodes from the time in which the
// master itself was away.
func TestSilenceCountsFromTheMastersReturn(t *testing.T) {
	p, now := tableWithNode(jetstream.Heartbeat{})
	states := map[grid.NodeID]cluster.State{"n": cluster.Dead}
	back := now.Add(time.Hour)
	if lost := p.takeLost(back.Add(testOutage.LostAfter), back, false, states, &testOutage); len(lost) > 0 {
		t.Errorf("got %v", lost)
	}
	if lost := p.takeLost(back.Add(testOutage.LostAfter+1), back, false, states, &testOutage); len(lost) != 1 {
		t.Errorf("got %v, want n lost now", lost)
	}
}

// TestMasterIsAway detects that the master itself was away.
func TestMasterIsAway(t *testing.T) {
	start := time.Now()
	for _, c := range []struct {
		name           string
		looks          []time.Duration // since the start
		linked         bool
		others, silent int
		want           string
	}{
		{name: "all is well", looks: []time.Duration{0, nodeCheckInterval}, linked: true, others: 4},
		{name: "first look", looks: []time.Duration{time.Hour}, linked: true, others: 1, silent: 1},
		{name: "stopped", looks: []time.Duration{0, 30 * time.Second}, linked: true, others: 4, want: "stopped"},
		{name: "a bit late", looks: []time.Duration{0, maxCheckDelay}, linked: true, others: 4},
		{name: "own link", looks: []time.Duration{0, nodeCheckInterval}, others: 1, silent: 1, want: "link"},
		{name: "one of one", looks: []time.Duration{0, nodeCheckInterval}, linked: true, others: 1, silent: 1},
		{name: "one of two", looks: []time.Duration{0, nodeCheckInterval}, linked: true, others: 2, silent: 1},
		{name: "two of two", looks: []time.Duration{0, nodeCheckInterval}, linked: true, others: 2, silent: 2,
			want: "most nodes"},
		{name: "two of four", looks: []time.Duration{0, nodeCheckInterval}, linked: true, others: 4, silent: 2},
		{name: "three of four", looks: []time.Duration{0, nodeCheckInterval}, linked: true, others: 4, silent: 3,
			want: "most nodes"},
		{name: "most for good", looks: checkTimes(majorityLimit + time.Second), linked: true, others: 4, silent: 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			var p selfCheck
			why := ""
			for _, at := range c.looks {
				why = p.update(start.Add(at), c.linked, c.others, c.silent)
			}
			if (why == "") != (c.want == "") || !strings.Contains(why, c.want) {
				t.Errorf("got %q, want %q", why, c.want)
			}
			if last := start.Add(c.looks[len(c.looks)-1]); why != "" && !p.lastAway.Equal(last) {
				t.Errorf("silence counts from %v, want the last look", p.lastAway.Sub(start))
			}
		})
	}
}

// checkTimes are the checks of a master that is never late.
func checkTimes(until time.Duration) (all []time.Duration) {
	for at := time.Duration(0); at <= until; at += maxCheckDelay / 2 {
		all = append(all, at)
	}
	return all
}

// TestDrainFollowed waits for a node that is heard from until it drains, and for no other.
func TestDrainFollowed(t *testing.T) {
	p, _ := tableWithNode(jetstream.Heartbeat{})
	m := &Master{nodeWatcher: &nodeWatcher{nodes: p}}
	m.AwaitDrain(t.Context(), "unknown", true)
	ctx, stop := context.WithTimeout(t.Context(), 5*awaitInterval)
	defer stop()
	if m.AwaitDrain(ctx, "n", true); ctx.Err() == nil {
		t.Error("it was waited for no longer although the node has not followed")
	}
	p.recordHeartbeat("n", &jetstream.Heartbeat{Draining: true}, time.Now())
	m.AwaitDrain(t.Context(), "n", true)
	if !p.drainApplied("n", true, time.Now()) || p.drainApplied("n", false, time.Now()) {
		t.Error("the node drains, and it is not noted")
	}
}

// TestWaitsAreBounded lets a node report more of its lanes than a real one, in texts that no
// terminal should see.
func TestWaitsAreBounded(t *testing.T) {
	said := map[grid.Lane]grid.Refusal{grid.Lane(strings.Repeat("p", 1<<16)): {}}
	for i := range 10 * jetstream.MaxRefusals {
		text := strings.Repeat(fmt.Sprint("\x1b[2J", i), 1<<10)
		said[grid.Lane(fmt.Sprint("p0_", i))] = grid.Refusal{Code: grid.RefusedForeign, Device: text,
			By: text, What: text}
	}
	p, _ := tableWithNode(jetstream.Heartbeat{Refusals: said})
	for _, known := range p.byID {
		size := 0
		for lane, r := range known.refusals {
			size += len(lane) + len(r.Device) + len(r.By) + len(r.What)
			if strings.Contains(r.String(), "\x1b") {
				t.Errorf("got %.40q", r.String())
			}
		}
		if n := len(known.refusals); n != jetstream.MaxRefusals || size > n*(maxLaneName+3*maxRefusalText) {
			t.Errorf("%d lanes with %d bytes are kept", n, size)
		}
	}
}

// TestPace counts the nodes that share the store: those that are heard from and hold leases.
func TestPace(t *testing.T) {
	p, now := tableWithNode(jetstream.Heartbeat{})
	held := []jetstream.HeldLease{{Seq: 1, Deliveries: 1}}
	for _, node := range []grid.NodeID{"busy-1", "busy-2", "silent"} {
		p.recordHeartbeat(node, &jetstream.Heartbeat{Leases: held}, now)
	}
	p.recordDisconnect("silent", now)
	if busy := p.count(now, func(n *nodeState) bool { return n.busy }); busy != 2 {
		t.Errorf("got %d at work; want 2", busy)
	}
	for busy, want := range map[int]time.Duration{0: 0, 1: reportCost, 10: 15 * time.Millisecond,
		200: 300 * time.Millisecond, 4000: slowestPace} {
		if got := reportIntervalFor(busy); got != want {
			t.Errorf("pace of %d: got %v, want %v", busy, got, want)
		}
	}
}

// TestLeftBeforeThisLife lets a node leave and start again, and gossip learn of that later than its
// heartbeats arrive: its silence does not count as having left.
func TestLeftBeforeThisLife(t *testing.T) {
	now := time.Now()
	p := &nodeTable{byID: map[grid.NodeID]*nodeState{}}
	left := func(at time.Time) map[grid.NodeID]cluster.State {
		return p.gossipStates([]cluster.Member{{Node: "n", State: cluster.Left, Since: at}})
	}
	p.recordHeartbeat("n", &jetstream.Heartbeat{Start: "1"}, now.Add(-time.Hour))
	p.recordHeartbeat("n", &jetstream.Heartbeat{Start: "2"}, now)
	p.recordHeartbeat("n", &jetstream.Heartbeat{Start: "2"}, now.Add(time.Second))
	quiet := now.Add(time.Second + jetstream.HeartbeatTimeout + time.Millisecond)
	if lost := p.takeLost(quiet, time.Time{}, false, left(now.Add(-time.Second)), &testOutage); len(lost) > 0 {
		t.Errorf("its last life left: got %v, want nothing", lost)
	}
	if lost := p.takeLost(quiet, time.Time{}, false, left(now.Add(time.Millisecond)), &testOutage); !lost["n"].left {
		t.Errorf("this life left: got %v, want that", lost)
	}
}
