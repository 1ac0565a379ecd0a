package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/nats-io/nats.go"
)

// objectVersion is the version of an object's description.
const objectVersion = 1

// objectHeader carries an object's description, as JSON, in its meta message.
const objectHeader = "Mlf-Object"

// Objects is a bucket of objects of any size. An object is stored as chunks of half a megabyte
// followed by one meta message; a small object is stored in the meta message itself, so it costs
// one flush. An object with a meta message is complete and on disk.
//
// NATS's own object store does not fit: it publishes without waiting for the disk, which overruns
// the server's queue for large objects when every message is flushed, and it can only list whole
// buckets, while here a sweep's artifacts are a prefix.
type Objects struct {
	store   *Store
	bucket  string
	setting string
	quota   *quota // bounds what each node stores; nil where nothing does
	uploads uploads
}

// ObjectInfo describes one object.
type ObjectInfo struct {
	Name   string
	Size   int64
	Stored time.Time
}

// wireObject is the description in objectHeader.
type wireObject struct {
	V      int       `json:"v"`
	Size   int64     `json:"size"`
	SHA256 string    `json:"sha256"`           // of the content, hex
	Upload string    `json:"upload,omitempty"` // token of the chunks' subject; empty without chunks
	Stored time.Time `json:"stored"`
}

// Has reports whether there is an object of this name.
func (o *Objects) Has(ctx context.Context, name string) (bool, error) {
	_, err := o.store.lastMessage(ctx, o.bucket, metaSubject(o.bucket, name))
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Delete removes an object, and what a crash may have left of uploads of this name; it is not an
// error if nothing exists. Uploads in progress continue.
func (o *Objects) Delete(ctx context.Context, name string) error {
	if err := o.store.purge(ctx, o.bucket, metaSubject(o.bucket, name)); err != nil {
		return err
	}
	if o.uploads.count(name) > 0 {
		return o.removeOldChunks(ctx, name)
	}
	return o.store.purge(ctx, o.bucket, dataSubject(o.bucket, name)+".*")
}

// DeleteAll removes every object below the prefix, which ends with a slash, and what crashes have
// left there.
func (o *Objects) DeleteAll(ctx context.Context, prefix string) error {
	if err := o.store.purge(ctx, o.bucket, objectFilter(metaOf, o.bucket, prefix)); err != nil {
		return err
	}
	return o.store.purge(ctx, o.bucket, objectFilter(dataOf, o.bucket, prefix))
}

// List describes all objects below a prefix, in the order in which they were stored. The prefix is
// empty or ends with a slash.
func (o *Objects) List(ctx context.Context, prefix string) ([]ObjectInfo, error) {
	all, _, err := o.list(ctx, prefix, 0, math.MaxInt)
	return all, err
}

// ObjectPage is the maximum number of objects that Page describes.
const ObjectPage = 512

// Page is List for some objects: those after the place that the previous call returned, from the
// beginning for place 0. It returns place 0 when there are no more.
func (o *Objects) Page(ctx context.Context, prefix string, after uint64) (page []ObjectInfo, place uint64, err error) {
	return o.list(ctx, prefix, after, ObjectPage)
}

func (o *Objects) list(
	ctx context.Context, prefix string, after uint64, most int,
) (all []ObjectInfo, place uint64, err error) {
	t := &streamReader{
		store: o.store, stream: o.bucket, subject: objectFilter(metaOf, o.bucket, prefix),
		next: after + 1, headers: true,
	}
	err = t.read(ctx, func(batch []message) error {
		for _, e := range batch {
			if len(all) == most {
				return errNoMore
			}
			if place = e.seq; e.pending == 0 {
				place = 0
			}
			desc, err := decodeObject(e.Header)
			if err != nil {
				o.store.log.Warn("description of an object can't be read", "seq", e.seq, "err", err)
				continue
			}
			all = append(all, ObjectInfo{Name: objectName(o.bucket, e.Subject), Size: desc.Size, Stored: desc.Stored})
		}
		return nil
	}, nil)
	return all, place, err
}

func decodeObject(h nats.Header) (wireObject, error) {
	var d wireObject
	if err := json.Unmarshal([]byte(h.Get(objectHeader)), &d); err != nil {
		return d, fmt.Errorf("read the description of an object: %w", err)
	}
	if d.V > objectVersion {
		return d, fmt.Errorf("the object is of version %d, and this program knows %d; update mlfnode",
			d.V, objectVersion)
	}
	return d, nil
}
