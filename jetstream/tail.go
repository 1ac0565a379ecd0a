package jetstream

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
)

const (
	// pullMessages and pullBytes bound what one request brings, and so the memory of a reader whatever its speed.
	pullMessages = 64
	pullBytes    = 2 << 20
	// pullExpiry is how long one request waits for new messages, pullBeat how often the server then says that it is there.
	pullExpiry = 30 * time.Second
	pullBeat   = 2 * time.Second
	// tailIdle is how long the server keeps the cursor of a reader that does not ask.
	tailIdle = time.Minute
	// tailRetry is the pause before a cursor that was lost (a reopened server) is made again.
	tailRetry = 250 * time.Millisecond
)

// tail reads a stream in order by a cursor that lives in the server's memory. It asks for messages when it wants them, so a
// slow reader holds nothing up, and it makes a new cursor behind the last message when the old one is lost.
type tail struct {
	store   *Store
	stream  string
	subject string     // filter
	next    uint64     // sequence to go on from
	since   *time.Time // with next 0: begin with what was stored at this time
	follow  bool       // wait for new messages; without, read ends with what is stored
	headers bool       // bring headers only

	lastStored uint64 // last sequence of the stream when the cursor was made
}

// entry is one message of a stream.
type entry struct {
	*nats.Msg
	seq     uint64
	pending uint64 // how many more are stored behind it
}

var (
	errLost = errors.New("the cursor is gone")
	errEnd  = errors.New("nothing more is stored")
)

// read calls fn with what is there, in order, at least one entry a call. empty is called (when not nil) each time a cursor is
// made behind which nothing is stored. Without follow it ends when it has read what is stored; with follow it goes on until
// ctx ends or a func returns an error.
func (t *tail) read(ctx context.Context, fn func([]entry) error, empty func() error) error {
	for {
		err := t.once(ctx, fn, empty)
		var own readerError
		if errors.As(err, &own) {
			err = own.error
			if !errors.Is(err, errEnd) {
				return err
			}
		}
		switch {
		case err == nil || errors.Is(err, errEnd):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !t.follow || !t.transient(err):
			return err
		}
		t.store.log.Debug("reader begins again", "stream", t.stream, "next", t.next, "err", err)
		wait := time.NewTimer(tailRetry)
		select {
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		case <-wait.C:
		}
	}
}

// readerError is an error of the reader's func, which ends the reading.
type readerError struct{ error }

// transient tells errors of the connection and the cursor that pass from others. A server that answers late, on a machine that was stopped
// or has too much to do, is not lost: only the request for a cursor has a deadline.
func (t *tail) transient(err error) bool {
	if errors.Is(err, ErrClosed) {
		return false
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errLost) || errors.Is(err, ErrDisk) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, js.ErrNoStreamResponse) ||
		errors.Is(err, js.ErrStreamNotFound) || errors.Is(err, js.ErrJetStreamNotEnabled)
}

// once reads with one cursor.
func (t *tail) once(ctx context.Context, fn func([]entry) error, empty func() error) error {
	ctx, stop := t.store.guard(ctx)
	defer stop()
	c, err := t.cursor(ctx)
	if err != nil {
		return t.store.explain(ctx, "read "+t.stream, err)
	}
	defer c.close()
	if c.pending == 0 {
		if empty != nil {
			if err := empty(); err != nil {
				return readerError{err}
			}
		}
		if !t.follow {
			return errEnd
		}
	}
	for {
		batch, err := c.take(ctx)
		if len(batch) > 0 {
			if err := fn(batch); err != nil {
				return readerError{err}
			}
			last := batch[len(batch)-1]
			t.next = last.seq + 1
			if last.pending == 0 && !t.follow {
				return errEnd
			}
		}
		if err != nil {
			return t.store.explain(ctx, "read "+t.stream, err)
		}
	}
}
