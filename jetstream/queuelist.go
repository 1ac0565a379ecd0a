package jetstream

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
)

// QueuedLease is a lease in the queue, held or not.
type QueuedLease struct {
	Lease
	Seq uint64
}

// List returns all leases that are not acknowledged, including those that are held. One that can't
// be read has an ID alone. A lease without an ID is named by its sequence.
func (q *Queue) List(ctx context.Context) ([]QueuedLease, error) {
	ctx, stop := q.store.withTimeout(ctx)
	defer stop()
	var all []QueuedLease
	for next := uint64(1); ; next = all[len(all)-1].Seq + 1 {
		n := len(all)
		request := pageRequest{Seq: next, Batch: listPage, Subjects: leaseSubjects}
		err := q.store.page(ctx, leaseStream, request, func(m *nats.Msg, seq uint64) {
			var l Lease
			if err := json.Unmarshal(m.Data, &l); err != nil || l.Level > leaseVersion {
				l = Lease{}
			} else {
				l.Shape = lastToken(m.Header.Get("Nats-Subject"))
			}
			if l.ID == "" { // as of a lease of an older master
				l.ID = grid.LeaseID("#" + strconv.FormatUint(seq, 10))
			}
			all = append(all, QueuedLease{Seq: seq, Lease: l})
		})
		if err != nil {
			return nil, q.store.explain(ctx, "list leases", err)
		}
		if len(all) == n {
			return all, nil
		}
	}
}

// pageRequest requests messages of a stream from a sequence on. nats-server keeps no state for it.
type pageRequest struct {
	Seq      uint64 `json:"seq"`
	Batch    int    `json:"batch"`
	MaxBytes int    `json:"max_bytes,omitempty"`
	Subjects string `json:"next_by_subj"`
}

// page calls fn with messages of a stream, using one batched direct request.
func (s *connection) page(ctx context.Context, stream string, r pageRequest, fn func(m *nats.Msg, seq uint64)) error {
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
		case "204", "404": // end of the batch; no messages
			return nil
		default:
			return fmt.Errorf("%w (status %s)", errConsumerLost, status)
		}
	}
}

// Purge empties the queue. Sequences continue from the clock (microseconds since 1970), so that
// none is used twice even if a crash has lost the queue's counter.
func (q *Queue) Purge(ctx context.Context) error {
	ctx, stop := q.store.withTimeout(ctx)
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
