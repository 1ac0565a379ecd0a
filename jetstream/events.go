package jetstream

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
	"mlfnode/node/poll"
)

// Events is the stream of everything that happened, the truth about every trial. It is synced, and
// never drops anything by itself.
type Events struct {
	store *Store
	epoch string // of the stream
	quota *quota // bounds what each node stores

	mu            sync.Mutex
	decoded       map[string]*grid.Batch // by message ID: stored batches that the reader has not reached
	order         []string               // their IDs, the oldest first; may include some that have gone
	decodedEvents int
	taken         poll.Signal // set when the reader has taken a batch
}

// The batches that stay decoded for the reader, which is usually a few messages behind the writers,
// are bounded by their events, which take about half a kilobyte each, and by their number.
const (
	maxDecodedEvents = 1 << 16
	maxDecoded       = 128
)

// maxReaderWait bounds the time for which a node that shares the master's process waits before it
// stores more events while half of maxDecodedEvents wait for the reader: the more it is behind, the
// more of the time that it needs goes into decoding. Where the reader is stopped, by a full disk
// for example, events are still stored.
const maxReaderWait = 100 * time.Millisecond

// StoredBatch is a batch of events with its sequence in the stream. A message that can't be read is
// an empty batch, and so is the end of a stream whose last messages were removed: readers advance
// past both.
type StoredBatch struct {
	Seq   uint64
	Batch *grid.Batch
}

// splitEvents is how many finished attempts take about splitBytes. A batch with more is too large,
// which need not be found out by encoding it.
const splitEvents = 4500

// Publish stores a batch and returns the sequence of its last message once it is on disk. A large
// batch becomes several messages; on a failure, some of them may be stored. Publishing the same
// batch again is harmless: within eventWindow it has no effect, and later the fold recognizes the
// repetition. It returns ErrFull when the limit is reached.
func (e *Events) Publish(ctx context.Context, b *grid.Batch) (uint64, error) {
	return splitBatch(b, func(part *grid.Batch, data []byte) (uint64, error) {
		return e.publishEncoded(ctx, plainCopy(part), b.Node, b.Sweep, data)
	})
}

// splitBatch encodes a batch, as several messages if it is large, and returns publish's result for
// the last one.
func splitBatch(b *grid.Batch, publish func(part *grid.Batch, data []byte) (uint64, error)) (uint64, error) {
	if len(b.Events) <= splitEvents {
		data, err := json.Marshal(b)
		if err != nil {
			return 0, fmt.Errorf("encode events of %s: %w", b.Sweep, err)
		}
		if len(data) <= splitBytes || len(b.Events) < 2 {
			return publish(b, data)
		}
	}
	half := *b
	half.Events = b.Events[:len(b.Events)/2]
	if _, err := splitBatch(&half, publish); err != nil {
		return 0, err
	}
	half.Events = b.Events[len(b.Events)/2:]
	return splitBatch(&half, publish)
}

// publishEncoded stores an encoded batch. If decoded is not nil, the reader uses it instead of
// decoding the message.
func (e *Events) publishEncoded(
	ctx context.Context, decoded *grid.Batch, node grid.NodeID, sweep grid.SweepID, data []byte,
) (uint64, error) {
	sum := sha256.Sum256(data)
	id := hex.EncodeToString(sum[:12]) // runs are unique, so messages of equal content are the same message
	if decoded != nil {
		e.cacheDecoded(id, decoded)
	}
	msg := &nats.Msg{Subject: eventSubject(node, sweep), Data: data}
	seq, err := e.store.publish(ctx, msg, js.WithMsgID(id))
	if err == nil {
		return seq, nil
	}
	e.takeDecoded(id)
	if hasCode(err, codeStoreFailed) {
		return 0, &fullError{what: "events", setting: "events", limit: e.store.limits.EventBytes}
	}
	return 0, fmt.Errorf("publish events of %s: %w", sweep, err)
}

