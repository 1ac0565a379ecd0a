package jetstream

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
)

// Logs is the stream of what programs print. It is synced. When it is full, the oldest output is
// removed: that of a node that uses more than half of the room, if there is one, otherwise that of
// all nodes.
type Logs struct {
	store *Store
	usage logUsage
}

// LogRange selects a part of a sweep's output.
type LogRange struct {
	First, Last uint64    // sequences; 0 means no bound
	Since       time.Time // with First 0: from this time on
	Follow      bool      // continue with new output until ctx ends or Last is reached
}

// Publish stores chunks of a sweep, packed into messages of about half a megabyte, and returns the
// sequences of the first and the last message once all are on disk, or 0 and 0 if there are no
// chunks. If it fails and the caller retries, chunks may be stored twice; readers recognize them by
// the offset.
func (l *Logs) Publish(ctx context.Context, sweep grid.SweepID, chunks []Chunk) (first, last uint64, err error) {
	return packAll(chunks, func(data []byte) (uint64, error) {
		return l.publishMessage(ctx, l.store.node, sweep, data)
	})
}

// publishMessage stores one message of chunks.
func (l *Logs) publishMessage(ctx context.Context, node grid.NodeID, sweep grid.SweepID, data []byte) (uint64, error) {
	seq, err := l.store.publish(ctx, &nats.Msg{Subject: logSubject(node, sweep), Data: data})
	if err != nil {
		return 0, fmt.Errorf("publish output of %s: %w", sweep, err)
	}
	if l.usage.add(node, seq, int64(len(data)), l.store.limits.LogBytes) {
		if err := l.makeRoom(ctx); err != nil {
			l.store.log.Debug("room for output could not be made", "err", err)
		}
	}
	return seq, nil
}

// packAll packs chunks into messages, and returns publish's results for the first and the last one.
func packAll(chunks []Chunk, publish func(data []byte) (uint64, error)) (first, last uint64, err error) {
	p := packer{}
	for len(chunks) > 0 {
		var data []byte
		data, chunks = p.pack(chunks)
		if last, err = publish(data); err != nil {
			return 0, 0, err
		}
		first = cmp.Or(first, last)
	}
	return first, last, nil
}

// packer packs chunks into messages and reuses its buffer.
type packer struct {
	buf  []byte
	rest Chunk // the remainder of a chunk that did not fit
}

// pack returns the next message and the remaining chunks. It splits a chunk that is larger than a
// message.
func (p *packer) pack(chunks []Chunk) (data []byte, left []Chunk) {
	p.buf = append(p.buf[:0], chunkVersion)
	var prev *Chunk
	for len(chunks) > 0 {
		c := chunks[0]
		if p.rest.Data != nil {
			c = p.rest
		}
		room := splitBytes - len(p.buf)
		if len(c.Data) > room && prev != nil {
			break
		}
		piece := c
		piece.Data = c.Data[:min(len(c.Data), room)]
		p.buf = appendChunk(p.buf, &piece, prev)
		if len(piece.Data) < len(c.Data) {
			p.rest = c
			p.rest.Data, p.rest.Offset = c.Data[len(piece.Data):], c.Offset+int64(len(piece.Data))
			break
		}
		p.rest, prev, chunks = Chunk{}, &chunks[0], chunks[1:]
	}
	return p.buf, chunks
}

// Read calls fn with the messages of a sweep's output in the range, in order. Without Follow it
// ends at Last, or at the end of what is stored. It requests more output when fn has returned, so a
// slow reader costs neither memory nor other readers. The chunks' data is valid until fn returns.
// Messages that can't be read are logged and skipped.
func (l *Logs) Read(
	ctx context.Context, sweep grid.SweepID, r LogRange, fn func(seq uint64, chunks []Chunk) error,
) error {
	t := &streamReader{store: l.store, stream: logStream, subject: logsOf(sweep), next: r.First, follow: r.Follow}
	if !r.Since.IsZero() {
		t.since = &r.Since
	}
	return t.read(ctx, func(batch []message) error {
		for i := range batch {
			if r.Last > 0 && batch[i].seq > r.Last {
				return errNoMore
			}
			chunks, err := decodeChunks(batch[i].Data)
			if err == nil {
				node := nodeOf(batch[i].Subject)
				chunks = slices.DeleteFunc(chunks, func(c Chunk) bool { return !mayWrite(node, c.Run) })
				if err := fn(batch[i].seq, chunks); err != nil {
					return err
				}
			} else {
				l.store.log.Warn("output can't be read and is skipped", "seq", batch[i].seq, "err", err)
			}
			if batch[i].seq == r.Last {
				return errNoMore
			}
		}
		return nil
	}, nil)
}

// First returns the sequence of the oldest message that is still stored.
func (l *Logs) First(ctx context.Context) (uint64, error) {
	info, err := l.store.streamInfo(ctx, logStream)
	if err != nil {
		return 0, err
	}
	return info.State.FirstSeq, nil
}

// Next returns the sequence that the next message of any sweep will get.
func (l *Logs) Next(ctx context.Context) (uint64, error) {
	info, err := l.store.streamInfo(ctx, logStream)
	if err != nil {
		return 0, err
	}
	return info.State.LastSeq + 1, nil
}

// PurgeSweep removes the output of a sweep.
func (l *Logs) PurgeSweep(ctx context.Context, id grid.SweepID) error {
	return l.store.purge(ctx, logStream, logsOf(id))
}
