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

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
)

// Events is the stream of all that happened, the truth about every trial. It is synced, and it never drops anything by itself.
type Events struct{ store *Store }

// Stored is a batch of events with its place in the stream. A message that can't be read is an empty batch, and so is the end
// of a stream whose last messages were removed: readers advance past both.
type Stored struct {
	Seq   uint64
	Batch *grid.Batch
}

// splitEvents is how many attempts that ended take about splitBytes: more need not be encoded to be seen to be too large.
const splitEvents = 4500

// Publish stores a batch and returns the sequence of its last message once it is on disk. A large batch becomes several
// messages; when it fails between them some are stored. Publishing the same batch again is harmless: within eventWindow it has
// no effect, and later the fold knows the repetition. It returns ErrFull when the limit is reached.
func (e *Events) Publish(ctx context.Context, b *grid.Batch) (uint64, error) {
	if len(b.Events) > splitEvents {
		return e.split(ctx, b)
	}
	data, err := json.Marshal(b)
	if err != nil {
		return 0, fmt.Errorf("encode events of %s: %w", b.Sweep, err)
	}
	if len(data) > splitBytes && len(b.Events) > 1 {
		return e.split(ctx, b)
	}
	// The content names itself: runs are unique, so equal messages are the same message.
	sum := sha256.Sum256(data)
	msg := &nats.Msg{Subject: eventSubject(b.Node, b.Sweep), Data: data}
	seq, err := e.store.publish(ctx, msg, js.WithMsgID(hex.EncodeToString(sum[:12])))
	if hasCode(err, codeStoreFailed) {
		return 0, &fullError{what: "events", setting: "events", limit: e.store.limits.EventBytes}
	}
	if err != nil {
		return 0, fmt.Errorf("publish events of %s: %w", b.Sweep, err)
	}
	return seq, nil
}

func (e *Events) split(ctx context.Context, b *grid.Batch) (uint64, error) {
	half := *b
	half.Events = b.Events[:len(b.Events)/2]
	if _, err := e.Publish(ctx, &half); err != nil {
		return 0, err
	}
	half.Events = b.Events[len(b.Events)/2:]
	return e.Publish(ctx, &half)
}

// Read calls fn with the batches from sequence from on, in order, and goes on with new ones until ctx ends or fn returns an
// error. A call brings what is there, up to 64 messages, so that they can be folded in one transaction; what comes next is decoded
// meanwhile. When the stream's last messages have been removed, an empty batch with the last sequence ends what was stored when Read
// began.
func (e *Events) Read(ctx context.Context, from uint64, fn func([]Stored) error) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	decoded := make(chan []Stored)
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

// readAhead sends what Read calls its fn with.
func (e *Events) readAhead(ctx context.Context, from uint64, decoded chan<- []Stored) error {
	t := &tail{store: e.store, stream: eventStream, subject: eventSubjects, next: max(from, 1), follow: true}
	send := func(stored []Stored) error {
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
		return send([]Stored{{Seq: t.lastStored, Batch: &grid.Batch{V: grid.EventVersion}}})
	}
	return t.read(ctx, func(batch []entry) error {
		stored := make([]Stored, len(batch), len(batch)+1)
		for i := range batch {
			stored[i] = Stored{Seq: batch[i].seq, Batch: e.decode(&batch[i])}
		}
		if last := batch[len(batch)-1]; last.pending == 0 && last.seq < t.lastStored {
			stored = append(stored, Stored{Seq: t.lastStored, Batch: &grid.Batch{V: grid.EventVersion}})
		}
		return send(stored)
	}, end)
}

func (e *Events) decode(m *entry) *grid.Batch {
	b := grid.Batch{Events: make([]grid.Event, 0, bytes.Count(m.Data, []byte(`{"k":`)))} // as a rule their number
	err := json.Unmarshal(m.Data, &b)
	if node := writer(m.Subject); err == nil && node != b.Node {
		err = fmt.Errorf("node %s writes in the name of %s", node, b.Node)
	}
	if err == nil && b.V <= grid.EventVersion {
		e.own(&b, m.seq)
		return &b
	}
	e.store.log.Warn("events can't be read and are skipped", "seq", m.seq, "version", b.V, "err", err)
	return &grid.Batch{V: grid.EventVersion, Sweep: b.Sweep}
}

// own leaves out what a node may not state: facts about runs of others, and what only the master decides.
func (e *Events) own(b *grid.Batch, seq uint64) {
	all := len(b.Events)
	b.Events = slices.DeleteFunc(b.Events, func(v grid.Event) bool {
		decided := v.Kind == grid.Reopened || v.Kind == grid.Fenced || v.Kind == grid.Reconnected
		foreign := !writes(b.Node, v.Run) && v.Kind != grid.Released // which is about a lease, not a run
		return foreign || (decided && b.Node != "")
	})
	if n := all - len(b.Events); n > 0 {
		e.store.log.Warn("events that their node may not write are skipped", "seq", seq, "node", b.Node, "count", n)
	}
}

// Bounds gives the first sequence that is stored and the last that was given; last is 0 when nothing was ever stored.
func (e *Events) Bounds(ctx context.Context) (first, last uint64, err error) {
	info, err := e.store.info(ctx, eventStream)
	if err != nil {
		return 0, 0, err
	}
	return info.State.FirstSeq, info.State.LastSeq, nil
}

// PurgeSweep removes the events of a sweep.
func (e *Events) PurgeSweep(ctx context.Context, id grid.SweepID) error {
	return e.store.purge(ctx, eventStream, eventsOf(id))
}

func (s *Store) purge(ctx context.Context, stream, subject string) error {
	if err := checkSubject(subject); err != nil {
		return err
	}
	ctx, stop := s.limited(ctx)
	defer stop()
	if err := s.streams[stream].Purge(ctx, js.WithPurgeSubject(subject)); err != nil {
		return s.explain(ctx, "remove from "+stream, err)
	}
	return nil
}
