package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/monitor/chart"
)

// folded returns a monitor whose history contains a sweep in which every point of a space has
// ended.
func folded(t testing.TB, s space.Space, result func(index int64) *grid.Result) (*Monitor, *grid.Sweep) {
	t.Helper()
	db, err := history.Open(filepath.Join(t.TempDir(), "history.db"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	sweep := &grid.Sweep{ID: "s-1", Space: s,
		Task: grid.Task{Name: "t", Objective: &grid.Objective{Metric: "loss", Goal: "minimize"}}}
	policy := func(grid.SweepID) (history.Policy, bool) {
		return history.Policy{Metric: "loss", Goal: "minimize"}, true
	}
	batch := &grid.Batch{Sweep: sweep.ID, Node: "n1"}
	for i := range s.Count() {
		r := result(i)
		batch.Events = append(batch.Events, grid.Event{
			Kind: grid.Finished, Index: i, Attempt: 1, Run: "r" + strconv.FormatInt(i, 36),
			Time: r.Started + r.Usage.Wall, Result: r,
		})
		if len(batch.Events) < 2000 && i+1 < s.Count() {
			continue
		}
		if _, err := db.Fold(t.Context(), []history.Stored{{Seq: uint64(i + 1), Batch: batch}}, policy); err != nil {
			t.Fatal(err)
		}
		batch.Events = batch.Events[:0]
	}
	return New(Config{History: db.Listings(), Logger: slog.New(slog.DiscardHandler)}), sweep
}

func spaceOf(t testing.TB, sizes ...int) space.Space {
	t.Helper()
	var axes []space.Axis
	for k, n := range sizes {
		axes = append(axes, space.Axis{Key: string(rune('a' + k)),
			Interval: []json.Number{"0", json.Number(strconv.Itoa(n))}})
	}
	s, err := space.New(axes, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestChartsOfHistory draws charts of folded events: values, times and causes, and the filter by
// each of them.
func TestChartsOfHistory(t *testing.T) {
	m, s := folded(t, spaceOf(t, 4, 300), func(i int64) *grid.Result {
		r := &grid.Result{Started: 1e15 + i*1e6, Usage: grid.Usage{Wall: 2e6},
			Metrics: grid.Metric{"loss": json.RawMessage(fmt.Sprint(i / 300))}}
		if i%300 == 7 {
			r.Class, r.ExitCode, r.Reason, r.Metrics = grid.ClassExit, 1, "exit code 1\nKeyError: X", nil
		}
		return r
	})
	view := func(query string) *chart.View {
		t.Helper()
		v, err := m.handlers.charts.charts.view(t.Context(), s, "", "", whereOf(t, query), minAge)
		if err != nil {
			t.Fatal(err)
		}
		return v.view
	}
	marginals := view("").Marginals()
	if marginals.N != 1196 || marginals.Axes[0].Mean[3] != 3 || marginals.Axes[1].Failed[1] != 4 {
		t.Errorf("got %d values, mean %v, %v failed, want 1196, 3 and 4", marginals.N, marginals.Axes[0].Mean,
			marginals.Axes[1].Failed)
	}
	f := view("d[b]=0..9").Failures()
	if len(f.Groups) != 1 || f.Groups[0].Signature != "KeyError: X" || f.Groups[0].Count != 4 ||
		f.Groups[0].Attempts != 4 || f.Ended != 40 {
		t.Errorf("got %+v", f)
	}
	if got := view("cause=1").Marginals(); got.Matched != 4 {
		t.Errorf("of the cause: got %d, want 4", got.Matched)
	}
	if got := view("m[loss]=2..&node=n1&t=0..850").History(); got.Matched != 252 || got.Best[0] != 2 {
		t.Errorf("filtered: got %d and best %v, want 252 and 2", got.Matched, got.Best)
	}
	bars := view("d[b]=0..3").Timeline().Bars
	if len(bars.Trial) != 16 || bars.Start[1]-bars.Start[0] != 1 || bars.End[0]-bars.Start[0] != 2 {
		t.Errorf("bars: got %+v", bars)
	}
	_, err := m.handlers.charts.charts.view(t.Context(), s, "", "", whereOf(t, "m[other]=1"), minAge)
	var wrong *chart.Error
	if !errors.As(err, &wrong) {
		t.Errorf("a metric that is not there: got %v", err)
	}
}

// TestCurvesOfHistory draws the curves of folded events: by default those of the best trials,
// within the filter.
func TestCurvesOfHistory(t *testing.T) {
	m, s := folded(t, spaceOf(t, 4, 1000), func(i int64) *grid.Result {
		points := make([]grid.Point, grid.MaxPoints)
		for k := range points {
			points[k] = grid.Point{Step: float64(k), Value: float32(i) + float32(grid.MaxPoints-k)}
		}
		return &grid.Result{
			Started: 1e15, Metrics: grid.Metric{"loss": json.RawMessage(fmt.Sprint(i))},
			Curves: grid.Curves{"loss": grid.PackCurve(points)},
		}
	})
	draw := func(query, trials string) *chart.Curves {
		t.Helper()
		v, err := m.handlers.charts.charts.view(t.Context(), s, "", "", whereOf(t, query), minAge)
		if err != nil {
			t.Fatal(err)
		}
		c, err := m.handlers.charts.curves(t.Context(), s, v.view, map[string][]string{"trials": {trials}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	began := time.Now()
	c := draw("", "")
	t.Logf("drawn in %v", time.Since(began))
	if c.Sampled != 2000 || len(c.Steps) != grid.MaxPoints || c.Counts[5] != 2000 || c.Curves[0].Trial != 0 ||
		c.Curves[0].Values[63] != 1 || c.Median[63] != 2001 {
		t.Errorf("got %+v", c)
	}
	c = draw("d[a]=1&d[b]=7..9", "3999,5")
	if c.Sampled != 3 || c.Low[63] != 1008 || c.High[63] != 1010 || len(c.Curves) != 2 || c.Curves[0].Trial != 3999 ||
		c.Curves[0].Values[63] != 4000 {
		t.Errorf("filtered: got %+v", c)
	}
}

func whereOf(t testing.TB, query string) chart.Where {
	t.Helper()
	q := map[string][]string{}
	for part := range strings.SplitSeq(query, "&") {
		if key, value, ok := strings.Cut(part, "="); ok {
			q[key] = append(q[key], value)
		}
	}
	w, err := chart.ParseWhere(q)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestChartsAreKept checks that one computation serves all clients, that a sweep in progress is
// read once a second, and that little is kept.
func TestChartsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChartCache(keptAnswers)
		made := 0
		get := func(key, version string) {
			t.Helper()
			if _, err := c.get(t.Context(), key, version, minAge, func() (any, selection, error) {
				made++
				return strings.Repeat("x", keptBytes/4-100), selection{}, nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			get("a", "1")
		}
		get("a", "2")
		if made != 1 {
			t.Errorf("made %d times, want once", made)
		}
		time.Sleep(minAge + time.Millisecond)
		get("a", "1") // nothing has changed
		get("a", "2")
		if made != 2 {
			t.Errorf("made %d times, want again after the change", made)
		}
		for _, key := range strings.Split("bcdefg", "") {
			get(key, "1")
		}
		if c.bytes > keptBytes || len(c.kept) != 4 {
			t.Errorf("kept %d answers of %d bytes, want 4 in %d", len(c.kept), c.bytes, keptBytes)
		}
		large, err := c.get(t.Context(), "large", "1", minAge, func() (any, selection, error) {
			return strings.Repeat("x", largeAnswer), selection{}, nil
		})
		if err != nil || len(large.body) < largeAnswer || len(c.kept) != 4 {
			t.Errorf("a large answer of %d bytes, %v, takes the place of others: %d are kept",
				len(large.body), err, len(c.kept))
		}
		c.compute <- struct{}{}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if _, err := c.get(ctx, "z", "1", minAge, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("a client that has gone: got %v", err)
		}
		v := &keptView{selection{"k", "1", time.Now(), 0}, &chart.View{}}
		c.keepView(v)
		if c.lastView("k", "1", 0) != v || c.lastView("k", "2", minAge) != v || c.lastView("l", "1", minAge) != nil {
			t.Error("the last selection is not kept")
		}
		time.Sleep(viewTTL + time.Millisecond)
		if c.lastView("k", "1", minAge) != nil {
			t.Error("the last selection is kept for good")
		}
	})
}

// TestChartsInUseShareTheTime requests ten charts of a sweep in progress every second, each of
// which takes a while to compute. Together they take a small part of the time, none is older than
// usedAge, and a chart that is requested alone afterwards is as fresh as any.
func TestChartsInUseShareTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChartCache(keptAnswers)
		const took = 20 * time.Millisecond
		made, oldest := 0, time.Duration(0)
		ask := func(key string) {
			t.Helper()
			a, err := c.get(t.Context(), key, time.Now().String(), minAge, func() (any, selection, error) {
				made++
				time.Sleep(took)
				return key, selection{}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			oldest = max(oldest, time.Since(a.made)-took)
		}
		began := time.Now()
		for time.Since(began) < 5*time.Minute {
			for i := range 10 {
				ask(strconv.Itoa(i))
			}
			time.Sleep(time.Second)
		}
		first := 10 * took // its cost is still unknown
		if busy, most := time.Duration(made)*took, first+time.Since(began)/usedFactor; busy > most || oldest > usedAge {
			t.Errorf("%d answers took %v, want at most %v; the oldest was %v, want at most %v", made, busy,
				most, oldest, usedAge)
		}
		time.Sleep(usedFor)
		oldest = 0
		for range 20 {
			ask("0")
			time.Sleep(time.Second)
		}
		if oldest > 2*time.Second {
			t.Errorf("alone, the oldest answer was %v, want at most 2 s", oldest)
		}
	})
}

// TestChartsShareSelections requests ten charts of a sweep in progress every second. They are
// recomputed together, from one selection, and none twice from the same one.
func TestChartsShareSelections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChartCache(keptAnswers)
		selections, drawn := 0, map[string]int{}
		ask := func(key string) {
			version := time.Now().String()
			_, err := c.get(t.Context(), key, version, minAge, func() (any, selection, error) {
				v := c.lastView("all", version, c.viewAge())
				if v == nil {
					const took = 60 * time.Millisecond
					v = &keptView{selection{"all", version, time.Now(), took}, nil}
					selections++
					time.Sleep(took)
					c.keepView(v)
				}
				time.Sleep(5 * time.Millisecond)
				drawn[key+" of "+v.version]++
				return key, v.selection, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 300 {
			for i := range 10 {
				ask(strconv.Itoa(i))
				time.Sleep(90 * time.Millisecond)
			}
		}
		if len(drawn) < 8*selections {
			t.Errorf("got %d charts from %d selections, want about ten from each", len(drawn), selections)
		}
		for key, n := range drawn {
			if n != 1 {
				t.Errorf("drew %s %d times", key, n)
			}
		}
	})
}

// TestNoOldChartsAtRest checks that the answer of an earlier version is never served for a sweep at
// rest, however costly and recent it is.
func TestNoOldChartsAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChartCache(keptAnswers)
		for i, version := range []string{"1", "2", "2", "3"} {
			made := false
			a, err := c.get(t.Context(), "a", version, 0, func() (any, selection, error) {
				made = true
				time.Sleep(minAge)
				return version, selection{}, nil
			})
			if err != nil || a.version != version || made == (i == 2) {
				t.Errorf("question %d: got version %s, %v, made %v; want %s", i, a.version, err, made, version)
			}
		}
		c.keepView(&keptView{selection{"k", "1", time.Now(), 0}, &chart.View{}})
		if c.lastView("k", "2", 0) != nil {
			t.Error("a selection of another version is given")
		}
	})
}

// TestETAsOfManySweeps requests the time left of more sweeps in progress than are kept, as the
// overview does all the time: none is recomputed too early, and slow computations leave most of the
// time to others.
func TestETAsOfManySweeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newChartCache(keptETAs)
		made := map[string]int{}
		const took = 50 * time.Millisecond
		began := time.Now()
		for range 4 * 60 {
			for i := range 3 * keptAnswers {
				key := strconv.Itoa(i)
				_, err := c.recent(key, time.Now().String(), etaAge, func() (any, selection, error) {
					made[key]++
					time.Sleep(took)
					return key, selection{}, nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(hubInterval)
		}
		total := 0
		for i := range 3 * keptAnswers {
			n := made[strconv.Itoa(i)]
			if total += n; n == 0 {
				t.Errorf("sweep %d was never looked at", i)
			}
		}
		if busy, passed := time.Duration(total)*took, time.Since(began); busy > passed/4 {
			t.Errorf("%v of %v went into %d answers", busy, passed, total)
		}
	})
}

// TestJunkMakesNoAnswers checks that parameters that a chart does not know are not part of the key
// of its answer.
func TestJunkMakesNoAnswers(t *testing.T) {
	h := &chartHandlers{}
	for _, rt := range h.routes() {
		if !strings.HasSuffix(rt.pattern, "/parallel") {
			continue
		}
		q, err := url.ParseQuery("p[a]=1&axis=a&junk=1&p[=2&state[]=x&value=wall&p=7")
		if err != nil {
			t.Fatal(err)
		}
		if got, want := knownParameters(rt.query, q).Encode(), "axis=a&p%5Ba%5D=1&value=wall"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// BenchmarkCharts draws charts of a million trials, and reads the columns each time.
func BenchmarkCharts(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	m, s := folded(b, spaceOf(b, 6, 8, 4, 10, 5, 104), func(i int64) *grid.Result {
		return &grid.Result{
			Started: 1e15 + i*100, Usage: grid.Usage{Wall: int64(1e6 * math.Exp(r.NormFloat64())),
				CPU: 1, Memory: 1 << 20},
			Metrics: grid.Metric{"loss": strconv.AppendFloat(nil, r.ExpFloat64()+float64(i%7), 'g', 6, 64)},
		}
	})
	for _, c := range []struct {
		name string
		draw func(v *chart.View) any
	}{
		{"view", func(*chart.View) any { return nil }}, {"marginals", func(v *chart.View) any { return v.Marginals() }},
		{"parallel", func(v *chart.View) any { p, _ := v.Parallel(nil); return p }},
		{"matrix", func(v *chart.View) any { return v.Matrix() }},
		{"heat", func(v *chart.View) any { h, _ := v.Heat("a", "f", "", "median"); return h }},
		{"histogram", func(v *chart.View) any { return v.Histogram() }},
		{"history", func(v *chart.View) any { return v.History() }}, {"importance", func(v *chart.View) any {
			return v.Importance(false)
		}},
		{"groups", func(v *chart.View) any { g, _ := v.Groups([]string{"f"}, false); return g }},
		{"failures", func(v *chart.View) any { return v.Failures() }},
		{"timeline", func(v *chart.View) any { return v.Timeline() }}, {"coverage", func(v *chart.View) any {
			return v.Coverage()
		}},
		{"suggestions", func(v *chart.View) any { return v.Suggestions() }}, {"brushed", func(v *chart.View) any {
			return v.Marginals()
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			where := chart.Where{}
			if c.name == "brushed" {
				where = whereOf(b, "d[b]=1..4&d[f]=10..40")
			}
			bytes := 0
			for b.Loop() {
				d, err := m.handlers.charts.charts.data(b.Context(), s, "", "", chartTrials, nil)
				if err != nil {
					b.Fatal(err)
				}
				v, err := chart.New(d, where)
				if err != nil {
					b.Fatal(err)
				}
				text, err := json.Marshal(c.draw(v))
				if err != nil {
					b.Fatal(err)
				}
				bytes = len(text)
			}
			b.ReportMetric(float64(bytes), "bytes")
		})
	}
	b.Run("eta", func(b *testing.B) {
		for b.Loop() {
			d, err := m.handlers.charts.charts.data(b.Context(), s, "wall", "", etaTrials, nil)
			if err != nil {
				b.Fatal(err)
			}
			v, err := chart.New(d, chart.Where{})
			if err != nil {
				b.Fatal(err)
			}
			v.ETA()
		}
	})
}

// TestTrialsAreFiltered lists trials by the filter of charts, sorted by values from the columns.
func TestTrialsAreFiltered(t *testing.T) {
	m, s := folded(t, spaceOf(t, 4, 300), func(i int64) *grid.Result {
		r := &grid.Result{Started: 1e15 + i*1e6, Usage: grid.Usage{Wall: 1e6 * (1 + i%7)},
			Metrics: grid.Metric{"loss": json.RawMessage(fmt.Sprint(1200 - i))}}
		if i%300 == 7 {
			r.Class, r.ExitCode, r.Reason, r.Metrics = grid.ClassExit, 1, "exit code 1\nKeyError: X", nil
		}
		return r
	})
	for _, c := range []struct {
		query string
		want  []int64
	}{
		{"d[b]=6..8&d[a]=1..2&sort=loss", []int64{608, 606, 308, 306, 307, 607}}, // those without a value come last
		{"d[b]=6..8&d[a]=1..2&sort=loss&desc=true", []int64{306, 308, 606, 608, 307, 607}},
		{"d[b]=6..8&d[a]=1..2&sort=b&desc=true&offset=1&limit=3", []int64{608, 307, 607}},
		{"d[b]=6..8&d[a]=1..2&state=failed&sort=index&desc=true", []int64{607, 307}},
		{"p[b]=7&sort=state", []int64{7, 307, 607, 907}},
		{"cause=1&class=exit&sort=started&desc=true", []int64{907, 607, 307, 7}},
		{"m[loss]=..2", []int64{1198, 1199}},
		{"d[a]=0..0&d[b]=0..4&sort=ended&desc=true", []int64{4, 3, 2, 1, 0}},
		{"node=nobody", nil},
	} {
		l, err := listingOf(t, m, s, c.query)
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		var got []int64
		l.emit = func(v *grid.Trial) error { got = append(got, v.Index); return nil }
		if err := l.run(t.Context()); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v (%v), want %v", c.query, got, err, c.want)
		}
	}
	for _, query := range []string{"d[c]=1", "m[other]=1", "d[b]=x", "d[b]=1&sort=attempts"} {
		_, err := listingOf(t, m, s, query)
		var refused *api.Error
		if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
			t.Errorf("%s: got %v, want a refusal", query, err)
		}
	}
	m.handlers.charts.charts.cache.compute <- struct{}{}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client has gone")
	cancel(gone)
	l := &listing{listingPage: listingPage{sweep: s, q: api.TrialQuery{Sort: "index"}}, trials: m.handlers.trials}
	if err := l.selectTrials(ctx, whereOf(t, "d[b]=1")); !errors.Is(err, gone) {
		t.Errorf("while a chart is being computed: got %v, want that it waits for its turn", err)
	}
}

func listingOf(t *testing.T, m *Monitor, s *grid.Sweep, query string) (*listing, error) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/?"+query, nil)
	if err := r.ParseForm(); err != nil {
		t.Fatal(err)
	}
	return m.handlers.trials.newListing(r, s)
}
