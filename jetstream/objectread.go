package jetstream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// errDigest is what a reader of a damaged object gets in the place of the end.
var errDigest = errors.New("the stored content is damaged: its SHA-256 is not the one it was stored with")

// Open gives an object's content, or ErrNotFound. The content is checked against its SHA-256 at the end. Close the reader; ctx
// bounds the reading too.
func (o *Objects) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	msg, err := o.store.lastOf(ctx, o.bucket, metaSubject(o.bucket, name))
	if err != nil {
		return nil, fmt.Errorf("open %s in %s: %w", name, o.bucket, err)
	}
	desc, err := decodeObject(msg.Header)
	if err != nil {
		return nil, err
	}
	r := &objectReader{sum: sha256.New(), want: desc.SHA256}
	if desc.Upload == "" {
		r.rest = msg.Data
		return r, nil
	}
	r.ctx, r.stop = o.store.guard(ctx)
	t := &tail{store: o.store, stream: o.bucket, subject: dataSubject(o.bucket, name) + "." + desc.Upload}
	if r.chunks, err = t.cursor(r.ctx); err != nil {
		r.stop()
		return nil, o.store.explain(ctx, "open "+name, err)
	}
	return r, nil
}

// objectReader brings chunks when they are asked for.
type objectReader struct {
	ctx    context.Context // of Open; a reader has no other place for it
	stop   func()
	chunks *cursor // nil when rest is all there is
	end    bool    // rest is the last chunk
	rest   []byte
	sum    hash.Hash
	want   string
}

// Read implements io.Reader.
func (r *objectReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.chunks == nil || r.end {
			return 0, r.check()
		}
		e, err := r.chunks.one(r.ctx)
		if err != nil {
			return 0, r.chunks.store.explain(r.ctx, "read an object", noEnd(err))
		}
		r.rest, r.end = e.Data, e.pending == 0
	}
	n := copy(p, r.rest)
	r.sum.Write(r.rest[:n])
	r.rest = r.rest[n:]
	return n, nil
}

// noEnd keeps a missing chunk from looking like the end of the object.
func noEnd(err error) error {
	if errors.Is(err, errEnd) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *objectReader) check() error {
	want, err := hex.DecodeString(r.want)
	if err != nil || !bytes.Equal(want, r.sum.Sum(nil)) {
		return errDigest
	}
	return io.EOF
}

// Close implements io.Closer.
func (r *objectReader) Close() error {
	if r.chunks != nil {
		r.chunks.close()
		r.stop()
		r.chunks, r.end, r.rest, r.want = nil, true, nil, ""
	}
	return nil
}
