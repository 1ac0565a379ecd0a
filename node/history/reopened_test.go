package history

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/gridtest"
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
				run := func(i int64) string { return fmt.Sprintf("n.%d.%d.%d", round, part, i) }
				kind := rapid.SampledFrom([]grid.EventKind{
					grid.ReopenedRange, grid.ReopenedRange, grid.Finished, grid.Finished, grid.Finished,
					grid.Reopened, grid.Started, grid.Withdrawn,
				}).Draw(t, "kind")
				switch kind {
				case grid.ReopenedRange:
					events = append(events, grid.Event{Kind: kind, Index: lo, End: hi, Time: at})
					continue
				case grid.Reopened, grid.Started, grid.Withdrawn:
					for i := lo; i < min(hi, lo+30, count); i++ {
						e := grid.Event{Kind: kind, Index: i, Time: at}
						if kind == grid.Started {
							e.Attempt, e.Run = int(round)+1, run(i)
						} else if kind == grid.Withdrawn {
							e.Result = &grid.Result{Class: grid.ClassCancel}
						}
						events = append(events, e)
					}
					continue
				}
				class := rapid.SampledFrom(classes()).Draw(t, "class")
				for i := lo; i < min(hi, count); i++ {
					e := finished(i, fmt.Sprintf(`{"loss": %d}`, i%7))
					e.Attempt, e.Run, e.Time, e.Result.Class = int(round)+1, run(i), at, class
					e.Result.Usage.Memory, e.Result.Started = 10*i+round, at-1
					events = append(events, e)
				}
			}
			stored = append(stored, Stored{Seq: uint64(round) + 1,
				Batch: &grid.Batch{Sweep: "a-1", Node: "n", Events: events}})
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
			whole := listSweep(t, d, "a-1")
			if err := d.Reset(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Fold(t.Context(), stored, m.policy); err != nil {
				t.Fatal(err)
			}
			if delta := diff(whole, listSweep(t, d, "a-1")); delta != "" {
				t.Fatalf("rebuilt (-incremental +rebuilt):\n%s", delta)
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
		{States: []grid.State{grid.Running}}, {States: []grid.State{grid.Pending}},
		{States: []grid.State{grid.Failed, grid.Cancelled}, Limit: 300},
		{States: []grid.State{grid.Pending}, Limit: 20, Offset: 30},
		{States: []grid.State{grid.Failed}, Desc: true, Limit: 600},
		{States: []grid.State{grid.Failed}, From: 40},
		{States: []grid.State{grid.Pending}, Desc: true, After: &Cursor{Index: 500}},
		{Sort: SortState, Limit: 540}, {Sort: SortState, Desc: true, Limit: 30, Offset: 200},
		{Sort: SortMemory, States: []grid.State{grid.Pending}, Limit: 40},
		{Sort: SortAttempts, Desc: true, States: []grid.State{grid.Failed}},
	} {
		var want []int64
		sorted := slices.Clone(trials)
		l := &listing{selection{q, d.sweep("a-1")}, &d.reader}
		slices.SortStableFunc(sorted, func(a, b grid.Trial) int {
			place := func(t *grid.Trial) candidate {
				return candidate{rowID(l.sweep.Number, t.Index), CursorOf(t, q.Sort, "loss").Value}
			}
			if q.Sort == "" {
				if q.Desc {
					return int(b.Index - a.Index)
				}
				return int(a.Index - b.Index)
			}
			return l.compare(place(&a), place(&b))
		})
		for _, trial := range sorted {
			// After is used in descending order
			if trial.Index < q.From || q.After != nil && trial.Index >= q.After.Index {
				continue
			}
			if state := trial.State; len(q.States) == 0 || slices.Contains(q.States, state) || state == "" &&
				slices.Contains(q.States, grid.Pending) {
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

// TestRetryOfAnEarlierVersion opens a file in which a retry has changed rows, as version 12 did:
// the trial is pending, and both its attempts are known when it has run again.
func TestRetryOfAnEarlierVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	d := openAt(t, path)
	failed := finished(1, "{}")
	failed.Result.Class = grid.ClassExit
	foldEvents(t, d, "a-1", failed)
	script := fmt.Sprintf("UPDATE trial SET state = %d, reopened = 5000; DROP TABLE overlay; PRAGMA user_version = %d;",
		stateCode(grid.Pending), withoutOverlay)
	for _, column := range earlierColumnNames {
		script += "ALTER TABLE trial DROP COLUMN " + column + ";"
	}
	if err := d.w.script(script); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	d = openAt(t, path)
	defer func() { mustClose(t, d) }()
	id := grid.TrialID{Sweep: "a-1", Index: 1}
	if trial, _, err := d.Trial(t.Context(), id); err != nil || trial.State != grid.Pending ||
		trial.Retried != 5000 || trial.Floor != 1 {
		t.Errorf("got %+v, %v, want a trial that was reopened after one attempt", trial, err)
	}
	again := finished(1, "{}")
	again.Attempt, again.Run, again.Time = 2, "again", 6000
	foldEvents(t, d, "a-1", again)
	attempts, err := d.Attempts(t.Context(), id)
	if err != nil || len(attempts) != 2 || attempts[0].Outcome != IsRetried || attempts[1].Run != "again" {
		t.Errorf("got attempts %+v, %v, want both", attempts, err)
	}
}

// TestReopenedRowsStay retries a range of trials: their rows change only when they have run again,
// and history has no overlay when all have. The first attempt of each is kept beside the second,
// and both are when a third one follows.
func TestReopenedRowsStay(t *testing.T) {
	const count = 3 * blockTrials
	d := open(t)
	end := func(lo, hi int64, attempt int, class grid.Class) {
		t.Helper()
		var events []grid.Event
		for i := lo; i < hi; i++ {
			e := finished(i, "{}")
			e.Attempt, e.Run, e.Time, e.Result.Class = attempt, fmt.Sprintf("r%d.%d", i, attempt),
				10_000*int64(attempt), class
			events = append(events, e)
		}
		foldEvents(t, d, "a-1", events...)
	}
	rows := func(where string) int64 {
		t.Helper()
		n, err := d.w.integer("SELECT count(*) FROM " + where)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	end(0, count, 1, grid.ClassExit)
	changed := foldEvents(t, d, "a-1", grid.Event{Kind: grid.ReopenedRange, Index: 0, End: count, Time: 50_000})
	if len(changed) != 1 || changed[0].Index != 0 || changed[0].End != count {
		t.Errorf("got changes %+v, want one of %d trials", changed, count)
	}
	if failed, ranges := rows(fmt.Sprintf("trial WHERE state = %d", stateCode(grid.Failed))),
		rows("overlay"); failed != count || ranges != 1 {
		t.Errorf("%d rows are of failed trials, and the overlay has %d ranges; want %d and 1", failed, ranges, count)
	}
	if c, _ := d.Counts(t.Context(), "a-1"); c.Retrying != count || c.Failed != 0 || c.CPU != 0 || c.Wall != 0 {
		t.Errorf("got %+v, want all trials pending", c)
	}
	end(0, count, 2, grid.ClassExit)
	if n, ranges := rows("attempt"), rows("overlay"); n != 0 || ranges != 0 {
		t.Errorf("got %d rows of attempts and %d ranges, want none", n, ranges)
	}
	foldEvents(t, d, "a-1", grid.Event{Kind: grid.ReopenedRange, Index: 0, End: 10, Time: 60_000})
	end(0, 10, 3, grid.ClassNone)
	for index, want := range map[int64]int{5: 3, count - 1: 2} {
		attempts, err := d.Attempts(t.Context(), grid.TrialID{Sweep: "a-1", Index: index})
		if err != nil || len(attempts) != want {
			t.Fatalf("trial %d: got %d attempts, %v, want %d", index, len(attempts), err, want)
		}
		for i, a := range attempts {
			outcome := IsRetried
			if i == want-1 {
				outcome = IsResult
			}
			if a.Number != i+1 || a.Run != fmt.Sprintf("r%d.%d", index, i+1) || a.Ended != int64(10_000*(i+1)) ||
				a.Outcome != outcome {
				t.Errorf("attempt %d of trial %d: got %+v, want outcome %s", i+1, index, a, outcome)
			}
		}
	}
}

// TestFullDiskBesideARetry fills the disk while second attempts end and another trial is retried:
// nothing of the failed fold is stored, and the same events count once there is room.
func TestFullDiskBesideARetry(t *testing.T) {
	const count, again = 2 * BlockTrials, BlockTrials
	dir := gridtest.SmallDisk(t, "32m", 0)
	d := openAt(t, filepath.Join(dir, "history.db"))
	defer func() { mustClose(t, d) }()
	failAll(t, d, count)
	foldEvents(t, d, "s-1", grid.Event{Kind: grid.ReopenedRange, Index: 0, End: again, Time: 5000})
	var events []grid.Event
	for i := range int64(again) {
		e := finished(i, "{}")
		e.Attempt, e.Run, e.Time = 2, fmt.Sprintf("again%d", i), 6000
		e.Result.Class, e.Result.Reason = grid.ClassExit, strings.Repeat("x", 12<<10)
		events = append(events, e)
	}
	events = append(events, grid.Event{Kind: grid.Reopened, Index: again, Time: 7000})
	batch := []Stored{{Seq: d.Applied() + 1, Batch: &grid.Batch{Sweep: "s-1", Node: "n", Events: events}}}

	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, int64(disk.Bavail)*disk.Bsize-3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Fold(t.Context(), batch, objectivePolicy); !IsFull(err) {
		t.Fatalf("got %v, want that the disk is full", err)
	}
	id := grid.TrialID{Sweep: "s-1", Index: again}
	if trial, _, err := d.Trial(t.Context(), id); err != nil || trial.State != grid.Failed {
		t.Errorf("after the failed fold: got %s, %v, want %s", trial.State, err, grid.Failed)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	changed, err := d.Fold(t.Context(), batch, objectivePolicy)
	if err != nil {
		t.Fatal(err)
	}
	reopened := 0
	for _, c := range changed {
		if c.Change == grid.Reopen {
			reopened++
		}
	}
	counts, _ := d.Counts(t.Context(), "s-1") // from memory
	if reopened != 1 || counts.Failed != count-1 || counts.Retrying != 1 {
		t.Errorf("got %d transitions of a retry, and counts %+v; want 1, with %d failed and 1 retrying",
			reopened, counts, count-1)
	}
}

// TestListingBesideARetry lists failed trials while they are retried: none that it yields is
// pending.
func TestListingBesideARetry(t *testing.T) {
	const count = 4 * BlockTrials
	d := open(t)
	failAll(t, d, count)
	yielded := 0
	for trial, err := range d.Trials(t.Context(), "s-1", Query{States: []grid.State{grid.Failed}}) {
		if err != nil {
			t.Fatal(err)
		}
		if yielded++; trial.State != grid.Failed {
			t.Fatalf("got trial %d, which is %s", trial.Index, trial.State)
		}
		if yielded == 1 {
			foldEvents(t, d, "s-1", grid.Event{Kind: grid.ReopenedRange, Index: 0, End: count, Time: 5000})
		}
	}
	if yielded == 0 || yielded == count {
		t.Errorf("got %d trials, want those of the pages that were read before the retry", yielded)
	}
	for _, states := range [][]grid.State{{grid.Running}, {grid.Succeeded}} {
		for range d.Trials(t.Context(), "s-1", Query{States: states}) {
			t.Errorf("got a trial that is %v", states)
		}
	}
	if len(d.columns.sets) != 0 {
		t.Error("columns were read for states that no retry changes")
	}
}