// plainCopy returns what decoding the encoded batch would return, or nil if that is not certain:
// encoding replaces text that is not UTF-8, and omits empty values. Most batches are plain, and
// decoding them takes a tenth of the time that a trial costs.
func plainCopy(b *grid.Batch) *grid.Batch {
	copied := *b
	copied.Events = slices.Clone(b.Events)
	valid := utf8.ValidString(string(b.Sweep)) && utf8.ValidString(string(b.Node))
	results := make([]grid.Result, len(b.Events))
	for i := range copied.Events {
		v := &copied.Events[i]
		valid = valid && v.Metrics == nil && v.Curves == nil && v.Devices == nil &&
			utf8.ValidString(string(v.Kind)) && utf8.ValidString(v.Run) && utf8.ValidString(string(v.LeaseID)) &&
			utf8.ValidString(string(v.Node)) && utf8.ValidString(v.Image)
		if r := v.Result; r != nil {
			valid = valid && r.Metrics == nil && r.Curves == nil && r.Devices == nil && r.Usage.GPU == nil &&
				utf8.ValidString(string(r.Class)) && utf8.ValidString(r.Reason) &&
				utf8.ValidString(r.Rule) && utf8.ValidString(r.Device)
			results[i] = *r
			v.Result = &results[i]
		}
		if !valid {
			return nil
		}
	}
	return &copied
}

// cacheDecoded keeps a decoded batch for the reader.
func (e *Events) cacheDecoded(id string, b *grid.Batch) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.decoded == nil {
		e.decoded = map[string]*grid.Batch{}
	}
	e.forgetDecodedLocked(id)
	e.decoded[id], e.order, e.decodedEvents = b, append(e.order, id), e.decodedEvents+len(b.Events)
	for len(e.order) > maxDecoded || len(e.order) > 1 && e.decodedEvents > maxDecodedEvents {
		e.forgetDecodedLocked(e.order[0])
		e.order = e.order[1:]
	}
}

// takeDecoded is forgetDecodedLocked for the reader: a writer that waits for it goes on.
func (e *Events) takeDecoded(id string) *grid.Batch {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.taken.Set()
	return e.forgetDecodedLocked(id)
}

// awaitReader waits while the reader is far behind, for maxReaderWait at most.
func (e *Events) awaitReader(ctx context.Context) {
	var timeout <-chan time.Time
	for {
		e.mu.Lock()
		far := e.decodedEvents > maxDecodedEvents/2
		e.mu.Unlock()
		if !far {
			return
		}
		if timeout == nil {
			timeout = time.After(maxReaderWait)
		}
		select {
		case <-e.taken:
		case <-timeout:
			return
		case <-ctx.Done():
			return
		}
	}
}

// forgetDecodedLocked removes and returns a decoded batch, nil if there is none.
func (e *Events) forgetDecodedLocked(id string) *grid.Batch {
	b := e.decoded[id]
	if b != nil {
		e.decodedEvents -= len(b.Events)
		delete(e.decoded, id)
	}
	return b
}

// Epoch identifies the period in which a sequence means one message: it changes when the stream is
// created again or restored.
func (e *Events) Epoch() string { return e.epoch }

// Read calls fn with the batches from sequence from on, in order, and continues with new ones until
// ctx ends or fn returns an error. A call passes what is available, up to 64 messages, so that they
// can be folded in one transaction; the next ones are decoded in the meantime. If the stream's last
// messages have been removed, an empty batch with the last sequence ends what was stored when Read
// began.
//
// Read returns an error when it reaches events that a newer version of mlfnode has stored: skipping
// them would lose results, and an update would not bring them back.
func (e *Events) Read(ctx context.Context, from uint64, fn func([]StoredBatch) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	decoded := make(chan []StoredBatch)
	ended := make(chan error, 1)
	go func() {
		defer close(decoded)
		ended <- e.readAhead(ctx, from, decoded)
	}()
	var failed error
	for stored := range decoded {
		if failed != nil {
			continue
		}
		if failed = fn(stored); failed != nil {
			stop(failed)
		}
	}
	return cmp.Or(failed, <-ended)
}

