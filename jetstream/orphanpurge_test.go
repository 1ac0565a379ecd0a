package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
)

// reportOn reports an event and some output of a sweep.
func reportOn(ctx context.Context, l *MasterClient, id string) (events, output error) {
	b := batch(id, 0, 1)
	b.Node, b.Events[0].Run = l.node, string(l.node)+".1.1"
	events = l.PublishEvents(ctx, b)
	_, _, output = l.PublishOutput(ctx, grid.SweepID(id),
		[]Chunk{{Run: string(l.node) + ".1.1", Stream: 1, Data: []byte("x")}})
	return events, output
}

// TestReportsOnUnknownSweeps reports on sweeps without a record, from the master's process and over
// a connection: nothing is stored, and the nodes are told. Reports on sweeps that exist, whose
// record only a newer version can read, or that a restarted master knows, are stored.
func TestReportsOnUnknownSweeps(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	ctx := t.Context()
	for _, id := range []string{"a-1", "old-1", "gone-1"} {
		if _, err := l.store.Records.Create(ctx, sweep(id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.store.Records.Delete(ctx, "gone-1"); err != nil {
		t.Fatal(err)
	}
	newer := []byte(`{"v":1000,"id":"newer-1"}`)
	if _, err := l.store.publish(ctx, &nats.Msg{Subject: recordSubject("newer-1"), Data: newer}); err != nil {
		t.Fatal(err)
	}
	l.stop()
	l.start()
	for name, link := range map[string]*MasterClient{"remote": l.connect("b"), "own": l.store.Calls.LocalClient("m")} {
		for id, known := range map[string]bool{"a-1": true, "old-1": true, "newer-1": true, "gone-1": false,
			"ghost-1": false, "": false} {
			for range 2 {
				events, output := reportOn(ctx, link, id)
				if (events == nil) != known || (output == nil) != known ||
					(!known && (!errors.Is(events, ErrUnknownSweep) || !errors.Is(output, ErrUnknownSweep))) {
					t.Errorf("%s reports on %q: got %v for events and %v for output; known: %v", name, id,
						events, output, known)
				}
			}
		}
	}
	if err := l.store.Records.Delete(ctx, "old-1"); err != nil {
		t.Fatal(err)
	}
	if events, output := reportOn(ctx, l.connect("c"), "old-1"); !errors.Is(events, ErrUnknownSweep) ||
		!errors.Is(output, ErrUnknownSweep) {
		t.Errorf("reports on a sweep that was removed: got %v and %v", events, output)
	}
	left, err := l.store.PurgeOrphans(ctx, true, func(grid.SweepID) bool { return false })
	if err != nil || len(left) != 1 || left[0] != "old-1" {
		t.Errorf("got %v, %v of no sweep in the store, want only what was reported before the removal", left, err)
	}
}

// TestOlderNodeIsNotRefused checks that reports on unknown sweeps are not refused: an older node
// sends a refused report again and again.
func TestOlderNodeIsNotRefused(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	b := batch("ghost-1", 0, 1)
	b.Node = "b"
	data, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.natsClient("b").Request(callSubject("b", callEvents), data, time.Minute)
	if err != nil || errorOf(m) != nil {
		t.Fatalf("got %v, %v; want no refusal", m, err)
	}
	var before struct {
		Seq uint64 `json:"seq"`
	}
	if err := json.Unmarshal(m.Data, &before); err != nil {
		t.Error(err)
	}
}

// TestManySubjects stores a stream with more subjects than are checked at once: everything that
// belongs to no sweep is removed, in pages or at once.
func TestManySubjects(t *testing.T) {
	t.Parallel()
	for _, whole := range []bool{true, false} {
		t.Run(fmt.Sprint(whole), func(t *testing.T) {
			s := open(t, t.TempDir(), Limits{})
			s.orphanPurger.batch = 7
			for i := range 50 {
				id := fmt.Sprintf("ghost-%d", i)
				if i%3 == 0 {
					id = fmt.Sprintf("kept-%d", i)
					if _, err := s.Records.Create(t.Context(), sweep(id)); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := s.Events.Publish(t.Context(), batch(id, 0, 1)); err != nil {
					t.Fatal(err)
				}
			}
			removed, rounds := 0, 0
			for ; removed < 33 && rounds < 20; rounds++ {
				ids, err := s.PurgeOrphans(t.Context(), whole, func(grid.SweepID) bool { return false })
				if err != nil {
					t.Fatal(err)
				}
				if removed += len(ids); len(ids) > 7 && !whole {
					t.Errorf("round %d: got %d sweeps, more than a page", rounds, len(ids))
				}
			}
			if removed != 33 || (whole && rounds != 1) {
				t.Errorf("got %d sweeps removed in %d rounds, want 33", removed, rounds)
			}
			if info, err := s.streamInfo(t.Context(), eventStream); err != nil || info.State.NumSubjects != 17 {
				t.Errorf("subjects left: got %+v, %v; want 17", info, err)
			}
		})
	}
}

// TestPurgeContinuesAfterAnError tries one part of the store with too many subjects, and then one
// that can't be listed: orphans are removed from the others.
func TestPurgeContinuesAfterAnError(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	s.orphanPurger.maxSubjects = 3
	purge := func() ([]grid.SweepID, error) {
		return s.PurgeOrphans(t.Context(), true, func(grid.SweepID) bool { return false })
	}
	for i := range 4 {
		putRaw(t, s, eventSubject("n1", grid.SweepID(fmt.Sprint("ghost-", i))), "{}")
	}
	putRaw(t, s, logSubject("n1", "ghost-log"), "x")
	if got, err := purge(); err != nil || len(got) != 1 || got[0] != "ghost-log" {
		t.Errorf("with too many subjects: got %v, %v; want the sweep of the output", got, err)
	}
	putRaw(t, s, logSubject("n1", "ghost-log"), "x")
	if err := s.js.DeleteStream(t.Context(), eventStream); err != nil {
		t.Fatal(err)
	}
	if got, err := purge(); err == nil || len(got) != 1 || got[0] != "ghost-log" {
		t.Errorf("with a part that can't be listed: got %v, %v; want the sweep of the output, and an error", got, err)
	}
}
