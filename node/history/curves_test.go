package history

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// curved adds the curve of a metric to an event.
func curved(e grid.Event, metric string, points ...grid.Point) grid.Event {
	curves := grid.Curves{metric: grid.PackCurve(points)}
	if e.Kind == grid.Metrics {
		e.Curves = curves
	} else {
		e.Result.Curves = curves
	}
	return e
}

// curvesOf returns all curves of a trial as text.
func curvesOf(t *testing.T, d *DB, index int64) []string {
	t.Helper()
	all, err := d.TrialCurves(t.Context(), grid.TrialID{Sweep: "s-1", Index: index})
	if err != nil {
		t.Fatal(err)
	}
	text := []string{}
	for _, c := range all {
		text = append(text, fmt.Sprint(c.Run, " ", c.Metric, " ", c.Points))
	}
	return text
}

// TestCurves follows the curves of a trial through its attempts: live, failed, retried, superseded
// and reconnected. They are in the file, and folding the events once more gives the same.
func TestCurves(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	d := openAt(t, path)
	event := func(kind grid.EventKind, run string, attempt int, time int64) grid.Event {
		return grid.Event{Kind: kind, Index: 5, Attempt: attempt, Run: run, Time: time}
	}
	metrics := grid.Metric{"loss": []byte("1")}
	told := event(grid.Metrics, "a", 1, 20)
	told.Metrics = metrics
	failed := event(grid.Finished, "a", 1, 30)
	failed.Result = &grid.Result{Class: grid.ClassExit, ExitCode: 1, Started: 10, Metrics: metrics}
	second := event(grid.Started, "b", 2, 40)
	lost := event(grid.Fenced, "b", 2, 60)
	lost.Result, lost.Away = &grid.Result{Class: grid.ClassLost}, true
	told2 := event(grid.Metrics, "b", 2, 50)
	told2.Metrics = metrics
	third := event(grid.Started, "c", 3, 70)
	back := event(grid.Reconnected, "b", 2, 80)
	back.Result, back.Node = &grid.Result{Started: 40, Reason: "back"}, "n"
	won := event(grid.Finished, "b", 2, 90)
	won.Result = &grid.Result{Started: 40, Metrics: metrics}
	late := event(grid.Finished, "c", 3, 95)
	late.Result = &grid.Result{Started: 70, Metrics: metrics}
	retried := func(grid.SweepID) (Policy, bool) {
		return Policy{Retries: grid.Retries{grid.ClassExit: 5}}, true
	}
	fold := func(d *DB, events ...grid.Event) {
		t.Helper()
		if _, err := d.Fold(t.Context(),
			[]Stored{{Seq: d.Applied() + 1, Batch: &grid.Batch{Sweep: "s-1", Node: "n", Events: events}}},
			retried); err != nil {
			t.Fatal(err)
		}
	}
	point := func(v float32) []grid.Point { return []grid.Point{{Step: 1, Value: v}, {Step: 2, Value: v}} }
	events := []grid.Event{
		event(grid.Started, "a", 1, 10), curved(told, "loss", point(1)...), curved(failed, "loss", point(2)...), second,
		curved(told2, "loss", point(3)...), lost, third, back, curved(won, "loss", point(4)...),
		curved(late, "loss", point(5)...),
	}
	wants := [][]string{
		{}, {"a loss [{1 1} {2 1}]"}, {"a loss [{1 2} {2 2}]"}, {"a loss [{1 2} {2 2}]"},
		{"b loss [{1 3} {2 3}]", "a loss [{1 2} {2 2}]"}, {"b loss [{1 3} {2 3}]", "a loss [{1 2} {2 2}]"},
		{"a loss [{1 2} {2 2}]", "b loss [{1 3} {2 3}]"}, {"b loss [{1 3} {2 3}]", "a loss [{1 2} {2 2}]"},
		{"b loss [{1 4} {2 4}]", "a loss [{1 2} {2 2}]"},
		{"b loss [{1 4} {2 4}]", "a loss [{1 2} {2 2}]", "c loss [{1 5} {2 5}]"},
	}
	for i, e := range events {
		fold(d, e)
		if diff := cmp.Diff(wants[i], curvesOf(t, d, 5)); diff != "" {
			t.Fatalf("after %s of %s:\n%s", e.Kind, e.Run, diff)
		}
		mustClose(t, d)
		d = openAt(t, path)
	}
	got, err := d.Curves(t.Context(), "s-1", "loss", []int64{4, 5, 6})
	if diff := cmp.Diff(map[int64][]grid.Point{5: point(4)}, got); err != nil || diff != "" {
		t.Errorf("of the result: %v\n%s", err, diff)
	}
	mustClose(t, d)
	again := open(t)
	fold(again, events...)
	if diff := cmp.Diff(wants[len(wants)-1], curvesOf(t, again, 5)); diff != "" {
		t.Errorf("folded at once:\n%s", diff)
	}
	if err := again.Remove(t.Context(), "s-1"); err != nil {
		t.Fatal(err)
	}
	if n, err := again.w.integer("SELECT count(*) FROM curve"); err != nil || n != 0 {
		t.Errorf("a removed sweep leaves %d curves, %v", n, err)
	}
}

