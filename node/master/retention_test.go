package master

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// endedEvents returns a sweep's events of about so many bytes.
func endedEvents(id grid.SweepID, node grid.NodeID, bytes int) *grid.Batch {
	b := &grid.Batch{V: grid.EventVersion, Sweep: id, Node: node}
	for i := range max(1, bytes/400) {
		b.Events = append(b.Events, grid.Event{
			Kind: grid.Finished, Index: int64(i), Attempt: 1, Run: fmt.Sprint(node, ".1.", i), Time: 2,
			Result: &grid.Result{Started: 1, Reason: strings.Repeat("x", 300)},
		})
	}
	return b
}

// startWithLimits starts a master over a store with small limits, which prepare may change before.
func startWithLimits(
	t *testing.T, limits jetstream.Limits, retention Retention, prepare func(*jetstream.Store),
) *testMaster {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	server, err := jetstream.Start(jetstream.Config{Dir: filepath.Join(dir, "jetstream"), Logger: log, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	store, err := server.OpenStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db, err := history.Open(filepath.Join(dir, "history.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	if prepare != nil {
		prepare(store)
	}
	m := New(Config{Store: store, History: db, Logger: log, LeaseTrials: true, Retention: retention,
		Capacity: Capacity{Slots: func(grid.Resources) int { return 1 }}})
	ctx, stop := context.WithCancel(context.Background()) // ends with the test
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("master ended with: %v", err)
		}
		db.Close()
		store.Close()
		server.Close()
	})
	<-m.Ready()
	return withWorkers(&testMaster{Master: m, t: t, store: store})
}

// eventually polls until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("after a minute still not: %s", what)
		}
	}
}

func usageOf(t *testing.T, s *jetstream.Store, part string) int64 {
	t.Helper()
	all, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		if u.Name == part {
			return u.Bytes
		}
	}
	t.Fatalf("there is no part %s", part)
	return 0
}

// TestBundleOfASubmissionUnderWayStays sends a bundle while a master that has just started cleans
// up: it does not count as older than the start.
func TestBundleOfASubmissionUnderWayStays(t *testing.T) {
	c := startMaster(t, 1)
	ready, digest := time.Now(), strings.Repeat("ab", 32)
	if err := c.store.Bundles.Put(t.Context(), digest, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		before time.Time
		kept   bool
	}{{ready, true}, {time.Now(), false}} {
		c.removeOrphans(t.Context(), false, r.before)
		if has, err := c.store.Bundles.Has(t.Context(), digest); err != nil || has != r.kept {
			t.Errorf("a bundle stored at the start, after what is older than %v was removed: got %v, %v; want %v",
				time.Since(r.before), has, err, r.kept)
		}
	}
}

// TestWhatBelongsToNoSweepGoes fills a store with what no record names: a start of the master frees
// it, and what belongs to sweeps stays.
func TestWhatBelongsToNoSweepGoes(t *testing.T) {
	kept, orphan := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	c := startWithLimits(t, jetstream.Limits{}, Retention{}, func(s *jetstream.Store) {
		sweep := newSweep(t, "kept-1", 3)
		sweep.State, sweep.Ended, sweep.Bundle = grid.SweepFinished, time.Now(), kept
		_, err := s.Records.Create(t.Context(), sweep)
		for _, id := range []grid.SweepID{"kept-1", "ghost-1", "ghost/../2", "", "=zz.x*"} {
			_, e := s.Events.Publish(t.Context(), endedEvents(id, "", 1000))
			_, _, e2 := s.Logs.Publish(t.Context(), id,
				[]jetstream.Chunk{{Run: "n.1.1", Stream: 1, Data: []byte("hello")}})
			err = errors.Join(err, e, e2)
		}
		for _, name := range []string{"kept-1/0/n.1.1", "ghost-1/0/n.1.1", "other-9/5/n.1.2"} {
			err = errors.Join(err, s.Artifacts.Put(t.Context(), name, strings.NewReader(strings.Repeat("x", 600_000))))
		}
		for _, digest := range []string{kept, orphan} {
			err = errors.Join(err, s.Bundles.Put(t.Context(), digest, strings.NewReader(strings.Repeat("y", 600_000))))
		}
		if err != nil {
			t.Fatal(err)
		}
	})
	eventually(t, "the bundle of no sweep is gone", func() bool {
		ok, err := c.store.Bundles.Has(t.Context(), orphan)
		return err == nil && !ok
	})
	if ok, err := c.store.Bundles.Has(t.Context(), kept); !ok || err != nil {
		t.Errorf("the bundle of a sweep: %v, %v", ok, err)
	}
	list, err := c.store.Artifacts.List(t.Context(), "")
	if err != nil || len(list) != 1 || list[0].Name != "kept-1/0/n.1.1" {
		t.Errorf("artifacts: got %+v, %v; want those of the sweep", list, err)
	}
	left, err := c.store.PurgeOrphans(t.Context(), false, func(id grid.SweepID) bool { return id == "kept-1" })
	if err != nil || len(left) != 0 {
		t.Errorf("still there: %q, %v", left, err)
	}
	if n := usageOf(t, c.store, "events"); n < 500 || n > 3000 {
		t.Errorf("%d bytes of events are left, want those of one sweep", n)
	}
}

