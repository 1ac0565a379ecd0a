package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"mlfnode/grid"
	"mlfnode/node/durable"
	"mlfnode/projects"
)

// Missing is a content that the store lacks, and how many of its first bytes it has from an
// interrupted upload.
type Missing struct {
	Hash string `json:"h"`
	Size int64  `json:"s"`
	Have int64  `json:"b,omitempty"`
}

// Remote is a store of snapshots as a node sees it: a Store in the same process, or one behind the
// API.
type Remote interface {
	// Offer stores a snapshot if all of its contents are there, and returns its number; otherwise
	// it returns what is missing. It returns ErrFull when there is no room for it.
	Offer(ctx context.Context, id grid.TrialID, s *Snapshot) (number int, missing []Missing, err error)
	// Put stores a content, or the rest of it from the offset up to which, according to Offer, the
	// bytes are there.
	Put(ctx context.Context, id grid.TrialID, m Missing, r io.Reader) error
	// Load returns a stored snapshot. It returns fs.ErrNotExist for one that does not exist.
	Load(ctx context.Context, id grid.TrialID, number int) (*Snapshot, error)
	// Open reads a content.
	Open(ctx context.Context, id grid.TrialID, hash string) (io.ReadCloser, error)
	// Verify makes the store check a content that did not arrive intact. It returns fs.ErrNotExist
	// if the stored one is damaged: then the store has given up the snapshots that need it.
	Verify(ctx context.Context, id grid.TrialID, hash string) error
}

var (
	// ErrFull says that a store has no room for a snapshot.
	ErrFull = errors.New("there is no room for it: retention.checkpoints is reached")
	// ErrUnfit says that a snapshot can't be stored as it is, however often it is sent.
	ErrUnfit = errors.New("it can't be stored")
	// ErrDamaged says that a stored snapshot is damaged: it, or a content of it, is gone or has
	// changed.
	ErrDamaged = errors.New("the stored snapshot is damaged")
	// ErrCorrupted says that what arrived is not what is stored: the memory or the disk of this
	// node, or the network, changes data.
	ErrCorrupted = errors.New("what arrived on this node is not what is stored")
	// ErrNotHeld says that the master has not heard that the node holds the trial.
	ErrNotHeld = errors.New("the node does not hold the trial")
)

// maxLimitedRead is the most that a limited transfer reads at once.
const maxLimitedRead = 64 << 10

// NewLimiter returns a limiter for a number of bytes per second; 0 means no limit.
func NewLimiter(bytes int64) *rate.Limiter {
	if bytes <= 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(bytes), max(maxLimitedRead, int(min(bytes, 1<<30))))
}

// limitedReader reads no faster than its limiter allows.
type limitedReader struct {
	ctx     context.Context
	r       io.Reader
	limiter *rate.Limiter
}

func (l *limitedReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p[:min(len(p), maxLimitedRead)])
	if l.limiter.Limit() != rate.Inf && n > 0 {
		if e := l.limiter.WaitN(l.ctx, n); e != nil {
			return n, e
		}
	}
	return n, err
}

// maxOffers bounds how often a snapshot is offered: each time but the last, something was missing.
const maxOffers = 4

// Send stores a snapshot whose files are in dir, with the hashes that HashFiles has filled in, and
// returns its number. It returns ErrChanged when a file has changed since.
func Send(ctx context.Context, to Remote, id grid.TrialID, s *Snapshot, dir string, by *rate.Limiter) (int, error) {
	s.V = version
	paths := map[string]string{}
	for i := range s.Files {
		paths[s.Files[i].Hash] = s.Files[i].Path
	}
	for range maxOffers {
		number, missing, err := to.Offer(ctx, id, s)
		if err != nil || number > 0 {
			return number, err
		}
		for _, m := range missing {
			if err := sendContent(
				ctx, to, id, m, filepath.Join(dir, filepath.FromSlash(paths[m.Hash])), by,
			); err != nil {
				return 0, err
			}
		}
	}
	return 0, errors.New("the store does not keep what it is sent")
}

func sendContent(ctx context.Context, to Remote, id grid.TrialID, m Missing, name string, by *rate.Limiter) error {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrChanged
	}
	if err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(m.Have, io.SeekStart); err != nil {
		return fmt.Errorf("read the checkpoint: %w", err)
	}
	return to.Put(ctx, id, m, &limitedReader{ctx, io.LimitReader(f, m.Size-m.Have), by})
}

