package history

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid"
)

// sortKey is a value in the order of listings.
type sortKey struct {
	kind   int
	text   string
	number float64
}

const (
	isNumber = iota
	isText
	isMissing
)

func keyOf(t *grid.Trial, by Sort) sortKey {
	positive := func(n int64) sortKey {
		if n == 0 {
			return sortKey{kind: isMissing}
		}
		return sortKey{number: float64(n)}
	}
	switch by {
	case SortIndex, "":
		return sortKey{number: float64(t.Index)}
	case SortStarted:
		return positive(t.Result.Started)
	case SortEnded:
		return positive(t.Ended)
	case SortWall:
		if t.Ended == 0 || t.Result.Started == 0 {
			return sortKey{kind: isMissing}
		}
		return positive(t.Result.Usage.Wall)
	case SortState:
		return sortKey{number: float64(slices.Index(grid.States[:], t.State))}
	case SortAttempts:
		return sortKey{number: float64(t.Attempts)}
	case SortObjective:
		if k := keyOf(t, "loss"); k.kind == isNumber &&
			!strings.ContainsAny(string(t.Result.Metrics["loss"])[:1], `tf"`) {
			return k
		}
		return sortKey{kind: isMissing}
	}
	var v any
	_ = json.Unmarshal(t.Result.Metrics[string(by)], &v)
	switch v := v.(type) {
	case float64:
		return sortKey{number: v}
	case bool:
		return sortKey{number: map[bool]float64{true: 1}[v]}
	case string:
		f, special := grid.Special(v)
		if !special {
			return sortKey{kind: isText, text: v}
		}
		if !math.IsNaN(f) {
			return sortKey{number: f}
		}
	}
	return sortKey{kind: isMissing}
}

// selected answers a query the slow way.
func selected(trials []grid.Trial, q Query) []int64 {
	trials = slices.DeleteFunc(slices.Clone(trials), func(t grid.Trial) bool {
		return t.Index < q.From || (len(q.States) > 0 && !slices.Contains(q.States, t.State))
	})
	slices.SortFunc(trials, func(a, b grid.Trial) int {
		ka, kb := keyOf(&a, q.Sort), keyOf(&b, q.Sort)
		c := cmp.Or(strings.Compare(ka.text, kb.text), cmp.Compare(ka.number, kb.number))
		if q.Desc {
			c = -c
		}
		return cmp.Or(ka.kind-kb.kind, c, cmp.Compare(a.Index, b.Index))
	})
	if q.After != nil {
		at := slices.IndexFunc(trials, func(t grid.Trial) bool { return t.Index == q.After.Index })
		trials, q.Offset = trials[at+1:], 0
	}
	var want []int64
	for _, t := range trials[min(q.Offset, int64(len(trials))):] {
		if q.Limit > 0 && int64(len(want)) == q.Limit {
			break
		}
		want = append(want, t.Index)
	}
	return want
}

// anyEnds returns events that end trials in many blocks, some of them twice, with values of all
// kinds.
func anyEnds(t *rapid.T) []grid.Event {
	value := rapid.SampledFrom([]string{"1", "-2.5", "1e-3", "0.1",
		"7", "true", "false", `"x"`, `""`, `"best"`, "null", `"NaN"`, `"-nan"`, `"inf"`, `"-Infinity"`, `"nancy"`})
	number := rapid.Int64Range(0, 6)
	spread := rapid.Int64Range(1, 2<<blockBits).Draw(t, "spread")
	var events []grid.Event
	for i := range rapid.IntRange(1, 50).Draw(t, "trials") {
		e := finished(rapid.Int64Range(0, 60).Draw(t, "index")*spread, "{}")
		e.Run, e.Attempt, e.Time = fmt.Sprint(i), 1+i%3, number.Draw(t, "ended")
		e.Result.Class = rapid.SampledFrom([]grid.Class{"", "", "", grid.ClassExit, grid.ClassCancel,
			grid.ClassHalt}).Draw(t, "class")
		e.Result.Started, e.Result.Usage.Wall = number.Draw(t, "started"), number.Draw(t, "wall")
		for _, name := range []string{"loss", "a b", "ü"} {
			if rapid.Bool().Draw(t, "measured") {
				e.Result.Metrics[name] = json.RawMessage(value.Draw(t, name))
			}
		}
		if rapid.IntRange(0, 9).Draw(t, "begins") == 0 {
			e.Kind, e.Result = grid.Started, nil
		}
		events = append(events, e)
	}
	return events
}

