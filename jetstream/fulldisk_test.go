package jetstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid/gridtest"
)

// lazyUnmount unmounts a disk even though nats-server keeps a file open when it can't create a
// stream.
const lazyUnmount = unix.MNT_DETACH

func TestFullDisk(t *testing.T) {
	dir := gridtest.SmallDisk(t, "24m", lazyUnmount)
	s := open(t, filepath.Join(dir, "store"), Limits{})
	ctx := t.Context()
	if _, err := s.Records.Create(ctx, sweep("before-1")); err != nil {
		t.Fatal(err)
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	changes := make(chan Change, 16)
	watched := make(chan error, 1)
	go func() { watched <- s.Records.Watch(watching, 0, func(c Change) { changes <- c }) }()
	<-changes
	<-changes
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	kept := 0
	var err error
	for begun := time.Now(); err == nil; kept++ {
		begun = time.Now()
		_, _, err = s.Logs.Publish(ctx, "a-1", []Chunk{{Index: int64(kept), Data: bytes.Repeat([]byte("x"), 300_000)}})
		if d := time.Since(begun); d > time.Second {
			t.Errorf("publish on a full disk took %v, want an answer immediately", d)
		}
		if kept > 100 {
			t.Fatal("the disk does not fill")
		}
	}
	kept--
	if !errors.Is(err, ErrDisk) || !strings.Contains(err.Error(), "no space left on device") {
		t.Fatalf("got %v, want ErrDisk with the reason", err)
	}
	if _, err := s.Events.Publish(ctx, batch("a-1", 0, 10_000)); !errors.Is(err, ErrDisk) { // a few would still fit
		t.Errorf("events on a full disk: got %v, want ErrDisk", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	retryUntilOK(t, func() error { _, err := s.Events.Publish(ctx, batch("a-1", 0, 10)); return err })
	retryUntilOK(t, func() error {
		_, err := s.Records.Create(ctx, sweep("after-1"))
		if errors.Is(err, ErrExists) { // an earlier attempt was stored although its answer was lost
			return nil
		}
		return err
	})
	for c := range changes {
		if c.ID == "after-1" {
			break
		}
	}
	retryUntilOK(t, func() error { _, err := s.Queue.Publish(ctx, lease("s", 1)); return err })
	mustTake(t, s.Queue, "s", 1, 1)
	got := 0
	err = s.Logs.Read(ctx, "a-1", LogRange{}, func(uint64, []Chunk) error { got++; return nil })
	if err != nil || got < kept {
		t.Errorf("after recovery: got %d messages, %v; want the %d that were acknowledged", got, err, kept)
	}
	stopWatching()
	if err := <-watched; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v, want canceled: it must outlive a full disk", err)
	}
}

// retryUntilOK retries until try succeeds, as the worker's outbox does.
func retryUntilOK(t *testing.T, try func() error) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("still failing: %v", err)
		}
	}
}

func TestStartOnAFullDisk(t *testing.T) {
	dir := gridtest.SmallDisk(t, "1m", lazyUnmount)
	fill, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(fill, io.LimitReader(zeroReader{}, 2<<20)) // ends when the disk is full
	fill.Close()
	server, err := Start(Config{Dir: filepath.Join(dir, "store"), Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		defer server.Close()
		_, err = server.OpenStore(t.Context())
	}
	if !errors.Is(err, ErrDisk) {
		t.Errorf("got %v, want ErrDisk", err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { return len(p), nil }
