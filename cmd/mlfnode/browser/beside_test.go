package browser

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/grid/gridtest"
	"mlfnode/grid/space"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/executor/executortest"
)

// BenchmarkSweepBesidePages measures what the pages of ten people cost a sweep without processes:
// how fast it goes on, and how much processor time of the node a trial takes, with no page open and
// with ten. The browsers of people are on other machines: so the requests of ten pages in a real
// Chromium are recorded, and once it is closed a light client repeats them. Alone and beside that
// client the sweep is measured by turns. rate-ratio-replayed must be at least 0.95.
func BenchmarkSweepBesidePages(b *testing.B) {
	const rounds, span, settle, record = 4, 15 * time.Second, 10 * time.Second, 25 * time.Second
	c := newState(b)
	s, err := node.Attach(b.Context(), config.Config{
		StateDir: filepath.Join(c.dir, "state"), Node: "bench", Machine: inventory.Machine{CPUs: 2, Memory: 4 << 30},
		Retention: config.DefaultRetention(),
		Executor:  executortest.Instant{},
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}, true, func() {})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	sweep, err := s.Client().Sweeps().Submit(b.Context(), endless(b))
	if err != nil {
		b.Fatal(err)
	}
	// it goes with the folder
	b.Cleanup(func() { _, _ = s.Client().Sweeps().Cancel(context.Background(), sweep.Sweep, false) })
	m := c.monitor()
	own := newBrowser(b)
	own.allowFailures(true) // it is not in a cluster
	own.login(m)
	all := []*tab{own}
	for len(all) < 10 {
		page := own.stranger()
		page.allowFailures(true)
		page.login(m)
		all = append(all, page)
	}
	at := "/sweeps/" + string(sweep.Sweep)
	places := []string{
		"/", at, at + "/heat", at + "/timeline", at + "/logs", at + "/coverage", at, "/", at + "/trials/1", "/sweeps",
	}
	var recorders []*recorder
	for i, page := range all {
		recorders = append(recorders, page.record())
		page.open(places[i])
		page.see(".line.live")
	}
	<-time.After(settle)
	begin := time.Now()
	<-time.After(record)
	var pages []pageLoad
	asked := 0
	for i, rec := range recorders {
		load, n := rec.load(begin)
		pages, asked = append(pages, load), asked+n
		for _, q := range load.Questions {
			b.Logf("%s: each %v, conditional %t: %s", places[i], q.Every.Round(time.Millisecond), q.Conditional, q.Path)
		}
	}
	for _, page := range all {
		page.open("about:blank")
	}
	b.Logf("recorded %.1f requests a second, to repeat %.1f", float64(asked)/record.Seconds(), rate(pages))
	type figures struct{ rate, cpu float64 }
	measure := func() figures {
		before, used, begin := ended(b, s, sweep.Sweep), gridtest.CPUTime(b), time.Now()
		<-time.After(span)
		trials := float64(ended(b, s, sweep.Sweep) - before)
		return figures{trials / time.Since(begin).Seconds(), (gridtest.CPUTime(b) - used).Seconds() / trials * 1e6}
	}
	middle := func(all []figures, of func(figures) float64) float64 {
		var v []float64
		for _, f := range all {
			v = append(v, of(f))
		}
		slices.Sort(v)
		return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	}
	b.ResetTimer()
	for range b.N {
		var alone, beside []figures
		for range rounds {
			alone = append(alone, measure())
			stop := replay(b, filepath.Join(c.dir, "state", "node.sock"), pages)
			beside = append(beside, measure())
			r := stop()
			if r.Failed > 0 {
				b.Errorf("%d of %d repeated requests have failed", r.Failed, r.Requests)
			}
			perSecond := func(n int64) float64 { return float64(n) / span.Seconds() }
			b.Logf("alone %.0f, beside %.0f trials/s", alone[len(alone)-1].rate, beside[len(beside)-1].rate)
			b.Logf("replayed %.1f requests, %.1f events and %.0f kB a second; %d of %d were not modified, the slowest took %v",
				perSecond(r.Requests), perSecond(r.Events), perSecond(r.Bytes)/1e3, r.NotModified, r.Requests,
				r.Slowest.Round(time.Millisecond))
			b.Logf("the client took %.3f processors", r.CPU.Seconds()/span.Seconds())
		}
		byRate, byCPU := func(f figures) float64 { return f.rate }, func(f figures) float64 { return f.cpu }
		b.ReportMetric(middle(alone, byRate), "alone-trials/s")
		b.ReportMetric(middle(beside, byRate), "beside-trials/s")
		b.ReportMetric(middle(beside, byRate)/middle(alone, byRate), "rate-ratio-replayed")
		b.ReportMetric(middle(alone, byCPU), "alone-cpu-us/trial")
		b.ReportMetric(middle(beside, byCPU), "beside-cpu-us/trial")
		b.ReportMetric(middle(alone, byCPU)/middle(beside, byCPU), "cpu-ratio")
		b.ReportMetric(0, "ns/op")
	}
}

// endless is a sweep that does not come to its end.
func endless(b *testing.B) api.Submit {
	axes := make([]space.Axis, 0, 4)
	for _, text := range []string{"a=0:8", "b=0:6", "c=0:10", "d=0:1000000"} {
		axis, err := space.ParseSet(text)
		if err != nil {
			b.Fatal(err)
		}
		axes = append(axes, axis)
	}
	points, err := space.New(axes, nil)
	if err != nil {
		b.Fatal(err)
	}
	task := grid.Task{Name: "bench", Command: []string{"/bin/true"}, Resources: grid.Resources{CPUs: grid.One},
		Retries: grid.DefaultRetries()}
	return api.Submit{Project: "bench", Task: task, Space: points, Environ: []string{"PATH=/usr/bin:/bin"}}
}

func ended(b *testing.B, s *node.Session, id grid.SweepID) int64 {
	v, err := s.Client().Sweeps().Get(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	return v.Succeeded
}