func anyQuery(t *rapid.T) Query {
	sorts := append(boundedColumns[:], SortIndex, "", "loss", "a b", "ü", "unheard-of")
	sorts = slices.DeleteFunc(slices.Clone(sorts), func(s Sort) bool { return s == SortCPU || s == SortMemory })
	return Query{
		States: rapid.SliceOfNDistinct(rapid.SampledFrom(grid.States[:]), 0, 3, rapid.ID).Draw(t, "states"),
		Sort:   rapid.SampledFrom(sorts).Draw(t, "sort"),
		Desc:   rapid.Bool().Draw(t, "desc"),
		Limit:  rapid.SampledFrom([]int64{0, 1, 2, 5, 20, 100, maxBlockPage + 1}).Draw(t, "limit"),
		Offset: rapid.SampledFrom([]int64{0, 0, 0, 1, 10, 100}).Draw(t, "offset"),
		From:   rapid.SampledFrom([]int64{0, 0, 1, 700, 10_000}).Draw(t, "from"),
	}
}

// TestQueryIsSort compares listings with a plain sort of all trials.
func TestQueryIsSort(t *testing.T) {
	dir := t.TempDir()
	files := 0
	rapid.Check(t, func(t *rapid.T) {
		files++
		d := openAt(t, filepath.Join(dir, fmt.Sprintf("%d.db", files)))
		defer mustClose(t, d)
		d.minColumnRows = rapid.SampledFrom([]int64{0, minColumnRows}).Draw(t, "rows for columns")
		foldEvents(t, d, "other-1", anyEnds(t)...)
		for _, e := range slices.Collect(slices.Chunk(anyEnds(t), 20)) {
			foldEvents(t, d, "a-1", e...)
		}
		foldEvents(t, d, "other-2", anyEnds(t)...)
		trials := listSweep(t, d, "a-1").Trials
		if len(trials) == 0 {
			t.Fatalf("no trials")
		}
		for range 20 {
			q := anyQuery(t)
			q.Desc = q.Desc && q.Sort != "" && q.Sort != SortIndex // by index, see TestByIndex
			if whole := selected(trials,
				Query{States: q.States, Sort: q.Sort, Desc: q.Desc, From: q.From}); len(whole) > 0 &&
				rapid.Bool().Draw(t, "behind a trial") {
				last := rapid.SampledFrom(whole).Draw(t, "trial")
				place := CursorOf(&trials[slices.IndexFunc(trials, func(t grid.Trial) bool { return t.Index == last })],
					q.Sort, "loss")
				again, ok := ParseCursor(place.String())
				if !ok || again != place {
					t.Fatalf("%+v is written as %s and read as %+v", place, place, again)
				}
				q.After = &place
			}
			if delta := diff(selected(trials, q), indexes(t, d, q)); delta != "" {
				t.Fatalf("%+v after %+v (-want +got):\n%s", q, q.After, delta)
			}
		}
	})
}

// TestManyAttemptsAfter walks through trials with more attempts than a column can count, page by
// page, with and without columns.
func TestManyAttemptsAfter(t *testing.T) {
	for _, rows := range []int64{0, minColumnRows} {
		d := openAt(t, filepath.Join(t.TempDir(), "h.db"))
		d.minColumnRows = rows
		var events []grid.Event
		for i := range int64(30) {
			e := finished(i, "{}")
			e.Attempt = 250 + int(i*7%30)/2
			events = append(events, e)
		}
		foldEvents(t, d, "a-1", events...)
		trials := listSweep(t, d, "a-1").Trials
		for i := range trials {
			for _, desc := range []bool{false, true} {
				place := CursorOf(&trials[i], SortAttempts, "")
				q := Query{Sort: SortAttempts, Desc: desc, Limit: 4, After: &place}
				if delta := diff(selected(trials, q), indexes(t, d, q)); delta != "" {
					t.Errorf("columns from %d rows, %+v after %+v (-want +got):\n%s", rows, q, place, delta)
				}
			}
		}
		mustClose(t, d)
	}
}
