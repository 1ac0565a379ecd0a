package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
)

// collect reads events until it has n batches with content.
func collect(t *testing.T, s *Store, from uint64, n int) (seqs []uint64, events int) {
	t.Helper()
	enough := errors.New("enough")
	err := s.Events.Read(t.Context(), from, func(stored []StoredBatch) error {
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
	t.Parallel()
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

// TestReadReturnsBatchesAsStored sends more batches than stay decoded, two of them twice, and reads
// them twice: once as they were sent, and once from the stream.
func TestReadReturnsBatchesAsStored(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	if _, err := l.store.Records.Create(t.Context(), sweep("a-1")); err != nil {
		t.Fatal(err)
	}
	link := l.connect("n1")
	const sent = maxDecoded + 4
	for i := range sent {
		b := batch("a-1", i*10, 10)
		if i == 3 {
			b.Events[0].Run = "a.1.1" // a run of another node
		}
		for range 1 + i%10/9 {
			if err := link.PublishEvents(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(l.store.Events.decoded); n > maxDecoded {
		t.Errorf("decoded: got %d, want at most %d", n, maxDecoded)
	}
	read := func() (all []StoredBatch) {
		t.Helper()
		enough := errors.New("enough")
		err := l.store.Events.Read(t.Context(), 1, func(stored []StoredBatch) error {
			if all = append(all, stored...); len(all) >= sent {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) {
			t.Fatalf("read ended with %v", err)
		}
		return all
	}
	first := read()
	if diff := cmp.Diff(first, read()); diff != "" || len(first) != sent || len(first[3].Batch.Events) != 9 {
		t.Errorf("got %d batches, want %d; a second reader finds (-first +second):\n%s", len(first), sent, diff)
	}
}

// TestPlainCopyEqualsDecoding compares copies of random batches with the results of decoding them.
// A copy is either identical or absent, and batches of trials that have just ended have one.
func TestPlainCopyEqualsDecoding(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	texts := []string{"", "gpu-1.4.17", "ünïcode", "a\"b\n", "<&>\u2028", "bad \xff byte"}
	text := func() string { return texts[random.IntN(len(texts))] }
	number := func() int64 { return int64(random.IntN(5)) - 1 }
	copies := 0
	for range 3000 {
		b := &grid.Batch{V: grid.EventVersion, Sweep: "a-1", Node: "n1"}
		for range 1 + random.IntN(3) {
			v := grid.Event{Kind: grid.Finished, Index: number(), Attempt: int(number()), Run: "n1.1.2", Time: number(),
				Lease: uint64(random.IntN(2)), Floor: int(number())}
			v.Result = &grid.Result{ExitCode: int(number()), Started: number(),
				Usage: grid.Usage{Wall: number(), CPU: number(),
					Memory: number()}, Log: grid.LogRef{First: uint64(random.IntN(2)), Bytes: number()}}
			switch random.IntN(12) {
			case 0:
				v.Run, v.LeaseID, v.Image = text(), grid.LeaseID(text()), text()
			case 1:
				v.Result.Reason, v.Result.Rule, v.Result.Class = text(), text(), grid.Class(text())
			case 2:
				v.Result.Device, v.Node, v.Kind = text(), grid.NodeID(text()), grid.EventKind(text())
			case 3:
				v.Result.Metrics = grid.Metric{"loss": json.RawMessage(" 1")}
			case 4:
				v.Devices, v.Result.Usage.GPU = []string{}, []grid.DeviceUse{{UUID: text()}}
			case 5:
				v.Result = nil
			}
			b.Events = append(b.Events, v)
		}
		data, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := decodeBatch(data)
		if err != nil {
			t.Fatal(err)
		}
		if c := plainCopy(b); c != nil {
			copies++
			if diff := cmp.Diff(decoded, c); diff != "" {
				t.Fatalf("copy of %s (-decoded +copy):\n%s", data, diff)
			}
			c.Events[0].Index = -7
			if b.Events[0].Index == -7 {
				t.Fatal("the copy shares its events with the batch")
			}
		}
	}
	if copies < 1000 {
		t.Errorf("copies: got %d of 3000, want at least 1000", copies)
	}
}

func TestLargeBatchesAreSplit(t *testing.T) {
	t.Parallel()
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

// TestReadersPassRemovedEvents checks that a reader reaches the stream's last sequence if sweeps
// were removed at its end, in its middle, or all; otherwise a rebuild of history would wait
// forever.
func TestReadersPassRemovedEvents(t *testing.T) {
	t.Parallel()
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

// TestGarbageIsSkipped stores messages that no version can read: they hide nothing else.
func TestGarbageIsSkipped(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	if _, err := s.js.Publish(t.Context(), eventSubject("n1", "a-1"), []byte("garbage")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Events.Publish(t.Context(), batch("a-1", 1, 1)); err != nil {
		t.Fatal(err)
	}
	seqs, events := collect(t, s, 1, 2)
	if events != 1 || len(seqs) != 2 {
		t.Errorf("got %d events in %v, want 1 in 2 messages", events, seqs)
	}
}

func TestFullEventsSayWhatToDo(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{EventBytes: 64 << 10})
	var err error
	for i := 0; err == nil && i < 100; i++ {
		_, err = s.Events.Publish(t.Context(), batch("a-1", i*100, 100))
	}
	want := "the store for events is full (64 KiB). Remove sweeps with `mlfnode remove SWEEP` or `mlfnode remove --older 30d`, or raise retention.events in node.yaml"
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

// TestReadDecodesAhead blocks a reader on its first messages: the next one, which can't be read, is
// decoded in the meantime.
func TestReadDecodesAhead(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	warned := make(chan struct{}, 1)
	s.log = slog.New(slog.NewTextHandler(writeNotifier(warned), nil))
	if _, err := s.Events.Publish(t.Context(), batch("a-1", 0, 1)); err != nil {
		t.Fatal(err)
	}
	var seqs []uint64
	enough := errors.New("enough")
	err := s.Events.Read(t.Context(), 1, func(stored []StoredBatch) error {
		if len(seqs) == 0 {
			if _, err := s.publish(t.Context(),
				&nats.Msg{Subject: eventSubject("n", "a-1"), Data: []byte("garbled")}); err != nil {
				return err
			}
			select {
			case <-warned:
			case <-time.After(2 * time.Minute):
				return errors.New("the second message is not looked at")
			}
		}
		for _, st := range stored {
			seqs = append(seqs, st.Seq)
		}
		if len(seqs) == 2 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || !slices.Equal(seqs, []uint64{1, 2}) {
		t.Errorf("got messages %v and %v, want 1 and 2, and the reader's error", seqs, err)
	}
}

// lateServer answers the first request for a consumer too late.
type lateServer struct {
	js.JetStream
	asked int
}

func (l *lateServer) CreateConsumer(ctx context.Context, stream string, cfg js.ConsumerConfig) (js.Consumer, error) {
	if l.asked++; l.asked == 1 {
		return nil, context.DeadlineExceeded
	}
	return l.JetStream.CreateConsumer(ctx, stream, cfg)
}

// TestReadSurvivesASlowServer begins to read while the machine is suspended or overloaded: the
// reader continues.
func TestReadSurvivesASlowServer(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	late := &lateServer{JetStream: s.js}
	s.js = late
	if _, err := s.Events.Publish(t.Context(), batch("a-1", 0, 1)); err != nil {
		t.Fatal(err)
	}
	enough := errors.New("enough")
	err := s.Events.Read(t.Context(), 1, func([]StoredBatch) error { return enough })
	if !errors.Is(err, enough) || late.asked != 2 {
		t.Errorf("got %v after %d requests, want the reader's error after 2", err, late.asked)
	}
}

// writeNotifier signals that something was written.
type writeNotifier chan struct{}

func (n writeNotifier) Write(p []byte) (int, error) {
	select {
	case n <- struct{}{}:
	default:
	}
	return len(p), nil
}
