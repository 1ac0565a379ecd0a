package jetstream

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
)

// The contents of calls and answers that have no type of their own.
type (
	takeCall struct {
		Lane string `json:"lane"`
		N    int    `json:"n"`
		// Level is that of the node: leases of higher levels are not for it.
		Level int `json:"level"`
	}
	leaseCall struct {
		ID    grid.LeaseID  `json:"id"`
		Delay time.Duration `json:"delay,omitempty"`
	}
	storedReply struct {
		Seq uint64 `json:"seq"`
		// Unknown means that nothing was stored because the sweep has no record. It is not an
		// error, so that older nodes do not send the same report again and again.
		Unknown bool `json:"unknown,omitempty"`
	}
)

// handle executes a call of a node, which may come over a connection or from this process.
func (c *Calls) handle(ctx context.Context, m *nats.Msg, node grid.NodeID, verb string) ([]byte, error) {
	switch verb {
	case callHeartbeat:
		return handleJSON(m, func(b *Heartbeat) (any, error) {
			fn := c.onHeartbeat.get()
			if fn == nil {
				return nil, errStarting
			}
			directives := fn(node, b)
			directives.V = wireVersion
			return directives, nil
		})
	case callKeyring:
		return handleJSON(m, func(*struct{}) (any, error) {
			fn := c.onKeyring.get()
			if fn == nil {
				return nil, errStarting
			}
			return fn(node), nil
		})
	case callMetrics:
		return handleJSON(m, func(b *grid.Batch) (any, error) { c.acceptMetrics(node, b); return nil, nil })
	case callTake:
		return handleJSON(m, func(t *takeCall) (any, error) {
			if refuses := c.refuses.get(); refuses != nil && refuses(node, grid.Lane(t.Lane)) {
				return nil, errWithheld // no leases would mean that the lane is empty
			}
			return c.store.Queue.grant(node, t.Lane, min(t.N, maxTakenLeases), t.Level), nil
		})
	case callReturn:
		return handleJSON(m, func(l *leaseCall) (any, error) { return nil, c.store.Queue.acknowledge(ctx, node, l.ID) })
	case callPostpone:
		return handleJSON(m, func(l *leaseCall) (any, error) {
			return nil, c.store.Queue.postpone(node, l.ID, l.Delay)
		})
	case callEvents:
		if countElements(m.Data) >= splitEvents {
			return nil, fmt.Errorf("%w: too many events", errRefused)
		}
		b, err := decodeBatch(m.Data)
		if b.V > grid.NewestEventVersion { // the node keeps them until the master can read them
			return nil, fmt.Errorf("%w: %w", errRefused, tooNew(b))
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errRefused, err)
		}
		if b.Node != node {
			return nil, fmt.Errorf("%w: %s reports in the name of %.100q", errRefused, node, b.Node)
		}
		return c.storeReport(ctx, b.Sweep, func() (uint64, error) { return c.storeEvents(ctx, b, m.Data) })
	case callOutput:
		sweep := grid.SweepID(m.Header.Get(sweepHeader))
		return c.storeReport(ctx, sweep, func() (uint64, error) { return c.storeOutput(ctx, node, sweep, m.Data) })
	case callSweeps:
		after, n := binary.Uvarint(m.Data)
		if n <= 0 {
			return nil, fmt.Errorf("%w: %w", errRefused, errCorrupt)
		}
		return c.encodePage(ctx, after)
	case callSweep:
		id := grid.SweepID(m.Data)
		record, err := c.store.lastMessage(ctx, recordStream, recordSubject(id))
		if err == nil && record.Header.Get(removedHeader) != "" {
			err = ErrNotFound
		}
		if err != nil {
			return nil, fmt.Errorf("sweep %s: %w", id, err)
		}
		return append(binary.AppendUvarint(nil, record.Sequence), record.Data...), nil // as it is stored
	}
	return nil, fmt.Errorf("%w: unknown call %.100q; update the master's mlfnode", errRefused, verb)
}

// storeReport stores a report on a sweep with publish, and encodes the answer. A sweep without a
// record was removed, or has been gone since the store was restored: nothing would ever use the
// report. The records are those of the store itself, so a master that has just started knows all of
// them.
func (c *Calls) storeReport(ctx context.Context, sweep grid.SweepID, put func() (uint64, error)) ([]byte, error) {
	known, err := c.store.Records.known(ctx, sweep)
	if err != nil {
		return nil, err
	}
	if !known {
		return json.Marshal(storedReply{Unknown: true})
	}
	seq, err := put()
	if err != nil {
		return nil, err
	}
	return json.Marshal(storedReply{Seq: seq})
}

// handleJSON decodes a call, passes it to fn, and encodes the answer.
func handleJSON[T any](m *nats.Msg, fn func(*T) (any, error)) ([]byte, error) {
	ask := new(T)
	if err := json.Unmarshal(m.Data, ask); err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	answer, err := fn(ask)
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// maxTakenLeases bounds the leases of one call.
const maxTakenLeases = 64

// storeEvents stores a batch of a node.
func (c *Calls) storeEvents(ctx context.Context, b *grid.Batch, data []byte) (uint64, error) {
	shares := c.store.Events.quota
	if err := shares.reserve(ctx, b.Node, int64(len(data))); err != nil {
		return 0, err
	}
	seq, err := c.store.Events.publishEncoded(ctx, b, b.Node, b.Sweep, data)
	if err != nil {
		shares.release(b.Node, int64(len(data)))
	}
	return seq, err
}

// storeOutput stores a message of chunks of a node, which must belong to its own runs.
func (c *Calls) storeOutput(ctx context.Context, node grid.NodeID, sweep grid.SweepID, data []byte) (uint64, error) {
	chunks, err := decodeChunks(data)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errRefused, err)
	}
	for i := range chunks {
		if !mayWrite(node, chunks[i].Run) {
			return 0, fmt.Errorf("%w: run %.100q belongs to another node", errRefused, chunks[i].Run)
		}
	}
	return c.store.Logs.publishMessage(ctx, node, sweep, data)
}
