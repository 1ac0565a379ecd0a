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
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// objectVersion is the version of an object's description.
const objectVersion = 1

// objectHeader carries an object's description, as JSON, in its meta message.
const objectHeader = "Mlf-Object"

// Objects is a bucket of objects of any size. An object is chunks of half a megabyte and then one meta message; a small one is
// in the meta message itself, so it costs one flush. An object whose meta message is there is whole and on disk.
//
// NATS's own object store was not taken: it publishes without waiting for the disk, which overruns the server's queue for large
// objects when every message is flushed, and it can only list whole buckets, while a sweep's artifacts are a prefix here.
type Objects struct {
	store   *Store
	bucket  string
	setting string
}

// ObjectInfo describes one object.
type ObjectInfo struct {
	Name   string
	Size   int64
	SHA256 string // hex
	Stored time.Time
	Meta   map[string]string
}

// wireObject is the description in objectHeader.
type wireObject struct {
	V      int               `json:"v"`
	Size   int64             `json:"size"`
	SHA256 string            `json:"sha256"`
	Upload string            `json:"upload,omitempty"` // token of the chunks' subject; empty when the body of the message is the object
	Stored time.Time         `json:"stored"`
	Meta   map[string]string `json:"meta,omitempty"`
}

// Put stores what r gives under the name and replaces an object of that name once it is whole. Memory is bounded by one chunk.
// It returns ErrFull when the limit is reached; then, and on any error, nothing of it is kept.
func (o *Objects) Put(ctx context.Context, name string, r io.Reader, meta map[string]string) error {
	old, err := o.Has(ctx, name)
	if err != nil {
		return err
	}
	u := upload{o: o, subject: dataSubject(o.bucket, name) + "." + nuid.Next()}
	desc, tail, err := u.send(ctx, r)
	if err == nil {
		desc.Meta = meta
		err = o.describe(ctx, name, desc, tail)
	}
	if err != nil {
		o.discard(ctx, &u)
		return fmt.Errorf("store %s in %s: %w", name, o.bucket, o.full(err))
	}
	if !old {
		return nil
	}
	if err := o.replaced(ctx, name, desc.Upload); err != nil {
		o.store.log.Warn("old chunks could not be removed", "object", name, "err", err)
	}
	return nil
}

func (o *Objects) full(err error) error {
	if !hasCode(err, codeStoreFailed) {
		return err
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
			desc.Upload = u.subject[strings.LastIndexByte(u.subject, '.')+1:]
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
	_, err = o.store.publish(ctx, &nats.Msg{
		Subject: metaSubject(o.bucket, name), Data: body,
		Header: nats.Header{objectHeader: {string(head)}, js.MsgRollup: {js.MsgRollupSubject}},
	})
	return err
}

// replaced removes chunks of the name that are not of the given upload.
func (o *Objects) replaced(ctx context.Context, name, upload string) error {
	ctx, stop := o.store.limited(ctx)
	defer stop()
	str := o.store.streams[o.bucket]
	info, err := str.Info(ctx, js.WithSubjectFilter(dataSubject(o.bucket, name)+".*"))
	if err != nil {
		return o.store.explain(ctx, "look for old chunks", err)
	}
	for subject := range info.State.Subjects {
		if !strings.HasSuffix(subject, "."+upload) {
			if err := str.Purge(ctx, js.WithPurgeSubject(subject)); err != nil {
				return o.store.explain(ctx, "remove old chunks", err)
			}
		}
	}
	return nil
}

// Has reports whether there is an object of this name.
func (o *Objects) Has(ctx context.Context, name string) (bool, error) {
	_, err := o.store.lastOf(ctx, o.bucket, metaSubject(o.bucket, name))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Delete removes an object, and what a crash may have left of uploads of this name; it is no error when there is nothing.
func (o *Objects) Delete(ctx context.Context, name string) error {
	if err := o.store.purge(ctx, o.bucket, metaSubject(o.bucket, name)); err != nil {
		return err
	}
	return o.store.purge(ctx, o.bucket, dataSubject(o.bucket, name)+".*")
}

// DeleteAll removes every object below the prefix, which ends with a slash, and what crashes have left there.
func (o *Objects) DeleteAll(ctx context.Context, prefix string) error {
	if err := o.store.purge(ctx, o.bucket, under(metaSubject, o.bucket, prefix)); err != nil {
		return err
	}
	return o.store.purge(ctx, o.bucket, under(dataSubject, o.bucket, prefix))
}

// List describes all objects whose names begin with prefix, in the order in which they were stored. The prefix is empty or
// ends with a slash: then only what is below it is looked at.
func (o *Objects) List(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	t := &tail{store: o.store, stream: o.bucket, subject: under(metaSubject, o.bucket, prefix), headers: true}
	var all []ObjectInfo
	skip := len("mlf." + o.bucket + ".meta.")
	err := t.read(ctx, func(batch []entry) error {
		for _, e := range batch {
			desc, err := decodeObject(e.Header)
			if err != nil {
				o.store.log.Warn("description of an object can't be read", "seq", e.seq, "err", err)
				continue
			}
			all = append(all, desc.info(untokens(e.Subject[skip:])))
		}
		return nil
	}, nil)
	return all, err
}

func decodeObject(h nats.Header) (wireObject, error) {
	var d wireObject
	if err := json.Unmarshal([]byte(h.Get(objectHeader)), &d); err != nil {
		return d, fmt.Errorf("read the description of an object: %w", err)
	}
	if d.V > objectVersion {
		return d, fmt.Errorf("the object is of version %d, and this program knows %d; update mlfnode", d.V, objectVersion)
	}
	return d, nil
}

func (d *wireObject) info(name string) ObjectInfo {
	return ObjectInfo{Name: name, Size: d.Size, SHA256: d.SHA256, Stored: d.Stored, Meta: d.Meta}
}