// TestFullStoreMakesRoomAtOnce fills the events: sweeps beyond the retention are removed without
// waiting for the next round, and when there is none, the problem says what to do.
func TestFullStoreMakesRoomAtOnce(t *testing.T) {
	c := startWithLimits(t, jetstream.Limits{EventBytes: 2 << 20}, Retention{Sweeps: 1}, nil)
	add := func(id grid.SweepID, bytes int, ended time.Time) {
		s := newSweep(t, id, 100_000)
		s.State, s.Ended = grid.SweepFinished, ended
		_, err := c.store.Records.Create(t.Context(), s)
		if err == nil {
			_, err = c.store.Events.Publish(t.Context(), endedEvents(id, "", bytes))
		}
		if err != nil {
			t.Fatal(err)
		}
		c.waitFor("the record is known", func(*scheduler) bool { _, ok := c.Sweep(id); return ok })
	}
	add("old-1", 800_000, time.Now().Add(-time.Hour))
	add("new-1", 900_000, time.Now())
	c.freeSpace(t.Context())
	if _, ok := c.Sweep("old-1"); ok {
		t.Error("an old sweep beyond the retention is still there although the store is full")
	}
	if p := c.Problem(); p != "" {
		t.Errorf("problem after room was made: %q", p)
	}
	if _, err := c.store.Events.Publish(t.Context(), endedEvents("new-1", "n", 1_000_000)); err != nil {
		t.Fatal(err)
	}
	c.freeSpace(t.Context())
	if p := c.Problem(); !strings.Contains(p, "mlfnode remove") || !strings.Contains(p, "retention.events") ||
		!strings.Contains(p, "new-1") {
		t.Errorf("problem of a full store with nothing that may go by itself: %q", p)
	}
	if _, ok := c.Sweep("new-1"); !ok {
		t.Error("results that the retention keeps were given up for room")
	}
	if err := c.Remove(t.Context(), "new-1"); err != nil {
		t.Fatal(err)
	}
	c.freeSpace(t.Context())
	if p, n := c.Problem(), usageOf(t, c.store, "events"); p != "" || n != 0 {
		t.Errorf("after the removal: problem %q, %d bytes of events", p, n)
	}
}

