package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
)

const (
	// AckWait is how long a lease stays with a worker that does not renew it. A live worker renews each quarter of it; a dead
	// one is usually noticed earlier, by other signals.
	AckWait = 10 * time.Second
	// maxLeased bounds the leases of one shape in the hands of workers. The default, 1,000, would cap a large cluster.
	maxLeased = 1 << 16
	// pullGrace is how long a pull waits for the answer: it comes at once unless the machine is badly overloaded.
	pullGrace = 2 * time.Second
	// pullLag is how long a consumer may take to learn of a stored lease, pullRecent how long after a wake that is reckoned with.
	pullLag    = 5 * time.Millisecond
	pullRecent = 20 * time.Millisecond
	// presentPage is how many leases one request of Present brings.
	presentPage = 1000
)

// leaseVersion is the version of leases on the wire.
const leaseVersion = 1

// Lease is the right to run the trials [Lo,Hi) of a sweep.
type Lease struct {
	Sweep   grid.SweepID
	Lo, Hi  int64
	Attempt int
	Shape   string // names the queue: leases of one shape need the same resources
	Nonce   string // free for the publisher; when set, publishing the same lease again within 100 ms has no effect
}

// wireLease is a lease in the stream. The shape is in the subject.
type wireLease struct {
	V       int          `json:"v"`
	Sweep   grid.SweepID `json:"s"`
	Lo      int64        `json:"l"`
	Hi      int64        `json:"h"`
	Attempt int          `json:"a"`
	Nonce   string       `json:"n,omitempty"`
}

// Queue is the lease queue: a work-queue stream with one subject and one shared consumer for each shape.
//
//	published ──Pull──► held ──Ack──► gone
//	    ▲                │
//	    └─ Return, or AckWait without Renew
//
// It is not synced to disk: after a crash leases may be missing, which the reconciler makes good. Its consumers live in memory
// and are made when first used.
type Queue struct {
	store *Store

	mu     sync.Mutex
	shapes map[string]bool      // consumers that are known to exist
	woken  map[string]time.Time // when a lease last came, by shape
}

func newQueue(s *Store) (*Queue, error) {
	q := &Queue{store: s, shapes: map[string]bool{}, woken: map[string]time.Time{}}
	_, err := q.Wake(func(shape string) { // ends with the connection
		q.mu.Lock()
		defer q.mu.Unlock()
		q.woken[shape] = time.Now()
	})
	return q, err
}

