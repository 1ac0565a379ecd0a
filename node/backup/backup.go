// Package backup writes the state of a master to one file, and restores a master's state folder
// from it.
//
// The file is a zstd-compressed tar, protected by zstd's checksum:
//
//	backup.json          About
//	streams/NAME.json    the configuration of the stream
//	streams/NAME         its content as nats-server writes it, in one or more entries of this name
//	snapshots/…          the checkpoints of trials
//	cluster.json         the addresses of the other nodes
//	trust/…              the cluster's CA, its tokens and nodes
//	complete             the end marker
//
// It does not contain the history, which the master folds from the events again.
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

// formatVersion is the version of the file format.
const formatVersion = 1

// About describes a backup.
type About struct {
	V       int         `json:"v"`
	Made    time.Time   `json:"made"`
	Node    grid.NodeID `json:"node"`
	Version string      `json:"version"`         // of mlfnode
	Final   bool        `json:"final,omitempty"` // the master has granted no lease since, and will not start again
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

// Source is what a backup contains.
type Source struct {
	Store     *jetstream.Store
	Snapshots *checkpoint.Store
	StateDir  string
}

// Write writes a backup. The master may be running: the backup contains everything that it had
// acknowledged when the backup began, and possibly later changes, but none without those that it
// depends on. A sweep that is removed in the meantime may be in the backup without its results.
func Write(ctx context.Context, w io.Writer, from Source, about About) error {
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return fmt.Errorf("compress the backup: %w", err)
	}
	b := &writer{tar: tar.NewWriter(z), modTime: about.Made}
	if err := b.writeAll(ctx, from, about); err != nil {
		return errors.Join(err, z.Close())
	}
	return errors.Join(b.tar.Close(), z.Close())
}

type writer struct {
	tar     *tar.Writer
	modTime time.Time
}

func (b *writer) writeAll(ctx context.Context, from Source, about About) error {
	about.V = formatVersion
	head, err := json.Marshal(about)
	if err != nil {
		return fmt.Errorf("describe the backup: %w", err)
	}
	if err := b.writeEntry(aboutEntry, head); err != nil {
		return err
	}
	for _, stream := range jetstream.BackupStreams() {
		name := streamsEntry + stream
		content := &streamWriter{b: b, name: name}
		err := from.Store.Backup(ctx, stream, func(about []byte) error { return b.writeEntry(name+headSuffix, about) },
			content)
		if err == nil {
			err = content.flush()
		}
		if err != nil {
			return err
		}
	}
	err = from.Snapshots.Backup(func(path string, f *os.File) error {
		return b.writeFile(filepath.Join(snapshotsName, path), f)
	})
	if err != nil {
		return err
	}
	return errors.Join(b.writeStateFiles(from.StateDir), b.writeEntry(endEntry, nil))
}

// writeStateFiles writes the small files of the state folder. The master replaces each atomically.
func (b *writer) writeStateFiles(state string) error {
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
			continue // the master has never had another node
		}
		if err == nil {
			err = b.writeEntry(name, content)
		}
		if err != nil {
			return fmt.Errorf("back up %s: %w", name, err)
		}
	}
	return nil
}

func (b *writer) writeEntry(name string, content []byte) error {
	if err := b.writeHeader(name, int64(len(content))); err != nil {
		return err
	}
	_, err := b.tar.Write(content)
	return err
}

func (b *writer) writeFile(name string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := b.writeHeader(name, info.Size()); err != nil {
		return err
	}
	_, err = io.Copy(b.tar, io.LimitReader(f, info.Size()))
	return err
}

func (b *writer) writeHeader(name string, size int64) error {
	return b.tar.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: 0o600, Size: size, ModTime: b.modTime,
		Format: tar.FormatPAX})
}

// maxStreamEntry bounds an entry of a stream, because the length of the whole stream is not known
// in advance.
const maxStreamEntry = 1 << 20

// streamWriter writes a stream as entries of one name.
type streamWriter struct {
	b    *writer
	name string
	part []byte
}

// Write implements io.Writer.
func (e *streamWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), maxStreamEntry-len(e.part))
		e.part, rest = append(e.part, rest[:n]...), rest[n:]
		if len(e.part) == maxStreamEntry {
			if err := e.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(p), nil
}

func (e *streamWriter) flush() error {
	err := e.b.writeEntry(e.name, e.part)
	e.part = e.part[:0]
	return err
}

// streamOf returns the name of the stream to which an entry belongs.
func streamOf(name string) (stream string, ok bool) {
	stream, found := strings.CutPrefix(name, streamsEntry)
	return stream, found && slices.Contains(jetstream.BackupStreams(), stream)
}
