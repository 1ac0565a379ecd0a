package jetstream

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
	"mlfnode/grid/packing"
)

// Records keeps one small record for each sweep. What is acknowledged is on disk.
type Records struct {
	store   *Store
	epoch   string              // of the stream
	changed observers[struct{}] // called after each change
	skipped atomic.Bool         // a record could not be read
	seen    knownSweeps
}

// Record is a sweep, what the master keeps with it, and the revision that an Update must name.
type Record struct {
	Sweep *grid.Sweep
	Rev   uint64

	// Lanes are the resources of a trial in each lane that leases of the sweep may be in, except
	// the sweep's own. Resources belong to the lane of a lease, so that one trial can get more than
	// the others. There are at most MaxLanes.
	Lanes map[grid.Lane]grid.Resources
	// Packing is what the master has learned about the trials' use of GPUs, with gpu_memory: auto.
	Packing packing.Estimates
}

// MaxLanes bounds the lanes of one record in addition to the sweep's own.
const MaxLanes = 8

// AllLanes returns the resources of a trial in each lane that leases of the sweep may be in,
// including the sweep's own.
func (r *Record) AllLanes() map[grid.Lane]grid.Resources {
	all := map[grid.Lane]grid.Resources{r.Sweep.Lane(): r.Sweep.Task.Resources.Initial()}
	for name, need := range r.Lanes {
		if need.Check() == nil { // otherwise no trial can have it
			all[name] = need
		}
	}
	return all
}

// wireRecord is a record in the stream: the fields of the sweep, and next to them the others, which
// older programs skip.
type wireRecord struct {
	*grid.Sweep
	Lanes   map[grid.Lane]grid.Resources `json:"lanes,omitempty"`
	Packing packing.Estimates            `json:"packing,omitempty"`
}

// Change is reported by Watch: a new state of a record, its removal, or that all existing records
// have been reported.
type Change struct {
	ID      grid.SweepID
	Record  Record // the record that was created or updated
	Deleted bool
	Synced  bool // all records that existed when Watch began have been reported; nothing else is set
}

// removedHeader marks the message that replaces a removed record.
const removedHeader = "Mlf-Removed"

// Create stores the record of a new sweep. It returns ErrExists if there is one with this ID.
func (r *Records) Create(ctx context.Context, sweep *grid.Sweep) (uint64, error) {
	rev, err := r.Update(ctx, &Record{Sweep: sweep})
	if !errors.Is(err, ErrConflict) {
		return rev, err
	}
	// A removed record leaves a marker for a while.
	old, lerr := r.store.lastMessage(ctx, recordStream, recordSubject(sweep.ID))
	if lerr != nil {
		return 0, fmt.Errorf("create sweep %s: %w", sweep.ID, lerr)
	}
	if old.Header.Get(removedHeader) == "" {
		return 0, ErrExists
	}
	if rev, err = r.Update(ctx, &Record{Sweep: sweep, Rev: old.Sequence}); errors.Is(err, ErrConflict) {
		return 0, ErrExists
	}
	return rev, err
}

// Update replaces the record of the given revision and returns the new revision. It returns
// ErrConflict if the record has another one.
func (r *Records) Update(ctx context.Context, record *Record) (rev uint64, err error) {
	sweep := record.Sweep
	if len(record.Lanes) > MaxLanes {
		return 0, fmt.Errorf("sweep %s: its trials are in %d lanes, and the maximum is %d",
			sweep.ID, len(record.Lanes), MaxLanes)
	}
	data, err := encodeRecord(record)
	if err != nil {
		return 0, fmt.Errorf("encode sweep %s: %w", sweep.ID, err)
	}
	_, removals := r.seen.has(sweep.ID)
	rev, err = r.compareAndSwap(ctx, recordSubject(sweep.ID), data, record.Rev)
	switch {
	case errors.Is(err, ErrTooLarge):
		return 0, fmt.Errorf("the record of sweep %s is %d kB, more than the %d kB that fit: %w. "+
			"Use intervals in place of long lists; or keep the values in a file of the project "+
			"and sweep over its lines, with $(sed -n {line}p FILE) in a command of sh -c",
			sweep.ID, len(data)>>10, maxPayload>>10, err)
	case err != nil && !errors.Is(err, ErrConflict):
		return 0, fmt.Errorf("sweep %s: %w", sweep.ID, err)
	}
	if err == nil {
		r.seen.add(sweep.ID, removals)
	}
	r.changed.notify(struct{}{})
	return rev, err
}

// compareAndSwap stores data if the sequence of the subject's last message is last, 0 for none.
func (r *Records) compareAndSwap(ctx context.Context, subject string, data []byte, last uint64) (uint64, error) {
	seq, err := r.store.publish(ctx, &nats.Msg{Subject: subject, Data: data}, js.WithExpectLastSequencePerSubject(last))
	switch {
	case hasCode(err, codeWrongLast):
		return 0, ErrConflict
	case hasCode(err, codeStoreFailed):
		return 0, &fullError{what: "sweep records", setting: "sweeps", limit: recordBytes}
	}
	return seq, err
}

