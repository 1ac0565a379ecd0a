package jetstream

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/node/poll"
)

const (
	// pullMessages and pullBytes bound what one request returns, and so the memory of a reader,
	// whatever its speed.
	pullMessages = 64
	pullBytes    = 2 << 20
	// pullExpiry is how long one request waits for new messages, pullHeartbeat the interval of the
	// server's heartbeats meanwhile.
	pullExpiry    = 30 * time.Second
	pullHeartbeat = 2 * time.Second
	// consumerIdle is how long the server keeps the consumer of a reader that requests nothing.
	consumerIdle = time.Minute
	// readRetry is the pause before a lost consumer (of a reopened server) is replaced.
	readRetry = 250 * time.Millisecond
)

// streamReader reads a stream in order, through a consumer that lives in the server's memory. It
// requests messages when it needs them, so a slow reader holds nothing up. When the consumer is
// lost, it creates a new one that continues after the last message.
type streamReader struct {
	store   *Store
	stream  string
	subject string     // filter
	next    uint64     // sequence to continue from
	since   *time.Time // with next 0: begin with what was stored since then
	follow  bool       // wait for new messages; otherwise read ends with what is stored
	headers bool       // request headers only

	lastStored uint64 // last sequence of the stream when the consumer was created
}

// message is one message of a stream.
type message struct {
	*nats.Msg
	seq     uint64
	pending uint64 // how many more are stored after it
}

var (
	errConsumerLost = errors.New("the consumer is gone")
	errNoMore       = errors.New("nothing more is stored")
)

// read calls fn with the messages, in order, at least one per call. It calls empty, if not nil,
// each time it creates a consumer after which nothing is stored. Without follow it ends when it has
// read what is stored; with follow it continues until ctx ends or a function returns an error.
func (t *streamReader) read(ctx context.Context, fn func([]message) error, empty func() error) error {
	for {
		err := t.readOnce(ctx, fn, empty)
		if own, ok := errors.AsType[callbackError](err); ok {
			err = own.error
			if !errors.Is(err, errNoMore) {
				return err
			}
		}
		switch {
		case err == nil || errors.Is(err, errNoMore):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !t.follow || !t.transient(err):
			return err
		}
		t.store.log.Debug("reader restarts", "stream", t.stream, "next", t.next, "err", err)
		if !poll.Sleep(ctx, readRetry) {
			return context.Cause(ctx)
		}
	}
}

// callbackError is an error of a function that was passed to read, which ends the reading.
type callbackError struct{ error }

// transient reports whether an error of the connection or the consumer may pass. A server that
// answers late, because its machine was suspended or is overloaded, is not lost: only the request
// for a consumer has a deadline.
func (t *streamReader) transient(err error) bool {
	if errors.Is(err, ErrClosed) {
		return false
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errConsumerLost) || errors.Is(err, ErrDisk) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, js.ErrNoStreamResponse) || errors.Is(err, js.ErrStreamNotFound) ||
		errors.Is(err, js.ErrJetStreamNotEnabled)
}

// readOnce reads through one consumer.
func (t *streamReader) readOnce(ctx context.Context, fn func([]message) error, empty func() error) error {
	ctx, stop := t.store.whileAvailable(ctx)
	defer stop()
	c, err := t.newConsumer(ctx)
	if err != nil {
		return t.store.explain(ctx, "read "+t.stream, err)
	}
	defer c.close()
	if c.pending == 0 {
		if empty != nil {
			if err := empty(); err != nil {
				return callbackError{err}
			}
		}
		if !t.follow {
			return errNoMore
		}
	}
	for {
		batch, err := c.nextBatch(ctx)
		if len(batch) > 0 {
			if err := fn(batch); err != nil {
				return callbackError{err}
			}
			last := batch[len(batch)-1]
			t.next = last.seq + 1
			if last.pending == 0 && !t.follow {
				return errNoMore
			}
		}
		if err != nil {
			return t.store.explain(ctx, "read "+t.stream, err)
		}
	}
}
