package jetstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"mlfnode/grid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open starts a server in dir and closes it with the test.
func open(t testing.TB, dir string, limits Limits) *Store {
	t.Helper()
	server, err := Start(Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Limits: limits})
	if err != nil {
		t.Fatalf("start: %v", err)
	}
	t.Cleanup(server.Close)
	store, err := server.Store(t.Context())
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
			Kind: grid.Finished, Index: int64(from + i), Attempt: 1, Run: fmt.Sprintf("n1-1-%d", from+i), Time: 1700000000000000 + int64(i),
			Result: &grid.Result{Started: 1700000000000000, Usage: grid.Usage{Wall: 1000, CPU: 900}},
		})
	}
	return b
}

func TestRecords(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	rev, err := s.Records.Create(ctx, sweep("chainer-1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Records.Create(ctx, sweep("chainer-1")); !errors.Is(err, ErrExists) {
		t.Errorf("second create: got %v, want ErrExists", err)
	}
	w := sweep("chainer-1")
	w.State = grid.SweepPaused
	rev2, err := s.Records.Update(ctx, w, rev)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Records.Update(ctx, w, rev); !errors.Is(err, ErrConflict) {
		t.Errorf("update of an old revision: got %v, want ErrConflict", err)
	}
	got, err := s.Records.Load(ctx, "chainer-1")
	if err != nil || got.Rev != rev2 || got.Sweep.State != grid.SweepPaused {
		t.Errorf("load: got %+v, %v; want revision %d, paused", got, err, rev2)
	}
	if _, err := s.Records.Load(ctx, "nope-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("load of nothing: got %v, want ErrNotFound", err)
	}
	if err := s.Records.Delete(ctx, "chainer-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Records.Load(ctx, "chainer-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("load after delete: got %v, want ErrNotFound", err)
	}
	if err := s.Records.Delete(ctx, "chainer-1"); err != nil {
		t.Errorf("second delete: got %v, want nil", err)
	}
	if all, err := s.Records.All(ctx); err != nil || len(all) != 0 {
		t.Errorf("all after delete: got %d records, %v; want none", len(all), err)
	}
	if _, err := s.Records.Create(ctx, sweep("chainer-1")); err != nil {
		t.Errorf("create after delete: got %v, want nil", err)
	}
}

func TestRecordTooLarge(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	w := sweep("big-1")
	w.Environ = []string{"X=" + strings.Repeat("x", maxPayload)}
	if _, err := s.Records.Create(t.Context(), w); !errors.Is(err, ErrTooLarge) {
		t.Errorf("create: got %v, want ErrTooLarge", err)
	}
}

func TestNumbersAreNeverUsedAgain(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Limits{})
	results := make(chan int)
	for range 4 {
		go func() {
			for range 5 {
				n, err := s.Records.NextNumber(t.Context(), "my project.x")
				if err != nil {
					t.Errorf("number: %v", err)
				}
				results <- n
			}
		}()
	}
	seen := map[int]bool{}
	for range 20 {
		n := <-results
		if seen[n] || n < 1 || n > 20 {
			t.Errorf("got number %d, want each of 1 to 20 once", n)
		}
		seen[n] = true
	}
	if n, err := s.Records.NextNumber(t.Context(), "other"); n != 1 || err != nil {
		t.Errorf("other project: got %d, %v; want 1", n, err)
	}
}

func TestWatch(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	ctx, stop := context.WithCancel(t.Context())
	for _, id := range []string{"a-1", "a.b c-2"} {
		if _, err := s.Records.Create(ctx, sweep(id)); err != nil {
			t.Fatal(err)
		}
	}
	changes := make(chan string, 16)
	done := make(chan error, 1)
	go func() {
		done <- s.Records.Watch(ctx, func(c Change) {
			changes <- fmt.Sprintf("%s %v %v", c.ID, c.Deleted, c.Synced)
		})
	}()
	var got []string
	take := func(n int) {
		for range n {
			got = append(got, <-changes)
		}
	}
	take(3)
	if _, err := s.Records.Create(ctx, sweep("c-3")); err != nil {
		t.Fatal(err)
	}
	if err := s.Records.Delete(ctx, "a-1"); err != nil {
		t.Fatal(err)
	}
	take(2)
	want := []string{"a-1 false false", "a.b c-2 false false", " false true", "c-3 false false", "a-1 true false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v, want canceled", err)
	}
}

