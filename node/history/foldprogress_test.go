package history

import (
	"encoding/json"
	"log/slog"
	"path/filepath"
	"testing"

	"mlfnode/grid"
)

// TestProgress checks that the newest metrics of a running trial are kept, and that what has been
// folded stays as it is.
func TestProgress(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), "h.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	policy := func(grid.SweepID) (Policy, bool) { return Policy{Count: 3}, true }
	told := func(id grid.SweepID, index int64, run string, time int64, loss string) *grid.Batch {
		return &grid.Batch{V: grid.EventVersion, Sweep: id, Node: "n", Events: []grid.Event{{
			Kind: grid.Metrics, Index: index, Attempt: 1, Run: run, Time: time,
			Metrics: grid.Metric{"loss": json.RawMessage(loss)},
		}}}
	}
	_, err = d.Fold(t.Context(), []Stored{{Seq: 7,
		Batch: &grid.Batch{V: grid.EventVersion, Sweep: "a-1", Node: "n", Events: []grid.Event{
			{Kind: grid.Started, Index: 1, Attempt: 1, Run: "n.1.1", Time: 5},
		}}}}, policy)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		batch *grid.Batch
		want  string
	}{
		{told("a-1", 1, "n.1.1", 10, "0.5"), "0.5"}, {told("a-1", 1, "n.1.1", 20, "0.25"), "0.25"},
		{told("a-1", 1, "n.1.1", 15, "9"), "0.25"},  // older
		{told("a-1", 1, "n.1.1", 20, "8"), "0.25"},  // repeated
		{told("a-1", 1, "n.1.9", 30, "7"), "0.25"},  // another run
		{told("a-1", 2, "n.1.2", 30, "6"), "0.25"},  // of which nothing is known
		{told("a-1", 99, "n.1.3", 30, "5"), "0.25"}, // not a trial of the sweep
		{told("b-1", 1, "n.1.1", 30, "4"), "0.25"},  // a sweep that history does not know
	} {
		if err := d.FoldProgress(t.Context(), []*grid.Batch{c.batch}, policy); err != nil {
			t.Fatal(err)
		}
		trial, ok, err := d.Trial(t.Context(), grid.TrialID{Sweep: "a-1", Index: 1})
		if err != nil || !ok || string(trial.Result.Metrics["loss"]) != c.want || trial.State != grid.Running {
			t.Errorf("after %+v: got %+v, %v; want loss %s", c.batch.Events[0], trial, err, c.want)
		}
	}
	if d.Applied() != 7 {
		t.Errorf("applied: got %d, want 7", d.Applied())
	}
	if n, _ := d.Counts(t.Context(), "b-1"); n != (Counts{}) {
		t.Errorf("a sweep that no event has told of has counts: %+v", n)
	}
}
