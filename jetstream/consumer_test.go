package jetstream

import (
	"context"
	"errors"
	"testing"
	"time"
)

// eventConsumer creates a consumer at the start of the event stream that waits for new messages.
func eventConsumer(t *testing.T, s *Store) *consumer {
	t.Helper()
	reader := &streamReader{store: s, stream: eventStream, subject: eventSubjects, next: 1, follow: true}
	c, err := reader.newConsumer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}

func publishEvents(t *testing.T, s *Store, first, n int) {
	t.Helper()
	for i := range n {
		if _, err := s.Events.Publish(t.Context(), batch("a-1", first+i, 1)); err != nil {
			t.Fatal(err)
		}
	}
}

// expectBatch reads messages that must be available immediately, up to the one with sequence last.
func expectBatch(t *testing.T, c *consumer, last uint64) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for {
		batch, err := c.nextBatch(ctx)
		if err != nil {
			t.Fatalf("take with messages up to %d stored: got %d entries, %v", last, len(batch), err)
		}
		if batch[len(batch)-1].seq == last {
			return
		}
	}
}

// TestReceivedMessagesDoNotWait leaves the server's report that a request is used up unread, after
// the last message.
func TestReceivedMessagesDoNotWait(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	publishEvents(t, s, 0, 10)
	c := eventConsumer(t, s)
	expectBatch(t, c, 10)
	publishEvents(t, s, 10, pullMessages-10)
	deadline := time.After(time.Minute)
	for n := 0; n < pullMessages-10+1; n, _, _ = c.inbox.Pending() {
		select {
		case <-deadline:
			t.Fatalf("got %d messages, want %d and a status", n, pullMessages-10)
		case <-time.After(time.Millisecond):
		}
	}
	expectBatch(t, c, pullMessages)
	if c.outstanding != 0 && c.outstanding != pullMessages {
		t.Errorf("after a whole request %d messages are outstanding, want at most a new request's %d",
			c.outstanding, pullMessages)
	}
	publishEvents(t, s, pullMessages, 3)
	expectBatch(t, c, pullMessages+3)
}

// TestRequestsDoNotPileUp reads as much as many requests return, and counts the requests that are
// waiting at the server.
func TestRequestsDoNotPileUp(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	publishEvents(t, s, 0, 8*pullMessages+1)
	c := eventConsumer(t, s)
	expectBatch(t, c, 8*pullMessages+1)
	consumer, err := s.js.Consumer(t.Context(), eventStream, c.name)
	if err != nil {
		t.Fatal(err)
	}
	if n := consumer.CachedInfo().NumWaiting; n != 1 {
		t.Errorf("%d requests wait at the server, want 1", n)
	}
}

// TestRemovedMessagesAreNotAwaited removes messages that the server counted when it created the
// consumer.
func TestRemovedMessagesAreNotAwaited(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	publishEvents(t, s, 0, 5)
	c := eventConsumer(t, s)
	if err := s.Events.PurgeSweep(t.Context(), "a-1"); err != nil {
		t.Fatal(err)
	}
	if batch, err := c.nextBatch(t.Context()); !errors.Is(err, errConsumerLost) {
		t.Errorf("take: got %d entries, %v; want %v", len(batch), err, errConsumerLost)
	}
	if seqs, _ := collect(t, s, 1, 1); len(seqs) != 1 || seqs[0] != 5 {
		t.Errorf("read again: got %v, want 5, the last that was given", seqs)
	}
}
