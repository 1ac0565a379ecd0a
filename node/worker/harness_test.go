package worker

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
	"mlfnode/node/executor/shim"
)

// TestMain runs the test binary as a shim, as an agent, or as the tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == shim.Command {
		os.Exit(shim.Main(os.Args[2:], nil, os.Stderr))
	}
	if dir, ok := os.LookupEnv(agentVar); ok {
		os.Exit(agent(dir))
	}
	goleak.VerifyTestMain(m)
}

// testTimeout is the longest time that a test waits for one thing.
const testTimeout = 3 * time.Minute

// program is an executor that runs a func for each attempt.
type program func(context.Context, *executor.Attempt) executor.Outcome

func (p program) Slot() (executor.Slot, error) { return p, nil }
func (p program) Close() error                 { return nil }

// Run ends the attempt as failed if the func ends its goroutine, as t.Fatal does: otherwise the
// worker would wait for it forever.
func (p program) Run(ctx context.Context, a *executor.Attempt) executor.Outcome {
	ended := make(chan executor.Outcome, 1)
	go func() {
		o := executor.Outcome{Class: grid.ClassExit, ExitCode: 1, Reason: "the test failed within the program"}
		defer func() { ended <- o }()
		o = p(ctx, a)
	}()
	return <-ended
}

var _ executor.Executor = program(nil)

// succeeded returns the outcome of a program that succeeded immediately.
func succeeded() executor.Outcome {
	now := time.Now()
	return executor.Outcome{Start: now, End: now}
}

// harness is a worker over a real store. The test acts as the master.
type harness struct {
	*Worker
	t     *testing.T
	store *jetstream.Store
	dir   string
	stop  func() // ends the worker and waits
}

