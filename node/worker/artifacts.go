package worker

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/klauspost/compress/zstd"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// FileStore is where bundles come from and artifacts go.
type FileStore interface {
	// Bundle returns the content of a bundle, or jetstream.ErrNotFound.
	Bundle(ctx context.Context, digest string) (io.ReadCloser, error)
	// PutArtifacts stores what a run of a trial has left. It may be called again for the same run.
	PutArtifacts(ctx context.Context, id grid.TrialID, run string, r io.Reader) error
}

var _ FileStore = (*jetstream.Store)(nil)

// storeFullTimeout is how long the artifacts of a node wait for room in a store that has reached
// its limit, counted from the first refusal. After that, trials are reported without their
// artifacts, and say so, until some fit again. Somebody must remove sweeps or raise the limit, and
// a sweep can't stand still until they do.
const storeFullTimeout = 5 * time.Minute

// errUploadDeferred says that the next start has to store the artifacts, because the node stops and
// the store does not accept them.
var errUploadDeferred = errors.New("the artifacts are left to the next start")

// artifactUploads stores the artifacts of attempts, and remembers whether the store is full.
type artifactUploads struct {
	cfg *Config

	fullTimeout time.Duration
	abandoned   chan struct{} // closed once no upload waits for the store any more
	abandon     func()

	mu        sync.Mutex
	fullSince time.Time // zero while the store is not full
}

func newArtifactUploads(cfg *Config) *artifactUploads {
	left := make(chan struct{})
	return &artifactUploads{
		cfg: cfg, fullTimeout: storeFullTimeout, abandoned: left, abandon: sync.OnceFunc(func() { close(left) }),
	}
}

// fullTooLong reports whether the store has been full for longer than fullTimeout, as far as the
// result of this attempt to store tells.
func (u *artifactUploads) fullTooLong(err error) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case err == nil:
		u.fullSince = time.Time{}
	case jetstream.IsUnavailable(err): // the store comes back; this does not tell whether it is full
	case u.fullSince.IsZero():
		u.fullSince = time.Now()
	default:
		return time.Since(u.fullSince) >= u.fullTimeout
	}
	return false
}

// store packs everything under $MLF_OUT and the files that the task's patterns match. As long as
// the store does not accept them, because the master is away or the disk is full, it waits: the
// spool keeps them, and the attempt is reported after them. It returns errUploadDeferred when ctx
// or the worker ends first, jetstream.ErrFull after storeFullTimeout, and jetstream.ErrNotFound
// when the master has no such trial.
func (u *artifactUploads) store(ctx context.Context, a *attempt) (grid.FilesRef, error) {
	files, err := a.listArtifacts()
	if err != nil || len(files) == 0 {
		return grid.FilesRef{}, err
	}
	for warned := false; ; warned = true {
		ref, err := u.put(ctx, a, files)
		if errors.Is(err, jetstream.ErrNotFound) { // this does not tell whether the store is full
			return ref, err
		}
		_, unpacked := errors.AsType[*packError](err)
		if u.fullTooLong(err) || err == nil || unpacked || errors.Is(err, jetstream.ErrTooLarge) {
			return ref, err
		}
		if !warned {
			u.cfg.Logger.Warn("artifacts can't be stored yet; their trial waits", "trial", a.id, "err", err)
		}
		select {
		case <-time.After(retryInterval):
			continue
		case <-u.abandoned:
		case <-ctx.Done():
		}
		return grid.FilesRef{}, errUploadDeferred
	}
}

// packError says that the files can't be read, which another try does not change.
type packError struct{ error }

// errUploadAborted ends the packing of artifacts that the store does not accept.
var errUploadAborted = errors.New("the store gave up")

func (u *artifactUploads) put(ctx context.Context, a *attempt, files []artifactFile) (grid.FilesRef, error) {
	r, pack := io.Pipe()
	var ref grid.FilesRef
	packed := make(chan error, 1)
	go func() {
		var err error
		ref, err = packFiles(pack, files)
		pack.CloseWithError(err)
		packed <- err
	}()
	err := u.cfg.Files.PutArtifacts(ctx, a.id, a.run, r)
	r.CloseWithError(errUploadAborted)
	if packErr := <-packed; packErr != nil && !errors.Is(packErr, errUploadAborted) {
		return grid.FilesRef{}, &packError{packErr}
	}
	return ref, err
}

// unkeptFiles counts the files and folders that the program created in its folder although the task
// declares no artifacts. What programs create for themselves does not count: Python's caches, and
// names that begin with a dot.
func (a *attempt) unkeptFiles() (n int) {
	if a.project.names == nil || len(a.task.Artifacts) > 0 {
		return 0
	}
	entries, err := os.ReadDir(a.spool.work)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if name := e.Name(); !a.project.names[name] && name[0] != '.' && name != "__pycache__" {
			n++
		}
	}
	return n
}

// artifactFile is a file to keep.
type artifactFile struct{ path, name string }

func (a *attempt) listArtifacts() ([]artifactFile, error) {
	names := map[string]string{}
	work := os.DirFS(a.spool.work)
	for _, pattern := range a.task.Artifacts {
		if err := grid.CheckPattern(pattern); err != nil { // stored by a version that accepted every pattern
			return nil, err
		}
		matches, err := doublestar.Glob(work, pattern, doublestar.WithFilesOnly(), doublestar.WithNoFollow())
		if err != nil {
			return nil, fmt.Errorf("match %s: %w", pattern, err)
		}
		for _, m := range matches {
			names[m] = filepath.Join(a.spool.work, m)
		}
	}
	err := filepath.WalkDir(a.spool.out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(a.spool.out, path)
		names[name] = path
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list $MLF_OUT: %w", err)
	}
	files := make([]artifactFile, 0, len(names))
	for name, path := range names {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			files = append(files, artifactFile{path, name})
		}
	}
	slices.SortFunc(files, func(x, y artifactFile) int { return strings.Compare(x.name, y.name) })
	return files, nil
}

func packFiles(w io.Writer, files []artifactFile) (grid.FilesRef, error) {
	var ref grid.FilesRef
	z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		return ref, fmt.Errorf("start compression: %w", err)
	}
	t := tar.NewWriter(z)
	for _, f := range files {
		n, err := packFile(t, f)
		if err != nil {
			return ref, fmt.Errorf("pack %s: %w", f.name, err)
		}
		ref.Count++
		ref.Bytes += n
	}
	return ref, errors.Join(t.Close(), z.Close())
}

func packFile(t *tar.Writer, f artifactFile) (int64, error) {
	in, err := os.Open(f.path)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return 0, err
	}
	h := &tar.Header{
		Name: filepath.ToSlash(f.name), Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime(),
		Format: tar.FormatPAX,
	}
	if err := t.WriteHeader(h); err != nil {
		return 0, err
	}
	return io.CopyN(t, in, info.Size())
}
