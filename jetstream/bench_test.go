package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"testing"

	"mlfnode/grid"
)

func BenchmarkPublishEvents(b *testing.B) {
	for _, n := range []int{1, 100, 500} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			s := open(b, b.TempDir(), Limits{})
			for i := 0; b.Loop(); i++ {
				if _, err := s.Events.Publish(b.Context(), batch("a-1", i*n, n)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func BenchmarkReadEvents(b *testing.B) {
	s := open(b, b.TempDir(), Limits{})
	const batches, n = 500, 500
	for i := range batches {
		if _, err := s.Events.Publish(b.Context(), batch("a-1", i*n, n)); err != nil {
			b.Fatal(err)
		}
	}
	end := errors.New("end")
	for b.Loop() {
		err := s.Events.Read(b.Context(), 1, func(stored []StoredBatch) error {
			if stored[len(stored)-1].Seq == batches {
				return end
			}
			return nil
		})
		if !errors.Is(err, end) {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*batches*n)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkLease(b *testing.B) {
	q := open(b, b.TempDir(), Limits{}).Queue
	for i := 0; b.Loop(); i++ {
		mustPublish(b, q, lease("s", int64(i)))
		mustReturn(b, q, mustTake(b, q, "s", 1, 1)[0])
	}
}

func BenchmarkTakeFromEmptyQueue(b *testing.B) {
	q := open(b, b.TempDir(), Limits{}).Queue
	for b.Loop() {
		mustTake(b, q, "s", 1, 0)
	}
}

func BenchmarkList(b *testing.B) {
	q := open(b, b.TempDir(), Limits{}).Queue
	for i := range 300 {
		mustPublish(b, q, lease("s", int64(i)))
	}
	for b.Loop() {
		if n := len(listedSequences(b, q)); n != 300 {
			b.Fatalf("got %d, want 300", n)
		}
	}
}

func BenchmarkLogs(b *testing.B) {
	chunks := make([]Chunk, 100)
	for i := range chunks {
		chunks[i] = Chunk{Index: int64(i), Run: fmt.Sprint("n1-1-", i), Stream: 1,
			Data: bytes.Repeat([]byte("x"), 4000)}
	}
	b.Run("publish", func(b *testing.B) {
		s := open(b, b.TempDir(), Limits{})
		b.SetBytes(100 * 4000)
		for b.Loop() {
			if _, _, err := s.Logs.Publish(b.Context(), "a-1", chunks); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		s := open(b, b.TempDir(), Limits{})
		for range 100 {
			if _, _, err := s.Logs.Publish(b.Context(), "a-1", chunks); err != nil {
				b.Fatal(err)
			}
		}
		b.SetBytes(100 * 100 * 4000)
		for b.Loop() {
			if err := s.Logs.Read(b.Context(), "a-1", LogRange{},
				func(uint64, []Chunk) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkObjects(b *testing.B) {
	for _, size := range []int{1000, 20 << 20} {
		b.Run(strconv.Itoa(size), func(b *testing.B) {
			s := open(b, b.TempDir(), Limits{})
			content := make([]byte, size)
			b.SetBytes(int64(size))
			for i := 0; b.Loop(); i++ {
				if err := s.Artifacts.Put(b.Context(), fmt.Sprintf("a-1/%d/r", i),
					bytes.NewReader(content)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkStart measures a start in an empty folder, and in one with the history of ten sweeps of
// 10,000 trials each.
func BenchmarkStart(b *testing.B) {
	b.Run("empty", func(b *testing.B) {
		root := b.TempDir()
		for i := 0; b.Loop(); i++ {
			restart(b, filepath.Join(root, strconv.Itoa(i)))
		}
	})
	b.Run("history", func(b *testing.B) {
		dir := b.TempDir()
		fillHistory(b, dir)
		for b.Loop() {
			restart(b, dir)
		}
	})
}

func start(b *testing.B, dir string) (*Server, *Store) {
	b.Helper()
	server, err := Start(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	s, err := server.OpenStore(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	return server, s
}

func restart(b *testing.B, dir string) {
	b.Helper()
	server, s := start(b, dir)
	b.StopTimer()
	s.Close()
	server.Close()
	b.StartTimer()
}

func fillHistory(b *testing.B, dir string) {
	b.Helper()
	server, s := start(b, dir)
	defer server.Close()
	defer s.Close()
	for i := range 10 {
		id := fmt.Sprintf("a-%d", i)
		if _, err := s.Records.Create(b.Context(), sweep(id)); err != nil {
			b.Fatal(err)
		}
		for k := range 20 {
			if _, err := s.Events.Publish(b.Context(), batch(id, k*500, 500)); err != nil {
				b.Fatal(err)
			}
			c := []Chunk{{Run: "r", Stream: 1, Data: make([]byte, 400_000)}}
			if _, _, err := s.Logs.Publish(b.Context(), grid.SweepID(id), c); err != nil {
				b.Fatal(err)
			}
		}
	}
}
