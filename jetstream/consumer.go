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

// consumer is an ephemeral pull consumer with its inbox.
type consumer struct {
	store       *Store
	stream      string
	name        string
	follow      bool
	pending     uint64 // how many messages are to come, as the server has reported
	inbox       *nats.Subscription
	outstanding int // messages that the request in flight may still return; 0 if there is no request
}

func (t *streamReader) newConsumer(ctx context.Context) (*consumer, error) {
	if err := checkSubject(t.subject); err != nil {
		return nil, err
	}
	info, err := t.store.streamInfo(ctx, t.stream)
	if err != nil {
		return nil, err
	}
	t.lastStored = info.State.LastSeq
	cfg := js.ConsumerConfig{
		AckPolicy: js.AckNonePolicy, FilterSubject: t.subject, MemoryStorage: true, InactiveThreshold: consumerIdle,
		DeliverPolicy: js.DeliverByStartSequencePolicy, OptStartSeq: max(t.next, 1),
		HeadersOnly: t.headers, Replicas: 1,
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
	return &consumer{
		store: t.store, stream: t.stream, name: made.Name, follow: t.follow, pending: made.NumPending, inbox: inbox,
	}, nil
}

// close deletes the consumer. The server would do so after consumerIdle, so close does not wait for
// the answer.
func (c *consumer) close() {
	_ = c.inbox.Unsubscribe()
	_ = c.store.conn.Publish("$JS.API.CONSUMER.DELETE."+c.stream+"."+c.name, nil)
}

// nextBatch waits for one message and returns it with all that have arrived after it. It may return
// both messages and an error, which then came after them.
func (c *consumer) nextBatch(ctx context.Context) ([]message, error) {
	var batch []message
	for len(batch) < pullMessages {
		if len(batch) > 0 {
			if n, _, err := c.inbox.Pending(); err != nil || n == 0 {
				break // nothing has arrived, not even a status message
			}
		}
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

// receive waits for the next message, sending a request if none is in flight. ok is false for a
// status message.
func (c *consumer) receive(ctx context.Context) (e message, ok bool, err error) {
	if c.outstanding == 0 {
		if err := c.pull(); err != nil {
			return message{}, false, err
		}
	}
	beat, stop := context.WithTimeoutCause(ctx, 2*pullHeartbeat, errConsumerLost)
	defer stop()
	msg, err := c.inbox.NextMsgWithContext(beat)
	if err != nil {
		if ctx.Err() == nil && errors.Is(context.Cause(beat), errConsumerLost) {
			err = errConsumerLost
		}
		return message{}, false, err
	}
	if e, ok = parseMessage(msg); !ok {
		return e, false, c.status(msg.Header)
	}
	c.outstanding--
	c.pending = e.pending
	return e, true, nil
}

// status handles a message without content: a heartbeat, or the end of a request.
func (c *consumer) status(h nats.Header) error {
	switch code := h.Get("Status"); code {
	case "100": // a heartbeat, which the server sends after it has looked for a message in vain
		if c.pending > 0 {
			return fmt.Errorf("%w (%d messages behind it were removed or can't be read)", errConsumerLost, c.pending)
		}
		return nil
	case "404": // no messages, for a request that does not wait
		return errNoMore
	case "408", "409": // the end of a request; a deleted consumer answers 409 too, and then the next request gets 503
		// The server also reports a request that has returned all its messages.
		unused, err := strconv.Atoi(h.Get("Nats-Pending-Messages"))
		if err != nil {
			unused = c.outstanding
		}
		c.outstanding = max(c.outstanding-unused, 0)
		return nil
	default:
		return fmt.Errorf("%w (status %q)", errConsumerLost, code)
	}
}

// inboxMessages bounds the messages that wait in the inbox of a consumer or a listing: a request
// returns at most pullMessages or listPage, and a few status messages. The client's own default
// makes room for 65,536, which takes half a megabyte for each inbox.
const inboxMessages = 4 * max(pullMessages, listPage)

// pullRequest is what nats-server reads on CONSUMER.MSG.NEXT.
type pullRequest struct {
	Batch     int           `json:"batch"`
	MaxBytes  int           `json:"max_bytes,omitempty"`
	Expires   time.Duration `json:"expires,omitempty"`
	NoWait    bool          `json:"no_wait,omitempty"`
	Heartbeat time.Duration `json:"idle_heartbeat,omitempty"`
}

func (c *consumer) pull() error {
	r := pullRequest{Batch: pullMessages, MaxBytes: pullBytes, NoWait: !c.follow}
	if c.follow {
		r.Expires, r.Heartbeat = pullExpiry, pullHeartbeat
	}
	c.outstanding = r.Batch
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode a pull request: %w", err)
	}
	return c.store.conn.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+c.stream+"."+c.name, c.inbox.Subject, b)
}

// parseMessage reads the sequence of a delivered message, and the number of messages after it, from
// the reply subject:
//
//	$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<time>.<pending>
//
// A server with accounts puts a domain and an account behind ACK, and a token at the end.
func parseMessage(msg *nats.Msg) (message, bool) {
	f := strings.Split(msg.Reply, ".")
	if len(f) < 9 || f[0] != "$JS" || f[1] != "ACK" {
		return message{}, false
	}
	if len(f) >= 11 {
		f = f[2:]
	}
	seq, err1 := strconv.ParseUint(f[5], 10, 64)
	pending, err2 := strconv.ParseUint(f[8], 10, 64)
	return message{Msg: msg, seq: seq, pending: pending}, err1 == nil && err2 == nil
}
