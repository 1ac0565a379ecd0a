package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	js "github.com/nats-io/nats.go/jetstream"
)

// Queued is a lease in the queue, held or not.
type Queued struct {
	Lease
	Seq uint64
}

// Present lists all leases that are not acknowledged, held ones included. One that can't be read has no content.
func (q *Queue) Present(ctx context.Context) ([]Queued, error) {
	ctx, stop := q.store.limited(ctx)
	defer stop()
	var all []Queued
	for next := uint64(1); ; next = all[len(all)-1].Seq + 1 {
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

// page adds up to presentPage leases from next on, by one batched direct request.
func (q *Queue) page(ctx context.Context, all []Queued, next uint64) ([]Queued, error) {
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
			all = append(all, Queued{Seq: seq, Lease: decodeLease(msg.Data, lastToken(msg.Header.Get("Nats-Subject")), seq)})
		case "204", "404": // end of the batch; nothing there
			return all, nil
		default:
			return nil, fmt.Errorf("%w (status %s)", errLost, status)
		}
	}
}

// decodeLease gives a lease with an ID alone for what can't be read.
func decodeLease(data []byte, shape string, seq uint64) Lease {
	var w wireLease
	if err := json.Unmarshal(data, &w); err != nil || w.V > leaseVersion {
		return Lease{ID: idOf("", seq)}
	}
	return Lease{Sweep: w.Sweep, Lo: w.Lo, Hi: w.Hi, Attempt: w.Attempt, Shape: shape, ID: idOf(w.ID, seq), Updates: w.Updates, Avoid: w.Avoid, Quiet: w.Quiet}
}

// Delivered gives the last sequence that the queue of a shape has handed out; 0 when it has handed out none.
func (q *Queue) Delivered(ctx context.Context, shape string) (uint64, error) {
	ctx, stop := q.store.limited(ctx)
	defer stop()
	c, err := q.store.streams[leaseStream].Consumer(ctx, leaseConsumer(shape))
	if errors.Is(err, js.ErrConsumerNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, q.store.explain(ctx, "look at the lease queue "+shape, err)
	}
	return c.CachedInfo().Delivered.Stream, nil
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

// RemoveUnused removes the consumers of shapes that are not used and of which the queue has no lease, and gives the shapes. No lease of
// such a shape may be published meanwhile.
func (q *Queue) RemoveUnused(ctx context.Context, used func(shape string) bool) (removed []string, err error) {
	ctx, stop := q.store.limited(ctx)
	defer stop()
	present, err := q.Present(ctx)
	if err != nil {
		return nil, err
	}
	leased := map[string]bool{}
	for i := range present {
		leased[present[i].Shape] = true
	}
	removed, err = q.remove(ctx, func(shape string) bool { return !leased[shape] && !used(shape) })
	if err != nil {
		return removed, q.store.explain(ctx, "remove lease queues", err)
	}
	return removed, nil
}

// remove removes the consumers of some shapes, and gives these.
func (q *Queue) remove(ctx context.Context, which func(shape string) bool) (removed []string, err error) {
	str := q.store.streams[leaseStream]
	names := str.ConsumerNames(ctx)
	for name := range names.Name() {
		shape := untoken(strings.TrimPrefix(name, shapePrefix))
		if !which(shape) {
			continue
		}
		q.mu.Lock()
		delete(q.shapes, shape)
		delete(q.woken, shape)
		if c := q.calls[shape]; c != nil && !c.soon {
			delete(q.calls, shape)
		}
		q.mu.Unlock()
		if err := str.DeleteConsumer(ctx, name); err != nil && !errors.Is(err, js.ErrConsumerNotFound) {
			return removed, err
		}
		removed = append(removed, shape)
	}
	return removed, names.Err()
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
	if _, err := q.remove(ctx, func(string) bool { return true }); err != nil {
		return err
	}
	info, err := str.Info(ctx)
	if err != nil {
		return err
	}
	first := max(info.State.LastSeq+1, uint64(time.Now().UnixMicro()))
	return str.Purge(ctx, js.WithPurgeSequence(first))
}
