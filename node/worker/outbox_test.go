package worker

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// outboxHarness is an outbox that runs over a real store.
type outboxHarness struct {
	*outbox
	t     *testing.T
	store *jetstream.Store
}

func newOutboxHarness(t *testing.T, dir string) *outboxHarness {
	t.Helper()
	store := openStore(t, dir)
	for _, id := range []grid.SweepID{"a-1", "t-1"} {
		if _, err := store.Records.Create(
			t.Context(), &grid.Sweep{V: grid.RecordVersion, ID: id, State: grid.SweepRunning},
		); err != nil {
			t.Fatal(err)
		}
	}
	o := newOutbox(&Config{Node: "n", Master: store.Calls.LocalClient("n"), Logger: logger(t)})
	ctx, stop := context.WithCancel(context.Background()) // ends with the test
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return &outboxHarness{o, t, store}
}

// finish queues a result preceded by some output. stored is called when the event is stored.
func (p *outboxHarness) finish(id grid.SweepID, index int64, output string, stored func()) {
	p.t.Helper()
	ref := &grid.LogRef{Bytes: int64(len(output))}
	run := fmt.Sprint("n.1.", index)
	if output != "" {
		c := jetstream.Chunk{Index: index, Run: run, Stream: streamOut, Time: 1, Data: []byte(output)}
		if err := p.addOutput(p.t.Context(), id, outputPiece{chunk: c, ref: ref}); err != nil {
			p.t.Error(err)
		}
	}
	p.addEvent(
		id,
		report{
			event: grid.Event{Kind: grid.Finished, Index: index, Attempt: 1, Run: run, Time: 1, Result: &grid.Result{}},
			ref:   ref, stored: stored,
		},
	)
}

// logs returns the stored output of a sweep, by run, and the sequence of its last message.
func (p *outboxHarness) logs(id grid.SweepID) (map[string]string, uint64) {
	p.t.Helper()
	all, last := map[string]string{}, uint64(0)
	err := p.store.Logs.Read(p.t.Context(), id, jetstream.LogRange{}, func(seq uint64, chunks []jetstream.Chunk) error {
		for _, c := range chunks {
			if c.Offset >= int64(len(all[c.Run])) { // output that was stored twice counts once
				all[c.Run] += string(c.Data)
			}
		}
		last = seq
		return nil
	})
	if err != nil {
		p.t.Error(err)
	}
	return all, last
}

