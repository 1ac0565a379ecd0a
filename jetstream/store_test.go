package jetstream

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mlfnode/grid"
	"mlfnode/jetstream/natsd"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open starts a server in dir, and closes it at the end of the test.
func open(t testing.TB, dir string, limits Limits) *Store {
	t.Helper()
	server, err := Start(Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Limits: limits})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(server.Close)
	store, err := server.OpenStore(t.Context())
	if err != nil {
		t.Fatalf("store: %v", err)
	}
	t.Cleanup(store.Close)
	return store
}

func sweep(id string) *grid.Sweep {
	return &grid.Sweep{V: grid.RecordVersion, ID: grid.SweepID(id), Project: "p", State: grid.SweepRunning}
}

func batch(id string, from, n int) *grid.Batch {
	b := &grid.Batch{V: grid.EventVersion, Sweep: grid.SweepID(id), Node: "n1"}
	for i := range n {
		b.Events = append(b.Events, grid.Event{
			Kind: grid.Finished, Index: int64(from + i), Attempt: 1, Run: fmt.Sprintf("n1.1.%d", from+i),
			Time:   1700000000000000 + int64(i),
			Result: &grid.Result{Started: 1700000000000000, Usage: grid.Usage{Wall: 1000, CPU: 900}},
		})
	}
	return b
}

func TestUsage(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{LogBytes: 1 << 20})
	if _, _, err := s.Logs.Publish(t.Context(), "a-1",
		[]Chunk{{Run: "r", Stream: 1, Data: make([]byte, 1000)}}); err != nil {
		t.Fatal(err)
	}
	all, err := s.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range all {
		if u.Name == "logs" && (u.Bytes < 1000 || u.Limit != 1<<20) {
			t.Errorf("logs: got %+v, want over 1000 bytes of 1 MiB", u)
		}
	}
}

// TestSecondServerIsRefused starts a second server in a folder: the first is not affected.
func TestSecondServerIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Limits{})
	if _, err := Start(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, natsd.ErrInUse) {
		t.Errorf("second start: got %v, want ErrInUse", err)
	}
	if _, err := s.Records.Create(t.Context(), sweep("a-1")); err != nil {
		t.Errorf("create afterwards: got %v, want nil", err)
	}
}

func TestStartStop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 10 {
		server, err := Start(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		s, err := server.OpenStore(t.Context())
		if err != nil {
			t.Fatalf("store %d: %v", i, err)
		}
		if _, err := s.Records.Create(t.Context(), sweep(fmt.Sprintf("a-%d", i))); err != nil {
			t.Fatalf("create %d: %v", i, err)
		}
		if all, err := s.Records.All(t.Context()); err != nil || len(all) != i+1 {
			t.Fatalf("all: got %d, %v; want %d", len(all), err, i+1)
		}
		s.Close()
		server.Close()
	}
}

func TestCallsEndWithTheServer(t *testing.T) {
	t.Parallel()
	server, err := Start(Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.OpenStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	done := make(chan error, 1)
	reading := make(chan struct{})
	go func() {
		done <- s.Records.Watch(t.Context(), 0, func(Change) { close(reading) })
	}()
	<-reading
	server.Close()
	select {
	case err := <-done:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("watch ended with %v, want ErrClosed", err)
		}
	case <-time.After(time.Minute):
		t.Error("watch continues after the server has gone")
	}
	if _, err := s.Records.Create(t.Context(), sweep("a-1")); !errors.Is(err, ErrClosed) {
		t.Errorf("create: got %v, want ErrClosed", err)
	}
}

func TestLimitsCanBeChanged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, limit := range []int64{1 << 20, 2 << 20, 2 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			s := open(t, dir, Limits{EventBytes: limit})
			info, err := s.streamInfo(t.Context(), eventStream)
			if err != nil || info.Config.MaxBytes != limit {
				t.Errorf("got a limit of %d, %v; want %d", info.Config.MaxBytes, err, limit)
			}
		})
	}
}

// TestProbe writes to a store and reads back repeatedly, and fails once the server has stopped.
func TestProbe(t *testing.T) {
	t.Parallel()
	server, err := Start(Config{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.OpenStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 3 {
		if err := errors.Join(s.Ping(t.Context()), s.Probe(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	if all, err := s.Records.All(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("a probe is listed as a record: %v, %v", all, err)
	}
	server.Close()
	if s.Ping(t.Context()) == nil || s.Probe(t.Context()) == nil {
		t.Error("a store without a server answers")
	}
}

// TestLostIsClosed lets the server close a connection for good: Lost is closed then, but not after
// Close.
func TestLostIsClosed(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	// whether it fails depends on how fast the server is
	_ = s.conn.Publish(strings.Repeat("a", 2*natsd.MaxControlLine), nil)
	select {
	case <-s.Lost():
	case <-time.After(time.Minute):
		t.Fatal("Lost is not closed although the connection is gone")
	}
	other := open(t, t.TempDir(), Limits{})
	other.Close()
	select {
	case <-other.Lost():
		t.Error("Lost is closed after Close")
	default:
	}
}
