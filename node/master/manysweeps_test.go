package master

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/history"
)

// BenchmarkStartBesideEndedSweeps measures the start of a master that knows 5,000 ended sweeps: how
// long until it is ready, until it sees a change of a record, and what it keeps in memory for them.
func BenchmarkStartBesideEndedSweeps(b *testing.B) {
	const count = 5000
	dir := b.TempDir()
	log := slog.New(slog.DiscardHandler)
	server, err := jetstream.Start(jetstream.Config{Dir: filepath.Join(dir, "jetstream"), Logger: log})
	if err != nil {
		b.Fatal(err)
	}
	defer server.Close()
	store, err := server.OpenStore(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	var environ []string
	for i := range 30 {
		environ = append(environ, fmt.Sprintf("VARIABLE_%d=/usr/share/value/%d", i, i))
	}
	for i := range count {
		s := newSweep(b, grid.SweepID(fmt.Sprintf("ended-%d", i)), 1000)
		s.State, s.Environ = grid.SweepFinished, environ
		if _, err := store.Records.Create(b.Context(), s); err != nil {
			b.Fatal(err)
		}
	}
	db, err := history.Open(filepath.Join(dir, "history.db"), log)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	var ready, followed time.Duration
	var kept int64
	for b.Loop() {
		begin := time.Now()
		m := New(Config{Store: store, History: db, Logger: log, LeaseTrials: true,
			Capacity: Capacity{Slots: func(grid.Resources) int { return 4 }}})
		ctx, stop := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx) }()
		<-m.Ready()
		ready += time.Since(begin)
		r, _ := m.Sweep("ended-0")
		rev, err := store.Records.Update(b.Context(), &r)
		if err != nil {
			b.Fatal(err)
		}
		for {
			changed := m.Changed()
			if now, _ := m.Sweep("ended-0"); now.Rev >= rev {
				break
			}
			<-changed
		}
		followed += time.Since(begin)
		kept = heap() - before
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
		runtime.KeepAlive(m)
	}
	b.ReportMetric(float64(ready.Microseconds())/1000/float64(b.N), "ready-ms")
	b.ReportMetric(float64(followed.Microseconds())/1000/float64(b.N), "followed-ms")
	b.ReportMetric(float64(kept)/count, "B/sweep")
}
