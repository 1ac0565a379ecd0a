package history

import (
	"math"
	"path/filepath"
	"slices"
	"testing"

	"mlfnode/grid"
)

// checkColumns checks that the columns of a sweep agree with its rows.
func checkColumns(t tester, d *DB, id grid.SweepID, l testListing) {
	t.Helper()
	wanted := []Column{ColumnStarted, ColumnWall, ColumnCPU, ColumnMemory}
	for place := range min(len(l.Names), maxMetricColumns) {
		wanted = append(wanted, ColumnMetric(place))
	}
	c, err := d.Columns(t.Context(), id, 0, wanted...)
	if err != nil {
		t.Fatalf("read columns: %v", err)
	}
	known := 0
	for _, state := range c.State {
		if state > 0 {
			known++
		}
	}
	if known != len(l.Trials) {
		t.Fatalf("trials of %s in columns: got %d, want %d", id, known, len(l.Trials))
	}
	same := func(what string, trial int64, got, want float64) {
		if math.Float32bits(float32(got)) != math.Float32bits(float32(want)) && !(math.IsNaN(got) && math.IsNaN(want)) {
			t.Fatalf("%s of %s/%d: got %v, want %v", what, id, trial, got, want)
		}
	}
	for _, trial := range l.Trials {
		at, ok := slices.BinarySearch(c.Blocks, trial.Index&^(BlockTrials-1))
		if !ok {
			t.Fatalf("%s/%d is in no block of %v", id, trial.Index, c.Blocks)
		}
		i := at*BlockTrials + int(trial.Index&(BlockTrials-1))
		if got, want := c.State[i], uint8(stateCode(trial.State)+1); got != want {
			t.Fatalf("state of %s/%d: got %d, want %d", id, trial.Index, got, want)
		}
		if trial.Node != "" && c.Nodes[c.Node[i]-1] != trial.Node {
			t.Fatalf("node of %s/%d: got %s, want %s", id, trial.Index, c.Nodes[c.Node[i]-1], trial.Node)
		}
		class := grid.Class("")
		if n := c.Class[i]; n > 0 {
			class = c.Classes[n-1]
		}
		if class != trial.Result.Class {
			t.Fatalf("class of %s/%d: got %q, want %q", id, trial.Index, class, trial.Result.Class)
		}
		failed := trial.Result.Class != grid.ClassNone && trial.Result.Class != grid.ClassCancel
		if n := c.Cause[i]; failed != (n > 0) || (n > 0 && n != OtherCause && c.Causes[n-1].Class != class) {
			t.Fatalf("cause of %s/%d, which is %q: got %d", id, trial.Index, class, n)
		}
		memory := math.NaN()
		if trial.Result.Usage.Memory > 0 {
			memory = float64(trial.Result.Usage.Memory)
		}
		same("memory", trial.Index, float64(c.Values[ColumnMemory][i]), memory)
		for place, name := range l.Names[:min(len(l.Names), maxMetricColumns)] {
			want, _ := metricNumber(trial.Result.Metrics[name])
			same(name, trial.Index, float64(c.Values[ColumnMetric(place)][i]), want)
		}
	}
}

// TestColumnsOfSomeBlocks reads a part of a large sweep.
func TestColumnsOfSomeBlocks(t *testing.T) {
	d := open(t)
	d.blocks.limit = 3 * smallBytes
	var events []grid.Event
	for i := range int64(20 * BlockTrials) {
		if i/BlockTrials != 7 { // a hole
			events = append(events, finished(i, `{"loss": 0.5}`))
		}
	}
	foldEvents(t, d, "s-1", events...)
	var again []grid.Event // from blocks that have been evicted from memory
	for i := range int64(20) {
		again = append(again, grid.Event{Kind: grid.Reopened, Index: i * BlockTrials, Attempt: 1})
	}
	foldEvents(t, d, "s-1", again...)
	held := 0
	for _, b := range d.blocks.cached {
		held += b.size()
	}
	if held != d.blocks.bytes || held > d.blocks.limit {
		t.Errorf("blocks in memory: %d bytes, counted as %d, want at most %d", held, d.blocks.bytes, d.blocks.limit)
	}
	all, err := d.Columns(t.Context(), "s-1", 0, ColumnObjective)
	if err != nil || len(all.Blocks) != 19 || all.Stride != 1 {
		t.Fatalf("all: got %d blocks, every %d., %v, want 19 and every one", len(all.Blocks), all.Stride, err)
	}
	some, err := d.Columns(t.Context(), "s-1", 5*BlockTrials, ColumnObjective)
	if err != nil || some.Stride != 4 || len(some.Blocks) < 4 || len(some.Blocks) > 5 {
		t.Fatalf("some: got %v, every %d., %v", some.Blocks, some.Stride, err)
	}
	for i, b := range some.Blocks { // one of every four
		if at := slices.Index(all.Blocks, b); at < 0 || at/4 != i {
			t.Errorf("block %d is in place %d", b, at)
		}
	}
	for i, v := range some.Values[ColumnObjective] {
		if v != 0.5 || some.State[i] == 0 {
			t.Fatalf("row %d: got %v in state %d, want 0.5", i, v, some.State[i])
		}
	}
}

