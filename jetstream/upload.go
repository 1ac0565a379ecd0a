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

// Put stores the content of r under the name. It replaces an object of that name once the new one
// is complete. Memory is bounded by one chunk. It returns ErrFull when the limit is reached; after
// any error, nothing of the new object is kept.
func (o *Objects) Put(ctx context.Context, name string, r io.Reader) error {
	old, err := o.Has(ctx, name)
	if err != nil {
		return err
	}
	id := nuid.Next()
	u := upload{o: o, subject: dataSubject(o.bucket, name) + "." + id}
	beside := o.uploads.add(name, id)
	defer o.uploads.remove(name, id)
	desc, tail, err := u.send(ctx, r)
	if err == nil {
		err = o.publishMeta(ctx, name, desc, tail)
	}
	if err != nil {
		if u.chunks > 0 { // remove them, even after ctx has ended
			if err := o.store.purge(context.WithoutCancel(ctx), o.bucket, u.subject); err != nil {
				o.store.log.Warn("chunks of a failed upload could not be removed", "bucket", o.bucket, "err", err)
			}
		}
		return fmt.Errorf("store %s in %s: %w", name, o.bucket, o.explainRefusal(err))
	}
	if !old && !beside() {
		return nil
	}
	if err := o.removeOldChunks(ctx, name); err != nil {
		o.store.log.Warn("old chunks could not be removed", "object", name, "err", err)
	}
	return nil
}

func (o *Objects) explainRefusal(err error) error {
	refused, ok := errors.AsType[*js.APIError](err)
	if !ok || refused.ErrorCode != codeStoreFailed {
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

// upload is one Put.
type upload struct {
	o       *Objects
	subject string
	chunks  int
}

// send publishes all full chunks. It returns the last, shorter part if that is the whole object.
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

// publishMeta publishes the meta message, which makes the object visible.
func (o *Objects) publishMeta(ctx context.Context, name string, desc wireObject, body []byte) error {
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

// uploads are the uploads in progress, so that one does not remove the chunks of another as old
// ones. The zero value is ready to use.
type uploads struct {
	mu         sync.Mutex
	active     map[string]map[string]bool // IDs by object name
	concurrent map[string]bool            // names with more than one upload at a time
}

// add adds an upload. The returned function reports whether there has been another upload of the
// name in the meantime.
func (u *uploads) add(name, id string) (beside func() bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.active == nil {
		u.active, u.concurrent = map[string]map[string]bool{}, map[string]bool{}
	}
	if u.active[name] == nil {
		u.active[name] = map[string]bool{}
	}
	u.active[name][id] = true
	u.concurrent[name] = u.concurrent[name] || len(u.active[name]) > 1
	return func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.concurrent[name]
	}
}

func (u *uploads) remove(name, id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if delete(u.active[name], id); len(u.active[name]) == 0 {
		delete(u.active, name)
		delete(u.concurrent, name)
	}
}

// count returns the number of uploads of a name.
func (u *uploads) count(name string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.active[name])
}

func (u *uploads) has(name, id string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.active[name][id]
}

// removeOldChunks removes chunks of the name that belong neither to the stored object nor to an
// upload in progress.
func (o *Objects) removeOldChunks(ctx context.Context, name string) error {
	ctx, stop := o.store.withTimeout(ctx)
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
	current := "" // read after the uploads: one that has ended has published its meta message
	switch msg, err := o.store.lastMessage(ctx, o.bucket, metaSubject(o.bucket, name)); {
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

// uploadOf returns the upload that a subject of chunks names.
func uploadOf(subject string) string { return subject[strings.LastIndexByte(subject, '.')+1:] }