// stored returns the stored results of a sweep.
func (p *outboxHarness) stored(id grid.SweepID) []grid.Event {
	p.t.Helper()
	s := &harness{t: p.t, store: p.store}
	_, last, err := p.store.Events.Bounds(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	if last == 0 {
		return nil
	}
	var all []grid.Event
	err = p.store.Events.Read(p.t.Context(), 1, func(batches []jetstream.StoredBatch) error {
		for _, b := range batches {
			if b.Batch.Sweep == id {
				all = append(all, b.Batch.Events...)
			}
			if b.Seq == last {
				return errEnough
			}
		}
		return nil
	})
	if err != errEnough {
		s.t.Fatal(err)
	}
	return all
}

func (p *outboxHarness) mustDrain() {
	p.t.Helper()
	ctx, stop := context.WithTimeout(p.t.Context(), testTimeout)
	defer stop()
	if err := p.drain(ctx); err != nil {
		p.t.Fatalf("drain: %v", err)
	}
}

// TestOutputIsStoredBeforeItsEvent checks, when an event is said to be stored, that the output that
// it points to is stored; and, when a lease is gone from the queue, that the events of its trials
// are.
func TestOutputIsStoredBeforeItsEvent(t *testing.T) {
	p := newOutboxHarness(t, t.TempDir())
	if _, err := p.store.Queue.Publish(
		t.Context(), jetstream.Lease{Sweep: "a-1", Lo: 0, Hi: 50, Attempt: 1, Shape: "s"},
	); err != nil {
		t.Fatal(err)
	}
	held, err := p.store.Calls.LocalClient("n").TakeLeases(t.Context(), "s", 1)
	if err != nil || len(held) != 1 {
		t.Fatalf("pull: got %d, %v", len(held), err)
	}
	var mu sync.Mutex
	told := 0
	for i := range int64(50) {
		want := fmt.Sprintf("output of %d\n", i)
		p.finish("a-1", i, want, func() {
			mu.Lock()
			defer mu.Unlock()
			told++
			logs, last := p.logs("a-1")
			if got := logs[fmt.Sprint("n.1.", i)]; got != want {
				t.Errorf("output when event %d was stored: got %q, want %q", i, got, want)
			}
			if all := p.stored("a-1"); !slices.ContainsFunc(all, func(e grid.Event) bool {
				return e.Index == i && e.Result.Log.First > 0 && e.Result.Log.Last <= last
			}) {
				t.Errorf("event %d is not stored, or points to no output", i)
			}
		})
	}
	released := make(chan struct{})
	p.addRelease(&held[0], func() {
		mu.Lock()
		defer mu.Unlock()
		if told != 50 {
			t.Errorf("events told of when the lease was given back: got %d, want 50", told)
		}
		if left, err := p.store.Queue.List(t.Context()); err != nil || len(left) != 0 {
			t.Errorf("queue when the lease was given back: got %v, %v; want none", left, err)
		}
		close(released)
	})
	receive(t, "the end of the lease", released)
	all := p.stored("a-1")
	if n := len(all); n != 51 || all[n-1].Kind != grid.Released || all[n-1].Lease != held[0].Seq {
		t.Errorf(
			"events: got %d, %v; want 50 results, then the end of lease %d", n, kinds(all)[max(0, n-2):], held[0].Seq,
		)
	}
}

// TestReportsOnAnUnknownSweepAreDropped includes reports on a sweep of which the master has no
// record: they hold nothing up, and their callbacks run.
func TestReportsOnAnUnknownSweepAreDropped(t *testing.T) {
	p := newOutboxHarness(t, t.TempDir())
	told := make(chan int64, 10)
	for i := range int64(3) {
		p.finish("ghost-1", i, "nobody reads it\n", func() { told <- i })
		p.finish("a-1", i, "kept\n", func() { told <- i })
	}
	p.mustDrain()
	for range 6 {
		receive(t, "a report", told)
	}
	if n := len(p.stored("a-1")); n != 3 || len(p.stored("ghost-1")) != 0 {
		t.Errorf("got %d events, and %d of a sweep without a record; want 3 and none", n, len(p.stored("ghost-1")))
	}
	if logs, _ := p.logs("ghost-1"); len(logs) != 0 || p.dropped != 6 {
		t.Errorf(
			"got %v of output, and %d reports dropped; want none, and 3 events and 3 pieces of output", logs, p.dropped,
		)
	}
}

// TestReportsShareRounds queues many reports at once: they need few messages.
func TestReportsShareRounds(t *testing.T) {
	p := newOutboxHarness(t, t.TempDir())
	const reports = 1000
	for i := range int64(reports) {
		p.finish("a-1", i, "", nil)
	}
	p.mustDrain()
	if got := len(p.stored("a-1")); got != reports {
		t.Errorf("events: got %d, want %d", got, reports)
	}
	if _, last, err := p.store.Events.Bounds(t.Context()); err != nil || last > reports/10 {
		t.Errorf("messages: got %d for %d events, %v; want far fewer", last, reports, err)
	}
}

// TestOutboxIsBounded fills an outbox that is not drained: writers block, and a writer whose
// context ends gives up.
func TestOutboxIsBounded(t *testing.T) {
	o := newOutbox(&Config{Node: "n", Logger: logger(t)})
	full := outputPiece{chunk: jetstream.Chunk{Data: make([]byte, outboxBytes)}, ref: &grid.LogRef{}}
	if err := o.addOutput(t.Context(), "a-1", full); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	given := make(chan error, 1)
	go func() { given <- o.addOutput(ctx, "a-1", full) }()
	select {
	case err := <-given:
		t.Fatalf("write to a full outbox: got %v, want it to wait", err)
	default:
	}
	cause := fmt.Errorf("enough")
	cancel(cause)
	if err := receive(t, "the writer to give up", given); err != cause {
		t.Errorf("write that gave up: got %v, want %v", err, cause)
	}
	if n := len(o.pending.output["a-1"]); n != 1 {
		t.Errorf("queued pieces: got %d, want the first alone", n)
	}
}

// TestFullDiskLosesNoReport fills the disk under the store, continues to report, and makes room
// again.
func TestFullDiskLosesNoReport(t *testing.T) {
	dir := mountSmallDisk(t)
	p := newOutboxHarness(t, filepath.Join(dir, "store"))
	p.finish("a-1", 0, "before\n", nil)
	p.mustDrain()
	empty := fillDisk(t, dir)
	big := string(bytes.Repeat([]byte("x"), 200_000))
	told := make(chan int64, 100)
	const reports = 20
	reported := make(chan struct{})
	go func() {
		defer close(reported)
		for i := int64(1); i <= reports; i++ {
			p.finish("a-1", i, big, func() { told <- i })
		}
	}()
	awaitRefusal(t, p.store)
	<-reported
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := p.drain(ctx); err == nil {
		t.Error("all reports are said to be stored on a full disk")
	}
	empty()
	p.mustDrain()
	seen := map[int64]int{}
	for range reports {
		seen[receive(t, "a report", told)]++
	}
	logs, _ := p.logs("a-1")
	for i := int64(1); i <= reports; i++ {
		if got := len(logs[fmt.Sprint("n.1.", i)]); seen[i] != 1 || got != len(big) {
			t.Errorf(
				"report %d: told of %d times with %d bytes of output, want once with %d", i, seen[i], got, len(big),
			)
		}
	}
	results := map[int64]bool{}
	for _, e := range p.stored("a-1") {
		results[e.Index] = true
	}
	if len(results) != reports+1 {
		t.Errorf("results: got %d, want %d", len(results), reports+1)
	}
}

// TestPace slows the reports down to the master's pace: the first is sent immediately, and the next
// ones together.
func TestPace(t *testing.T) {
	p := newOutboxHarness(t, filepath.Join(t.TempDir(), "jetstream"))
	const pace = 200 * time.Millisecond
	p.setPace(pace)
	stored := make(chan time.Time, 3)
	tell := func() { stored <- time.Now() }
	begin := time.Now()
	p.finish("t-1", 0, "", tell)
	first := receive(t, "the first report", stored)
	if took := first.Sub(begin); took > pace/2 {
		t.Errorf("the first report took %v", took)
	}
	p.finish("t-1", 1, "", tell)
	p.finish("t-1", 2, "", tell)
	second, third := receive(t, "the second report", stored), receive(t, "the third report", stored)
	if took := second.Sub(begin); took < pace || third.Sub(second) > pace/2 {
		t.Errorf("got reports after %v and %v, want both after %v", took, third.Sub(begin), pace)
	}
	p.setPace(time.Hour)
	if got := p.pace(); got != maxPace {
		t.Errorf("pace: got %v, want at most %v", got, maxPace)
	}
}
