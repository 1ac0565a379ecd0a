package backup

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"

	"mlfnode/jetstream"
	"mlfnode/node/durable"
)

var (
	// ErrNoBackup is returned by Restore for a file that is not a backup.
	ErrNoBackup = errors.New("it is not a backup of a master")
	// ErrOccupied is returned by Restore for a state folder that contains a node's state.
	ErrOccupied = errors.New("is not empty")
)

const (
	// storeName is the folder of the store in the state folder.
	storeName = "jetstream"
	// stagingName is the folder into which a restore unpacks the backup.
	stagingName = "restore"
	// installingName is a file that exists in the state folder while a restore moves everything out
	// of the staging folder.
	installingName = "restoring"
	// skippedNumbers is how many sweep numbers are skipped in each project. The master may have
	// assigned them after the backup, and nodes may still report on those sweeps, so no new sweep
	// may have one.
	skippedNumbers = 100
	// maxEntry bounds the entries that are read into memory.
	maxEntry = 64 << 20
)

// Target is where a backup is restored.
type Target struct {
	StateDir string // locked by the caller
	Logger   *slog.Logger
	Check    func(trustDir string) error // may refuse the cluster's authority
}

// Restore restores a state folder from a backup. Until it returns without an error, the folder
// contains nothing that a node could start with, or is Interrupted.
func Restore(ctx context.Context, r io.Reader, to Target) (About, error) {
	if err := clearInterrupted(to.StateDir); err != nil {
		return About{}, fmt.Errorf("remove what an interrupted restore left: %w", err)
	}
	if err := checkEmpty(to.StateDir); err != nil {
		return About{}, err
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return About{}, fmt.Errorf("read the backup: %w", err)
	}
	defer z.Close()
	in := &reader{tar: tar.NewReader(z), to: to, dir: filepath.Join(to.StateDir, stagingName)}
	if err := os.RemoveAll(in.dir); err != nil { // of a restore that was killed
		return About{}, fmt.Errorf("clean up: %w", err)
	}
	defer os.RemoveAll(in.dir)
	err = in.readAll(ctx)
	if err == nil {
		_, err = io.Copy(io.Discard, z) // its checksum is at its end
	}
	if err != nil {
		return in.about, describeError(err)
	}
	return in.about, in.install()
}

// describeError returns ErrNoBackup for an error in the format of the file, or says that the backup
// is damaged.
func describeError(err error) error {
	for _, form := range []error{zstd.ErrMagicMismatch, tar.ErrHeader, errNoHeader} {
		if errors.Is(err, form) {
			return ErrNoBackup
		}
	}
	for _, form := range []error{io.ErrUnexpectedEOF, zstd.ErrCRCMismatch, errIncomplete} {
		if errors.Is(err, form) {
			return fmt.Errorf("the backup is damaged or was cut off: %w", err)
		}
	}
	return err
}

var (
	errNoHeader   = errors.New("unexpected first entry")
	errIncomplete = errors.New("end marker missing")
)

// Interrupted reports whether a restore to the folder was killed while it moved files into place.
// No node may start with the folder before a restore has completed.
func Interrupted(state string) bool {
	_, err := os.Lstat(filepath.Join(state, installingName))
	return !errors.Is(err, os.ErrNotExist)
}

// clearInterrupted removes what a restore has moved into place before it was killed.
func clearInterrupted(state string) error {
	if !Interrupted(state) {
		return nil
	}
	for _, name := range installed {
		if err := os.RemoveAll(filepath.Join(state, name)); err != nil {
			return err
		}
	}
	if err := durable.SyncFolder(state); err != nil {
		return err
	}
	return durable.Remove(filepath.Join(state, installingName))
}

// checkEmpty returns ErrOccupied for a folder that contains more than the files of a node that has
// never run anything. Files derived from its sweeps, such as history.db, would be mistaken for
// those of the restored sweeps.
func checkEmpty(state string) error {
	entries, err := os.ReadDir(state)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	var there []string
	for _, e := range entries {
		switch name := e.Name(); {
		case slices.Contains([]string{"lock", "token", "examples", "lost+found", stagingName},
			name), strings.HasPrefix(name, "."):
		default:
			there = append(there, name)
		}
	}
	if len(there) > 0 {
		return fmt.Errorf("the state folder %s %w: it has %s", state, ErrOccupied, strings.Join(there, ", "))
	}
	return nil
}

type reader struct {
	tar      *tar.Reader
	to       Target
	dir      string // the staging folder
	about    About
	peeked   *tar.Header // was read to find out whether it continues a stream
	complete bool
}

