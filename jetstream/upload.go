package jetstream

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"

	"mlfnode/jetstream/natsd"
)

// Put stores what r gives under the name and replaces an object of that name once it is whole. Memory is bounded by one chunk.
// It returns ErrFull when the limit is reached; then, and on any error, nothing of it is kept.
func (o *Objects) Put(ctx context.Context, name string, r io.Reader, meta map[string]string) error {
	old, err := o.Has(ctx, name)
	if err != nil {
		return err
	}
	id := nuid.Next()
	u := upload{o: o, subject: dataSubject(o.bucket, name) + "." + id}
	beside := o.uploads.begin(name, id)
	defer o.uploads.end(name, id)
	desc, tail, err := u.send(ctx, r)
	if err == nil {
		desc.Meta = meta
		err = o.describe(ctx, name, desc, tail)
	}
	if err != nil {
		o.discard(ctx, &u)
		return fmt.Errorf("store %s in %s: %w", name, o.bucket, o.full(err))
	}
	if !old && !beside() {
		return nil
	}
	if err := o.replaced(ctx, name); err != nil {
		o.store.log.Warn("old chunks could not be removed", "object", name, "err", err)
	}
	return nil
}

func (o *Objects) full(err error) error {
	var refused *js.APIError
	if !errors.As(err, &refused) || refused.ErrorCode != codeStoreFailed {
		return err
	}
	if !natsd.StreamFull(refused.Description) {
		return natsd.DiskError(refused.Description)
	}
	limit := o.store.limits.ArtifactBytes
	if o.bucket == bundleBucket {
		limit = o.store.limits.BundleBytes
	}
	return &fullError{what: o.bucket, setting: o.setting, limit: limit}
}

// discard removes the chunks of an upload that failed, also when ctx has ended.
func (o *Objects) discard(ctx context.Context, u *upload) {
	if u.chunks == 0 {
		return
	}
	if err := o.store.purge(context.WithoutCancel(ctx), o.bucket, u.subject); err != nil {
		o.store.log.Warn("chunks of a failed upload could not be removed", "bucket", o.bucket, "err", err)
	}
}

// upload is one Put.
type upload struct {
	o       *Objects
	subject string
	chunks  int
}

// send publishes all full chunks. The last, shorter part is returned when it is the whole object.
func (u *upload) send(ctx context.Context, r io.Reader) (wireObject, []byte, error) {
	desc := wireObject{V: objectVersion, Stored: time.Now().UTC()}
	sum := sha256.New()
	buf := make([]byte, splitBytes)
	for {
		n, err := io.ReadFull(r, buf)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return desc, nil, fmt.Errorf("read the content: %w", err)
		}
		sum.Write(buf[:n])
		desc.Size += int64(n)
		if end && u.chunks == 0 {
			desc.SHA256 = hex.EncodeToString(sum.Sum(nil))
			return desc, buf[:n], nil
		}
		if n > 0 {
			u.chunks++
			if _, err := u.o.store.publish(ctx, &nats.Msg{Subject: u.subject, Data: buf[:n]}); err != nil {
				return desc, nil, err
			}
		}
		if end {
			desc.SHA256 = hex.EncodeToString(sum.Sum(nil))
			desc.Upload = uploadOf(u.subject)
			return desc, nil, nil
		}
	}
}

// describe publishes the meta message, which makes the object visible.
func (o *Objects) describe(ctx context.Context, name string, desc wireObject, body []byte) error {
	head, err := json.Marshal(desc)
	if err != nil {
		return fmt.Errorf("encode the description: %w", err)
	}
	if len(head) > maxPayload-splitBytes-4096 {
		return ErrTooLarge
	}
	h := nats.Header{objectHeader: {string(head)}, js.MsgRollup: {js.MsgRollupSubject}}
	_, err = o.store.publish(ctx, &nats.Msg{Subject: metaSubject(o.bucket, name), Data: body, Header: h})
	return err
}

// uploads are the uploads of this store that are under way, so that one does not take the chunks of another for old ones. The zero
// value has none.
type uploads struct {
	mu     sync.Mutex
	active map[string]map[string]bool // ids by name of the object
	beside map[string]bool            // names of which more than one was under way at a time
}

// begin notes an upload. The func tells whether there was another one of the name meanwhile.
func (u *uploads) begin(name, id string) (beside func() bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.active == nil {
		u.active, u.beside = map[string]map[string]bool{}, map[string]bool{}
	}
	if u.active[name] == nil {
		u.active[name] = map[string]bool{}
	}
	u.active[name][id] = true
	u.beside[name] = u.beside[name] || len(u.active[name]) > 1
	return func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.beside[name]
	}
}

func (u *uploads) end(name, id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if delete(u.active[name], id); len(u.active[name]) == 0 {
		delete(u.active, name)
		delete(u.beside, name)
	}
}

// of counts the uploads of a name.
func (u *uploads) of(name string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.active[name])
}

func (u *uploads) has(name, id string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.active[name][id]
}

// replaced removes chunks of the name that belong neither to what is stored now nor to an upload that is under way.
func (o *Objects) replaced(ctx context.Context, name string) error {
	ctx, stop := o.store.limited(ctx)
	defer stop()
	str := o.store.streams[o.bucket]
	info, err := str.Info(ctx, js.WithSubjectFilter(dataSubject(o.bucket, name)+".*"))
	if err != nil {
		return o.store.explain(ctx, "look for old chunks", err)
	}
	var ended []string
	for subject := range info.State.Subjects {
		if !o.uploads.has(name, uploadOf(subject)) {
			ended = append(ended, subject)
		}
	}
	if len(ended) == 0 {
		return nil
	}
	current := "" // read now: what has ended before has been described before
	switch msg, err := o.store.lastOf(ctx, o.bucket, metaSubject(o.bucket, name)); {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return err
	default:
		desc, err := decodeObject(msg.Header)
		if err != nil {
			return err
		}
		current = desc.Upload
	}
	for _, subject := range ended {
		if uploadOf(subject) == current {
			continue
		}
		if err := str.Purge(ctx, js.WithPurgeSubject(subject)); err != nil {
			return o.store.explain(ctx, "remove old chunks", err)
		}
	}
	return nil
}

// uploadOf gives the upload that a subject of chunks names.
func uploadOf(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }
