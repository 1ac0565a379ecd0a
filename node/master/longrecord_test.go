package master

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// listedAxis returns an axis of n values of 1 kB each, numbered from first.
func listedAxis(first, n int) space.Axis {
	a := space.Axis{Key: "text"}
	for i := range n {
		a.Values = append(a.Values, space.Value{Text: fmt.Sprintf("%05d", first+i) + strings.Repeat("x", 1019)})
	}
	return a
}

// listingSubmission makes a submission list n values of 1 kB.
func listingSubmission(t *testing.T, n int) func(*api.Submit) {
	return func(s *api.Submit) {
		var err error
		if s.Space, err = space.New([]space.Axis{listedAxis(0, n)}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExtendMakesNoLongSweep extends a sweep, whose trials nodes of earlier versions may run, by
// more values than its record may list as it is: it is refused, so that they can still read the
// record. A sweep that is a long one from the start can be extended so.
func TestExtendMakesNoLongSweep(t *testing.T) {
	t.Parallel()
	c := startMaster(t, 1)
	id := c.submit(1, listingSubmission(t, 300))
	add := func(ctx context.Context, id grid.SweepID, first, n int) error {
		_, added, err := c.Extend(ctx, id, api.Extend{Axes: []space.Axis{listedAxis(first, n)}})
		if err == nil && added != int64(n) {
			t.Errorf("extend %s by %d values: got %d points", id, n, added)
		}
		return err
	}
	stored := func(id grid.SweepID, points int64, long bool, level int) {
		t.Helper()
		r, err := c.store.Records.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if s := r.Sweep; s.Space.Count() != points || s.Long != long || s.Level() != level {
			t.Errorf("%s: got %d points, long: %v, level %d; want %d, %v, %d", id, s.Space.Count(), s.Long, s.Level(),
				points, long, level)
		}
	}
	if err := add(t.Context(), id, 300, 100); err != nil {
		t.Error(err)
	}
	for _, ctx := range []context.Context{t.Context(), DryRun(t.Context())} {
		err := add(ctx, id, 400, 200)
		if e := (*api.Error)(nil); !errors.As(err, &e) || e.Status != http.StatusRequestEntityTooLarge ||
			!strings.Contains(e.Hint, "submit a new sweep") || !strings.Contains(e.Hint, "sweep over its lines") {
			t.Errorf("got %v, want it refused as too large with what to do", err)
		}
	}
	stored(id, 400, false, grid.LevelPlain)

	long := c.submit(1, listingSubmission(t, 600))
	if err := add(t.Context(), long, 600, 50); err != nil {
		t.Error(err)
	}
	stored(long, 650, true, grid.LevelLong)
}

// TestDrawsOfLargeRecords draws points of a sweep of an earlier version, which stored records of
// long lists as they are: the lists stay as they are, and so does the form of the record.
func TestDrawsOfLargeRecords(t *testing.T) {
	t.Parallel()
	c := startMaster(t, 1)
	s := newSweep(t, "t-9", 1)
	points, err := space.New([]space.Axis{listedAxis(0, 600)}, nil)
	if err == nil {
		s.Space, err = points.Sampled(space.Sample{Size: 2, Seed: 1}, false)
	}
	if err == nil {
		_, err = c.store.Records.Create(t.Context(), s)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, added, err := c.Extend(t.Context(), s.ID, api.Extend{Draw: 3})
	if err != nil || added != 3 || r.Sweep.Long {
		t.Errorf("got %d points, %v; want 3 in a record that is not a long one", added, err)
	}
}

// TestHistoryOfProgramsBeforeLongRecords starts a master with a history that was folded by an
// earlier version, which could not read the records of long sweeps, left out their events, and did
// not record so: it is folded again, once. A history without a long sweep stays.
func TestHistoryOfProgramsBeforeLongRecords(t *testing.T) {
	for _, n := range []int{1, 600} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			c := restartMaster(t, dir, 1)
			id := c.submit(1, listingSubmission(t, n))
			c.workers.finishLease(c.workers.takeLease(id), grid.ClassNone, time.Millisecond)
			done := c.counts(id).Succeeded
			if done == 0 {
				t.Fatal("no trial has ended")
			}
			c.stopMaster()
			c = newTestMaster(t, dir, 1, nil, nil)
			foldedBefore(t, c)
			at := c.cfg.History.Applied()
			first, last, err := c.store.Events.Bounds(t.Context())
			if err != nil || at != last {
				t.Fatalf("the earlier version has come to %d of %d, %v", at, last, err)
			}
			for range 2 {
				if err := c.fold.checkHistory(t.Context(), first, last, grid.RecordVersion); err != nil {
					t.Fatal(err)
				}
				if got := c.cfg.History.Applied(); (got == 0) != (n == 600) {
					t.Errorf("history has come to %d of %d, and is to be folded again beside a long sweep only", got,
						last)
				}
			}
			c.run()
			if got := c.counts(id).Succeeded; got != done {
				t.Errorf("history knows %d trials that have ended, want %d", got, done)
			}
			at = c.cfg.History.Applied()
			if err := c.fold.checkHistory(t.Context(), first, at, grid.RecordVersion); err != nil ||
				c.cfg.History.Applied() != at {
				t.Errorf("the next start: history has come to %d, %v; want it to stay at %d",
					c.cfg.History.Applied(), err, at)
			}
		})
	}
}

// foldedBefore makes the history of a master that does not run as a version before long records
// does.
func foldedBefore(t *testing.T, c *testMaster) {
	t.Helper()
	if err := c.cfg.History.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := c.store.Records.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if !r.Sweep.Long {
			c.sweeps[r.Sweep.ID] = r
		}
	}
	_, last, err := c.store.Events.Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	err = c.fold.run(t.Context(), func(f folded) error {
		if f.last >= last {
			return errCaughtUp
		}
		return nil
	})
	if !errors.Is(err, errCaughtUp) {
		t.Fatal(err)
	}
	if o := c.cfg.History.Origin(); o != (history.Origin{}) {
		t.Fatalf("got origin %+v, want none", o)
	}
	for _, r := range all {
		c.storeRecord(jetstream.Change{ID: r.Sweep.ID, Record: r})
	}
}
