package monitor

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/monitor/chart"
)

// pageOf returns the indexes of a page of a listing, and the cursor of its last trial.
func pageOf(t testing.TB, m *Monitor, s *grid.Sweep, query url.Values, limit int64) (page []int64, last string) {
	t.Helper()
	r := httptest.NewRequest("GET", "/?"+query.Encode(), nil)
	if err := r.ParseForm(); err != nil {
		t.Fatal(err)
	}
	l, err := m.handlers.trials.newListing(r, s)
	if err != nil {
		t.Fatalf("%v: %v", query, err)
	}
	if l.left = limit; limit == 0 {
		l.left = s.Space.Count()
	}
	l.emit = func(trial *grid.Trial) error {
		last = l.cursorAt(trial, l.q.Offset+int64(len(page)))
		page = append(page, trial.Index)
		return nil
	}
	if err := l.run(t.Context()); err != nil {
		t.Fatalf("%v: %v", query, err)
	}
	return page, last
}

// cursorSweep is a sweep in which some trials have ended, with values of all kinds, some are
// running, and some have no row.
func cursorSweep(t testing.TB) (*Monitor, *grid.Sweep) {
	m, s := folded(t, spaceOf(t, 4, 300), func(i int64) *grid.Result {
		r := &grid.Result{Started: 1e15 + i/3*1e6, Usage: grid.Usage{Wall: 1 + i%5, CPU: i % 2, Memory: 4096 * (i % 4)},
			Metrics: grid.Metric{}}
		values := []string{"0.5", "1", `"NaN"`, "2e3", `"inf"`, "-1", "null"}
		r.Metrics["loss"] = json.RawMessage(values[i%int64(len(values))])
		r.Metrics["word"] = json.RawMessage([]string{`"x"`, "3", `"x.y"`}[i%3])
		if i%11 == 0 {
			r.Class, r.ExitCode, r.Metrics = grid.ClassExit, 1, nil
		}
		return r
	})
	var err error
	if s.Space, err = s.Space.Extend([]space.Axis{{Key: "a",
		Values: []space.Value{{Text: "x", Kind: space.Text}}}}); err != nil {
		t.Fatal(err)
	}
	return m, s
}

// TestCursorsWalk walks through lists page by page, in every order: together the pages are the
// whole list.
func TestCursorsWalk(t *testing.T) {
	m, s := cursorSweep(t)
	for _, by := range append(slices.Clone(fixedSorts), "a", "b", "word", "metric:loss") {
		for _, more := range []string{"", "state=failed", "state=pending", "state=pending&state=succeeded",
			"p[b]=10..40", "m[loss]=..1", "state=failed&p[a]=1..2"} {
			for _, desc := range []string{"false", "true"} {
				q, err := url.ParseQuery(more)
				if err != nil {
					t.Fatal(err)
				}
				q.Set("sort", by)
				q.Set("desc", desc)
				if where, err := chart.ParseWhere(q); err != nil || where.NeedsColumns() &&
					slices.Contains([]string{"attempts"}, by) {
					continue // filtered trials can't be sorted that way
				}
				want, _ := pageOf(t, m, s, q, 0)
				var got []int64
				for {
					page, last := pageOf(t, m, s, q, 97)
					got = append(got, page...)
					if len(page) < 97 {
						break
					}
					q.Set("after", last)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%v: got %d trials in pages, want %d", q, len(got), len(want))
				}
			}
		}
	}
}

// TestOffsets requests pages from anywhere in lists that join trials with and without a row: each
// page is that part of the whole list.
func TestOffsets(t *testing.T) {
	m, s := cursorSweep(t)
	for _, states := range [][]string{{"pending"}, {"pending", "succeeded"}, {"pending", "failed"},
		{"pending", "succeeded", "failed"}} {
		q := url.Values{"state": states}
		want, _ := pageOf(t, m, s, q, 0)
		for offset := 0; offset < len(want)+200; offset += 61 {
			q.Set("offset", fmt.Sprint(offset))
			got, _ := pageOf(t, m, s, q, 97)
			from := min(offset, len(want))
			if !slices.Equal(got, want[from:min(from+97, len(want))]) {
				t.Errorf("%v: got %v, want what begins with %v", q, got, want[from:min(from+2, len(want))])
			}
		}
	}
}

