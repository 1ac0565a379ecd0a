package history

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"mlfnode/grid"
)

// indexes runs a query and returns the trials' indexes.
func indexes(t tester, d *DB, q Query) []int64 {
	t.Helper()
	var got []int64
	for trial, err := range d.Trials(t.Context(), "a-1", q) {
		if err != nil {
			t.Fatalf("list %+v: %v", q, err)
		}
		got = append(got, trial.Index)
	}
	return got
}

// TestByIndex reads more than a page in both directions.
func TestByIndex(t *testing.T) {
	d := open(t)
	const n = 2*pageRows + 10
	var events []grid.Event
	for i := range int64(n) {
		events = append(events, finished(3*i, "{}"))
	}
	foldEvents(t, d, "a-1", events...)
	for _, c := range []struct {
		q           Query
		first, last int64
		count       int
	}{
		{Query{}, 0, 3 * (n - 1), n},
		{Query{Desc: true}, 3 * (n - 1), 0, n},
		{Query{From: 4, Limit: 2}, 6, 9, 2},
		{Query{Desc: true, Limit: pageRows + 1}, 3 * (n - 1), 3 * (n - pageRows - 1), pageRows + 1},
		{Query{Offset: pageRows, Limit: 5}, 3 * pageRows, 3 * (pageRows + 4), 5},
		{Query{Desc: true, Offset: n - 1}, 0, 0, 1},
	} {
		got := indexes(t, d, c.q)
		if len(got) != c.count || got[0] != c.first || got[len(got)-1] != c.last {
			t.Errorf("%+v: got %d from %d to %d, want %d from %d to %d", c.q, len(got), got[0], got[len(got)-1],
				c.count, c.first, c.last)
		}
	}
	if got := indexes(t, d, Query{Offset: n}); len(got) > 0 {
		t.Errorf("behind the end: got %v, want none", got)
	}
}

// TestNotANumberLast checks that NaN comes last in both directions, however it is spelled, and that
// infinities are numbers.
func TestNotANumberLast(t *testing.T) {
	d := open(t)
	var events []grid.Event
	for i, value := range []string{`"NaN"`, "1", `"nan"`, `"-inf"`, "3", `"-NAN"`,
		`"Infinity"`, "2", `"+inf"`, `"nan(ind)"`} {
		events = append(events, finished(int64(i), fmt.Sprintf(`{"loss": %s}`, value)))
	}
	foldEvents(t, d, "a-1", events...)
	for q, want := range map[*Query][]int64{
		{}:                     {3, 1, 7, 4, 6, 8, 0, 2, 5, 9},
		{Desc: true}:           {6, 8, 4, 7, 1, 3, 0, 2, 5, 9},
		{Limit: 2}:             {3, 1},
		{Desc: true, Limit: 4}: {6, 8, 4, 7},
	} {
		q.Sort = "loss"
		if delta := diff(want, indexes(t, d, *q)); delta != "" {
			t.Errorf("%+v (-want +got):\n%s", *q, delta)
		}
	}
}

// TestMetricKinds sorts numbers before texts in both directions and missing values last, with names
// that need quoting in SQL.
func TestMetricKinds(t *testing.T) {
	for _, name := range []string{"loss", "validation/main/accuracy", "a.b",
		"a[0]", `q"uote`, `back\slash`, "ünï", "<html>", "it's", "$", "new\nline"} {
		d := open(t)
		key, err := json.Marshal(name)
		if err != nil {
			t.Fatal(err)
		}
		var events []grid.Event
		for i, value := range []string{`"10"`, "9", `"z"`, "null", "10", "-1e2", "12345678901234567890", `"9"`} {
			events = append(events, finished(int64(i), fmt.Sprintf("{%s: %s}", key, value)))
		}
		foldEvents(t, d, "a-1", append(events, finished(8, "{}"))...)
		for q, want := range map[*Query][]int64{
			{}:                     {5, 1, 4, 6, 0, 7, 2, 3, 8},
			{Desc: true}:           {6, 4, 1, 5, 2, 7, 0, 3, 8},
			{Limit: 2}:             {5, 1},
			{Desc: true, Limit: 3}: {6, 4, 1},
			{Limit: 3, Offset: 5}:  {7, 2, 3},
		} {
			q.Sort = Sort(name)
			if delta := diff(want, indexes(t, d, *q)); delta != "" {
				t.Errorf("by %q, %+v (-want +got):\n%s", name, *q, delta)
			}
		}
		names, err := d.MetricNames(t.Context(), "a-1")
		if err != nil || len(names) != 1 || names[0] != name {
			t.Errorf("metric names: got %q, %v, want %q", names, err, name)
		}
	}
}

