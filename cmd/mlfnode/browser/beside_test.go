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

// BenchmarkSweepBesidePages measures how fast a sweep without processes goes on, and how much
// processor time of the node a trial takes, with no page open and with those of ten people, by
// turns. The second ratio is what the pages cost with the browser on another machine: it must be
// above 0.95. The first one is with the browser on this machine.
func BenchmarkSweepBesidePages(b *testing.B) {
	const rounds, span = 4, 15 * time.Second
	c := newState(b)
	s, err := node.Attach(b.Context(), config.Config{
		StateDir: filepath.Join(c.dir, "state"), Node: "bench", Machine: inventory.Machine{CPUs: 2, Memory: 4 << 30}, Retention: config.DefaultRetention(),
		Executor: executortest.Instant{}, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}, true, func() {})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	sweep, err := s.Client().Sweeps().Submit(b.Context(), endless(b))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _, _ = s.Client().Sweeps().Cancel(context.Background(), sweep.Sweep, false) }) // it goes with the folder
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
	places := []string{"/", at, at + "/heat", at + "/timeline", at + "/logs", at + "/coverage", at, "/", at + "/trials/1", "/sweeps"}
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
			for _, page := range all {
				page.open("about:blank")
			}
			alone = append(alone, measure())
			for i, page := range all {
				page.open(places[i])
				page.see(".line.live")
			}
			beside = append(beside, measure())
		}
		rate, cpu := func(f figures) float64 { return f.rate }, func(f figures) float64 { return f.cpu }
		b.ReportMetric(middle(alone, rate), "alone-trials/s")
		b.ReportMetric(middle(beside, rate), "beside-trials/s")
		b.ReportMetric(middle(beside, rate)/middle(alone, rate), "rate-ratio")
		b.ReportMetric(middle(alone, cpu), "alone-cpu-us/trial")
		b.ReportMetric(middle(beside, cpu), "beside-cpu-us/trial")
		b.ReportMetric(middle(alone, cpu)/middle(beside, cpu), "cpu-ratio")
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
	task := grid.Task{Name: "bench", Command: []string{"/bin/true"}, Resources: grid.Resources{CPUs: grid.One}, Retries: grid.DefaultRetries()}
	return api.Submit{Project: "bench", Task: task, Space: points, Environ: []string{"PATH=/usr/bin:/bin"}}
}

func ended(b *testing.B, s *node.Session, id grid.SweepID) int64 {
	v, err := s.Client().Sweeps().Get(b.Context(), id)
	if err != nil {
		b.Fatal(err)
	}
	return v.Succeeded
}
