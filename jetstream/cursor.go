package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
)

// cursor is an ephemeral pull consumer with its inbox.
type cursor struct {
	store   *Store
	stream  string
	name    string
	follow  bool
	pending uint64 // how many messages the server says are to come
	inbox   *nats.Subscription
	left    int // messages that the request in flight may still bring; 0 when there is none
}

func (t *tail) cursor(ctx context.Context) (*cursor, error) {
	if err := checkSubject(t.subject); err != nil {
		return nil, err
	}
	info, err := t.store.info(ctx, t.stream)
	if err != nil {
		return nil, err
	}
	t.lastStored = info.State.LastSeq
	cfg := js.ConsumerConfig{
		AckPolicy: js.AckNonePolicy, FilterSubject: t.subject, MemoryStorage: true, InactiveThreshold: tailIdle,
		DeliverPolicy: js.DeliverByStartSequencePolicy, OptStartSeq: max(t.next, 1), HeadersOnly: t.headers, Replicas: 1,
	}
	if t.next == 0 && t.since != nil {
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = js.DeliverByStartTimePolicy, 0, t.since
	}
	c, err := t.store.js.CreateConsumer(ctx, t.stream, cfg)
	if err != nil {
		return nil, err
	}
	inbox, err := t.store.conn.SubscribeSync(t.store.conn.NewInbox())
	if err != nil {
		return nil, err
	}
	made := c.CachedInfo()
	return &cursor{
		store: t.store, stream: t.stream, name: made.Name, follow: t.follow, pending: made.NumPending, inbox: inbox,
	}, nil
}

// close removes the cursor. The server would do it after tailIdle, so this is asked for without waiting for the answer.
func (c *cursor) close() {
	_ = c.inbox.Unsubscribe()
	_ = c.store.conn.Publish("$JS.API.CONSUMER.DELETE."+c.stream+"."+c.name, nil)
}

// take waits for one entry and returns it with all that have arrived behind it. With entries it can return an error too, which
// says what came after them.
func (c *cursor) take(ctx context.Context) ([]entry, error) {
	var batch []entry
	for len(batch) == 0 || len(batch) < pullMessages && c.arrived() {
		e, ok, err := c.receive(ctx)
		if err != nil {
			return batch, err
		}
		if ok {
			batch = append(batch, e)
		}
	}
	return batch, nil
}

// one waits for one entry.
func (c *cursor) one(ctx context.Context) (entry, error) {
	for {
		if e, ok, err := c.receive(ctx); ok || err != nil {
			return e, err
		}
	}
}

// arrived tells that a message is here, which need not be an entry.
func (c *cursor) arrived() bool {
	n, _, err := c.inbox.Pending()
	return err == nil && n > 0
}

// receive waits for the next message, asking the server when no request is in flight, and tells whether it is an entry.
func (c *cursor) receive(ctx context.Context) (e entry, ok bool, err error) {
	if c.left == 0 {
		if err := c.ask(); err != nil {
			return entry{}, false, err
		}
	}
	beat, stop := context.WithTimeoutCause(ctx, 2*pullBeat, errLost)
	defer stop()
	msg, err := c.inbox.NextMsgWithContext(beat)
	if err != nil {
		if ctx.Err() == nil && errors.Is(context.Cause(beat), errLost) {
			err = errLost
		}
		return entry{}, false, err
	}
	if e, ok = parse(msg); !ok {
		return e, false, c.status(msg.Header)
	}
	c.left--
	c.pending = e.pending
	return e, true, nil
}

// status handles a message without content: heartbeats, and the end of a request.
func (c *cursor) status(h nats.Header) error {
	switch code := h.Get("Status"); code {
	case "100": // a heartbeat, which the server sends when it looked for a message and found none
		if c.pending > 0 {
			return fmt.Errorf("%w (%d messages behind it were removed or can't be read)", errLost, c.pending)
		}
		return nil
	case "404": // nothing there; asked without waiting
		return errEnd
	case "408", "409": // a request ended; a removed consumer answers 409 too, and then the next request gets 503
		// It need not be the request in flight: the server reports one that brought all its messages, too.
		unused, err := strconv.Atoi(h.Get("Nats-Pending-Messages"))
		if err != nil {
			unused = c.left
		}
		c.left = max(c.left-unused, 0)
		return nil
	default:
		return fmt.Errorf("%w (status %q)", errLost, code)
	}
}

// inboxMessages bounds what waits in the inbox of a cursor or a listing: a request brings at most pullMessages or presentPage, and a
// few messages without content. The client's own default makes room for 65,536, which is half a megabyte for each inbox.
const inboxMessages = 4 * max(pullMessages, presentPage)

// pullRequest is what nats-server reads on CONSUMER.MSG.NEXT.
type pullRequest struct {
	Batch    int           `json:"batch"`
	MaxBytes int           `json:"max_bytes,omitempty"`
	Expires  time.Duration `json:"expires,omitempty"`
	NoWait   bool          `json:"no_wait,omitempty"`
	Beat     time.Duration `json:"idle_heartbeat,omitempty"`
}

func (c *cursor) ask() error {
	r := pullRequest{Batch: pullMessages, MaxBytes: pullBytes, NoWait: !c.follow}
	if c.follow {
		r.Expires, r.Beat = pullExpiry, pullBeat
	}
	c.left = r.Batch
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode a pull request: %w", err)
	}
	return c.store.conn.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+c.stream+"."+c.name, c.inbox.Subject, b)
}

// parse reads the sequence and the count behind it from the reply subject of a delivered message:
//
//	$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time>.<pending>
//
// A server with accounts puts a domain and an account behind ACK, and a token at the end.
func parse(msg *nats.Msg) (entry, bool) {
	f := strings.Split(msg.Reply, ".")
	if len(f) < 9 || f[0] != "$JS" || f[1] != "ACK" {
		return entry{}, false
	}
	if len(f) >= 11 {
		f = f[2:]
	}
	seq, err1 := strconv.ParseUint(f[5], 10, 64)
	pending, err2 := strconv.ParseUint(f[8], 10, 64)
	return entry{Msg: msg, seq: seq, pending: pending}, err1 == nil && err2 == nil
}
