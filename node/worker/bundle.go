package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/durable"
	"mlfnode/node/executor"
	"mlfnode/projects"
)

// largeFile is the size from which a bundle's file is shown to attempts as a link to the read-only copy in the cache: every
// attempt gets its own copy of smaller ones.
const largeFile = 16 << 20

// setupDone is the ending of the file that says that the setup of this name is whole.
const setupDone = ".ok"

// bundles prepares projects on this node: unpacked once for each digest, set up once for each digest and setup step.
type bundles struct {
	dir   string
	cache *projects.Cache
	store *jetstream.Objects

	mu       sync.Mutex
	prepared map[string]*prepared
}

// prepared is a project that attempts can be given. done is closed when entries and err are final.
type prepared struct {
	done    chan struct{}
	entries []entry
	err     error
}

// entry is a file, folder or link that an attempt's folder gets.
type entry struct {
	path string // relative
	mode fs.FileMode
	from string // file to copy or to link to
	link string // target of a symlink
}

// shared is the folder that setup steps and programs of all sweeps may keep things in: $MLF_CACHE.
func (b *bundles) shared() string { return filepath.Join(b.dir, "cache") }

// prepare fills the attempt's folder with the project, after unpacking it and running its setup if this node has not yet.
func (w *Worker) prepare(s *sweep, slot executor.Slot, a *attempt) error {
	r := s.record
	if r.Bundle == "" && len(r.Task.Setup) == 0 {
		return nil
	}
	p, err := w.bundles.of(s.ctx, r, func(dir string) error { return w.setup(s, slot, a, dir) })
	if err != nil {
		return err
	}
	for i := range p.entries {
		if err := p.entries[i].place(a.spool.work()); err != nil {
			return fmt.Errorf("the attempt's folder could not be filled: %w", err)
		}
	}
	return nil
}

// of gives the prepared project of a sweep. The first caller prepares it, others wait. A failure is not kept: the attempt
// that comes after it tries again.
func (b *bundles) of(ctx context.Context, r *grid.Sweep, setup func(dir string) error) (*prepared, error) {
	key := setupKey(r)
	b.mu.Lock()
	p := b.prepared[key]
	mine := p == nil
	if mine {
		p = &prepared{done: make(chan struct{})}
		b.prepared[key] = p
	}
	b.mu.Unlock()
	if mine {
		p.entries, p.err = b.make(ctx, r, key, setup)
		if p.err != nil {
			b.mu.Lock()
			delete(b.prepared, key)
			b.mu.Unlock()
		}
		close(p.done)
	}
	select {
	case <-p.done:
		return p, p.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (b *bundles) make(ctx context.Context, r *grid.Sweep, key string, setup func(string) error) ([]entry, error) {
	if err := os.MkdirAll(b.shared(), 0o700); err != nil {
		return nil, fmt.Errorf("the cache folder could not be made: %w", err)
	}
	pristine, err := b.unpack(ctx, r)
	if err != nil {
		return nil, err
	}
	if len(r.Task.Setup) == 0 {
		return list(pristine, pristine)
	}
	dir := filepath.Join(b.dir, "setups", key)
	if _, err := os.Stat(dir + setupDone); err != nil {
		if err := copyProject(pristine, dir); err != nil {
			return nil, fmt.Errorf("the setup folder could not be made: %w", err)
		}
		if err := setup(dir); err != nil {
			return nil, err
		}
		err := syncAll(dir)
		if err == nil {
			err = durable.WriteFile(dir+setupDone, []byte("set up\n"), 0o600)
		}
		if err != nil {
			return nil, fmt.Errorf("the setup could not be noted: %w", err)
		}
	}
	used(dir + setupDone)
	return list(dir, pristine)
}

// unpack gives the folder of the sweep's bundle, an empty one when it has none.
func (b *bundles) unpack(ctx context.Context, r *grid.Sweep) (string, error) {
	if r.Bundle == "" {
		dir := filepath.Join(b.dir, "empty")
		return dir, os.MkdirAll(dir, 0o700)
	}
	dir, err := b.cache.Open(r.Bundle, func(w io.Writer) error {
		f, err := b.store.Open(ctx, r.Bundle)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("the project's bundle could not be unpacked: %w", err)
	}
	used(dir)
	return dir, nil
}

// copyProject makes dir anew with the project's files, writable, for a setup step to work in.
func copyProject(pristine, dir string) error {
	if err := removeTree(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := list(pristine, pristine)
	if err != nil {
		return err
	}
	for i := range entries {
		if err := entries[i].place(dir); err != nil {
			return err
		}
	}
	return nil
}

// list walks dir. A folder that the pristine project does not have was made by the setup: it is shown as a link, so that a
// virtual environment is not copied for every attempt.
func list(dir, pristine string) ([]entry, error) {
	var entries []entry
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e := entry{path: rel, mode: info.Mode(), from: path}
		switch {
		case d.Type() == fs.ModeSymlink:
			e.link, err = os.Readlink(path)
		case d.IsDir() && !exists(filepath.Join(pristine, rel)):
			e.link, e.mode = path, fs.ModeSymlink
			entries = append(entries, e)
			return fs.SkipDir
		}
		entries = append(entries, e)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the project's files: %w", err)
	}
	return entries, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// place puts the entry into a folder.
func (e *entry) place(dir string) error {
	path := filepath.Join(dir, e.path)
	switch {
	case e.mode.IsDir():
		return os.Mkdir(path, 0o755)
	case e.mode.Type() == fs.ModeSymlink:
		return os.Symlink(e.link, path)
	case !e.mode.IsRegular():
		return nil
	}
	info, err := os.Stat(e.from)
	if err != nil {
		return err
	}
	if info.Size() >= largeFile {
		return os.Symlink(e.from, path)
	}
	return copyFile(e.from, path, 0o644|e.mode.Perm()&0o111)
}

// copyFile lets the kernel share blocks where the file system can.
func copyFile(from, to string, perm fs.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