// TestPartsDoNotAlias reads one of four blocks of a sweep with an axis whose values repeat every
// four blocks: all of its values are included.
func TestPartsDoNotAlias(t *testing.T) {
	d := open(t)
	var events []grid.Event
	for i := range int64(200) {
		events = append(events, finished(i*BlockTrials, `{"loss": 0.5}`))
	}
	foldEvents(t, d, "s-1", events...)
	var first []int64
	for range 2 {
		c, err := d.Columns(t.Context(), "s-1", 50*BlockTrials)
		if err != nil || c.Stride != 4 {
			t.Fatalf("got every %d. block, %v", c.Stride, err)
		}
		var seen [4]int
		for _, b := range c.Blocks {
			seen[b/BlockTrials%4]++
		}
		if slices.Min(seen[:]) < 3 {
			t.Errorf("of the four values of the axis there are %v blocks", seen)
		}
		if first != nil && !slices.Equal(first, c.Blocks) {
			t.Error("another time other blocks are read")
		}
		first = c.Blocks
	}
}

// TestLeavingBlocksAreSeen reads a sweep while its blocks are evicted from memory in a transaction
// that has not ended.
func TestLeavingBlocksAreSeen(t *testing.T) {
	d := open(t)
	var events []grid.Event
	for i := range int64(3) {
		events = append(events, finished(i*BlockTrials, `{"loss": 0.5}`))
	}
	foldEvents(t, d, "s-1", events...)
	states := func() (seen int) {
		c, err := d.Columns(t.Context(), "s-1", 0, ColumnObjective)
		if err != nil {
			t.Fatal(err)
		}
		for _, state := range c.State {
			if state > 0 {
				seen++
			}
		}
		return seen
	}
	err := d.w.transaction(func() error {
		if err := d.blocks.flush(0); err != nil {
			return err
		}
		if len(d.blocks.cached) > 0 {
			t.Errorf("%d blocks are still in memory", len(d.blocks.cached))
		}
		if seen := states(); seen != 3 {
			t.Errorf("%d trials are seen while their blocks are written, want 3", seen)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	d.blocks.transactionEnded(func() {})
	if seen := states(); seen != 3 || len(d.blocks.flushed) > 0 || d.blocks.flushedBytes != 0 {
		t.Errorf("%d trials are seen afterwards, want 3", seen)
	}
}

// TestCauses groups failures that differ only in their numbers, including those that were retried,
// and keeps a bounded number of groups.
func TestCauses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.db")
	d := openAt(t, path)
	failed := func(index int64, line string) grid.Event {
		e := finished(index, "{}")
		e.Result.Class, e.Result.ExitCode, e.Result.Reason = grid.ClassExit, 1, "exit code 1\nTraceback\n"+line
		return e
	}
	foldEvents(t, d, "s-1", failed(5, "KeyError: A"), failed(6, "KeyError: A"), failed(7, "other"))
	for i := range int64(300) {
		foldEvents(t, d, "s-1", failed(100+i, string([]rune{rune('a' + i/26), rune('a' + i%26)})))
	}
	for range 2 {
		c, err := d.Columns(t.Context(), "s-1", 0)
		if err != nil {
			t.Fatal(err)
		}
		want := Cause{ID: 1, Class: grid.ClassExit, Signature: "KeyError: A", Count: 2, First: 1005,
			Last: 1006, Trial: 5}
		if len(c.Causes) != maxCauses || c.Causes[0] != want {
			t.Errorf("got %d causes and %+v, want %d and %+v", len(c.Causes), c.Causes[0], maxCauses, want)
		}
		if c.Cause[5] != 1 || c.Cause[6] != 1 || c.Cause[7] != 2 || c.Cause[399] != OtherCause || c.Cause[8] != 0 {
			t.Errorf("causes of trials: got %v and %d", c.Cause[5:9], c.Cause[399])
		}
		mustClose(t, d)
		d = openAt(t, path)
	}
	mustClose(t, d)
}

// TestUnchanged checks that trials count as unchanged until one of their block changes, and that
// nothing does once too many changes were not seen.
func TestUnchanged(t *testing.T) {
	d := open(t)
	far := int64(5 * BlockTrials)
	failed := func(index int64) grid.Event {
		e := finished(index, "{}")
		e.Result.Class = grid.ClassExit
		return e
	}
	foldEvents(t, d, "s-1", failed(0), failed(far))
	check := func(when string, mark uint64, near, farther bool) {
		t.Helper()
		if got := d.Unchanged("s-1", 0, 100, mark); got != near {
			t.Errorf("%s, trials 0 to 99 are unchanged: got %t, want %t", when, got, near)
		}
		if got := d.Unchanged("s-1", far, far+100, mark); got != farther {
			t.Errorf("%s, trials %d to %d are unchanged: got %t, want %t", when, far, far+99, got, farther)
		}
	}
	mark := d.Mark()
	check("at once", mark, true, true)
	foldEvents(t, d, "s-1", finished(far+1, "{}"))
	check("after another trial", mark, true, false)
	foldEvents(t, d, "s-1", grid.Event{Kind: grid.Reopened, Index: 0, Time: 1})
	check("after a retry", mark, false, false)
	mark = d.Mark()
	foldEvents(t, d, "s-1", grid.Event{Kind: grid.ReopenedRange, Index: far, End: far + 2, Time: 2})
	check("after a retry of a range", mark, true, false)
	mark = d.Mark()
	for i := range int64(maxKnownChanges) {
		d.blocks.changes.add(1000 + i)
	}
	d.blocks.changes.publish(func() {})
	check("after many changes", mark, false, false)
	mark = d.Mark()
	if err := d.load(); err != nil {
		t.Fatal(err)
	}
	check("after what is in memory was loaded again", mark, false, false)
	if d.Unchanged("s-2", 0, 1, d.Mark()) {
		t.Error("trials of an unknown sweep are unchanged")
	}
}

// failAll folds a failure of each trial of some blocks, and writes the blocks to the file.
func failAll(t *testing.T, d *DB, count int64) {
	t.Helper()
	var events []grid.Event
	for i := range count {
		e := finished(i, `{"loss": 1}`)
		e.Result.Class = grid.ClassExit
		events = append(events, e)
	}
	foldEvents(t, d, "s-1", events...)
	if err := d.w.transaction(func() error { return d.blocks.flush(0) }); err != nil {
		t.Fatal(err)
	}
	d.blocks.transactionEnded(func() {})
}

// TestColumnsBesideARetry folds a retry while another column is added to those that are cached:
// what is cached then must not pass for what was read after the retry.
func TestColumnsBesideARetry(t *testing.T) {
	const count = 3 * BlockTrials
	d := open(t)
	failAll(t, d, count)
	states := func() *Columns {
		t.Helper()
		c, err := d.Columns(t.Context(), "s-1", 0, ColumnObjective)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	states()
	s := d.sweep("s-1")
	c := &Columns{Stride: 1, Values: map[Column][]float32{}, exact: map[Column][]bool{}}
	c.chooseBlocks(s, 0)
	missing, earlier, mark := d.columns.fill(s, c, []Column{ColumnWall})
	foldEvents(t, d, "s-1", grid.Event{Kind: grid.ReopenedRange, Index: 0, End: count, Time: 5000})
	mark = min(mark, d.Mark())
	if err := d.readColumns(t.Context(), c, s, missing, earlier); err != nil {
		t.Fatal(err)
	}
	d.columns.add(s, c, mark, d.sweep("s-1") != s)
	for i, state := range states().State {
		if got := grid.States[state-1]; got != grid.Pending {
			t.Fatalf("trial %d is %s, want %s", i, got, grid.Pending)
		}
	}
}

// TestResultIsSeenWithItsChanges reads while a fold makes its result visible: a reader that sees
// the result also sees that blocks have changed.
func TestResultIsSeenWithItsChanges(t *testing.T) {
	d := open(t)
	failAll(t, d, 10)
	mark := d.Mark()
	seq := d.Applied() + 1
	f := &fold{d: d, policy: objectivePolicy, applied: d.applied, sweeps: map[grid.SweepID]*sweepFold{}}
	batch := &grid.Batch{Sweep: "s-1",
		Node: "n", Events: []grid.Event{{Kind: grid.ReopenedRange, Index: 0, End: 10, Time: 5000}}}
	if err := d.w.transaction(func() error { return f.foldAll([]Stored{{Seq: seq, Batch: batch}}) }); err != nil {
		t.Fatal(err)
	}
	seen := make(chan bool)
	d.blocks.transactionEnded(func() {
		f.publish()
		go func() {
			if d.Applied() != seq {
				t.Errorf("applied: got %d, want %d", d.Applied(), seq)
			}
			seen <- d.Unchanged("s-1", 0, 10, mark)
		}()
	})
	if <-seen {
		t.Error("trials that were reopened pass for unchanged")
	}
}
