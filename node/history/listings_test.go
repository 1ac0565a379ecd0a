package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
)

// manyTrials makes a history of n ended trials with a metric.
func manyTrials(t testing.TB, n int) *DB {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "h.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	policy := func(grid.SweepID) (Policy, bool) { return Policy{Metric: "accuracy"}, true }
	for seq, i := uint64(1), 0; i < n; seq++ {
		b := &grid.Batch{V: grid.EventVersion, Sweep: "a-1", Node: "n"}
		for range min(500, n-i) {
			r := &grid.Result{Started: int64(i + 1), Usage: grid.Usage{Wall: int64(i*7919%1000 + 1)},
				Metrics: grid.Metric{"accuracy": json.RawMessage(fmt.Sprint(float64(i*7919%n) / float64(n)))}}
			if i%7 == 0 {
				r.Class = grid.ClassExit
			}
			b.Events = append(b.Events,
				grid.Event{Kind: grid.Finished, Index: int64(i), Attempt: 1, Run: fmt.Sprint("n.1.", i),
					Time: int64(i + 2), Result: r})
			i++
		}
		if _, err := d.Fold(t.Context(), []Stored{{Seq: seq, Batch: b}}, policy); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// TestListingsPage pages through sorted lists with both handles: the cached order agrees with a new
// sort.
func TestListingsPage(t *testing.T) {
	d := manyTrials(t, 12_000)
	l := d.Listings()
	read := func(d *DB, q Query) (all []int64) {
		for trial, err := range d.Trials(t.Context(), "a-1", q) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, trial.Index)
		}
		return all
	}
	for _, q := range []Query{
		{Sort: "accuracy", Limit: 7, Offset: 5000}, {Sort: "accuracy", Desc: true, Limit: 7, Offset: 5000},
		{Sort: "accuracy", Limit: 7, Offset: 11_998},
		{Sort: "accuracy", Limit: 7, Offset: 12_000}, {Sort: "accuracy", Limit: 7, Offset: 1 << 40},
		{Sort: SortWall, Limit: 3, Offset: 9000},
		{Sort: SortWall, Limit: 3, Offset: 1500, States: []grid.State{grid.Failed}}, {Sort: "accuracy", Offset: 11_000},
		{Sort: "nothing", Limit: 5, Offset: 4000},
		{Sort: SortObjective, Limit: 5, Offset: 3000, From: 6000},
	} {
		for range 2 {
			if got, want := read(l, q), read(d, q); !slices.Equal(got, want) {
				t.Errorf("%+v: got %v, want %v", q, got, want)
			}
		}
	}
	if n := len(l.orders.cached); n == 0 || n > maxCachedOrders || l.orders.idCount > maxCachedIDs {
		t.Errorf("%d orders of %d ids are kept", n, l.orders.idCount)
	}
}

// TestMasterDoesNotWaitForListings keeps every connection and every turn for listings busy: the
// master can still read, and a listing that waits ends with its reader.
func TestMasterDoesNotWaitForListings(t *testing.T) {
	d := manyTrials(t, 3000)
	l := d.Listings()
	for range readers {
		conn, err := l.read.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	if d.sortLimit != nil || cap(l.sortLimit) == 0 {
		t.Fatalf("got %d sorts at one time for the master and %d for listings, want no limit and some",
			cap(d.sortLimit), cap(l.sortLimit))
	}
	for range cap(l.sortLimit) {
		l.sortLimit <- struct{}{}
	}
	var waiting sync.WaitGroup
	gone, leave := context.WithCancel(t.Context())
	for range 12 {
		waiting.Go(func() {
			for _, err := range l.Trials(gone, "a-1", Query{Sort: "accuracy", Limit: 10, Offset: 2500}) {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("a listing whose reader has gone ended with %v", err)
				}
			}
		})
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if left, err := d.Remaining(ctx, "a-1"); err != nil || left.Terminal.Len() != 1 {
		t.Errorf("what is left: got %v, %v", left, err)
	}
	if _, err := d.Attempts(ctx, grid.TrialID{Sweep: "a-1", Index: 5}); err != nil {
		t.Errorf("attempts: %v", err)
	}
	for _, err := range d.Trials(ctx, "a-1", Query{States: []grid.State{grid.Running}}) {
		t.Errorf("running trials: %v", err)
	}
	if known := d.Known("a-1"); known.Count() != 3000 {
		t.Errorf("known: got %d", known.Count())
	}
	leave()
	waiting.Wait()
}

// TestOrderOfASweepThatGoesOn checks that the cached order of a sweep that has changed is valid for
// a moment, and not for longer.
func TestOrderOfASweepThatGoesOn(t *testing.T) {
	var o orderCache
	before, after := &sweepSummary{}, &sweepSummary{}
	o.add("k", before, []int64{1, 2})
	if _, ok := o.find("k", after); !ok {
		t.Error("the next page sorts the sweep again")
	}
	o.cached[0].created = time.Now().Add(-2 * maxOrderAge)
	if _, ok := o.find("k", after); ok {
		t.Error("an old order of a sweep that has changed is used")
	}
	if _, ok := o.find("k", before); !ok {
		t.Error("the order of a sweep that has not changed is not used")
	}
	o.clear()
	if len(o.cached) != 0 || o.idCount != 0 {
		t.Errorf("left: %d orders, %d ids", len(o.cached), o.idCount)
	}
}

// TestNewestAreInFewBlocks lists the trials that ended last: blocks are not read if their bounds
// show that nothing in them ended that late. Here these bounds are made wrong, so that reading such
// a block would be noticeable.
func TestNewestAreInFewBlocks(t *testing.T) {
	const n, newest = 12_000, 1500
	d := manyTrials(t, n)
	d.writeMu.Lock()
	err := d.w.script(fmt.Sprintf("UPDATE trial SET ended = %d WHERE id < (SELECT min(id) FROM trial) + %d",
		1_000_000, blockTrials))
	d.writeMu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	want := int64(n)
	for trial, err := range d.Trials(t.Context(), "a-1", Query{Sort: SortEnded, Desc: true, Limit: newest}) {
		if err != nil {
			t.Fatal(err)
		}
		if want--; trial.Index != want {
			t.Fatalf("got trial %d, want %d", trial.Index, want)
		}
	}
	if want != n-newest {
		t.Errorf("got %d trials, want %d", n-want, newest)
	}
}
