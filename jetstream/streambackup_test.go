package jetstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
)

// stallingWriter is a writer whose first write takes longer than nats-server waits for the reader
// of a snapshot.
type stallingWriter struct {
	bytes.Buffer
	wait <-chan time.Time
}

// Write implements io.Writer.
func (s *stallingWriter) Write(p []byte) (int, error) {
	if s.wait != nil {
		<-s.wait
		s.wait = nil
	}
	return s.Buffer.Write(p)
}

// TestBackup backs up a store to a disk that stalls while more is stored, and restores it. What was
// stored before is there with its sequences, nothing else is, and sweep numbers that may have been
// assigned since are skipped.
func TestBackup(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), open(t, t.TempDir(), Limits{})
	for range 3 {
		if _, err := s.Records.NextNumber(ctx, "p"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Records.Create(ctx, sweep("p-3")); err != nil {
		t.Fatal(err)
	}
	var last uint64
	publish := func(i int) {
		t.Helper()
		var err error
		if last, err = s.Events.Publish(ctx, batch("p-3", i, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		publish(i)
	}
	want := last
	content := make([]byte, 20<<20) // more than nats-server sends ahead
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content)
	if err := s.Bundles.Put(ctx, "b", bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	to, err := Start(Config{Dir: dir, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, stream := range BackupStreams() {
		kept, about := &stallingWriter{}, []byte(nil)
		if stream == bundleBucket {
			kept.wait = time.After(8 * time.Second)
		}
		head := func(b []byte) error {
			about = b
			publish(len(stream)) // too late for this one
			return nil
		}
		if err := s.Backup(ctx, stream, head, kept); err != nil {
			t.Fatalf("back up %s: %v", stream, err)
		}
		if stream == eventStream {
			want = last - 1
		}
		if err := to.Restore(ctx, stream, about, &kept.Buffer); err != nil {
			t.Fatalf("restore %s: %v", stream, err)
		}
	}
	to.Close()
	r := open(t, dir, Limits{})
	if info, err := r.streamInfo(ctx, eventStream); err != nil || info.State.LastSeq != want {
		t.Errorf("events: got %+v, %v; want the last sequence %d", info.State, err, want)
	}
	if _, err := r.Records.Load(ctx, "p-3"); err != nil {
		t.Error(err)
	}
	f, err := r.Bundles.Open(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content) {
		t.Errorf("a bundle: got %d bytes, %v; want the %d that were stored", len(got), err, len(content))
	}
	if err := r.Records.SkipNumbers(ctx, 100); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Records.NextNumber(ctx, "p"); err != nil || n != 104 {
		t.Errorf("the next number: got %d, %v; want 104", n, err)
	}
	if _, err := r.Records.Load(ctx, grid.SweepID("p-104")); !errors.Is(err, ErrNotFound) {
		t.Errorf("load of a sweep that does not exist: got %v, want ErrNotFound", err)
	}
}

// TestNodesFollowARestoredStore restores a backup under a node: the node sees the changed records,
// and the removal of those that are gone. A master that restarts with the same store reports
// nothing twice.
func TestNodesFollowARestoredStore(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	ctx, stop := context.WithCancel(t.Context())
	create := func(id string) {
		t.Helper()
		if _, err := l.store.Records.Create(t.Context(), sweep(id)); err != nil {
			t.Fatal(err)
		}
	}
	create("a-1")
	kept, heads := map[string]*bytes.Buffer{}, map[string][]byte{}
	for _, stream := range BackupStreams() {
		kept[stream] = &bytes.Buffer{}
		head := func(b []byte) error { heads[stream] = b; return nil }
		if err := l.store.Backup(t.Context(), stream, head, kept[stream]); err != nil {
			t.Fatal(err)
		}
	}
	changes := make(chan Change, 64)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer stop()
	watching.Go(func() { _ = l.connect("w").WatchRecords(ctx, func(c Change) { changes <- c }) })
	want := func(id grid.SweepID, deleted bool) {
		t.Helper()
		select {
		case c := <-changes:
			if c.ID != id || c.Deleted != deleted {
				t.Fatalf("got %s, deleted %v; want %s, %v", c.ID, c.Deleted, id, deleted)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("%s did not come", id)
		}
	}
	want("a-1", false)
	want("", false) // synced
	for _, id := range []string{"a-2", "a-3", "a-4"} {
		create(id)
		want(grid.SweepID(id), false)
		if id == "a-2" {
			l.stop()
			l.start()
		}
	}
	l.stop()
	if err := os.RemoveAll(l.dir); err != nil {
		t.Fatal(err)
	}
	to, err := Start(Config{Dir: l.dir, Logger: l.logger(), Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, stream := range BackupStreams() {
		if err := to.Restore(t.Context(), stream, heads[stream], kept[stream]); err != nil {
			t.Fatal(err)
		}
	}
	to.Close()
	l.start()
	want("a-1", false)
	gone := map[grid.SweepID]bool{}
	for range 3 {
		c := <-changes
		gone[c.ID] = c.Deleted
	}
	if !gone["a-2"] || !gone["a-3"] || !gone["a-4"] {
		t.Errorf("removed: got %v, want a-2 to a-4", gone)
	}
	create("b-1")
	want("b-1", false)
}

// TestRestoreOfHalfAStream checks that half a stream is refused.
func TestRestoreOfHalfAStream(t *testing.T) {
	t.Parallel()
	ctx, s := t.Context(), open(t, t.TempDir(), Limits{})
	content := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{2}).Read(content)
	if err := s.Bundles.Put(ctx, "b", bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	var kept bytes.Buffer
	var about []byte
	if err := s.Backup(ctx, bundleBucket, func(b []byte) error { about = b; return nil }, &kept); err != nil {
		t.Fatal(err)
	}
	to, err := Start(Config{Dir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := to.Restore(ctx, bundleBucket, about, bytes.NewReader(kept.Bytes()[:kept.Len()/2])); err == nil {
		t.Error("half a stream was restored")
	}
}