// lastMessage loads the last message of a subject, or returns ErrNotFound.
func (s *connection) lastMessage(ctx context.Context, stream, subject string) (*js.RawStreamMsg, error) {
	if err := checkSubject(subject); err != nil {
		return nil, err
	}
	ctx, stop := s.withTimeout(ctx)
	defer stop()
	msg, err := s.streams[stream].GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, js.ErrMsgNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, s.explain(ctx, "load from "+stream, err)
	}
	return msg, nil
}

// Load returns the record of a sweep, or ErrNotFound.
func (r *Records) Load(ctx context.Context, id grid.SweepID) (Record, error) {
	msg, err := r.store.lastMessage(ctx, recordStream, recordSubject(id))
	if errors.Is(err, ErrNotFound) || (err == nil && msg.Header.Get(removedHeader) != "") {
		return Record{}, fmt.Errorf("sweep %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return Record{}, fmt.Errorf("load sweep %s: %w", id, err)
	}
	return decodeRecord(msg.Data, msg.Sequence)
}

// pageRecords and pageRoom bound the records in one answer. A single one always fits.
const (
	pageRecords = 256
	pageRoom    = maxPayload - 1024
)

// encodePage returns the latest states of the records that have changed after a sequence, as many
// as fit one message:
//
//	more      1 byte: whether further ones follow
//	epoch     uvarint length, bytes: of the sequences
//	sequence  uvarint
//	subject   uvarint length, bytes
//	removed   1 byte
//	record    uvarint length, bytes
//
// and so on from sequence.
func (c *Calls) encodePage(ctx context.Context, after uint64) ([]byte, error) {
	ctx, stop := c.store.withTimeout(ctx)
	defer stop()
	epoch := c.store.Records.epoch
	b, count, more := append(binary.AppendUvarint([]byte{0}, uint64(len(epoch))), epoch...), 0, false
	ask := pageRequest{Seq: after + 1, Batch: pageRecords, MaxBytes: maxPayload / 2, Subjects: recordSubjects}
	err := c.store.page(ctx, recordStream, ask, func(m *nats.Msg, seq uint64) {
		id := m.Header.Get("Nats-Subject")
		if count++; more || len(b)+len(id)+len(m.Data)+32 > pageRoom && count > 1 {
			more = true
			return
		}
		b = binary.AppendUvarint(b, seq)
		b = append(binary.AppendUvarint(b, uint64(len(id))), id...)
		removed := byte(0)
		if m.Header.Get(removedHeader) != "" {
			removed = 1
		}
		b = append(binary.AppendUvarint(append(b, removed), uint64(len(m.Data))), m.Data...)
	})
	if err != nil {
		return nil, c.store.explain(ctx, "list sweep records", err)
	}
	if count > 0 {
		b[0] = 1 // nothing follows when the next page is empty
	}
	return b, nil
}

// recordPage is a decoded page.
type recordPage struct {
	epoch   string
	changes []Change
	last    uint64 // the last sequence; 0 for an empty page
	more    bool
}

// decodePage is the inverse of encodePage. Records that can't be read are logged and left out.
func decodePage(page []byte, log *slog.Logger) (*recordPage, error) {
	d := decoder{b: page}
	head := d.next(1)
	p := &recordPage{epoch: string(d.bytes())}
	for len(d.b) > 0 && !d.failed {
		p.last = d.uvarint()
		e := message{Msg: &nats.Msg{Subject: string(d.bytes()), Header: nats.Header{}}, seq: p.last}
		if removed := d.next(1); !d.failed && removed[0] != 0 {
			e.Header.Set(removedHeader, "1")
		}
		e.Data = d.bytes()
		if d.failed {
			break
		}
		if c, ok := changeOf(e, log); ok {
			p.changes = append(p.changes, c)
		}
	}
	if d.failed {
		return nil, errCorrupt
	}
	p.more = head[0] != 0
	return p, nil
}

// maxText bounds the text of a record that is stored compressed.
const maxText = 8 << 20

// zstdMagic begins a compressed record; others begin with a brace.
const zstdMagic = "\x28\xb5\x2f\xfd"

// encodeRecord encodes a record as JSON, and compresses that of a long sweep, whose lists of values
// shrink to a fraction. A text over maxText stays as it is, and does not fit.
func encodeRecord(r *Record) ([]byte, error) {
	text, err := json.Marshal(wireRecord{r.Sweep, r.Lanes, r.Packing})
	if err != nil || !r.Sweep.Long || len(text) > maxText {
		return text, err
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedBetterCompression))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return z.EncodeAll(text, nil), nil
}

// recordText returns the JSON of a record.
func recordText(data []byte) ([]byte, error) {
	if !bytes.HasPrefix(data, []byte(zstdMagic)) {
		return data, nil
	}
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxText))
	if err != nil {
		return nil, err
	}
	defer z.Close()
	return z.DecodeAll(data, nil)
}

