package history

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid"
)

// TestRetriesAgreeWithModel ends and retries ranges of trials at random, and opens and rebuilds the
// file in between: listings, counts, columns and what remains are those of the pure fold.
func TestRetriesAgreeWithModel(t *testing.T) {
	const count = blockTrials + 50
	dir, files := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		files++
		d := openAt(t, filepath.Join(dir, fmt.Sprintf("%d.db", files)))
		defer func() { mustClose(t, d) }()
		m := &model{
			policies: map[grid.SweepID]Policy{"a-1": {Count: count, Metric: "loss"}},
			trials:   map[grid.SweepID]map[int64]*grid.Trial{}, counts: map[grid.SweepID]*Counts{},
		}
		anyRange := func() (lo, hi int64) {
			lo = rapid.Int64Range(0, count-1).Draw(t, "from")
			return lo, lo + rapid.SampledFrom([]int64{1, 2, 20, blockTrials, count}).Draw(t, "trials")
		}
		var stored []Stored
		for round := range rapid.Int64Range(2, 5).Draw(t, "rounds") {
			var events []grid.Event
			for part := range rapid.Int64Range(1, 3).Draw(t, "parts") {
				lo, hi := anyRange()
				at := 1000*round + part + 1
				if rapid.IntRange(0, 2).Draw(t, "kind") == 0 {
					events = append(events, grid.Event{Kind: grid.ReopenedRange, Index: lo, End: hi, Time: at})
					continue
				}
				class := rapid.SampledFrom(classes()).Draw(t, "class")
				for i := lo; i < min(hi, count); i++ {
					e := finished(i, fmt.Sprintf(`{"loss": %d}`, i%7))
					e.Attempt, e.Run, e.Time, e.Result.Class = int(round)+1, fmt.Sprintf("n.%d.%d.%d", round, part, i), at, class
					e.Result.Usage.Memory, e.Result.Started = 10*i+round, at-1
					events = append(events, e)
				}
			}
			stored = append(stored, Stored{Seq: uint64(round) + 1, Batch: &grid.Batch{Sweep: "a-1", Node: "n", Events: events}})
			if rapid.Bool().Draw(t, "small cache") {
				d.blocks.limit = 0
			}
			if _, err := d.Fold(t.Context(), stored, m.policy); err != nil {
				t.Fatal(err)
			}
			m.apply(stored[round].Batch)
			listSweep(t, d, "a-1") // compares the columns, of which only the blocks that have changed are read again
			switch rapid.IntRange(0, 3).Draw(t, "restart") {
			case 0:
				mustClose(t, d)
				d = openAt(t, d.path)
			case 1: // without what is in memory, as after a crash
				if err := d.load(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if rapid.Bool().Draw(t, "rebuild") {
			if err := d.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Fold(t.Context(), stored, m.policy); err != nil {
				t.Fatal(err)
			}
		}
		checkSweep(t, m, listSweep(t, d, "a-1"), "a-1")
		trials, _ := m.listing("a-1")
		for _, columns := range []bool{false, true} {
			d.minColumnRows = 0
			if !columns {
				d.minColumnRows = minColumnRows
			}
			checkListings(t, d, trials)
		}
	})
}

// checkListings compares listings with states and in orders that a retry changes.
func checkListings(t *rapid.T, d *DB, trials []grid.Trial) {
	t.Helper()
	for _, q := range []Query{
		{States: []grid.State{grid.Pending}}, {States: []grid.State{grid.Failed, grid.Cancelled}, Limit: 300},
		{Sort: SortState, Limit: 540}, {Sort: SortState, Desc: true, Limit: 30, Offset: 200},
		{Sort: SortMemory, States: []grid.State{grid.Pending}, Limit: 40}, {Sort: SortAttempts, Desc: true, States: []grid.State{grid.Failed}},
	} {
		var want []int64
		sorted := slices.Clone(trials)
		l := &listing{selection{q, d.sweep("a-1")}, &d.reader}
		slices.SortStableFunc(sorted, func(a, b grid.Trial) int {
			place := func(t *grid.Trial) candidate {
				return candidate{rowID(l.sweep.Number, t.Index), CursorOf(t, q.Sort, "loss").Value}
			}
			if q.Sort == "" {
				return int(a.Index - b.Index)
			}
			return l.compare(place(&a), place(&b))
		})
		for _, trial := range sorted {
			if state := trial.State; len(q.States) == 0 || slices.Contains(q.States, state) || state == "" && slices.Contains(q.States, grid.Pending) {
				want = append(want, trial.Index)
			}
		}
		want = want[min(int(q.Offset), len(want)):]
		if q.Limit > 0 {
			want = want[:min(int(q.Limit), len(want))]
		}
		var got []int64
		for trial, err := range d.Trials(t.Context(), "a-1", q) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, trial.Index)
		}
		if delta := diff(want, got); delta != "" {
			t.Fatalf("%+v (-want +got):\n%s", q, delta)
		}
	}
}