// readAhead sends the batches that Read passes to fn.
func (e *Events) readAhead(ctx context.Context, from uint64, decoded chan<- []StoredBatch) error {
	t := &streamReader{store: e.store, stream: eventStream, subject: eventSubjects, next: max(from, 1), follow: true}
	send := func(stored []StoredBatch) error {
		select {
		case decoded <- stored:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	end := func() error {
		if t.lastStored < t.next {
			return nil
		}
		t.next = t.lastStored + 1
		return send([]StoredBatch{{Seq: t.lastStored, Batch: &grid.Batch{V: grid.EventVersion}}})
	}
	return t.read(ctx, func(batch []message) error {
		stored := make([]StoredBatch, 0, len(batch)+1)
		for i := range batch {
			b, err := e.decode(&batch[i])
			if err != nil {
				if len(stored) > 0 {
					err = cmp.Or(send(stored), err)
				}
				return err
			}
			stored = append(stored, StoredBatch{Seq: batch[i].seq, Batch: b})
		}
		if last := batch[len(batch)-1]; last.pending == 0 && last.seq < t.lastStored {
			stored = append(stored, StoredBatch{Seq: t.lastStored, Batch: &grid.Batch{V: grid.EventVersion}})
		}
		return send(stored)
	}, end)
}

// decode returns a batch, an empty one for a message that no version can read, and an error for one
// that a newer version can read. No version accepts what a node has stored in the name of another.
func (e *Events) decode(m *message) (*grid.Batch, error) {
	var err error
	b := e.takeDecoded(m.Header.Get(js.MsgIDHeader))
	if b == nil {
		b, err = decodeBatch(m.Data)
	}
	node := nodeOf(m.Subject)
	if b.V > grid.NewestEventVersion && node == b.Node {
		return nil, fmt.Errorf("message %d of the event stream: %w", m.seq, tooNew(b))
	}
	if err == nil && node != b.Node {
		err = fmt.Errorf("node %s writes in the name of %s", node, b.Node)
	}
	if err == nil {
		e.dropForeign(b, m.seq)
		return b, nil
	}
	e.store.log.Warn("events can't be read and are skipped", "seq", m.seq, "err", err)
	return &grid.Batch{V: grid.EventVersion, Sweep: b.Sweep}, nil
}

// tooNew returns the error for events of a version that this program does not know.
func tooNew(b *grid.Batch) error {
	return fmt.Errorf("events of %.100q are of version %d, and this mlfnode knows versions up to %d; "+
		"update mlfnode on the master", b.Sweep, b.V, grid.NewestEventVersion)
}

func decodeBatch(data []byte) (*grid.Batch, error) {
	count := bytes.Count(data, []byte(`{"k":`)) // in most batches
	b := &grid.Batch{Events: make([]grid.Event, 0, min(count, splitEvents))}
	return b, json.Unmarshal(data, b)
}

// countElements returns the number of commas in the lists of an encoded batch, which is the number
// of its events: a small message with very many events is refused before they take memory.
func countElements(data []byte) int {
	count, depth := 0, 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		case ',':
			if depth == 2 {
				count++
			}
		}
	}
	return count
}

// dropForeign drops what a node may not report: facts about runs of other nodes, and what only the
// master decides.
func (e *Events) dropForeign(b *grid.Batch, seq uint64) {
	all := len(b.Events)
	b.Events = slices.DeleteFunc(b.Events, func(v grid.Event) bool {
		decided := v.Kind == grid.Reopened || v.Kind == grid.ReopenedRange || v.Kind == grid.Fenced ||
			v.Kind == grid.Reconnected || v.Kind == grid.Withdrawn
		foreign := !mayWrite(b.Node, v.Run) && v.Kind != grid.Released // which is about a lease, not a run
		return foreign || (decided && b.Node != "")
	})
	if n := all - len(b.Events); n > 0 {
		e.store.log.Warn("events that their node may not write are skipped", "seq", seq, "node", b.Node, "count", n)
	}
}

// Bounds returns the first stored sequence and the last assigned one; last is 0 if nothing was ever
// stored.
func (e *Events) Bounds(ctx context.Context) (first, last uint64, err error) {
	info, err := e.store.streamInfo(ctx, eventStream)
	if err != nil {
		return 0, 0, err
	}
	return info.State.FirstSeq, info.State.LastSeq, nil
}

// PurgeSweep removes the events of a sweep.
func (e *Events) PurgeSweep(ctx context.Context, id grid.SweepID) error {
	return e.store.purge(ctx, eventStream, eventsOf(id))
}

func (s *connection) purge(ctx context.Context, stream, subject string) error {
	if err := checkSubject(subject); err != nil {
		return err
	}
	ctx, stop := s.withTimeout(ctx)
	defer stop()
	if err := s.streams[stream].Purge(ctx, js.WithPurgeSubject(subject)); err != nil {
		return s.explain(ctx, "remove from "+stream, err)
	}
	return nil
}