func decodeRecord(data []byte, rev uint64) (Record, error) {
	data, err := recordText(data)
	if err != nil {
		return Record{}, fmt.Errorf("unpack a sweep record: %w", err)
	}
	var s grid.Sweep
	w := wireRecord{Sweep: &s}
	if err := json.Unmarshal(data, &w); err != nil {
		return Record{}, fmt.Errorf("read a sweep record: %w", err)
	}
	if s.V > grid.RecordVersion {
		return Record{}, fmt.Errorf("the record of sweep %s is of version %d, and this program knows %d; "+
			"update mlfnode", s.ID, s.V, grid.RecordVersion)
	}
	return Record{Sweep: &s, Rev: rev, Lanes: w.Lanes, Packing: w.Packing}, nil
}

// Delete removes a record; it is not an error if there is none. Its number is not used again.
func (r *Records) Delete(ctx context.Context, id grid.SweepID) error {
	if _, err := r.Load(ctx, id); errors.Is(err, ErrNotFound) {
		return nil
	}
	marker := &nats.Msg{Subject: recordSubject(id), Header: nats.Header{removedHeader: {"1"}}}
	if _, err := r.store.publish(ctx, marker, js.WithMsgTTL(markerAge)); err != nil {
		return fmt.Errorf("remove sweep %s: %w", id, err)
	}
	r.seen.remove(id)
	r.changed.notify(struct{}{})
	return nil
}

// All returns every record, in the order of their last change. Records that can't be read are
// logged and left out.
func (r *Records) All(ctx context.Context) ([]Record, error) {
	var all []Record
	err := r.watch(ctx, 0, false, func(c Change) {
		if !c.Deleted && !c.Synced {
			all = append(all, c.Record)
		}
	})
	return all, err
}

// Unreadable reports whether All or Watch had to leave out a record. A newer version of mlfnode may
// be able to read it.
func (r *Records) Unreadable() bool { return r.skipped.Load() }

// Bundles returns the digests that records name, including those of newer versions. It is an error
// if a record can't be read at all.
func (r *Records) Bundles(ctx context.Context) (map[string]bool, error) {
	named := map[string]bool{}
	t := &streamReader{store: r.store, stream: recordStream, subject: recordSubjects}
	err := t.read(ctx, func(batch []message) error {
		for _, e := range batch {
			if e.Header.Get(removedHeader) != "" {
				continue
			}
			var s struct {
				Bundle  string `json:"bundle"`
				Updates []struct {
					Bundle string `json:"bundle"`
				} `json:"updates"`
			}
			text, err := recordText(e.Data)
			if err == nil {
				err = json.Unmarshal(text, &s)
			}
			if err != nil {
				return fmt.Errorf("read the record of %s: %w", lastToken(e.Subject), err)
			}
			named[s.Bundle] = true
			for _, u := range s.Updates {
				named[u.Bundle] = true
			}
		}
		return nil
	}, nil)
	return named, err
}

// Watch calls fn with every existing record that has changed after a revision, 0 for all of them,
// then with Synced, then with every change, until ctx ends. fn must be quick.
func (r *Records) Watch(ctx context.Context, after uint64, fn func(Change)) error {
	return r.watch(ctx, after, true, fn)
}

func (r *Records) watch(ctx context.Context, after uint64, follow bool, fn func(Change)) error {
	synced := false
	sync := func() error {
		if !synced {
			synced = true
			fn(Change{Synced: true})
		}
		return nil
	}
	t := &streamReader{store: r.store, stream: recordStream, subject: recordSubjects, next: after + 1, follow: follow}
	return t.read(ctx, func(batch []message) error {
		for _, e := range batch {
			if c, ok := changeOf(e, r.store.log); ok {
				fn(c)
			} else {
				r.skipped.Store(true)
			}
			if e.pending == 0 {
				_ = sync()
			}
		}
		return nil
	}, sync)
}

func changeOf(e message, log *slog.Logger) (Change, bool) {
	id := grid.SweepID(lastToken(e.Subject))
	if e.Header.Get(removedHeader) != "" {
		return Change{ID: id, Deleted: true}, true
	}
	rec, err := decodeRecord(e.Data, e.seq)
	if err == nil && rec.Sweep.ID != id {
		err = fmt.Errorf("it is the record of %s", rec.Sweep.ID)
	}
	if err != nil {
		log.Warn("sweep record can't be read", "sweep", id, "err", err)
		return Change{}, false
	}
	return Change{ID: id, Record: rec}, true
}

// NextNumber increments the sweep number of a project, from 1, and returns it. A number is used
// once, whatever happens to its sweep.
func (r *Records) NextNumber(ctx context.Context, project string) (int, error) {
	for {
		n, last := 0, uint64(0)
		msg, err := r.store.lastMessage(ctx, recordStream, numberSubject(project))
		if err == nil {
			last = msg.Sequence
			if n, err = strconv.Atoi(string(msg.Data)); err != nil {
				return 0, fmt.Errorf("read the sweep number of %s: %w", project, err)
			}
		}
		if err == nil || errors.Is(err, ErrNotFound) {
			_, err = r.compareAndSwap(ctx, numberSubject(project), []byte(strconv.Itoa(n+1)), last)
		}
		switch {
		case err == nil:
			return n + 1, nil
		case !errors.Is(err, ErrConflict):
			return 0, fmt.Errorf("number a sweep of %s: %w", project, err)
		}
	}
}
