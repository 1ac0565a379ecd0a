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

// errDigest is returned at the end of a damaged object.
var errDigest = errors.New("the stored content is damaged: its SHA-256 is not the one it was stored with")

// Open returns an object's content, or ErrNotFound. The content is checked against its SHA-256 at
// the end. The caller must close the reader. ctx bounds the reading too.
func (o *Objects) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	msg, err := o.store.lastMessage(ctx, o.bucket, metaSubject(o.bucket, name))
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
	r.ctx, r.stop = o.store.whileAvailable(ctx)
	t := &streamReader{store: o.store, stream: o.bucket, subject: dataSubject(o.bucket, name) + "." + desc.Upload}
	if r.chunks, err = t.newConsumer(r.ctx); err != nil {
		r.stop()
		return nil, o.store.explain(ctx, "open "+name, err)
	}
	return r, nil
}

// objectReader requests chunks as they are read.
type objectReader struct {
	ctx    context.Context // of Open: Read has no parameter for it
	stop   func()
	chunks *consumer // nil if rest is the whole object
	end    bool      // rest is the last chunk
	rest   []byte
	sum    hash.Hash
	want   string
}

// Read implements io.Reader.
func (r *objectReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.chunks == nil || r.end {
			want, err := hex.DecodeString(r.want)
			if err != nil || !bytes.Equal(want, r.sum.Sum(nil)) {
				return 0, errDigest
			}
			return 0, io.EOF
		}
		e, ok, err := r.chunks.receive(r.ctx)
		if errors.Is(err, errNoMore) {
			err = io.ErrUnexpectedEOF // a missing chunk does not look like the end of the object
		}
		if err != nil {
			return 0, r.chunks.store.explain(r.ctx, "read an object", err)
		}
		if ok { // not a status message
			r.rest, r.end = e.Data, e.pending == 0
		}
	}
	n := copy(p, r.rest)
	r.sum.Write(r.rest[:n])
	r.rest = r.rest[n:]
	return n, nil
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
