package jetstream

import (
	"context"
	"fmt"
	"time"
)

// Held is a lease in the hands of this worker. Acknowledging, renewing or returning a lease that has gone to another worker
// meanwhile has no error: the broker does not fence, the fold of events does.
type Held struct {
	Lease
	Seq        uint64 // in the queue
	Deliveries int    // 1 when nobody held it before

	queue *Queue
	reply string
}

// Ticket is what a lease can be restored from by the next process of the same worker.
type Ticket struct {
	Lease
	Seq        uint64
	Deliveries int
	Reply      string // where the queue hears about it
}

// Ticket gives what Restore needs.
func (h *Held) Ticket() Ticket {
	return Ticket{Lease: h.Lease, Seq: h.Seq, Deliveries: h.Deliveries, Reply: h.reply}
}

// Restore takes up a lease that an earlier process of this worker held. Whether the queue still knows it shows only later: a
// lease that has gone to another worker, or was purged, is renewed and acknowledged without effect.
func (q *Queue) Restore(t Ticket) *Held {
	return &Held{Lease: t.Lease, Seq: t.Seq, Deliveries: t.Deliveries, queue: q, reply: t.Reply}
}

// Ack takes the lease out of the queue: everything about it is reported. It returns when the server has done so.
func (h *Held) Ack(ctx context.Context) error { return h.request(ctx, "+ACK", "acknowledge") }

// Renew keeps the lease for another AckWait. It does not wait for the server.
func (h *Held) Renew() error {
	if err := h.queue.store.conn.Publish(h.reply, []byte("+WPI")); err != nil {
		return fmt.Errorf("renew a lease: %w", err)
	}
	return nil
}

// Return gives the lease to the next worker that asks, at once.
func (h *Held) Return() error {
	ctx, stop := context.WithTimeout(context.Background(), pullGrace) // a worker that shuts down returns leases, so no context
	defer stop()
	if err := h.request(ctx, "-NAK", "return"); err != nil {
		return err
	}
	h.queue.wake(h.Shape)
	return nil
}

// Postpone gives the lease to the next worker that asks after a while.
func (h *Held) Postpone(d time.Duration) error {
	ctx, stop := context.WithTimeout(context.Background(), pullGrace) // as in Return
	defer stop()
	if err := h.request(ctx, fmt.Sprintf(`-NAK {"delay": %d}`, d), "postpone"); err != nil {
		return err
	}
	time.AfterFunc(d, func() { h.queue.wake(h.Shape) })
	return nil
}

func (h *Held) request(ctx context.Context, what, verb string) error {
	ctx, stop := h.queue.store.limited(ctx)
	defer stop()
	if _, err := h.queue.store.conn.RequestWithContext(ctx, h.reply, []byte(what)); err != nil {
		return h.queue.store.explain(ctx, verb+" a lease", err)
	}
	return nil
}
