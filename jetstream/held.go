package jetstream

import (
	"context"
	"fmt"
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

func (h *Held) request(ctx context.Context, what, verb string) error {
	ctx, stop := h.queue.store.limited(ctx)
	defer stop()
	if _, err := h.queue.store.conn.RequestWithContext(ctx, h.reply, []byte(what)); err != nil {
		return h.queue.store.explain(ctx, verb+" a lease", err)
	}
	return nil
}
