package bench

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/grid/gridtest"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/executor/executortest"
)

// BenchmarkRetry has a million trials that have failed run again, with an executor that returns
// immediately, and compares that with a sweep that is new: how soon the first one has ended, the
// rates beside the request, after its answer and from the request to the last end, and the memory.
// On a restart it also measures how soon the node is there.
func BenchmarkRetry(b *testing.B) {
	const ran = 300_000 // trials of the new sweep, and of each rate of the retry
	dir := b.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	endedTrials(b, dir, submission(b, points, "/bin/true"), func(int64) *grid.Result {
		return &grid.Result{Class: grid.ClassExit, ExitCode: 1, Reason: "exit code 1",
			Usage: grid.Usage{Wall: 1000, CPU: 900, Memory: 1 << 20}}
	})
	attach := func() *node.Session {
		s, err := node.Attach(b.Context(), config.Config{
			StateDir: dir, Node: "bench", Machine: inventory.Machine{CPUs: slots, Memory: 4 << 30},
			Retention: config.DefaultRetention(),
			Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
			Executor:  executortest.Instant{},
		}, true, func() {})
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	begin := time.Now()
	s := attach()
	b.Logf("the first start, which folds all events, took %v", time.Since(begin))
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	begin = time.Now()
	s = attach()
	b.ReportMetric(time.Since(begin).Seconds()*1000, "ms-restart")
	defer func() { s.Close() }()
	c := s.Client()
	used := gridtest.CPUTime(b)
	fresh := ran / sweep(b, c, submission(b, ran, "/bin/true")).Seconds()
	freshCPU := (gridtest.CPUTime(b) - used).Seconds() / ran
	succeeded := func() int64 {
		v, err := c.Sweeps().Get(b.Context(), "big-1")
		if err != nil {
			b.Fatal(err)
		}
		return v.Succeeded
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for range b.N {
		before, used := resident(b), gridtest.CPUTime(b)
		answered := make(chan time.Duration, 1)
		begin := time.Now()
		go func() {
			if _, err := c.Sweeps().Retry(b.Context(), "big-1", api.Retry{Index: -1, FailedOnly: true}); err != nil {
				b.Error(err)
			}
			answered <- time.Since(begin)
		}()
		await := func(n int64) time.Duration {
			for succeeded() < n {
				<-tick.C
			}
			return time.Since(begin)
		}
		first := await(1)
		tick.Reset(20 * time.Millisecond) // polling costs as well
		b.ReportMetric(first.Seconds()*1000, "ms-first-end")
		beside := await(ran)
		b.ReportMetric((<-answered).Seconds()*1000, "ms-answer")
		if from, at := succeeded(), time.Now(); from <= points-ran {
			await(from + ran)
			b.ReportMetric(float64(succeeded()-from)/time.Since(at).Seconds()/fresh, "rate/fresh")
		}
		whole := await(points)
		b.ReportMetric(float64(resident(b)-before)/points, "resident-B/trial")
		b.ReportMetric(ran/(beside-first).Seconds()/fresh, "rate-beside/fresh")
		b.ReportMetric(points/whole.Seconds()/fresh, "rate-whole/fresh")
		b.ReportMetric((gridtest.CPUTime(b)-used).Seconds()/points/freshCPU, "CPU/fresh")
		b.ReportMetric(1e6*freshCPU, "fresh-CPU-us/trial")
		b.ReportMetric(fresh, "fresh-trials/s")
		b.ReportMetric(0, "ns/op")
	}
}
