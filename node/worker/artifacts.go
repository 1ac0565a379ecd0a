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
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/klauspost/compress/zstd"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// storeArtifacts packs everything under $MLF_OUT and the files that the task's patterns name. While the disk can't be written
// it waits, as other reports do.
func (w *Worker) storeArtifacts(a *attempt) (grid.FilesRef, error) {
	files, err := a.artifacts()
	if err != nil || len(files) == 0 {
		return grid.FilesRef{}, err
	}
	for {
		// Artifacts of an ended attempt are stored even while the node stops.
		ref, err := w.putArtifacts(context.Background(), a, files)
		if !errors.Is(err, jetstream.ErrDisk) {
			return ref, err
		}
		w.log.Debug("artifacts wait for the disk", "trial", a.id, "err", err)
		wait := time.NewTimer(retryInterval)
		select {
		case <-wait.C:
		case <-w.outbox.closed:
			wait.Stop()
			return grid.FilesRef{}, errClosed // with the attempt's report, these are left to the next start
		}
	}
}

func (w *Worker) putArtifacts(ctx context.Context, a *attempt, files []found) (grid.FilesRef, error) {
	r, pack := io.Pipe()
	var ref grid.FilesRef
	packed := make(chan error, 1)
	go func() {
		var err error
		ref, err = packFiles(pack, files)
		pack.CloseWithError(err)
		packed <- err
	}()
	err := w.cfg.Store.Artifacts.Put(ctx, a.id.ArtifactName(a.run), r, nil)
	r.CloseWithError(errors.New("store gave up"))
	if packErr := <-packed; err == nil {
		err = packErr
	}
	return ref, err
}

// found is a file to keep.
type found struct{ path, name string }

func (a *attempt) artifacts() ([]found, error) {
	names := map[string]string{}
	work := os.DirFS(a.spool.work())
	for _, pattern := range a.task.Artifacts {
		matches, err := doublestar.Glob(work, pattern, doublestar.WithFilesOnly(), doublestar.WithNoFollow())
		if err != nil {
			return nil, fmt.Errorf("match %s: %w", pattern, err)
		}
		for _, m := range matches {
			names[m] = filepath.Join(a.spool.work(), m)
		}
	}
	err := filepath.WalkDir(a.spool.out(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(a.spool.out(), path)
		names[name] = path
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list $MLF_OUT: %w", err)
	}
	files := make([]found, 0, len(names))
	for name, path := range names {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			files = append(files, found{path, name})
		}
	}
	slices.SortFunc(files, func(x, y found) int { return strings.Compare(x.name, y.name) })
	return files, nil
}

func packFiles(w io.Writer, files []found) (grid.FilesRef, error) {
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

func packFile(t *tar.Writer, f found) (int64, error) {
	in, err := os.Open(f.path)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return 0, err
	}
	h := &tar.Header{Name: filepath.ToSlash(f.name), Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime(), Format: tar.FormatPAX}
	if err := t.WriteHeader(h); err != nil {
		return 0, err
	}
	return io.CopyN(t, in, info.Size())
}
