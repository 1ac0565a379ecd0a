package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
)

// QueuedLease is a lease in the queue, held or not.
type QueuedLease struct {
	Lease
	Seq uint64
}

// List lists all leases that are not acknowledged, held ones included. One that can't be read has no content.
func (q *Queue) List(ctx context.Context) ([]QueuedLease, error) {
	ctx, stop := q.store.limited(ctx)
	defer stop()
	var all []QueuedLease
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

// page adds up to presentPage leases from next on.
func (q *Queue) page(ctx context.Context, all []QueuedLease, next uint64) ([]QueuedLease, error) {
	err := q.store.page(ctx, leaseStream, pageRequest{Seq: next, Batch: presentPage, Subjects: leaseSubjects}, func(m *nats.Msg, seq uint64) {
		all = append(all, QueuedLease{Seq: seq, Lease: decodeLease(m.Data, lastToken(m.Header.Get("Nats-Subject")), seq)})
	})
	return all, err
}

// pageRequest asks for messages of a stream from a sequence on. nats-server holds no state for it.
type pageRequest struct {
	Seq      uint64 `json:"seq"`
	Batch    int    `json:"batch"`
	MaxBytes int    `json:"max_bytes,omitempty"`
	Subjects string `json:"next_by_subj"`
}

// page calls fn with messages of a stream, by one batched direct request.
func (s *Store) page(ctx context.Context, stream string, r pageRequest, fn func(m *nats.Msg, seq uint64)) error {
	inbox, err := s.conn.SubscribeSync(s.conn.NewInbox())
	if err != nil {
		return err
	}
	defer func() { _ = inbox.Unsubscribe() }()
	req, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := s.conn.PublishRequest("$JS.API.DIRECT.GET."+stream, inbox.Subject, req); err != nil {
		return err
	}
	for {
		msg, err := inbox.NextMsgWithContext(ctx)
		if err != nil {
			return err
		}
		switch status := msg.Header.Get("Status"); status {
		case "":
			seq, err := strconv.ParseUint(msg.Header.Get("Nats-Sequence"), 10, 64)
			if err != nil {
				return fmt.Errorf("read the sequence of a message: %w", err)
			}
			fn(msg, seq)
		case "204", "404": // end of the batch; nothing there
			return nil
		default:
			return fmt.Errorf("%w (status %s)", errLost, status)
		}
	}
}

// decodeLease gives a lease with an ID alone for what can't be read.
func decodeLease(data []byte, shape string, seq uint64) Lease {
	var l Lease
	if err := json.Unmarshal(data, &l); err != nil || l.Level > leaseVersion {
		return Lease{ID: idOf("", seq)}
	}
	l.Shape, l.ID = shape, idOf(l.ID, seq)
	return l
}

// Purge empties the queue. Sequences go on from the clock (microseconds since 1970), so that they are not used twice although a crash
// may have lost what the queue had counted.
func (q *Queue) Purge(ctx context.Context) error {
	ctx, stop := q.store.limited(ctx)
	defer stop()
	q.mu.Lock()
	clear(q.leases)
	clear(q.lanes)
	q.mu.Unlock()
	str := q.store.streams[leaseStream]
	info, err := str.Info(ctx)
	if err == nil {
		first := max(info.State.LastSeq+1, uint64(time.Now().UnixMicro()))
		err = str.Purge(ctx, js.WithPurgeSequence(first))
	}
	if err != nil {
		return q.store.explain(ctx, "empty the lease queue", err)
	}
	return nil
}