// TestStrangeCurves folds curves that no correct node sends: they are dropped, and the rest is
// kept.
func TestStrangeCurves(t *testing.T) {
	d := open(t)
	e := finished(1, `{"loss": 1, "acc": 2}`)
	e.Result.Curves = grid.Curves{"acc": []byte("nonsense"), "loss": grid.PackCurve([]grid.Point{{Step: 1, Value: 1}}),
		"": nil, "unknown": grid.PackCurve(nil)}
	for i := range 100 {
		e.Result.Curves[fmt.Sprint("x", i)] = grid.PackCurve([]grid.Point{{Step: 1, Value: 1}})
	}
	foldEvents(t, d, "s-1", e)
	if diff := cmp.Diff([]string{"r1 loss [{1 1}]"}, curvesOf(t, d, 1)); diff != "" {
		t.Error(diff)
	}
}

// TestCurvesAreBounded checks that all curves are kept up to a limit, some of them up to twice as
// many bytes, and no more.
func TestCurvesAreBounded(t *testing.T) {
	d := open(t)
	d.maxCurveBytes = 10_000
	points := make([]grid.Point, grid.MaxPoints)
	size := int64(len(grid.PackCurve(points)))
	kept := func() int64 {
		t.Helper()
		n, err := d.w.integer("SELECT count(*) FROM curve")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	fold := func(sweep grid.SweepID, trials int64) {
		for i := range trials {
			foldEvents(t, d, sweep, curved(finished(i, `{"loss": 1}`), "loss", points...))
		}
	}
	full := d.maxCurveBytes/size + 1
	fold("s-1", full/2)
	fold("s-2", full-full/2)
	if share := d.CurveShare(); share != grid.SomeCurves {
		t.Errorf("at the limit: got share %d, want some", share)
	}
	if got := kept(); got != full {
		t.Errorf("below the limit: got %d curves, want %d", got, full)
	}
	fold("s-3", 160)
	if got := kept() - full; got < 5 || got > 15 {
		t.Errorf("of 160 trials above the limit %d have curves, want about 10", got)
	}
	fold("s-4", 100*full/2)
	if share := d.CurveShare(); share != grid.NoCurves {
		t.Errorf("at twice the limit: got share %d, want none", share)
	}
	if got, most := kept(), 2*d.maxCurveBytes/size+1; got > most {
		t.Errorf("got %d curves, want at most %d", got, most)
	}
}

var earlierColumnNames = []string{
	"earlier_started", "earlier_ended", "earlier_wall", "earlier_cpu", "earlier_memory",
	"earlier_metrics", "earlier_detail",
}

// TestHistoryOfEarlierVersions opens files that lack only some tables: these are added, and
// everything else stays as it is.
func TestHistoryOfEarlierVersions(t *testing.T) {
	overlay := "DROP TABLE overlay;"
	for _, column := range earlierColumnNames {
		overlay += "ALTER TABLE trial DROP COLUMN " + column + ";"
	}
	reopened := overlay + "ALTER TABLE trial DROP COLUMN reopened;"
	stream := reopened + "ALTER TABLE meta DROP COLUMN stream; ALTER TABLE meta DROP COLUMN unread;"
	known := stream +
		fmt.Sprintf(
			"DROP TABLE known; UPDATE sweep SET summary = json_set(summary, '$.known', json('[[1, 2]]')) WHERE id = 's-1';"+
				"UPDATE sweep SET summary = json_set(summary, '$.known', json('[[0, %[1]d], [%[1]d, %[2]d]]')) WHERE id = 'a-1';",
			blockTrials, 2*blockTrials)
	ended := known + fmt.Sprintf("DELETE FROM piece WHERE id >> %d = %d;", chunkIDBits, ColumnEnded)
	for version, drop := range map[int]string{
		withoutCurves: ended + "DROP TABLE curve; DROP TABLE sample;", withoutSamples: ended + "DROP TABLE sample;",
		withoutEnded: ended,
		withoutKnown: known, withoutStream: stream, withoutReopened: reopened, withoutOverlay: overlay,
	} {
		t.Run(fmt.Sprint(version), func(t *testing.T) { checkEarlier(t, version, drop) })
	}
}

func checkEarlier(t *testing.T, version int, drop string) {
	path := filepath.Join(t.TempDir(), "history.db")
	d := openAt(t, path)
	foldEvents(t, d, "s-1", finished(1, `{"loss": 1}`))
	var many []grid.Event
	for i := range int64(2 * blockTrials) {
		many = append(many, finished(i, `{"loss": 0.1}`))
		many[i].Time = 1e15 + (i*7919%1000)*1e5
	}
	foldEvents(t, d, "a-1", many...)
	q := Query{Sort: SortEnded, Limit: 40, Offset: 700}
	want := indexes(t, d, q)
	mustClose(t, d)
	d = openAt(t, path)
	if err := d.w.script(fmt.Sprintf("%s PRAGMA user_version = %d", drop, version)); err != nil {
		t.Fatal(err)
	}
	mustClose(t, d)
	d = openAt(t, path)
	defer mustClose(t, d)
	if n, _ := d.Counts(t.Context(), "s-1"); d.Applied() != 2 || n.Succeeded != 1 {
		t.Errorf("got applied %d and %+v, want what was folded", d.Applied(), n)
	}
	// which tells the master that an earlier version has folded it
	if o := d.Origin(); version <= withoutStream && o != (Origin{}) {
		t.Errorf("got origin %+v, want none", o)
	}
	for id, want := range map[grid.SweepID]ranges.Range{"s-1": {Lo: 1, Hi: 2}, "a-1": {Lo: 0, Hi: 2 * blockTrials}} {
		if got := slices.Collect(d.Known(id).All()); len(got) != 1 || got[0] != want {
			t.Errorf("known of %s: got %v, want %v", id, got, want)
		}
	}
	if n, err := d.w.integer("SELECT count(*) FROM sweep WHERE summary LIKE '%\"known\"%'"); err != nil || n != 0 {
		t.Errorf("%d summaries have ranges still, %v", n, err)
	}
	d.minColumnRows = 0
	if diff := cmp.Diff(want, indexes(t, d, q)); diff != "" {
		t.Errorf("by end (-want +got):\n%s", diff)
	}
	if err := d.StoreSamples(t.Context(), []grid.NodeID{"a"}, func(grid.NodeID) ([]byte, error) {
		return []byte{1}, nil
	}); err != nil {
		t.Error(err)
	}
	foldEvents(t, d, "s-1", curved(finished(2, `{"loss": 1}`), "loss", grid.Point{Step: 1, Value: 2}))
	if diff := cmp.Diff([]string{"r2 loss [{1 2}]"}, curvesOf(t, d, 2)); diff != "" {
		t.Error(diff)
	}
}

// TestSamplesAreKept checks that the samples that were kept last are returned, from the file and
// after history was rebuilt from the events. Other nodes write in between.
func TestSamplesAreKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	d := openAt(t, path)
	for round, want := range []map[grid.NodeID][]byte{{"a": {1, 2}, "b": {3}}, {"b": {4}}, {}} {
		index := int64(10 * round)
		err := d.StoreSamples(t.Context(), slices.Sorted(maps.Keys(want)), func(node grid.NodeID) ([]byte, error) {
			foldEvents(t, d, "s-1", finished(index, "{}"))
			index++
			return want[node], nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustClose(t, d)
		d = openAt(t, path)
		got, err := d.Samples()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	mustClose(t, d)
}
