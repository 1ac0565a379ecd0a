package history

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// model folds events with grid.Trial.Apply alone, in maps.
type model struct {
	policies map[grid.SweepID]Policy
	trials   map[grid.SweepID]map[int64]*grid.Trial
	counts   map[grid.SweepID]*Counts // times only
	changed  []Transition
}

func (m *model) policy(id grid.SweepID) (Policy, bool) {
	p, ok := m.policies[id]
	return p, ok
}

func (m *model) apply(b *grid.Batch) {
	policy, ok := m.policies[b.Sweep]
	if !ok {
		return
	}
	if m.trials[b.Sweep] == nil {
		m.trials[b.Sweep], m.counts[b.Sweep] = map[int64]*grid.Trial{}, &Counts{}
	}
	for i := range b.Events {
		e := &b.Events[i]
		concerned := []int64{e.Index}
		if e.Kind == grid.ReopenedRange {
			concerned = slices.Sorted(maps.Keys(m.trials[b.Sweep]))
			concerned = slices.DeleteFunc(concerned, func(i int64) bool { return i < e.Index || i >= e.End })
		}
		for _, index := range concerned {
			t := m.trials[b.Sweep][index]
			if t == nil {
				t = &grid.Trial{Index: index}
			}
			change := t.Apply(policy.Retries, b.Node, e)
			if change != grid.Ignored {
				m.trials[b.Sweep][index] = t
			}
			m.note(b.Sweep, t, change)
		}
	}
}

func (m *model) note(id grid.SweepID, t *grid.Trial, change grid.Change) {
	switch change {
	case grid.Began, grid.Done, grid.Retry:
		c := m.counts[id]
		if s := t.Result.Started; s > 0 && (c.Started == 0 || s < c.Started) {
			c.Started = s
		}
		c.Ended = max(c.Ended, t.Ended)
	case grid.Reopen:
		m.changed = append(m.changed,
			Transition{Sweep: id, Index: t.Index, End: t.Index + 1, Change: change, State: grid.Pending,
				Attempts: t.Attempts})
		return
	default:
		return
	}
	c := Transition{Sweep: id, Index: t.Index, Change: change, State: t.State,
		Attempts: t.Attempts, Node: t.Node, Snapshot: t.Result.Snapshot, Class: t.Result.Class,
		Started: t.Result.Started, Ended: t.Ended}
	if change == grid.Retry {
		c.Failures = maps.Clone(t.Failures)
	}
	m.changed = append(m.changed, c)
}

// listing returns the trials by index, and counts them again.
func (m *model) listing(id grid.SweepID) (trials []grid.Trial, counts Counts) {
	if c := m.counts[id]; c != nil {
		counts = *c
	}
	for _, t := range m.trials[id] {
		trials = append(trials, *t)
		counts.add(t, 1)
	}
	slices.SortFunc(trials, func(a, b grid.Trial) int { return int(a.Index - b.Index) })
	return trials, counts
}

func newModel(t *rapid.T) *model {
	m := &model{policies: map[grid.SweepID]Policy{}, trials: map[grid.SweepID]map[int64]*grid.Trial{},
		counts: map[grid.SweepID]*Counts{}}
	for _, id := range []grid.SweepID{"a-1", "b-1"} { // gone-1 is unknown
		m.policies[id] = Policy{Retries: rapid.MapOf(rapid.SampledFrom(classes()), rapid.IntRange(0, 2)).Draw(t,
			"policy"), Metric: "loss"}
	}
	return m
}

func classes() []grid.Class {
	return []grid.Class{grid.ClassNone, grid.ClassExit, grid.ClassExit, grid.ClassMemory, grid.ClassLost,
		grid.ClassCancel, grid.ClassHalt}
}

// from is an event with its place in the stream.
type from struct {
	sweep grid.SweepID
	node  grid.NodeID
	event grid.Event
}

// anyRun returns the events of one attempt in their order. Runs of a trial may share a number and
// times.
func anyRun(t *rapid.T, run string) []from {
	sweep := rapid.SampledFrom([]grid.SweepID{"a-1", "a-1", "b-1", "gone-1"}).Draw(t, "sweep")
	node := rapid.SampledFrom([]grid.NodeID{"n1", "n2", "n3"}).Draw(t, "node")
	index := rapid.SampledFrom([]int64{0, 1, 2, 5, 70, maxIndex}).Draw(t, "index")
	number := rapid.IntRange(1, 4).Draw(t, "number")
	at := rapid.Int64Range(1, 50).Draw(t, "time")
	next := func(k grid.EventKind) from {
		at += rapid.Int64Range(1, 5).Draw(t, "pause")
		return from{sweep, node, grid.Event{Kind: k, Index: index, Attempt: number, Run: run, Time: at}}
	}
	var events []from
	if rapid.Bool().Draw(t, "long") {
		events = append(events, next(grid.Started))
		for range rapid.IntRange(0, 2).Draw(t, "told") {
			m := next(grid.Metrics)
			m.event.Metrics = anyMetrics(t)
			events = append(events, m)
		}
	}
	if rapid.IntRange(0, 4).Draw(t, "fenced") == 0 {
		f := next(grid.Fenced)
		f.node, f.event.Result, f.event.Final = "", anyResult(t, at), rapid.Bool().Draw(t, "final")
		events = append(events, f)
	}
	if rapid.IntRange(0, 9).Draw(t, "ends") > 0 {
		f := next(grid.Finished)
		f.event.Result = anyResult(t, at)
		events = append(events, f)
	}
	return append(events, from{sweep, node, grid.Event{Kind: grid.Released, Lease: 7}})
}

