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

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Put stores what r gives under the name and replaces an object of that name once it is whole. Memory is bounded by one chunk.
// It returns ErrFull when the limit is reached; then, and on any error, nothing of it is kept.
func (o *Objects) Put(ctx context.Context, name string, r io.Reader, meta map[string]string) error {
	old := false // on another node's server names are used once, and may not be looked up
	if !o.store.remote {
		var err error
		if old, err = o.Has(ctx, name); err != nil {
			return err
		}
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
	var refused *js.APIError
	if !errors.As(err, &refused) || refused.ErrorCode != codeStoreFailed {
		return err
	}
	if !strings.Contains(refused.Description, server.ErrMaxBytes.Error()) {
		return &diskError{reason: reason(refused.Description)}
	}
	limit := o.store.limits.ArtifactBytes
	if o.bucket == bundleBucket {
		limit = o.store.limits.BundleBytes
	}
	return &fullError{what: o.bucket, setting: o.setting, limit: limit}
}

// discard removes the chunks of an upload that failed, also when ctx has ended. On another node's server they stay until what is
// below their name is removed: a node may not empty streams.
func (o *Objects) discard(ctx context.Context, u *upload) {
	if u.chunks == 0 || o.store.remote {
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
	h := nats.Header{objectHeader: {string(head)}}
	if !o.store.remote { // what a node stores has a name that was never used
		h.Set(js.MsgRollup, js.MsgRollupSubject)
	}
	msg := &nats.Msg{Subject: metaSubject(o.bucket, name), Data: body, Header: h}
	if !o.store.remote {
		_, err = o.store.publish(ctx, msg)
		return err
	}
	// An upload whose answer was lost is sent again: the first that was whole counts.
	_, err = o.store.publish(ctx, msg, js.WithExpectLastSequencePerSubject(0))
	if hasCode(err, codeWrongLast) {
		return nil
	}
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
