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
	// ErrNoBackup is returned by Restore for a file that Write has not written.
	ErrNoBackup = errors.New("it is not a backup of a master")
	// ErrOccupied is returned by Restore for a state folder that holds anything of a node.
	ErrOccupied = errors.New("is not empty")
)

const (
	// storeName is the folder of the store in the state folder.
	storeName = "jetstream"
	// partsName is where a restore puts everything until all is there.
	partsName = "restore"
	// installingName is a file that is in the state folder while a restore moves everything to its place.
	installingName = "restoring"
	// skippedNumbers is how many numbers of sweeps are passed over in each project, for those that a master has given after its backup was
	// made: nodes may still report on such sweeps, and no new one may be taken for them.
	skippedNumbers = 100
	// largestEntry bounds the entries that are read into memory.
	largestEntry = 64 << 20
)

// Target is where a backup is restored.
type Target struct {
	StateDir string // locked by the caller
	Logger   *slog.Logger
	Check    func(trustDir string) error // may refuse the cluster's authority
}

// Restore makes a state folder what it was when the backup was made. Until it returns without an
// error the folder holds nothing that a node could start with, or is Interrupted.
func Restore(ctx context.Context, r io.Reader, to Target) (About, error) {
	if err := clearInterrupted(to.StateDir); err != nil {
		return About{}, fmt.Errorf("remove what an interrupted restore left: %w", err)
	}
	if err := vacant(to.StateDir); err != nil {
		return About{}, err
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return About{}, fmt.Errorf("read the backup: %w", err)
	}
	defer z.Close()
	in := &reader{tar: tar.NewReader(z), to: to, dir: filepath.Join(to.StateDir, partsName)}
	if err := os.RemoveAll(in.dir); err != nil { // of a restore that was killed
		return About{}, fmt.Errorf("clean up: %w", err)
	}
	defer os.RemoveAll(in.dir)
	err = in.all(ctx)
	if err == nil {
		_, err = io.Copy(io.Discard, z) // its checksum is at its end
	}
	if err != nil {
		return in.about, explain(err)
	}
	return in.about, in.install()
}

// explain turns an error in the file's form into one that says that it is not a backup, or a damaged one.
func explain(err error) error {
	for _, form := range []error{zstd.ErrMagicMismatch, tar.ErrHeader, errFirst} {
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
	errFirst      = errors.New("unexpected first entry")
	errIncomplete = errors.New("end marker missing")
)

// Interrupted reports whether a restore to the folder was killed while it moved everything to its
// place. No node may start with the folder before a restore has completed.
func Interrupted(state string) bool {
	_, err := os.Lstat(filepath.Join(state, installingName))
	return !errors.Is(err, os.ErrNotExist)
}

// clearInterrupted removes what a restore has moved to its place before it was killed.
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

// vacant refuses a folder that holds more than a node leaves that has never done anything. What is
// derived from the sweeps, such as history.db, would be taken for that of the restored ones.
func vacant(state string) error {
	entries, err := os.ReadDir(state)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	var there []string
	for _, e := range entries {
		switch name := e.Name(); {
		case slices.Contains([]string{"lock", "token", "examples", "lost+found", partsName}, name), strings.HasPrefix(name, "."):
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
	tar   *tar.Reader
	to    Target
	dir   string // everything is put here first
	about About
	ahead *tar.Header // was read to see whether it continues a stream
	ended bool
}

// next gives the next entry; its content is read from the tar.
func (in *reader) next() (*tar.Header, error) {
	if h := in.ahead; h != nil {
		in.ahead = nil
		return h, nil
	}
	return in.tar.Next()
}

func (in *reader) all(ctx context.Context) error {
	h, err := in.next()
	if errors.Is(err, io.EOF) || err == nil && h.Name != aboutEntry {
		return errFirst
	}
	if err != nil {
		return err
	}
	if err := json.NewDecoder(in.tar).Decode(&in.about); err != nil {
		return errFirst
	}
	if in.about.V > version {
		return fmt.Errorf("the backup was made by mlfnode %s, which is newer than this one; install that version", in.about.Version)
	}
	if err := os.MkdirAll(in.dir, 0o700); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := in.streams(ctx); err != nil {
		return err
	}
	for !in.ended {
		h, err := in.next()
		if errors.Is(err, io.EOF) {
			return errIncomplete
		}
		if err != nil {
			return err
		}
		if err := in.file(h); err != nil {
			return err
		}
	}
	return in.to.Check(filepath.Join(in.dir, trustName))
}

// streams restores the store, which comes first.
func (in *reader) streams(ctx context.Context) (err error) {
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
		stream, ok := isStream(strings.TrimSuffix(head.Name, headSuffix))
		if !ok {
			return fmt.Errorf("the backup has %q where a stream is wanted", head.Name)
		}
		about, err := io.ReadAll(io.LimitReader(in.tar, largestEntry))
		if err != nil {
			return err
		}
		if err := server.Restore(ctx, stream, about, &streamContent{in: in, name: streamsEntry + stream}); err != nil {
			return err
		}
	}
	store, err := server.OpenForBackup(ctx) // which finds out whether all is there
	if err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	defer store.Close()
	if in.about.Final {
		return nil
	}
	return store.Records.SkipNumbers(ctx, skippedNumbers)
}

// streamContent is the content of the entries of one name that follow each other.
type streamContent struct {
	in   *reader
	name string
	open bool
}

// Read implements io.Reader.
func (c *streamContent) Read(p []byte) (int, error) {
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
			c.in.ahead = h
			return 0, io.EOF
		}
		c.open = true
	}
}

// file restores an entry that is a file of the state folder.
func (in *reader) file(h *tar.Header) error {
	name := filepath.FromSlash(h.Name)
	first, _, below := strings.Cut(h.Name, "/")
	switch {
	case h.Name == endEntry:
		in.ended = true
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

// installed are what a restore moves to its place, in this order.
var installed = [...]string{storeName, snapshotsName, clusterName, trustName}

// install moves what was restored to its places. Until all of it is there, the folder is Interrupted.
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