// TestFullStoreOfSweepsThatRun fills the events while no sweep has ended: the problem says how to
// get one that can be removed, and the removal does not wait for a node that can't report the end
// of its attempts.
func TestFullStoreOfSweepsThatRun(t *testing.T) {
	c := startWithLimits(t, jetstream.Limits{EventBytes: 1 << 20}, Retention{}, nil)
	id := c.submit(100_000, nil)
	h := c.workers.takeLease(id)
	if _, err := c.store.Events.Publish(t.Context(), endedEvents(id, "", 900_000)); err != nil {
		t.Fatal(err)
	}
	c.freeSpace(t.Context())
	if p := c.Problem(); !strings.Contains(p, "mlfnode cancel SWEEP") || !strings.Contains(p, "mlfnode remove SWEEP") ||
		!strings.Contains(p, "retention.events") {
		t.Errorf("problem of a full store of sweeps that run: %q", p)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if _, err := c.Cancel(ctx, id, false); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(ctx, id); err != nil {
		t.Fatal(err)
	}
	c.freeSpace(ctx)
	if p := c.Problem(); p != "" {
		t.Errorf("problem after the removal: %q", p)
	}
	eventually(t, "its leases are gone", func() bool {
		left, err := c.store.Queue.List(ctx)
		return err == nil && len(left) == 0
	})
	late := endedEvents(id, "n", 1)
	if err := c.workers.client().PublishEvents(ctx, late); !errors.Is(err, jetstream.ErrUnknownSweep) {
		t.Errorf("the late end of %v: got %v, want the node to drop it", h.ID, err)
	}
}

func TestOutdated(t *testing.T) {
	now := time.Now()
	m := New(Config{Store: &jetstream.Store{}, Logger: slog.New(slog.DiscardHandler),
		Retention: Retention{Sweeps: 2, Age: time.Hour}})
	for id, s := range map[grid.SweepID]*grid.Sweep{
		"running-1":   {State: grid.SweepRunning, Submitted: now.Add(-time.Hour * 9)},
		"paused-1":    {State: grid.SweepPaused, Paused: now.Add(-2 * time.Hour)},
		"paused-2":    {State: grid.SweepPaused, Paused: now.Add(-time.Minute), Submitted: now.Add(-99 * time.Hour)},
		"paused-3":    {State: grid.SweepPaused, Submitted: now.Add(-2 * time.Hour)}, // an older record
		"ended-1":     {State: grid.SweepFinished, Ended: now.Add(-time.Minute)},
		"ended-2":     {State: grid.SweepCancelled, Ended: now.Add(-2 * time.Minute)},
		"ended-3":     {State: grid.SweepFinished, Ended: now.Add(-3 * time.Minute)},
		"half-gone-1": {State: grid.SweepFinished, Ended: now, Removing: true},
	} {
		s.ID, s.Space = id, space.Space{}
		m.storeRecord(jetstream.Change{ID: id, Record: jetstream.Record{Sweep: s, Rev: 1}})
	}
	got := map[grid.SweepID]bool{}
	for _, r := range m.outdated(now) {
		got[r.Sweep.ID] = true
	}
	for _, id := range []grid.SweepID{"paused-1", "paused-3", "ended-3", "half-gone-1"} {
		if !got[id] {
			t.Errorf("%s stays", id)
		}
		delete(got, id)
	}
	if len(got) > 0 {
		t.Errorf("these go, too: %v", got)
	}
}

// TestRemove removes sweeps in each state: one that runs stays.
func TestRemove(t *testing.T) {
	c := startMaster(t, 4)
	id := c.submit(2, nil)
	c.waitForLeases(id, 2)
	var refusal *api.Error
	if err := c.Remove(t.Context(), id); !errors.As(err, &refusal) ||
		!strings.Contains(refusal.Hint, "mlfnode cancel") {
		t.Errorf("a running sweep: got %v", err)
	}
	if err := c.Remove(t.Context(), "none-1"); !errors.As(err, &refusal) || refusal.Status != 404 {
		t.Errorf("one that is not there: got %v", err)
	}
	h := c.workers.takeLease(id)
	if _, err := c.Pause(t.Context(), id, false); err != nil {
		t.Fatal(err)
	}
	c.waitFor("the loop knows", func(s *scheduler) bool { return len(s.feeds[id].leases) == 1 })
	if err := c.Remove(t.Context(), id); !errors.As(err, &refusal) {
		t.Errorf("a paused sweep of which a trial runs: got %v", err)
	}
	c.workers.finishLease(h, grid.ClassNone, time.Second)
	c.waitFor("the loop knows that it rests", func(s *scheduler) bool { return s.feeds[id] == nil })
	if err := c.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := c.store.Records.Load(t.Context(), id); !errors.Is(err, jetstream.ErrNotFound) {
		t.Errorf("its record: %v", err)
	}
	if n := usageOf(t, c.store, "events"); n != 0 {
		t.Errorf("%d bytes of events are left", n)
	}
	if n := c.counts(id); n.Done() != 0 {
		t.Errorf("history still has %+v", n)
	}
}

// TestNothingChangesASweepThatIsRemoved refuses a retry, resume or extend during a removal, and
// completes an interrupted one.
func TestNothingChangesASweepThatIsRemoved(t *testing.T) {
	c := startMaster(t, 4)
	s := newSweep(t, "gone-1", 3)
	s.State, s.Removing, s.Ended = grid.SweepPaused, true, time.Now()
	if _, err := c.store.Records.Create(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	c.waitFor("the record is known", func(*scheduler) bool { _, ok := c.Sweep("gone-1"); return ok })
	for what, err := range map[string]error{
		"resume": second(c.Resume(t.Context(), "gone-1")), "cancel": second(c.Cancel(t.Context(), "gone-1", false)),
		"pause": second(c.Pause(t.Context(), "gone-1", true)),
	} {
		if err == nil {
			t.Errorf("%s of a sweep that is being removed was accepted", what)
		}
	}
	c.runNow <- struct{}{}
	eventually(t, "the removal has gone on", func() bool { _, ok := c.Sweep("gone-1"); return !ok })
}

func second[T any](_ T, err error) error { return err }