// Restore makes dir the folder of a stored snapshot. Files whose content dir has already are not
// fetched. Everything is written to dir.new, checked, synced, and renamed, so that a failure leaves
// dir as it was. It returns ErrDamaged when the store does not have what it should, and
// ErrCorrupted when the store has it and this node does not receive it.
func Restore(ctx context.Context, from Remote, id grid.TrialID, number int, dir string, by *rate.Limiter) error {
	s, err := from.Load(ctx, id, number)
	if err != nil {
		return fmt.Errorf("load snapshot %d: %w", number, markDamaged(err))
	}
	if err := s.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupted, err)
	}
	fresh := dir + ".new"
	if err := projects.RemoveTree(fresh); err != nil {
		return err
	}
	if err := os.MkdirAll(fresh, 0o700); err != nil {
		return err
	}
	if err := errors.Join(restoreFiles(ctx, from, id, s, dir, fresh, by), durable.SyncFileSystem(fresh)); err != nil {
		return errors.Join(err, projects.RemoveTree(fresh))
	}
	old := dir + ".old"
	if err := projects.RemoveTree(old); err != nil {
		return err
	}
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return errors.Join(err, os.Rename(old, dir))
	}
	return errors.Join(durable.SyncFolder(filepath.Dir(dir)), projects.RemoveTree(old))
}

// markDamaged marks the error of a store that lacks what it should have.
func markDamaged(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// restoreFiles writes a snapshot's files into a new folder: folders first, links and the times of
// folders last, so that nothing is ever written through a link.
func restoreFiles(
	ctx context.Context, from Remote, id grid.TrialID, s *Snapshot, dir, fresh string, by *rate.Limiter,
) error {
	files := slices.Clone(s.Files)
	slices.SortFunc(files, func(a, b File) int { return len(a.Path) - len(b.Path) })
	for i := range files {
		if f := &files[i]; f.Mode.IsDir() {
			if err := os.MkdirAll(f.pathIn(fresh), 0o700); err != nil {
				return err
			}
		}
	}
	for i := range files {
		if f := &files[i]; f.Mode.IsRegular() {
			if err := f.fetch(ctx, from, id, dir, fresh, by); err != nil {
				return fmt.Errorf("fetch %s of snapshot %d: %w", f.Path, s.Number, err)
			}
		}
	}
	for i := range slices.Backward(files) {
		f := &files[i]
		var err error
		switch {
		case f.Mode.Type() == fs.ModeSymlink:
			err = os.Symlink(f.Link, f.pathIn(fresh))
		case f.Mode.IsDir():
			err = f.setModeAndTime(f.pathIn(fresh))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *File) pathIn(dir string) string { return filepath.Join(dir, filepath.FromSlash(f.Path)) }

func (f *File) setModeAndTime(name string) error {
	t := time.Unix(0, f.MTime)
	return errors.Join(os.Chmod(name, f.Mode.Perm()), os.Chtimes(name, t, t))
}

// fetch writes the file, from the folder's own copy if that has the content.
func (f *File) fetch(ctx context.Context, from Remote, id grid.TrialID, dir, fresh string, by *rate.Limiter) error {
	var in io.ReadCloser
	own := f.pathIn(dir)
	if hash, _, err := hashFile(ctx, own); err == nil && hash == f.Hash {
		by = NewLimiter(0)
		if in, err = os.Open(own); err != nil {
			return err
		}
	} else if in, err = from.Open(ctx, id, f.Hash); errors.Is(err, fs.ErrNotExist) {
		return markDamaged(cmp.Or(from.Verify(ctx, id, f.Hash), err)) // the store gives up the snapshots that need it
	} else if err != nil {
		return markDamaged(err)
	}
	defer in.Close()
	name := f.pathIn(fresh)
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, &limitedReader{ctx, io.LimitReader(in, f.Size+1), by})
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	switch hash, _, err := hashFile(ctx, name); {
	case err != nil:
		return err
	case hash != f.Hash:
		if err := from.Verify(ctx, id, f.Hash); err != nil {
			return markDamaged(err)
		}
		return ErrCorrupted
	}
	return f.setModeAndTime(name)
}
