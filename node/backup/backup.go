// Package backup writes all that a master has to one file, and makes the state folder of a master of it.
//
// The file is a tar in zstd, whose checksum covers all of it:
//
//	backup.json          About
//	streams/NAME.json    what the stream is
//	streams/NAME         its content, as nats-server writes it, in as many entries of this name as it takes
//	snapshots/…          what trials have saved
//	cluster.json         where the other nodes are
//	trust/…              the cluster's authority, its tokens and nodes
//	complete             the end
//
// History is not in it: the master folds it from the events again.
package backup

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/checkpoint"
	"mlfnode/node/durable"
)

// version is that of the file.
const version = 1

// About says what a backup is of.
type About struct {
	V       int         `json:"v"`
	Made    time.Time   `json:"made"`
	Node    grid.NodeID `json:"node"`
	Version string      `json:"version"`         // of mlfnode
	Final   bool        `json:"final,omitempty"` // the master has given nothing out since, and does not start again
}

// The entries of a backup, which are also the names in the state folder.
const (
	aboutEntry    = "backup.json"
	streamsEntry  = "streams/"
	headSuffix    = ".json"
	snapshotsName = "snapshots"
	trustName     = "trust"
	clusterName   = "cluster.json"
	endEntry      = "complete"
)

// Source is what a backup is made of.
type Source struct {
	Store     *jetstream.Store
	Snapshots *checkpoint.Store
	StateDir  string
}

// Write writes a backup. The master may be at work: what it has acknowledged before is in the backup, and what happens meanwhile is in it or
// not, but nothing of it without what it depends on. A sweep that is removed meanwhile may be in it without its results.
func Write(ctx context.Context, w io.Writer, from Source, about About) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return fmt.Errorf("compress the backup: %w", err)
	}
	b := &writer{tar: tar.NewWriter(z), at: about.Made}
	if err := b.all(ctx, from, about); err != nil {
		return errors.Join(err, z.Close())
	}
	return errors.Join(b.tar.Close(), z.Close())
}

type writer struct {
	tar *tar.Writer
	at  time.Time
}

func (b *writer) all(ctx context.Context, from Source, about About) error {
	about.V = version
	head, err := json.Marshal(about)
	if err != nil {
		return fmt.Errorf("describe the backup: %w", err)
	}
	if err := b.entry(aboutEntry, head); err != nil {
		return err
	}
	for _, stream := range jetstream.BackupStreams() {
		name := streamsEntry + stream
		content := &entries{b: b, name: name}
		err := from.Store.Backup(ctx, stream, func(about []byte) error { return b.entry(name+headSuffix, about) }, content)
		if err == nil {
			err = content.flush()
		}
		if err != nil {
			return err
		}
	}
	err = from.Snapshots.Backup(func(path string, f *os.File) error { return b.file(filepath.Join(snapshotsName, path), f) })
	if err != nil {
		return err
	}
	return errors.Join(b.files(from.StateDir), b.entry(endEntry, nil))
}

// files writes the small files of the state folder. Each is replaced whole when it changes.
func (b *writer) files(state string) error {
	names := []string{clusterName}
	trust, err := os.ReadDir(filepath.Join(state, trustName))
	if err != nil {
		return fmt.Errorf("back up the cluster's authority: %w", err)
	}
	for _, e := range trust {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), durable.PartPrefix) {
			names = append(names, filepath.Join(trustName, e.Name()))
		}
	}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(state, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a master that was always alone
		}
		if err == nil {
			err = b.entry(name, content)
		}
		if err != nil {
			return fmt.Errorf("back up %s: %w", name, err)
		}
	}
	return nil
}

func (b *writer) entry(name string, content []byte) error {
	if err := b.header(name, int64(len(content))); err != nil {
		return err
	}
	_, err := b.tar.Write(content)
	return err
}

func (b *writer) file(name string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := b.header(name, info.Size()); err != nil {
		return err
	}
	_, err = io.Copy(b.tar, io.LimitReader(f, info.Size()))
	return err
}

func (b *writer) header(name string, size int64) error {
	return b.tar.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: 0o600, Size: size, ModTime: b.at, Format: tar.FormatPAX})
}

// entryBytes bounds an entry of a stream, whose length is not known before its end.
const entryBytes = 1 << 20

// entries writes a stream as entries of one name.
type entries struct {
	b    *writer
	name string
	part []byte
}

// Write implements io.Writer.
func (e *entries) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), entryBytes-len(e.part))
		e.part, rest = append(e.part, rest[:n]...), rest[n:]
		if len(e.part) == entryBytes {
			if err := e.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

func (e *entries) flush() error {
	err := e.b.entry(e.name, e.part)
	e.part = e.part[:0]
	return err
}

// isStream gives the name of the stream to which an entry belongs.
func isStream(name string) (stream string, ok bool) {
	stream, found := strings.CutPrefix(name, streamsEntry)
	return stream, found && slices.Contains(jetstream.BackupStreams(), stream)
}