func TestWatchOfAnEmptyStoreIsSynced(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	ctx, stop := context.WithCancel(t.Context())
	err := s.Records.Watch(ctx, func(c Change) {
		if !c.Synced {
			t.Errorf("got %+v, want Synced", c)
		}
		stop()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v, want canceled", err)
	}
}

// collect reads events until n batches with content have come.
func collect(t *testing.T, s *Store, from uint64, n int) (seqs []uint64, events int) {
	t.Helper()
	enough := errors.New("enough")
	err := s.Events.Read(t.Context(), from, func(stored []Stored) error {
		for _, st := range stored {
			seqs = append(seqs, st.Seq)
			events += len(st.Batch.Events)
		}
		if len(seqs) >= n {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) {
		t.Fatalf("read ended with %v", err)
	}
	return seqs, events
}

func TestEvents(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	for i := range 3 {
		seq, err := s.Events.Publish(ctx, batch("a-1", i*10, 10))
		if err != nil || seq != uint64(i+1) {
			t.Fatalf("publish: got %d, %v; want %d", seq, err, i+1)
		}
	}
	if seq, err := s.Events.Publish(ctx, batch("a-1", 20, 10)); err != nil || seq != 3 {
		t.Errorf("the same batch again: got %d, %v; want 3", seq, err)
	}
	seqs, events := collect(t, s, 2, 2)
	if diff := cmp.Diff([]uint64{2, 3}, seqs); diff != "" || events != 20 {
		t.Errorf("read from 2: got %v with %d events, want 2 and 3 with 20", seqs, events)
	}
}

func TestLargeBatchesAreSplit(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	last, err := s.Events.Publish(t.Context(), batch("a-1", 0, 20000))
	if err != nil || last < 4 {
		t.Fatalf("publish: got last %d, %v; want several messages", last, err)
	}
	seqs, events := collect(t, s, 1, int(last))
	if events != 20000 || uint64(len(seqs)) != last {
		t.Errorf("got %d events in %d messages, want 20000 in %d", events, len(seqs), last)
	}
}

// TestReadersPassRemovedEvents holds that a reader reaches the stream's last sequence when sweeps were removed at its end, in
// its middle, or all; else a rebuild of history would wait for ever.
func TestReadersPassRemovedEvents(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Limits{})
	ctx := t.Context()
	for i, id := range []string{"a-1", "b-1", "a-1", "c-1"} {
		if _, err := s.Events.Publish(ctx, batch(id, i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(from uint64, want ...uint64) {
		t.Helper()
		if got, _ := collect(t, s, from, len(want)); cmp.Diff(want, got) != "" {
			t.Errorf("read from %d: got %v, want %v", from, got, want)
		}
	}
	want(1, 1, 2, 3, 4)
	for id, left := range map[string][]uint64{"c-1": {1, 2, 3, 4}} {
		if err := s.Events.PurgeSweep(ctx, grid.SweepID(id)); err != nil {
			t.Fatal(err)
		}
		want(1, left...)
	}
	want(4, 4)
	if err := s.Events.PurgeSweep(ctx, "a-1"); err != nil {
		t.Fatal(err)
	}
	want(1, 2, 4)
	if err := s.Events.PurgeSweep(ctx, "b-1"); err != nil {
		t.Fatal(err)
	}
	want(1, 4)
	if _, last, err := s.Events.Bounds(ctx); last != 4 || err != nil {
		t.Errorf("bounds: got last %d, %v; want 4", last, err)
	}
}

func TestUnknownEventsAreSkipped(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	future := batch("a-1", 0, 1)
	future.V = grid.EventVersion + 1
	if _, err := s.Events.Publish(t.Context(), future); err != nil {
		t.Fatal(err)
	}
	if _, err := s.js.Publish(t.Context(), eventSubject("a-1"), []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Events.Publish(t.Context(), batch("a-1", 1, 1)); err != nil {
		t.Fatal(err)
	}
	seqs, events := collect(t, s, 1, 3)
	if events != 1 || len(seqs) != 3 {
		t.Errorf("got %d events in %v, want 1 in 3 messages", events, seqs)
	}
}

func TestFullEventsSayWhatToDo(t *testing.T) {
	s := open(t, t.TempDir(), Limits{EventBytes: 64 << 10})
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = s.Events.Publish(t.Context(), batch("a-1", i*100, 100))
	}
	want := "the store for events is full (64 KiB). Remove old sweeps, or raise retention.events in node.yaml"
	if !errors.Is(err, ErrFull) || err.Error() != want {
		t.Fatalf("got %v, want %s", err, want)
	}
	if err := s.Events.PurgeSweep(t.Context(), "a-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Events.Publish(t.Context(), batch("b-1", 0, 100)); err != nil {
		t.Errorf("publish after removing: got %v, want nil", err)
	}
}

func TestUsage(t *testing.T) {
	s := open(t, t.TempDir(), Limits{LogBytes: 1 << 20})
	if _, _, err := s.Logs.Publish(t.Context(), "a-1", []Chunk{{Run: "r", Stream: 1, Data: make([]byte, 1000)}}); err != nil {
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

func TestObjects(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	for _, size := range []int{0, 10, splitBytes - 1, splitBytes, splitBytes + 1, 3*splitBytes + 7} {
		content := bytes.Repeat([]byte("0123456789abcdef~"), size/17+1)[:size]
		name := fmt.Sprintf("chainer-3/%d/run", size)
		if err := s.Artifacts.Put(ctx, name, bytes.NewReader(content), map[string]string{"k": "v"}); err != nil {
			t.Fatalf("put %d bytes: %v", size, err)
		}
		r, err := s.Artifacts.Open(ctx, name)
		if err != nil {
			t.Fatalf("open %d bytes: %v", size, err)
		}
		got, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes: got %d back, %v", size, len(got), err)
		}
		r.Close()
	}
	if _, err := s.Artifacts.Open(ctx, "none"); !errors.Is(err, ErrNotFound) {
		t.Errorf("open of nothing: got %v, want ErrNotFound", err)
	}
	list, err := s.Artifacts.List(ctx, "chainer-3/10/")
	if err != nil || len(list) != 1 || list[0].Name != "chainer-3/10/run" || list[0].Size != 10 || list[0].Meta["k"] != "v" {
		t.Errorf("list of a prefix: got %+v, %v", list, err)
	}
	if list, _ = s.Artifacts.List(ctx, ""); len(list) != 6 {
		t.Errorf("list: got %d, want 6", len(list))
	}
	if err := s.Artifacts.Delete(ctx, "chainer-3/10/run"); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.Artifacts.Has(ctx, "chainer-3/10/run"); ok || err != nil {
		t.Errorf("has after delete: got %v, %v; want false", ok, err)
	}
	if err := s.Artifacts.DeleteAll(ctx, "chainer-3/"); err != nil {
		t.Fatal(err)
	}
	info, err := s.info(ctx, artifactBucket)
	if err != nil || info.State.Msgs != 0 {
		t.Errorf("after delete: got %d messages, %v; want none", info.State.Msgs, err)
	}
}

func TestReplacedObjectLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	for i := range 3 {
		if err := s.Bundles.Put(ctx, "x", bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 2*splitBytes)), nil); err != nil {
			t.Fatal(err)
		}
	}
	info, err := s.info(ctx, bundleBucket)
	if err != nil || info.State.Msgs != 3 {
		t.Errorf("got %d messages, %v; want 2 chunks and 1 description", info.State.Msgs, err)
	}
}

// failing gives some content and then an error.
type failing struct{ left int }

var errContent = errors.New("content ended early")

func (f *failing) Read(p []byte) (int, error) {
	if f.left == 0 {
		return 0, errContent
	}
	n := min(len(p), f.left)
	f.left -= n
	return n, nil
}

func TestFailedPutLeavesNothing(t *testing.T) {
	s := open(t, t.TempDir(), Limits{BundleBytes: 2 << 20})
	ctx := t.Context()
	if err := s.Bundles.Put(ctx, "x", &failing{left: splitBytes + 5}, nil); !errors.Is(err, errContent) {
		t.Errorf("put: got %v, want the reader's error", err)
	}
	if err := s.Bundles.Put(ctx, "x", bytes.NewReader(make([]byte, 4<<20)), nil); !errors.Is(err, ErrFull) {
		t.Errorf("put over the limit: got %v, want ErrFull", err)
	}
	info, err := s.info(ctx, bundleBucket)
	if err != nil || info.State.Msgs != 0 {
		t.Errorf("got %d messages, %v; want none", info.State.Msgs, err)
	}
}

func TestDamagedObjectIsNoticed(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	if err := s.Bundles.Put(ctx, "x", bytes.NewReader(make([]byte, 3*splitBytes)), nil); err != nil {
		t.Fatal(err)
	}
	if err := s.streams[bundleBucket].DeleteMsg(ctx, 2); err != nil {
		t.Fatal(err)
	}
	r, err := s.Bundles.Open(ctx, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, errDigest) {
		t.Errorf("read: got %v, want %v", err, errDigest)
	}
}

func TestSecondServerIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Limits{})
	if _, err := Start(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrInUse) {
		t.Errorf("second start: got %v, want ErrInUse", err)
	}
	if _, err := s.Records.Create(t.Context(), sweep("a-1")); err != nil {
		t.Errorf("create afterwards: got %v, want nil", err)
	}
}

func TestStartStop(t *testing.T) {
	dir := t.TempDir()
	for i := range 10 {
		server, err := Start(Config{Dir: dir, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatalf("start %d: %v", i, err)
		}
		s, err := server.Store(t.Context())
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
	server, err := Start(Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.Store(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	done := make(chan error, 1)
	reading := make(chan struct{})
	go func() {
		done <- s.Records.Watch(t.Context(), func(Change) { close(reading) })
	}()
	<-reading
	server.Close()
	select {
	case err := <-done:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("watch ended with %v, want ErrClosed", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("watch goes on after the server has gone")
	}
	if _, err := s.Records.Create(t.Context(), sweep("a-1")); !errors.Is(err, ErrClosed) {
		t.Errorf("create: got %v, want ErrClosed", err)
	}
}

func TestLimitsCanBeChanged(t *testing.T) {
	dir := t.TempDir()
	for _, limit := range []int64{1 << 20, 2 << 20, 2 << 20} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			s := open(t, dir, Limits{EventBytes: limit})
			info, err := s.info(t.Context(), eventStream)
			if err != nil || info.Config.MaxBytes != limit {
				t.Errorf("got a limit of %d, %v; want %d", info.Config.MaxBytes, err, limit)
			}
		})
	}
}
