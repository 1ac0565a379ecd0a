package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// laterLease is how long a lease of a newer version is kept from its next taker, which may be this node again.
const laterLease = 2 * time.Second

// Pull takes up to n leases that are there now; none is no error. A lease that can't be read is logged and dropped, one of a
// newer version is left to nodes that know it.
func (q *Queue) Pull(ctx context.Context, shape string, n int) ([]*Held, error) {
	if err := q.EnsureShape(ctx, shape); err != nil {
		return nil, err
	}
	ctx, stop := q.store.guard(ctx)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, pullGrace)
	defer cancel()
	held, err := q.pull(ctx, shape, &pullRequest{Batch: n, NoWait: true})
	if woken, ok := q.fresh(shape); ok && err == nil && len(held) == 0 {
		held, err = q.pull(ctx, shape, &pullRequest{Batch: n, NoWait: true, Expires: pullLag})
		if len(held) == 0 {
			q.stale(shape, woken)
		}
	}
	if err != nil && len(held) == 0 {
		q.forget(shape)
		return nil, q.store.explain(ctx, "pull leases "+shape, err)
	}
	return held, nil
}

// fresh tells that a lease came a moment ago. The server acknowledges a lease, and a worker is woken, shortly before the
// consumer knows of it (once in some hundred times that can be seen), so "none there" is then asked again with some patience.
func (q *Queue) fresh(shape string) (woken time.Time, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	woken = q.woken[shape]
	return woken, time.Since(woken) < pullRecent
}

// stale notes that patience has brought nothing: the lease of that wake is somebody else's.
func (q *Queue) stale(shape string, woken time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.woken[shape].Equal(woken) {
		delete(q.woken, shape)
	}
}

// pull asks once. The inbox is for this request alone: the server may keep a request that found another one's lease gone, and drops it
// when nobody listens any more; else it would give a lease to nobody. A channel of its own keeps the inbox small, where nats.go
// would make room for 65,536 messages.
func (q *Queue) pull(ctx context.Context, shape string, r *pullRequest) ([]*Held, error) {
	answers := make(chan *nats.Msg, r.Batch+1)
	inbox, err := q.store.conn.ChanSubscribe(q.store.conn.NewInbox(), answers)
	if err != nil {
		return nil, err
	}
	defer func() { _ = inbox.Unsubscribe() }()
	err = q.store.pull(leaseStream, leaseConsumer(shape), inbox.Subject, r)
	if err != nil {
		return nil, err
	}
	var held []*Held
	for range r.Batch { // a lease that can't be read counts: nothing follows for it
		var msg *nats.Msg
		select {
		case msg = <-answers:
		case <-ctx.Done():
			return held, ctx.Err()
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
	if err := json.Unmarshal(msg.Data, &w); err != nil {
		q.store.log.Warn("lease can't be read and is dropped", "err", err)
		_ = q.store.conn.Publish(msg.Reply, []byte("+TERM"))
		return nil, false
	}
	if w.V > leaseVersion {
		q.store.log.Info("lease is left to newer nodes; update mlfnode", "version", w.V)
		_ = q.store.conn.Publish(msg.Reply, fmt.Appendf(nil, `-NAK {"delay": %d}`, laterLease))
		return nil, false
	}
	seq, _ := strconv.ParseUint(fields[1], 10, 64)
	deliveries, _ := strconv.Atoi(fields[0])
	return &Held{
		Lease: Lease{Sweep: w.Sweep, Lo: w.Lo, Hi: w.Hi, Attempt: w.Attempt, Shape: shape, ID: idOf(w.ID, seq), Updates: w.Updates, Snapshot: w.Snapshot, Bad: w.Bad, Avoid: w.Avoid, Elsewhere: w.Elsewhere, Quiet: w.Quiet},
		Seq:   seq, Deliveries: deliveries, queue: q, reply: msg.Reply,
	}, true
}
