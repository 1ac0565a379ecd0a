package master

import (
	"bytes"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// heartbeatStops records what a node reports to hold, and returns what it is told to stop.
func heartbeatStops(l *leaseTable, node grid.NodeID, held ...jetstream.HeldLease) []grid.LeaseID {
	var o jetstream.Directives
	l.recordHeld(node, held, &o, time.Now())
	return o.Stop
}

// TestSequenceOfTwoLeases uses sequences of the queue twice, as after a kill of the master that has
// lost the newest of them. The node with the old lease is told that it is lost, the node with the
// new one keeps it, and neither gives back the other's.
func TestSequenceOfTwoLeases(t *testing.T) {
	known := func(ids ...grid.LeaseID) *leaseTable {
		l := newLeaseTable()
		for _, id := range ids {
			l.add(id)
		}
		l.loaded.Store(true)
		return l
	}
	old := jetstream.HeldLease{Seq: 501, Deliveries: 1, ID: "before.1"}
	fresh := jetstream.HeldLease{Seq: 501, Deliveries: 1, ID: "after.1"}
	t.Run("old holder first", func(t *testing.T) {
		l := known()
		if stop := heartbeatStops(l, "a", old); !slices.Equal(stop, []grid.LeaseID{old.ID}) {
			t.Errorf("old holder: got %v, want that it is lost", stop)
		}
		l.add("after.1")
		if stop := heartbeatStops(l, "b", fresh); len(stop) > 0 || l.holderOf("after.1") != "b" {
			t.Errorf("new holder: got %v lost and holder %q, want b to hold it", stop, l.holderOf("after.1"))
		}
	})
	t.Run("new holder first", func(t *testing.T) {
		l := known("after.1")
		heartbeatStops(l, "b", fresh)
		if stop := heartbeatStops(l, "a", old); !slices.Equal(stop, []grid.LeaseID{old.ID}) ||
			l.holderOf("after.1") != "b" {
			t.Errorf("old holder: got %v lost, holder of the new one %q", stop, l.holderOf("after.1"))
		}
	})
	t.Run("one node holds both", func(t *testing.T) {
		l := known("after.1")
		if stop := heartbeatStops(l, "a", old, fresh); !slices.Equal(stop, []grid.LeaseID{old.ID}) {
			t.Errorf("got %v lost, want the old one alone", stop)
		}
		if void := l.staleLeases("a", []jetstream.HeldLease{old}); !slices.Equal(void, []grid.LeaseID{"after.1"}) {
			t.Errorf("a life that knows the old one alone: got %v void, want the new one", void)
		}
	})
	t.Run("not all is known yet", func(t *testing.T) {
		l := newLeaseTable()
		if stop := heartbeatStops(l, "a", old); len(stop) > 0 {
			t.Errorf("got %v lost, want nothing said", stop)
		}
	})
}

// TestReleaseOfAnotherLease closes a lease whose sequence another one has by now: that one stays.
func TestReleaseOfAnotherLease(t *testing.T) {
	c := startWithNodes(t, t.TempDir(), 1, newFakeCluster().nodes())
	id := c.submit(1, nil)
	h := c.workers.waitForLease(id)
	c.workers.publishEvent("b", h, grid.Event{Kind: grid.Released, Lease: h.Seq, LeaseID: "before.1"})
	c.waitForLeases(id, 1)
	c.workers.publishEvent("b", h, grid.Event{Kind: grid.Released, Lease: h.Seq, LeaseID: h.ID})
	if again := c.workers.waitForLease(id); again.ID == h.ID {
		t.Errorf("got lease %s once more", h.ID)
	}
}

// TestFirstWordOfAHolder lets a node that was expected to run attempts report so for the first
// time, under the ID of the lease: the placeholder of that lease is not stale, or the trials would
// be leased once more; nor is that of an attempt that has ended, which the node has still to
// report.
func TestFirstWordOfAHolder(t *testing.T) {
	l := newLeaseTable()
	for _, run := range []string{"b.1.1", "b.1.2", "c.1.1"} {
		l.add(grid.LeaseID(placeholderPrefix + run))
		l.assign(grid.LeaseID(placeholderPrefix+run), grid.NodeID(run[:1]), time.Now())
	}
	l.loaded.Store(true)
	for name, held := range map[string]jetstream.HeldLease{
		"an attempt runs": {Seq: 7, Deliveries: 1, ID: "before.1",
			Attempts: []jetstream.RunningAttempt{{Run: "b.1.1", Attempt: 1}}},
		"all are at their end": {Seq: 7, Deliveries: 1, ID: "before.1"},
	} {
		if void := l.staleLeases("b", []jetstream.HeldLease{held}); len(void) > 0 {
			t.Errorf("%s: got %v void, want none", name, void)
		}
	}
	void := l.staleLeases("b", nil)
	if slices.Sort(void); !slices.Equal(void,
		[]grid.LeaseID{grid.LeaseID(placeholderPrefix + "b.1.1"), grid.LeaseID(placeholderPrefix + "b.1.2")}) {
		t.Errorf("a node that holds nothing: got %v void, want both", void)
	}
}

// TestBeatThatClaimsTooMuch lets a node report again and again that it holds more leases than any
// node can, none of which the master knows: the master considers as many as a node can hold,
// decides each once, logs one line for a heartbeat, and keeps nothing of them when the node no
// longer reports them.
func TestBeatThatClaimsTooMuch(t *testing.T) {
	const said = 20_000
	var lines bytes.Buffer
	m := New(Config{Store: &jetstream.Store{}, Logger: slog.New(slog.NewTextHandler(&lines, nil))})
	m.leases.loaded.Store(true)
	s := newScheduler(m)
	b := &jetstream.Heartbeat{}
	for i := range said {
		b.Leases = append(b.Leases,
			jetstream.HeldLease{ID: grid.LeaseID(fmt.Sprint("x.", i)), Sweep: "t-1",
				Attempts: []jetstream.RunningAttempt{{Run: fmt.Sprint("b.1.", i), Attempt: 1}}})
	}
	b.Leases[0].Attempts = slices.Repeat(b.Leases[0].Attempts, said)
	var o jetstream.Directives
	held := boundedHeld(b.Leases)
	if len(held) != maxHeld || len(held[0].Attempts) != maxHeld || len(b.Leases) != said {
		t.Fatalf("looked at: %d leases, %d attempts under the first", len(held), len(held[0].Attempts))
	}
	for i := range held {
		held[i].Attempts = b.Leases[i].Attempts[:1]
	}
	open, _ := m.leases.recordHeld("b", held, &o, time.Now())
	if len(open) != maxHeld || len(o.Stop) != 0 {
		t.Fatalf("first beat: %d are to be decided and %d stopped, want all to be decided", len(open), len(o.Stop))
	}
	s.decideReconnected(t.Context(), "b", open)
	s.decideReconnected(t.Context(), "b", open) // of a beat that came before it was decided
	if n := bytes.Count(lines.Bytes(), []byte("\n")); n != 1 || len(m.leases.refused) != maxHeld {
		t.Errorf("got %d lines in the log and %d leases to stop, want one line and all", n, len(m.leases.refused))
	}
	if again, _ := m.leases.recordHeld("b", held, &o, time.Now()); len(again) != 0 || len(o.Stop) != maxHeld {
		t.Errorf("next beat: %d are to be decided and %d stopped, want all stopped", len(again), len(o.Stop))
	}
	if heartbeatStops(m.leases, "b"); len(m.leases.refused) != 0 {
		t.Errorf("%d leases are left of a node that holds none", len(m.leases.refused))
	}
}