// TestCursorsKeepTheirPlace changes trials between two pages: of the unchanged ones, none is left
// out and none appears twice, even if the trial from which the cursor was made has moved elsewhere.
func TestCursorsKeepTheirPlace(t *testing.T) {
	for _, by := range []string{"loss", "wall", "state", "word", "ended"} {
		m, s := cursorSweep(t)
		random := rand.New(rand.NewPCG(1, 2))
		q := url.Values{"sort": {by}, "desc": {"true"}}
		before, _ := pageOf(t, m, s, q, 0)
		changed, seen := map[int64]bool{}, map[int64]int{}
		for seq := uint64(10_000); ; seq++ {
			page, last := pageOf(t, m, s, q, 50)
			for _, index := range page {
				seen[index]++
			}
			if len(page) < 50 {
				break
			}
			q.Set("after", last)
			batch := &grid.Batch{Sweep: s.ID, Node: "n1"}
			// the last one, one before it, and any
			for _, index := range []int64{page[49], page[random.IntN(49)], before[random.IntN(len(before))]} {
				changed[index] = true
				batch.Events = append(batch.Events, grid.Event{
					Kind: grid.Finished, Index: index, Attempt: 2, Run: fmt.Sprint("again", seq, index), Time: 2e15,
					Result: &grid.Result{Started: 1e15, Usage: grid.Usage{Wall: 7}, Class: grid.ClassExit,
						Metrics: grid.Metric{"loss": json.RawMessage("77")}},
				})
			}
			if _, err := m.handlers.trials.history.Fold(t.Context(), []history.Stored{{Seq: seq, Batch: batch}},
				func(grid.SweepID) (history.Policy, bool) {
					return history.Policy{Metric: "loss", Goal: "minimize"}, true
				}); err != nil {
				t.Fatal(err)
			}
		}
		for _, index := range before {
			if !changed[index] && seen[index] != 1 {
				t.Errorf("by %s: trial %d was listed %d times", by, index, seen[index])
			}
		}
	}
}

// TestCursorsOfLongTexts walks through a list in the order of texts that are too long for a cursor.
// A cursor whose trial has a different text by then is refused.
func TestCursorsOfLongTexts(t *testing.T) {
	long := strings.Repeat("x", 3000)
	m, s := folded(t, spaceOf(t, 60), func(i int64) *grid.Result {
		return &grid.Result{Started: 1e15,
			Metrics: grid.Metric{"word": json.RawMessage(fmt.Sprintf("%q", fmt.Sprint(long, i*7%60/2)))}}
	})
	for _, desc := range []string{"false", "true"} {
		q := url.Values{"sort": {"word"}, "desc": {desc}}
		want, _ := pageOf(t, m, s, q, 0)
		var got []int64
		for page, last := pageOf(t, m, s, q, 7); len(page) > 0; page, last = pageOf(t, m, s, q, 7) {
			got = append(got, page...)
			q.Set("after", last)
		}
		if !slices.Equal(got, want) {
			t.Errorf("desc %s: got %v, want %v", desc, got, want)
		}
	}
	_, last := pageOf(t, m, s, url.Values{"sort": {"word"}}, 7)
	last = last[:len(last)-8] + "01234567" // of a different text
	r := httptest.NewRequest("GET", "/?"+url.Values{"sort": {"word"}, "after": {last}}.Encode(), nil)
	if err := r.ParseForm(); err != nil {
		t.Fatal(err)
	}
	if _, err := m.handlers.trials.newListing(r, s); err == nil || !strings.Contains(err.Error(), "another value now") {
		t.Errorf("behind a trial that has changed: got %v", err)
	}
}

