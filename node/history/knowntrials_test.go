package history

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// TestKnownIsWhatHasRows folds trials near the bounds of chunks, in any order, reopens the file in
// between, and compares what is known with the rows.
func TestKnownIsWhatHasRows(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		path := filepath.Join(dir, rapid.StringMatching("[a-z]{12}").Draw(t, "file"))
		d := openAt(t, path)
		defer func() { mustClose(t, d) }()
		var want ranges.Set
		for range rapid.IntRange(1, 3).Draw(t, "folds") {
			var events []grid.Event
			for range rapid.IntRange(1, 3).Draw(t, "runs of trials") {
				lo := rapid.Int64Range(0, 3).Draw(t, "chunk")*bitmapTrials + rapid.Int64Range(-3, 66).Draw(t, "offset")
				for i := max(lo, 0); i < lo+
					rapid.SampledFrom([]int64{1, 2, 63, 70, bitmapTrials}).Draw(t, "trials"); i++ {
					events = append(events, finished(i, "{}"))
					want.Add(i, i+1)
				}
			}
			foldEvents(t, d, "s-1", events...)
			if rapid.Bool().Draw(t, "open again") {
				mustClose(t, d)
				d = openAt(t, path)
			}
			left, err := d.Remaining(t.Context(), "s-1")
			if err != nil {
				t.Fatal(err)
			}
			for what, got := range map[string]*ranges.Set{"known": d.Known("s-1"), "terminal": &left.Terminal} {
				if diff := cmp.Diff(slices.Collect(want.All()), slices.Collect(got.All())); diff != "" {
					t.Fatalf("%s (-want +got):\n%s", what, diff)
				}
			}
		}
	})
}

// TestFoldWritesWhatItTellsOf folds every second trial of a large sweep, so that what is known lies
// in as many places as there are trials: a fold then writes as many rows as one with the same
// events in a new sweep, and none of the rows grows.
func TestFoldWritesWhatItTellsOf(t *testing.T) {
	d := open(t)
	written := func(id grid.SweepID, index int64) int64 {
		t.Helper()
		before := countChanges(t, d)
		foldEvents(t, d, id, finished(index, "{}"))
		return countChanges(t, d) - before
	}
	written("new-1", 0)
	want := written("new-1", 2)
	var events []grid.Event
	for i := range int64(20_000) {
		events = append(events, finished(2*i, "{}"))
	}
	foldEvents(t, d, "many-1", events...)
	if got := written("many-1", 10_001); got > want {
		t.Errorf("a fold of one trial changes %d rows, and only %d in a new sweep", got, want)
	}
	for what, most := range map[string]int64{"max(length(summary)) FROM sweep": 1000,
		"max(length(bits)) FROM known": bitmapBytes} {
		if got, err := d.w.integer("SELECT " + what); err != nil || got > most {
			t.Errorf("%s: got %d bytes, %v; want at most %d", what, got, err, most)
		}
	}
	if d.Known("many-1").Len() < 9_000 {
		t.Errorf("the known trials lie in %d places, which shows nothing", d.Known("many-1").Len())
	}
	if err := d.Remove(t.Context(), "many-1"); err != nil {
		t.Fatal(err)
	}
	if n, err := d.w.integer("SELECT count(*) FROM known"); err != nil || n != 1 {
		t.Errorf("got %d chunks, %v, want that of the sweep that is left", n, err)
	}
}

// countChanges returns how many rows the writer has changed.
func countChanges(t *testing.T, d *DB) int64 {
	t.Helper()
	n, err := d.w.integer("SELECT total_changes()")
	if err != nil {
		t.Fatal(err)
	}
	return n
}