// EnsureShape makes the consumer of a shape if there is none.
func (q *Queue) EnsureShape(ctx context.Context, shape string) error {
	if q.known(shape) {
		return nil
	}
	ctx, stop := q.store.limited(ctx)
	defer stop()
	_, err := q.store.js.CreateOrUpdateConsumer(ctx, leaseStream, js.ConsumerConfig{
		Durable: leaseConsumer(shape), FilterSubject: leaseSubject(shape), AckPolicy: js.AckExplicitPolicy, AckWait: AckWait,
		MaxAckPending: maxLeased, MaxDeliver: -1, MemoryStorage: true, Replicas: 1,
		InactiveThreshold: 0, // stays until Purge
	})
	if err != nil {
		return q.store.explain(ctx, "open the lease queue "+shape, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.shapes[shape] = true
	return nil
}

func (q *Queue) known(shape string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.shapes[shape]
}

func (q *Queue) forget(shape string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.shapes, shape)
}

// Publish puts a lease into its queue and wakes workers.
func (q *Queue) Publish(ctx context.Context, l Lease) (uint64, error) {
	data, err := json.Marshal(wireLease{V: leaseVersion, Sweep: l.Sweep, Lo: l.Lo, Hi: l.Hi, Attempt: l.Attempt, Nonce: l.Nonce})
	if err != nil {
		return 0, fmt.Errorf("encode a lease: %w", err)
	}
	var opts []js.PublishOpt
	if l.Nonce != "" {
		opts = append(opts, js.WithMsgID(l.Nonce))
	}
	seq, err := q.store.publish(ctx, &nats.Msg{Subject: leaseSubject(l.Shape), Data: data}, opts...)
	if err != nil {
		return 0, fmt.Errorf("publish a lease: %w", err)
	}
	q.wake(l.Shape)
	return seq, nil
}

// wake tells workers that there is a lease. It is a hint: who misses it looks again later.
func (q *Queue) wake(shape string) { _ = q.store.conn.Publish(wakeSubject(shape), nil) }

// Wake calls fn whenever a lease has been put into a queue or returned, until stop is called. fn must not block.
func (q *Queue) Wake(fn func(shape string)) (stop func(), err error) {
	sub, err := q.store.conn.Subscribe(wakeSubjects, func(m *nats.Msg) { fn(lastToken(m.Subject)) })
	if err != nil {
		return nil, fmt.Errorf("listen for leases: %w", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}

// Pull takes up to n leases that are there now; none is no error. A lease that can't be read is logged and dropped.
func (q *Queue) Pull(ctx context.Context, shape string, n int) ([]*Held, error) {
	if err := q.EnsureShape(ctx, shape); err != nil {
		return nil, err
	}
	ctx, stop := q.store.guard(ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, pullGrace)
	defer cancel()
	held, err := q.pull(ctx, shape, &pullRequest{Batch: n, NoWait: true})
	if err == nil && len(held) == 0 && q.fresh(shape) {
		held, err = q.pull(ctx, shape, &pullRequest{Batch: n, NoWait: true, Expires: pullLag})
	}
	if err != nil && len(held) == 0 {
		q.forget(shape)
		return nil, q.store.explain(ctx, "pull leases "+shape, err)
	}
	return held, nil
}

// fresh tells that a lease came a moment ago. The server acknowledges a lease, and a worker is woken, shortly before the
// consumer knows of it (once in some hundred times that can be seen), so "none there" is then asked again with some patience.
func (q *Queue) fresh(shape string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return time.Since(q.woken[shape]) < pullRecent
}

func (q *Queue) pull(ctx context.Context, shape string, r *pullRequest) ([]*Held, error) {
	inbox, err := q.store.conn.SubscribeSync(q.store.conn.NewInbox())
	if err != nil {
		return nil, err
	}
	defer func() { _ = inbox.Unsubscribe() }()
	err = q.store.pull(leaseStream, leaseConsumer(shape), inbox.Subject, r)
	if err != nil {
		return nil, err
	}
	var held []*Held
	for len(held) < r.Batch {
		msg, err := inbox.NextMsgWithContext(ctx)
		if err != nil {
			return held, err
		}
		if h, ok := q.decode(msg, shape); ok {
			held = append(held, h)
			continue
		}
		switch status := msg.Header.Get("Status"); status {
		case "": // a lease that can't be read
		case "404", "408":
			return held, nil
		default:
			return held, fmt.Errorf("%w (status %s)", errLost, status)
		}
	}
	return held, nil
}

func (q *Queue) decode(msg *nats.Msg, shape string) (*Held, bool) {
	fields, ok := ackFields(msg.Reply)
	if !ok {
		return nil, false
	}
	var w wireLease
	if err := json.Unmarshal(msg.Data, &w); err != nil || w.V > leaseVersion {
		q.store.log.Warn("lease can't be read and is dropped", "version", w.V, "err", err)
		_ = q.store.conn.Publish(msg.Reply, []byte("+TERM"))
		return nil, false
	}
	seq, _ := strconv.ParseUint(fields[1], 10, 64)
	deliveries, _ := strconv.Atoi(fields[0])
	return &Held{
		Lease: Lease{Sweep: w.Sweep, Lo: w.Lo, Hi: w.Hi, Attempt: w.Attempt, Shape: shape, Nonce: w.Nonce},
		Seq:   seq, Deliveries: deliveries, queue: q, reply: msg.Reply,
	}, true
}

// Present lists the sequences of all leases that are not acknowledged, held ones included.
func (q *Queue) Present(ctx context.Context) ([]uint64, error) {
	ctx, stop := q.store.limited(ctx)
	defer stop()
	var all []uint64
	for next := uint64(1); ; next = all[len(all)-1] + 1 {
		n := len(all)
		var err error
		if all, err = q.page(ctx, all, next); err != nil {
			return nil, q.store.explain(ctx, "list leases", err)
		}
		if len(all) == n {
			return all, nil
		}
	}
}

// page adds the sequences of up to presentPage leases from next on, by one batched direct request.
func (q *Queue) page(ctx context.Context, all []uint64, next uint64) ([]uint64, error) {
	inbox, err := q.store.conn.SubscribeSync(q.store.conn.NewInbox())
	if err != nil {
		return nil, err
	}
	defer func() { _ = inbox.Unsubscribe() }()
	req := fmt.Sprintf(`{"seq":%d,"batch":%d,"next_by_subj":%q}`, next, presentPage, leaseSubjects)
	if err := q.store.conn.PublishRequest("$JS.API.DIRECT.GET."+leaseStream, inbox.Subject, []byte(req)); err != nil {
		return nil, err
	}
	for {
		msg, err := inbox.NextMsgWithContext(ctx)
		if err != nil {
			return nil, err
		}
		switch status := msg.Header.Get("Status"); status {
		case "":
			seq, err := strconv.ParseUint(msg.Header.Get("Nats-Sequence"), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("read the sequence of a lease: %w", err)
			}
			all = append(all, seq)
		case "204", "404": // end of the batch; nothing there
			return all, nil
		default:
			return nil, fmt.Errorf("%w (status %s)", errLost, status)
		}
	}
}

// Delete takes a lease out of the queue, held or not; it is no error when it has gone.
func (q *Queue) Delete(ctx context.Context, seq uint64) error {
	ctx, stop := q.store.limited(ctx)
	defer stop()
	err := q.store.streams[leaseStream].DeleteMsg(ctx, seq)
	if err != nil && !errors.Is(err, js.ErrMsgNotFound) && !errors.Is(err, js.ErrMsgDeleteUnsuccessful) {
		return q.store.explain(ctx, "delete a lease", err)
	}
	return nil
}

// Purge empties the queue and removes all its consumers. Sequences go on from the clock (microseconds since 1970), so that they
// are not used twice although a crash may have lost what the queue had counted.
func (q *Queue) Purge(ctx context.Context) error {
	ctx, stop := q.store.limited(ctx)
	defer stop()
	if err := q.purge(ctx); err != nil {
		return q.store.explain(ctx, "empty the lease queue", err)
	}
	return nil
}

func (q *Queue) purge(ctx context.Context) error {
	str := q.store.streams[leaseStream]
	names := str.ConsumerNames(ctx)
	for name := range names.Name() {
		if err := str.DeleteConsumer(ctx, name); err != nil && !errors.Is(err, js.ErrConsumerNotFound) {
			return err
		}
	}
	if err := names.Err(); err != nil {
		return err
	}
	q.mu.Lock()
	clear(q.shapes)
	clear(q.woken)
	q.mu.Unlock()
	info, err := str.Info(ctx)
	if err != nil {
		return err
	}
	first := max(info.State.LastSeq+1, uint64(time.Now().UnixMicro()))
	return str.Purge(ctx, js.WithPurgeSequence(first))
}