func anyMetrics(t *rapid.T) grid.Metric {
	value := rapid.Custom(func(t *rapid.T) json.RawMessage {
		return json.RawMessage(rapid.SampledFrom([]string{"0.5", "1e-3", "-2", "12345678901234567890",
			`"nan"`, "true", "null", `[1, 2]`}).Draw(t, "value"))
	})
	return rapid.MapOfN(rapid.SampledFrom([]string{"loss", "a/b", `q"<\`, "ä"}), value, 0, 3).Draw(t, "metrics")
}

func anyResult(t *rapid.T, started int64) *grid.Result {
	r := &grid.Result{Class: rapid.SampledFrom(classes()).Draw(t, "class"), Started: started, Metrics: anyMetrics(t)}
	if r.Class != grid.ClassNone {
		r.Rule, r.Device = rapid.SampledFrom([]string{"", "cuda_oom/2"}).Draw(t, "rule"),
			rapid.SampledFrom([]string{"", "GPU-1"}).Draw(t, "device")
		r.ExitCode, r.Reason = rapid.IntRange(0, 255).Draw(t, "code"), rapid.String().Draw(t, "reason")
	}
	r.Usage = grid.Usage{Wall: rapid.Int64Min(0).Draw(t, "wall") >> 20, CPU: rapid.Int64Range(0, 9).Draw(t, "cpu"),
		Memory: rapid.Int64Min(0).Draw(t, "memory")}
	if rapid.Bool().Draw(t, "gpus") {
		r.Devices = []string{"GPU-1", "GPU-2"}
		r.Usage.GPU = []grid.DeviceUse{{UUID: "GPU-1", Peak: rapid.Int64Range(0, 1<<40).Draw(t, "peak"), Busy: 100},
			{UUID: "GPU-2"}}
	}
	if rapid.Bool().Draw(t, "output") {
		r.Log = grid.LogRef{First: 3, Last: 3 + rapid.Uint64Range(0, 9).Draw(t, "log"), Bytes: 100,
			Cut: rapid.Int64Range(0, 1).Draw(t, "cut")}
		r.Files = grid.FilesRef{Count: 2, Bytes: rapid.Int64Min(0).Draw(t, "files")}
	}
	r.Left = rapid.IntRange(0, 3).Draw(t, "left")
	return r
}

// anyStream merges runs and reopenings at random, each in its own order and with repeats, and cuts
// them into batches.
func anyStream(t *rapid.T) []Stored {
	var lists [][]from
	for i := range rapid.IntRange(1, 12).Draw(t, "runs") {
		run := anyRun(t, fmt.Sprintf("run%d", i))
		lists = append(lists, run)
		if rapid.IntRange(0, 2).Draw(t, "reopen") == 0 {
			again := run[0]
			again.event = grid.Event{Kind: grid.Reopened, Index: run[0].event.Index,
				Time: rapid.Int64Range(60, 63).Draw(t, "reopened")}
			if rapid.Bool().Draw(t, "neighbours") {
				again.event.Kind, again.event.End = grid.ReopenedRange,
					again.event.Index+rapid.Int64Range(0, 70).Draw(t, "range")
			}
			lists = append(lists, []from{again})
		}
	}
	var stored []Stored
	var sent []from
	seq := uint64(0)
	for len(lists) > 0 {
		k := rapid.IntRange(0, len(lists)-1).Draw(t, "from")
		next := lists[k][0]
		if len(sent) > 0 && rapid.IntRange(0, 3).Draw(t, "repeat") == 0 {
			next = rapid.SampledFrom(sent).Draw(t, "again")
		} else if lists[k] = lists[k][1:]; len(lists[k]) == 0 {
			lists = slices.Delete(lists, k, k+1)
		}
		sent = append(sent, next)
		if n := len(stored); n > 0 && stored[n-1].Batch.Sweep == next.sweep && stored[n-1].Batch.Node == next.node &&
			rapid.Bool().Draw(t, "join") {
			stored[n-1].Batch.Events = append(stored[n-1].Batch.Events, next.event)
			continue
		}
		seq += rapid.Uint64Range(1, 3).Draw(t, "gap") // other messages have sequences in between
		stored = append(stored, Stored{seq,
			&grid.Batch{Sweep: next.sweep, Node: next.node, Events: []grid.Event{next.event}}})
	}
	return stored
}

// foldParts folds a stream in random parts, some of it repeatedly, and reopens the file in between.
func foldParts(t *rapid.T, d *DB, m *model, stored []Stored) (*DB, []Transition) {
	var changed []Transition
	for at := 0; at < len(stored); {
		from := at
		if rapid.IntRange(0, 3).Draw(t, "back") == 0 {
			from = rapid.IntRange(0, at).Draw(t, "to")
		}
		at = rapid.IntRange(at+1, len(stored)).Draw(t, "part")
		part, err := d.Fold(t.Context(), stored[from:at], m.policy)
		if err != nil {
			t.Fatalf("fold: %v", err)
		}
		for _, c := range part {
			if c.Change == grid.Reopen {
				for one := c; one.Index < c.End; one.Index++ {
					one.End = one.Index + 1
					changed = append(changed, one)
				}
				continue
			}
			changed = append(changed, c)
		}
		if got, want := d.Applied(), stored[at-1].Seq; got != want {
			t.Fatalf("applied: got %d, want %d", got, want)
		}
		for id := range m.policies {
			listSweep(t, d, id) // compares the columns, of which only the blocks that have changed are read again
		}
		if rapid.IntRange(0, 7).Draw(t, "reopen") == 0 {
			mustClose(t, d)
			d = openAt(t, d.path)
		}
	}
	return d, changed
}

// TestFoldIsApply folds random streams in random parts. The trials, counts and transitions are
// those of the pure fold, a sequence that is applied again changes nothing, and a rebuild in one
// pass produces the same file.
func TestFoldIsApply(t *testing.T) {
	dir := t.TempDir()
	files := 0
	rapid.Check(t, func(t *rapid.T) {
		m, stored := newModel(t), anyStream(t)
		files++
		d := openAt(t, filepath.Join(dir, fmt.Sprintf("%d.db", files)))
		defer func() { mustClose(t, d) }()
		d, changed := foldParts(t, d, m, stored)
		for _, s := range stored {
			m.apply(s.Batch)
		}
		if delta := diff(m.changed, changed); delta != "" {
			t.Fatalf("changes (-want +got):\n%s", delta)
		}
		for id := range m.policies {
			checkSweep(t, m, listSweep(t, d, id), id)
		}
		if again, err := d.Fold(t.Context(), stored, m.policy); err != nil || len(again) > 0 {
			t.Fatalf("fold again: got %v, %v, want no change", again, err)
		}
		d.blocks.limit = 0 // every change is written to the file immediately
		rebuilt := openAt(t, filepath.Join(dir, fmt.Sprintf("%d.rebuilt.db", files)))
		defer func() { mustClose(t, rebuilt) }()
		if _, err := rebuilt.Fold(t.Context(), stored, m.policy); err != nil {
			t.Fatalf("rebuild: %v", err)
		}
		for _, id := range []grid.SweepID{"a-1", "b-1", "gone-1"} {
			if delta := diff(listSweep(t, d, id), listSweep(t, rebuilt, id)); delta != "" {
				t.Fatalf("%s rebuilt (-incremental +rebuilt):\n%s", id, delta)
			}
		}
	})
}

// checkSweep compares a listing with the pure fold, and attempts with the runs that have finished.
func checkSweep(t *rapid.T, m *model, got testListing, id grid.SweepID) {
	t.Helper()
	trials, counts := m.listing(id)
	if delta := diff(trials, got.Trials); delta != "" {
		t.Fatalf("trials of %s (-want +got):\n%s", id, delta)
	}
	if delta := diff(counts, got.Counts); delta != "" {
		t.Fatalf("counts of %s (-want +got):\n%s", id, delta)
	}
	var open []int64
	for i, trial := range trials {
		if !trial.State.Terminal() {
			open = append(open, trial.Index)
		}
		if inside := slices.ContainsFunc(got.Terminal, func(r ranges.Range) bool {
			return r.Lo <= trial.Index && trial.Index < r.Hi
		}); inside != trial.State.Terminal() {
			t.Fatalf("%s/%d in state %s: in the terminal ranges %v: got %t", id, trial.Index, trial.State,
				got.Terminal, inside)
		}
		checkAttempts(t, &trial, got.Attempts[i])
	}
	if delta := diff(open, got.Open); delta != "" {
		t.Fatalf("open trials of %s (-want +got):\n%s", id, delta)
	}
}

// checkAttempts checks that every finished run appears once, and that a trial that has ended has
// one result.
func checkAttempts(t *rapid.T, trial *grid.Trial, attempts []Attempt) {
	t.Helper()
	seen, outcomes := map[string]int{}, map[Outcome]int{}
	for _, a := range attempts {
		seen[a.Run]++
		outcomes[a.Outcome]++
		if (a.Outcome == IsResult || a.Outcome == IsRunning) && a.Run != trial.Run {
			t.Fatalf("trial %d: run %s is %s, want only %s to be that", trial.Index, a.Run, a.Outcome, trial.Run)
		}
	}
	for _, run := range trial.Runs {
		if seen[run] != 1 {
			t.Fatalf("trial %d: run %s is listed %d times in %+v, want once", trial.Index, run, seen[run], attempts)
		}
	}
	want := map[Outcome]int{}
	switch {
	case trial.State.Terminal() && trial.Run != "": // else it was withdrawn before it ran
		want[IsResult] = 1
	case trial.State == grid.Running:
		want[IsRunning] = 1
	}
	if outcomes[IsResult] != want[IsResult] || outcomes[IsRunning] != want[IsRunning] {
		t.Fatalf("trial %d in state %s: got outcomes %v, want %v of results and running", trial.Index,
			trial.State, outcomes, want)
	}
}

// TestTimesAreStored repeats a reopening and metrics: they were once taken for new ones, because a
// trial's row left out their times.
func TestTimesAreStored(t *testing.T) {
	d := open(t)
	started := grid.Event{Kind: grid.Started, Index: 4, Attempt: 1, Run: "r", Time: 10}
	metrics := grid.Event{Kind: grid.Metrics, Index: 4, Attempt: 1, Run: "r", Time: 20,
		Metrics: grid.Metric{"loss": json.RawMessage("2")}}
	older := grid.Event{Kind: grid.Metrics, Index: 4, Attempt: 1, Run: "r", Time: 15,
		Metrics: grid.Metric{"loss": json.RawMessage("9")}}
	end := func(run string, number int) grid.Event {
		return grid.Event{Kind: grid.Finished, Index: 4, Attempt: number, Run: run, Time: 30,
			Result: &grid.Result{Class: grid.ClassExit}}
	}
	reopened := grid.Event{Kind: grid.Reopened, Index: 4, Time: 40}
	for i, e := range []grid.Event{started, metrics, older, end("r", 1), reopened, end("s", 2), reopened} {
		foldEvents(t, d, "a-1", e)
		trial, _, err := d.Trial(t.Context(), grid.TrialID{Sweep: "a-1", Index: 4})
		if err != nil {
			t.Fatal(err)
		}
		want := grid.Running
		switch i {
		case 3, 5, 6:
			want = grid.Failed
		case 4:
			want = grid.Pending
		}
		if trial.State != want {
			t.Fatalf("after event %d, %s: got %s, want %s", i, e.Kind, trial.State, want)
		}
		if loss := string(trial.Result.Metrics["loss"]); i == 2 && loss != "2" {
			t.Errorf("loss after repeated older metrics: got %s, want 2", loss)
		}
	}
}

// TestDeepMetrics reports, as a hostile or older node may, a metric that is nested deeper than
// SQLite can read: listings that are sorted by a metric still work.
func TestDeepMetrics(t *testing.T) {
	d := open(t)
	deep := strings.Repeat(`{"a":[`, 2000) + "1" + strings.Repeat("]}", 2000)
	foldEvents(t, d, "a-1", finished(0, `{"loss":`+deep+`,"acc":1}`), finished(1, `{"loss":1,"acc":2}`),
		finished(2, `{"loss":[["[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\""]]}`))
	for _, by := range []Sort{"loss", "acc"} {
		var got []int64
		var err error
		for trial, wrong := range d.Trials(t.Context(), "a-1", Query{Sort: by}) {
			got, err = append(got, trial.Index), errors.Join(err, wrong)
		}
		if err != nil || len(got) != 3 {
			t.Errorf("sorted by %s: got trials %v, %v, want three", by, got, err)
		}
	}
}

// TestImpossibleIndexIsSkipped checks that an event with an impossible index does not hold up those
// of other trials.
func TestImpossibleIndexIsSkipped(t *testing.T) {
	d := open(t)
	changed := foldEvents(t, d, "a-1", finished(-1, "{}"), finished(maxIndex+1, "{}"), finished(maxIndex, "{}"))
	if len(changed) != 1 || changed[0].Index != maxIndex {
		t.Errorf("got changes %v, want one of trial %d", changed, int64(maxIndex))
	}
	if c, err := d.Counts(t.Context(), "a-1"); c.Done() != 1 || err != nil {
		t.Errorf("got %d done trials, %v, want 1", c.Done(), err)
	}
}
