package history

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("database/sql.(*DB).connectionCleaner")) // ends at its next tick
}

// tester is the common interface of *testing.T, *testing.B and *rapid.T.
type tester interface {
	Helper()
	Fatalf(format string, args ...any)
	Context() context.Context
}

// openAt opens a history that the caller closes.
func openAt(t tester, path string) *DB {
	t.Helper()
	d, err := Open(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return d
}

// open returns an empty history that is closed at the end.
func open(t testing.TB) *DB {
	t.Helper()
	d := openAt(t, filepath.Join(t.TempDir(), "history.db"))
	t.Cleanup(func() { mustClose(t, d) })
	return d
}

func mustClose(t tester, d *DB) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

// objectivePolicy is a policy that knows every sweep and has the metric loss as its objective.
func objectivePolicy(grid.SweepID) (Policy, bool) {
	return Policy{Metric: "loss", Goal: "minimize"}, true
}

// foldEvents folds one batch of one node.
func foldEvents(t tester, d *DB, id grid.SweepID, events ...grid.Event) []Transition {
	t.Helper()
	changed, err := d.Fold(t.Context(),
		[]Stored{{Seq: d.Applied() + 1, Batch: &grid.Batch{Sweep: id, Node: "n", Events: events}}}, objectivePolicy)
	if err != nil {
		t.Fatalf("fold: %v", err)
	}
	return changed
}

// finished returns the event of a first attempt that succeeded, with metrics as JSON.
func finished(index int64, metrics string) grid.Event {
	e := grid.Event{Kind: grid.Finished, Index: index, Attempt: 1, Run: fmt.Sprintf("r%d", index), Time: 1000 + index}
	e.Result = &grid.Result{Started: 1 + index, Usage: grid.Usage{Wall: 10, CPU: 5}}
	if err := json.Unmarshal([]byte(metrics), &e.Result.Metrics); err != nil {
		panic(err)
	}
	return e
}

// testListing is everything that history contains of a sweep.
type testListing struct {
	Trials   []grid.Trial
	Attempts [][]Attempt
	Counts   Counts
	Names    []string
	Terminal []ranges.Range
	Open     []int64
}

// listSweep reads everything of a sweep.
func listSweep(t tester, d *DB, id grid.SweepID) testListing {
	t.Helper()
	ctx := t.Context()
	var l testListing
	for trial, err := range d.Trials(ctx, id, Query{}) {
		if err != nil {
			t.Fatalf("list trials: %v", err)
		}
		attempts, err := d.Attempts(ctx, grid.TrialID{Sweep: id, Index: trial.Index})
		if err != nil {
			t.Fatalf("list attempts: %v", err)
		}
		l.Trials, l.Attempts = append(l.Trials, trial), append(l.Attempts, attempts)
	}
	var err error
	if l.Counts, err = d.Counts(ctx, id); err != nil {
		t.Fatalf("counts: %v", err)
	}
	if l.Names, err = d.MetricNames(ctx, id); err != nil {
		t.Fatalf("metric names: %v", err)
	}
	left, err := d.Remaining(ctx, id)
	if err != nil {
		t.Fatalf("what is left: %v", err)
	}
	l.Terminal = slices.Collect(left.Terminal.All())
	for i := range left.Open {
		l.Open = append(l.Open, left.Open[i].Index)
	}
	for _, r := range left.Reopened {
		for i := r.Lo; i < r.Hi; i++ {
			l.Open = append(l.Open, i)
		}
	}
	slices.Sort(l.Open)
	checkColumns(t, d, id, l)
	return l
}

// diff compares what a file can distinguish: no metrics and empty ones are the same, and so are ""
// and pending.
func diff(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Transformer("state", func(s grid.State) string {
		if s == "" {
			return string(grid.Pending)
		}
		return string(s)
	}))
}