// TestRunAgainMovesInOrder checks that a trial's old value neither hides it nor determines its
// position.
func TestRunAgainMovesInOrder(t *testing.T) {
	d := open(t)
	var events []grid.Event
	for i := range int64(10) {
		e := finished(i<<blockBits, fmt.Sprintf(`{"loss": %d}`, i))
		e.Result.Class = grid.ClassExit
		events = append(events, e)
	}
	foldEvents(t, d, "a-1", events...)
	again := finished(0, `{"loss": 100}`)
	again.Attempt, again.Run = 2, "again"
	foldEvents(t, d, "a-1", grid.Event{Kind: grid.Reopened, Index: 0, Time: 1}, again)
	for _, by := range []Sort{"loss", SortObjective} {
		if got, want := indexes(t, d, Query{Sort: by, Limit: 2}),
			[]int64{1 << blockBits, 2 << blockBits}; !slices.Equal(got, want) {
			t.Errorf("least %s: got %v, want %v", by, got, want)
		}
		if got, want := indexes(t, d, Query{Sort: by, Desc: true, Limit: 1}), []int64{0}; !slices.Equal(got, want) {
			t.Errorf("greatest %s: got %v, want %v", by, got, want)
		}
	}
}

// TestMoreMetricsThanNames sorts by a metric that appeared after the table of names was full, which
// no block records.
func TestMoreMetricsThanNames(t *testing.T) {
	d := open(t)
	metrics := grid.Metric{}
	for i := range MaxNames {
		metrics[fmt.Sprint("m", i)] = json.RawMessage("1")
	}
	full := finished(0, "{}")
	full.Result.Metrics = metrics
	foldEvents(t, d, "a-1", full, finished(1, `{"late": 2}`), finished(2, `{"late": 1}`))
	if got, want := indexes(t, d, Query{Sort: "late", Limit: 3}), []int64{2, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestStoppedListing stops a listing in the middle, through the caller and through the context.
func TestStoppedListing(t *testing.T) {
	d := open(t)
	foldEvents(t, d, "a-1", finished(0, "{}"), finished(1, "{}"))
	for range d.Trials(t.Context(), "a-1", Query{}) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, q := range []Query{{}, {Sort: SortWall, Limit: 1}} {
		var got error
		for _, got = range d.Trials(ctx, "a-1", q) {
		}
		if !errors.Is(got, context.Canceled) {
			t.Errorf("%+v: got %v, want canceled", q, got)
		}
	}
	if got := slices.Collect(func(yield func(grid.Trial) bool) {
		for trial := range d.Trials(t.Context(), "unheard-1", Query{Sort: SortWall}) {
			yield(trial)
		}
	}); len(got) > 0 {
		t.Errorf("trials of an unknown sweep: got %v, want none", got)
	}
}

// TestReadersWhileFolding reads in several ways while another goroutine folds. Trials that were
// counted appear in later listings.
func TestReadersWhileFolding(t *testing.T) {
	d := open(t)
	const batches, size = 150, 20
	folded := make(chan struct{})
	var wait sync.WaitGroup
	listIndexes := func(q Query) (got []int64) { // as indexes, for goroutines
		for trial, err := range d.Trials(t.Context(), "a-1", q) {
			if err != nil {
				t.Errorf("list %+v: %v", q, err)
			}
			got = append(got, trial.Index)
		}
		return got
	}
	readers := []func() int64{
		func() int64 { return int64(len(listIndexes(Query{}))) },
		func() int64 {
			return int64(len(listIndexes(Query{States: []grid.State{grid.Succeeded}, Sort: SortState})))
		},
		func() int64 {
			left, err := d.Remaining(t.Context(), "a-1")
			if err != nil {
				t.Errorf("what is left: %v", err)
			}
			return left.Terminal.Count()
		},
		func() int64 {
			got := listIndexes(Query{Sort: SortStarted, Limit: 30})
			if !slices.IsSorted(got) {
				t.Errorf("by start: got %v, want the order of indexes", got)
			}
			return maxIndex // limited: there is nothing to compare with
		},
	}
	for _, read := range readers {
		wait.Go(func() {
			for done := false; !done; {
				select {
				case <-folded:
					done = true
				default:
				}
				c, err := d.Counts(t.Context(), "a-1")
				if err != nil {
					t.Errorf("counts: %v", err)
				}
				if got := read(); got < c.Done() {
					t.Errorf("got %d trials after %d were counted", got, c.Done())
				}
			}
		})
	}
	for i := range int64(batches) {
		var events []grid.Event
		for j := range int64(size) {
			events = append(events, finished(i*size+j, `{"loss": 1}`))
		}
		foldEvents(t, d, "a-1", events...)
	}
	close(folded)
	wait.Wait()
	if c, err := d.Counts(t.Context(), "a-1"); err != nil || c.Succeeded != batches*size {
		t.Errorf("got %d succeeded, %v, want %d", c.Succeeded, err, batches*size)
	}
}