func openStore(t *testing.T, dir string) *jetstream.Store {
	t.Helper()
	server, err := jetstream.Start(jetstream.Config{Dir: dir, Logger: logger(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	store, err := server.OpenStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

func logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// newHarness makes a worker that does not run yet.
func newHarness(t *testing.T, p program) *harness {
	t.Helper()
	return newHarnessOver(t, filepath.Join(t.TempDir(), "jetstream"), p)
}

// newHarnessOver makes a worker whose store is in this folder.
func newHarnessOver(t *testing.T, store string, p program) *harness {
	t.Helper()
	s := &harness{t: t, store: openStore(t, store), dir: t.TempDir()}
	s.Worker = s.worker(p)
	return s
}

// worker makes another worker in the same folder, as the next start does.
func (s *harness) worker(p program) *Worker {
	s.t.Helper()
	w, err := New(Config{
		Node: "n", Dir: s.dir, Master: s.store.Calls.LocalClient("n"), Files: s.store, Programs: Programs{Executor: p},
		Machine: inventory.Machine{CPUs: 4, Memory: 8 << 30}, Logger: logger(s.t),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(w.trials.attempts.spools.close)
	w.stopTimeout = 100 * time.Millisecond
	return w
}

// run runs the worker until the test ends, or stop is called.
func (s *harness) run() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background()) // ends with stop
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stopped := false
	s.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("worker ended with: %v", err)
		}
	}
	s.t.Cleanup(s.stop)
}

// sweep stores the record of a running sweep of n trials with cpus CPUs each; edit may change it.
func (s *harness) sweep(id grid.SweepID, n int, cpus float64, edit func(*grid.Sweep)) *grid.Sweep {
	s.t.Helper()
	axis, err := space.ParseSet(fmt.Sprintf("i=0:%d", n))
	if err != nil {
		s.t.Fatal(err)
	}
	points, err := space.New([]space.Axis{axis}, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r := &grid.Sweep{
		V: grid.RecordVersion, ID: id, Project: "t", State: grid.SweepRunning, Space: points,
		Environ: []string{"PATH=/bin:/usr/bin"},
		Task: grid.Task{
			Name: "test", Command: []string{string(id)}, Resources: grid.Resources{CPUs: grid.MilliOf(cpus)},
			Grace: time.Second,
		},
	}
	if edit != nil {
		edit(r)
	}
	if _, err := s.store.Records.Create(s.t.Context(), r); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// lease adds trials [lo,hi) to the queue.
func (s *harness) lease(r *grid.Sweep, lo, hi int64) uint64 {
	s.t.Helper()
	seq, err := s.store.Queue.Publish(
		s.t.Context(), jetstream.Lease{Sweep: r.ID, Lo: lo, Hi: hi, Attempt: 1, Shape: string(r.Lane())},
	)
	if err != nil {
		s.t.Fatal(err)
	}
	return seq
}

// setState stores a new state of the record.
func (s *harness) setState(r *grid.Sweep, state grid.SweepState) {
	s.t.Helper()
	old, err := s.store.Records.Load(s.t.Context(), r.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	old.Sweep.State = state
	if state == grid.SweepCancelled {
		old.Sweep.Ended = time.Now()
	}
	if _, err := s.store.Records.Update(s.t.Context(), &old); err != nil {
		s.t.Fatal(err)
	}
}

// events returns the stored events of a sweep once ok accepts them.
func (s *harness) events(id grid.SweepID, ok func([]grid.Event) bool) []grid.Event {
	s.t.Helper()
	ctx, stop := context.WithTimeout(s.t.Context(), testTimeout)
	defer stop()
	var all []grid.Event
	err := s.store.Events.Read(ctx, 1, func(stored []jetstream.StoredBatch) error {
		for _, b := range stored {
			if b.Batch.Sweep == id {
				all = append(all, b.Batch.Events...)
			}
		}
		if ok(all) {
			return errEnough
		}
		return nil
	})
	if err != errEnough {
		s.t.Fatalf("events of %s: %v; got %d: %s", id, err, len(all), kinds(all))
	}
	return all
}

var errEnough = fmt.Errorf("that is enough")

// finished waits for n results of the sweep.
func (s *harness) finished(id grid.SweepID, n int) []grid.Event {
	s.t.Helper()
	all := s.events(id, func(all []grid.Event) bool { return len(only(all, grid.Finished)) >= n })
	return only(all, grid.Finished)
}

// released waits until n leases of the sweep are closed.
func (s *harness) released(id grid.SweepID, n int) []grid.Event {
	s.t.Helper()
	return s.events(id, func(all []grid.Event) bool { return len(only(all, grid.Released)) >= n })
}

func only(all []grid.Event, kind grid.EventKind) []grid.Event {
	var some []grid.Event
	for i := range all {
		if all[i].Kind == kind {
			some = append(some, all[i])
		}
	}
	return some
}

func kinds(all []grid.Event) []grid.EventKind {
	var k []grid.EventKind
	for i := range all {
		k = append(k, all[i].Kind)
	}
	return k
}

// output joins the stored output of a run's stream, which must have no gap.
func (s *harness) output(id grid.SweepID, run string, stream uint8) string {
	s.t.Helper()
	var text []byte
	err := s.store.Logs.Read(s.t.Context(), id, jetstream.LogRange{}, func(_ uint64, chunks []jetstream.Chunk) error {
		for _, c := range chunks {
			if c.Run != run || c.Stream != stream {
				continue
			}
			if c.Offset != int64(len(text)) {
				s.t.Errorf(
					"output of %s, stream %d: got a piece at %d, want one at %d", run, stream, c.Offset, len(text),
				)
			}
			text = append(text, c.Data...)
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// receive waits for a value.
func receive[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(testTimeout):
		t.Fatalf("waited %v in vain: %s", testTimeout, what)
		panic("unreachable")
	}
}

// eventually polls until ok returns true, for conditions without an event to wait for.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	limit := time.After(testTimeout)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited %v in vain: %s", testTimeout, what)
		}
	}
}