// next returns the header of the next entry, whose content can then be read from tar.
func (in *reader) next() (*tar.Header, error) {
	if h := in.peeked; h != nil {
		in.peeked = nil
		return h, nil
	}
	return in.tar.Next()
}

func (in *reader) readAll(ctx context.Context) error {
	h, err := in.next()
	if errors.Is(err, io.EOF) || err == nil && h.Name != aboutEntry {
		return errNoHeader
	}
	if err != nil {
		return err
	}
	if err := json.NewDecoder(in.tar).Decode(&in.about); err != nil {
		return errNoHeader
	}
	if in.about.V > formatVersion {
		return fmt.Errorf("the backup was made by mlfnode %s, which is newer than this one; install that version",
			in.about.Version)
	}
	if err := os.MkdirAll(in.dir, 0o700); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := in.restoreStreams(ctx); err != nil {
		return err
	}
	for !in.complete {
		h, err := in.next()
		if errors.Is(err, io.EOF) {
			return errIncomplete
		}
		if err != nil {
			return err
		}
		if err := in.restoreFile(h); err != nil {
			return err
		}
	}
	return in.to.Check(filepath.Join(in.dir, trustName))
}

// restoreStreams restores the store, which comes first in the backup.
func (in *reader) restoreStreams(ctx context.Context) (err error) {
	server, err := jetstream.Start(jetstream.Config{
		Dir: filepath.Join(in.dir, storeName), Node: in.about.Node, Logger: in.to.Logger, Unsynced: true,
	})
	if err != nil {
		return fmt.Errorf("start the store: %w", err)
	}
	defer server.Close()
	for range jetstream.BackupStreams() {
		head, err := in.next()
		if errors.Is(err, io.EOF) {
			return errIncomplete
		}
		if err != nil {
			return err
		}
		stream, ok := streamOf(strings.TrimSuffix(head.Name, headSuffix))
		if !ok {
			return fmt.Errorf("the backup has %q where a stream is wanted", head.Name)
		}
		about, err := io.ReadAll(io.LimitReader(in.tar, maxEntry))
		if err != nil {
			return err
		}
		if err := server.Restore(ctx, stream, about, &streamReader{in: in, name: streamsEntry + stream}); err != nil {
			return err
		}
	}
	store, err := server.OpenForBackup(ctx) // which fails if anything is missing
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	defer store.Close()
	if in.about.Final {
		return nil
	}
	return store.Records.SkipNumbers(ctx, skippedNumbers)
}

// streamReader reads the content of consecutive entries of one name.
type streamReader struct {
	in   *reader
	name string
	open bool
}

// Read implements io.Reader.
func (c *streamReader) Read(p []byte) (int, error) {
	for {
		if c.open {
			if n, err := c.in.tar.Read(p); n > 0 || err != nil && !errors.Is(err, io.EOF) {
				if errors.Is(err, io.EOF) {
					err = nil // another entry may follow
				}
				return n, err
			}
			c.open = false
		}
		h, err := c.in.next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errIncomplete
			}
			return 0, err
		}
		if h.Name != c.name {
			c.in.peeked = h
			return 0, io.EOF
		}
		c.open = true
	}
}

// restoreFile restores an entry that is a file of the state folder.
func (in *reader) restoreFile(h *tar.Header) error {
	name := filepath.FromSlash(h.Name)
	first, _, below := strings.Cut(h.Name, "/")
	switch {
	case h.Name == endEntry:
		in.complete = true
		return nil
	case !filepath.IsLocal(name) || h.Typeflag != tar.TypeReg,
		h.Name != clusterName && !(below && (first == trustName || first == snapshotsName)):
		return fmt.Errorf("the backup has %q, which is not of a master", h.Name)
	}
	path := filepath.Join(in.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in.tar)
	return errors.Join(err, f.Close())
}

// installed lists what a restore moves into place, in this order.
var installed = [...]string{storeName, snapshotsName, clusterName, trustName}

// install moves the restored files into place. Until it is done, the folder is Interrupted.
func (in *reader) install() error {
	if err := durable.SyncFileSystem(in.dir); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	installing := filepath.Join(in.to.StateDir, installingName)
	if err := durable.WriteFile(installing, nil, 0o600); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	for _, name := range installed {
		err := os.Rename(filepath.Join(in.dir, name), filepath.Join(in.to.StateDir, name))
		if err != nil && !(errors.Is(err, os.ErrNotExist) && name != trustName && name != storeName) {
			return fmt.Errorf("restore: %w", err)
		}
	}
	if err := durable.SyncFolder(in.to.StateDir); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return durable.Remove(installing)
}
