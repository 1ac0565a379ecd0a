package jetstream

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
)

// Logs is the stream of what programs print. It is synced; when it is full, the oldest output goes: of a node that has more than half of
// the room, if there is one, and else of all.
type Logs struct {
	store  *Store
	shares logShares
}

// LogRange says what to read of a sweep's output.
type LogRange struct {
	First, Last uint64    // sequences; 0 is no bound
	Since       time.Time // with First 0: what was stored from then on
	Follow      bool      // go on with new output until ctx ends or Last is reached
}

// Publish stores chunks of a sweep, packed into messages of about half a megabyte, and returns the sequences of the first and
// the last message once all are on disk. No chunks give 0 and 0. Chunks that were published before a failure may be stored
// twice when the caller tries again; readers tell by the offset.
func (l *Logs) Publish(ctx context.Context, sweep grid.SweepID, chunks []Chunk) (first, last uint64, err error) {
	return packAll(chunks, func(data []byte) (uint64, error) { return l.put(ctx, l.store.node, sweep, data) })
}

// put stores one message of chunks.
func (l *Logs) put(ctx context.Context, node grid.NodeID, sweep grid.SweepID, data []byte) (uint64, error) {
	seq, err := l.store.publish(ctx, &nats.Msg{Subject: logSubject(node, sweep), Data: data})
	if err != nil {
		return 0, fmt.Errorf("publish output of %s: %w", sweep, err)
	}
	if l.shares.add(node, seq, int64(len(data)), l.store.limits.LogBytes) {
		if err := l.makeRoom(ctx); err != nil {
			l.store.log.Debug("room for output could not be made", "err", err)
		}
	}
	return seq, nil
}

// packAll packs chunks into messages, and gives what publish gives for the first and the last.
func packAll(chunks []Chunk, publish func(data []byte) (uint64, error)) (first, last uint64, err error) {
	p := packer{}
	for len(chunks) > 0 {
		var data []byte
		data, chunks = p.pack(chunks)
		if last, err = publish(data); err != nil {
			return 0, 0, err
		}
		if first == 0 {
			first = last
		}
	}
	return first, last, nil
}

// packer fills messages with chunks and reuses its buffer.
type packer struct {
	buf []byte
	cut Chunk // what is left of a chunk that did not fit
}

// pack gives the next message and the chunks that are left. A chunk that is larger than a message is divided.
func (p *packer) pack(chunks []Chunk) (data []byte, left []Chunk) {
	p.buf = append(p.buf[:0], frameVersion)
	var prev *Chunk
	for len(chunks) > 0 {
		c := chunks[0]
		if p.cut.Data != nil {
			c = p.cut
		}
		room := splitBytes - len(p.buf)
		if len(c.Data) > room && prev != nil {
			break
		}
		piece := c
		piece.Data = c.Data[:min(len(c.Data), room)]
		p.buf = appendChunk(p.buf, &piece, prev)
		if len(piece.Data) < len(c.Data) {
			p.cut = c
			p.cut.Data, p.cut.Offset = c.Data[len(piece.Data):], c.Offset+int64(len(piece.Data))
			break
		}
		p.cut, prev, chunks = Chunk{}, &chunks[0], chunks[1:]
	}
	return p.buf, chunks
}

// Read calls fn with the messages of a sweep's output in the range, in order. Without Follow it ends at Last or with what is
// stored. It asks for output when fn has taken the previous one, so a slow reader costs neither memory nor other readers. The
// chunks' data is valid until fn returns. What can't be read is logged and skipped.
func (l *Logs) Read(ctx context.Context, sweep grid.SweepID, r LogRange, fn func(seq uint64, chunks []Chunk) error) error {
	t := &tail{store: l.store, stream: logStream, subject: logsOf(sweep), next: r.First, follow: r.Follow}
	if !r.Since.IsZero() {
		t.since = &r.Since
	}
	return t.read(ctx, func(batch []entry) error {
		for i := range batch {
			if r.Last > 0 && batch[i].seq > r.Last {
				return errEnd
			}
			if err := l.pass(&batch[i], fn); err != nil {
				return err
			}
			if batch[i].seq == r.Last {
				return errEnd
			}
		}
		return nil
	}, nil)
}

func (l *Logs) pass(e *entry, fn func(uint64, []Chunk) error) error {
	chunks, err := decodeChunks(e.Data)
	if err != nil {
		l.store.log.Warn("output can't be read and is skipped", "seq", e.seq, "err", err)
		return nil
	}
	node := writer(e.Subject)
	chunks = slices.DeleteFunc(chunks, func(c Chunk) bool { return !writes(node, c.Run) })
	return fn(e.seq, chunks)
}

// First gives the sequence of the oldest message that is still there; older ones were removed.
func (l *Logs) First(ctx context.Context) (uint64, error) {
	info, err := l.store.info(ctx, logStream)
	if err != nil {
		return 0, err
	}
	return info.State.FirstSeq, nil
}

// Next gives the sequence that the next message of any sweep will get.
func (l *Logs) Next(ctx context.Context) (uint64, error) {
	info, err := l.store.info(ctx, logStream)
	if err != nil {
		return 0, err
	}
	return info.State.LastSeq + 1, nil
}

// PurgeSweep removes the output of a sweep.
func (l *Logs) PurgeSweep(ctx context.Context, id grid.SweepID) error {
	return l.store.purge(ctx, logStream, logsOf(id))
}