// TestCursorsAcrossExtensions extends the axis by which a filtered list is sorted, between two
// pages: no trial is left out, and none appears twice.
func TestCursorsAcrossExtensions(t *testing.T) {
	for _, desc := range []string{"false", "true"} {
		m, s := cursorSweep(t)
		q := url.Values{"sort": {"a"}, "desc": {desc}, "p[b]": {"10..40"}}
		want, _ := pageOf(t, m, s, q, 0)
		got, last := pageOf(t, m, s, q, 37)
		extended := *s
		var err error
		if extended.Space, err = s.Space.Extend([]space.Axis{{Key: "a",
			Values: []space.Value{{Text: "-1", Kind: space.Number}, {Text: "9", Kind: space.Number}}}}); err != nil {
			t.Fatal(err)
		}
		q.Set("after", last)
		rest, _ := pageOf(t, m, &extended, q, 0)
		if got = append(got, rest...); !slices.Equal(got, want) {
			t.Errorf("desc %s: got %d trials in pages, want %d", desc, len(got), len(want))
		}
	}
}

// TestCursorsOfOthers checks that invalid cursors and cursors of another order are refused.
func TestCursorsOfOthers(t *testing.T) {
	m, s := cursorSweep(t)
	_, last := pageOf(t, m, s, url.Values{"sort": {"loss"}}, 10)
	order, _, _ := strings.Cut(last, ".")
	for query, want := range map[string]string{
		"sort=wall&after=" + last: "in another order", "sort=loss&desc=true&after=" + last: "in another order",
		"sort=loss&p[a]=1&after=" + last: "in another order",
		"sort=loss&after=x":              "is not a place", "sort=loss&after=" + last + "x": "is not a place",
		"sort=loss&after=1.u-1":                                        "is not a place",
		"sort=loss&after=" + order + ".u9223372036854775807":           "is not a place",
		"sort=loss&after=" + order + fmt.Sprint(".u", s.Space.Count()): "is not a place",
		"sort=loss&offset=5&after=" + last:                             "at an offset",
	} {
		r := httptest.NewRequest("GET", "/?"+query, nil)
		if err := r.ParseForm(); err != nil {
			t.Fatal(err)
		}
		if _, err := m.handlers.trials.newListing(r, s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", query, err, want)
		}
	}
}

// TestCursorsOfTrialsWithoutRows walks through the lists of a sweep in which most trials have no
// events: each trial is listed once in every order.
func TestCursorsOfTrialsWithoutRows(t *testing.T) {
	t.Parallel()
	b := newSweepBench(t)
	const count, limit = 25, 4
	id := b.submit(t, "p", "x", count, 3)
	for _, by := range append(slices.Clone(fixedSorts), "i", "long") {
		for _, more := range []string{"desc=false", "desc=true", "desc=true&state=pending&state=running"} {
			if by == string(history.SortObjective) {
				continue // the task has none
			}
			seen, cursor := map[int64]int{}, ""
			for page := 0; ; page++ {
				q := fmt.Sprintf("/sweeps/%s/trials?sort=%s&%s&limit=%d&field=index&after=%s", id, by, more, limit,
					url.QueryEscape(cursor))
				status, text := b.ask(t, api.Prefix+q, b.token)
				var table struct {
					Columns []struct{ Values []int64 }
					Cursor  string
				}
				if err := json.Unmarshal([]byte(text), &table); status != http.StatusOK || err != nil {
					t.Fatalf("%s: got status %d, %v: %s", q, status, err, text)
				}
				for _, index := range table.Columns[0].Values {
					seen[index]++
				}
				if cursor = table.Cursor; cursor == "" || page > count {
					break
				}
			}
			for index := range int64(count) {
				if seen[index] != 1 {
					t.Errorf("by %s, %s: trial %d was listed %d times", by, more, index, seen[index])
				}
			}
		}
	}
}
