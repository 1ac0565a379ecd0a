package bench

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/executor/executortest"
)

// BenchmarkRetry has a million trials that have failed run again, with an executor that returns at once, and compares that with a sweep
// that is new: how soon the first one has ended, the rate, and the memory. On a restart it also measures how soon the node is there.
func BenchmarkRetry(b *testing.B) {
	const ran = 100_000 // trials whose rate is measured
	dir := b.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	endedTrials(b, dir, submission(b, points, "/bin/true"), func(int64) *grid.Result {
		return &grid.Result{Class: grid.ClassExit, ExitCode: 1, Reason: "exit code 1", Usage: grid.Usage{Wall: 1000, CPU: 900, Memory: 1 << 20}}
	})
	attach := func() *node.Session {
		s, err := node.Attach(b.Context(), config.Config{
			StateDir: dir, Node: "bench", Machine: inventory.Machine{CPUs: slots, Memory: 4 << 30}, Retention: config.DefaultRetention(),
			Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})), Executor: executortest.Instant{},
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
	fresh := float64(ran) / sweep(b, c, submission(b, ran, "/bin/true")).Seconds()
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
		before := resident(b)
		answered := make(chan error, 1)
		begin := time.Now()
		go func() {
			_, err := c.Sweeps().Retry(b.Context(), "big-1", api.Retry{Index: -1, FailedOnly: true})
			b.Logf("the answer took %v", time.Since(begin))
			answered <- err
		}()
		await := func(n int64) time.Duration {
			for succeeded() < n {
				<-tick.C
			}
			return time.Since(begin)
		}
		first := await(1)
		b.ReportMetric(first.Seconds()*1000, "ms-first-end")
		beside := await(ran)
		if err := <-answered; err != nil {
			b.Fatal(err)
		}
		from, at := succeeded(), time.Now()
		if from < points-ran {
			await(from + ran)
			b.ReportMetric(float64(succeeded()-from)/time.Since(at).Seconds()/fresh, "rate/fresh")
		}
		b.ReportMetric(ran/(beside-first).Seconds()/fresh, "rate-beside/fresh")
		b.ReportMetric(float64(resident(b)-before)/points, "resident-B/trial")
		b.ReportMetric(fresh, "fresh-trials/s")
		b.ReportMetric(0, "ns/op")
	}
}
