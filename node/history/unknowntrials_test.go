package history

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/grid"
)

// TestStrangeEventsAreSkippedAndLoggedOnce folds events about trials that a sweep does not have,
// among others about trials that it has.
func TestStrangeEventsAreSkippedAndLoggedOnce(t *testing.T) {
	var said strings.Builder
	d, err := Open(filepath.Join(t.TempDir(), "h.db"), slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	policy := func(grid.SweepID) (Policy, bool) { return Policy{Count: 3}, true }
	for seq := uint64(1); seq <= 20; seq++ {
		b := &grid.Batch{V: grid.EventVersion, Sweep: grid.SweepID("a-" + string('1'+rune(seq%2))), Node: "n"}
		for _, i := range []int64{-5, 1, 3, 4, 1 << 41, 1 << 50} {
			run := "n.1." + string('a'+rune(seq)) + string('a'+rune(i&15))
			b.Events = append(b.Events,
				grid.Event{Kind: grid.Finished, Index: i, Attempt: 1, Run: run, Time: 2,
					Result: &grid.Result{Started: 1}})
		}
		changed, err := d.Fold(t.Context(), []Stored{{Seq: seq, Batch: b}}, policy)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changed {
			if c.Index != 1 {
				t.Errorf("trial %d has changed, which is not there", c.Index)
			}
		}
	}
	for _, id := range []grid.SweepID{"a-1", "a-2"} {
		n, err := d.Counts(t.Context(), id)
		if err != nil || n.Done() != 1 {
			t.Errorf("%s: got %+v, %v; want one ended", id, n, err)
		}
		for trial, err := range d.Trials(t.Context(), id, Query{}) {
			if err != nil || trial.Index != 1 {
				t.Errorf("%s lists trial %d, %v", id, trial.Index, err)
			}
		}
	}
	if n := strings.Count(said.String(), "\n"); n != 2 {
		t.Errorf("got %d lines of log, want one for each sweep:\n%s", n, said.String())
	}
	if d.Applied() != 20 {
		t.Errorf("applied: got %d, want 20", d.Applied())
	}
}
