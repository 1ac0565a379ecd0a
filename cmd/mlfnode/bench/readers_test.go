package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
)

// BenchmarkStartBesideReaders measures how long a sweep of one trial takes from its submission to
// its end, on a node that knows 10^6 trials: alone, and beside twelve clients that page deep in a
// sorted list. The second must be below twice the first.
func BenchmarkStartBesideReaders(b *testing.B) {
	const known, readers, rounds = 1_000_000, 12, 15
	dir := b.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	endedTrials(b, dir, submission(b, known, "/bin/true"), func(i int64) *grid.Result {
		value := float64(i*7919%1000003) / 1000003
		return &grid.Result{
			Usage:   grid.Usage{Wall: 1000 + i*7919%100000, CPU: 900, Memory: 1 << 20},
			Metrics: grid.Metric{"accuracy": json.RawMessage(fmt.Sprint(value)), "loss": json.RawMessage("0.5")},
		}
	})
	s, err := node.Attach(b.Context(), config.Config{
		StateDir: dir, Node: "bench", Machine: inventory.Machine{CPUs: 2, Memory: 4 << 30},
		Retention: config.DefaultRetention(),
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}, true, func() {})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	median := func() time.Duration {
		var all []time.Duration
		for range rounds {
			all = append(all, sweep(b, s.Client(), submission(b, 1, "/bin/true")))
		}
		slices.Sort(all)
		return all[rounds/2]
	}
	b.ResetTimer()
	for range b.N {
		alone := median()
		ctx, stop := context.WithCancel(b.Context())
		var reading sync.WaitGroup
		for i := range readers {
			reading.Go(func() {
				sorts := []string{"accuracy", "wall", "accuracy", "loss"}
				for n := 0; ctx.Err() == nil; n++ {
					q := api.TrialQuery{Sort: sorts[(i+n)%len(sorts)], Desc: n%2 == 0, Limit: 10,
						Offset: int64(500_000 + (i*37_123+n*911)%400_000)}
					for range s.Client().Trials().List(ctx, "big-1", q) {
					}
				}
			})
		}
		beside := median()
		stop()
		reading.Wait()
		b.ReportMetric(float64(alone.Microseconds())/1000, "alone-ms")
		b.ReportMetric(float64(beside.Microseconds())/1000, "beside-ms")
		b.ReportMetric(float64(beside)/float64(alone), "ratio")
	}
}

// endedTrials stores a finished sweep, as a worker's reports do, after what is stored before.
func endedTrials(
	b *testing.B, dir string, sub api.Submit, result func(i int64) *grid.Result, before ...func(*jetstream.Store),
) {
	b.Helper()
	check := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	server, err := jetstream.Start(jetstream.Config{Dir: filepath.Join(dir, "jetstream"),
		Logger: slog.New(slog.DiscardHandler)})
	check(err)
	defer server.Close()
	store, err := server.OpenStore(b.Context())
	check(err)
	defer store.Close()
	_, err = store.Records.Create(b.Context(), &grid.Sweep{
		V: grid.RecordVersion, ID: "big-1", Project: "big", State: grid.SweepFinished, Space: sub.Space, Task: sub.Task,
		Submitted: time.Now().Add(-time.Hour), Ended: time.Now(),
	})
	check(err)
	for _, fn := range before {
		fn(store)
	}
	now, n := time.Now().Add(-time.Hour).UnixMicro(), sub.Space.Count()
	for i := int64(0); i < n; {
		batch := &grid.Batch{V: grid.EventVersion, Sweep: "big-1", Node: ""}
		for range min(1000, n-i) {
			r := result(i)
			r.Started = now + 1000*i
			batch.Events = append(batch.Events, grid.Event{
				Kind: grid.Finished, Index: i, Attempt: 1, Run: fmt.Sprint("bench.1.", i),
				Time: r.Started + r.Usage.Wall, Result: r,
			})
			i++
		}
		_, err := store.Events.Publish(b.Context(), batch)
		check(err)
	}
}
