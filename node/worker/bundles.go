package worker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
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

	"mlfnode/grid"
	"mlfnode/node/durable"
	"mlfnode/node/executor"
	"mlfnode/projects"
)

// setupDone is the ending of the file that says that the setup of this name is whole.
const setupDoneSuffix = ".ok"

// bundles prepares projects on this node: unpacked once for each digest, set up once for each digest and setup step.
type bundles struct {
	dir   string
	cache *projects.Cache
	fetch func(ctx context.Context, digest string) (io.ReadCloser, error)

	isActive func(grid.SweepID) bool // reports whether trials of a sweep may begin; nil: they may

	limit     int64         // bytes of bundles and setups that are kept; 0 is defaultShare of the disk
	evictSoon chan struct{} // holds a token when there is something new

	mu        sync.Mutex
	prepared  map[string]*preparedProject
	locks     map[string]chan struct{} // of the folders of setups
	useCounts map[string]int           // the folders that may not be removed, with how many use them
	sizes     map[string]int64         // of folders, as far as they are known
}

// prepared is a project that attempts can be given. done is closed when entries, names, folders and err are final.
type preparedProject struct {
	done      chan struct{}
	entries   []folderEntry
	names     map[string]bool // of what lies in the attempt's folder itself
	folders   []string        // that entries lie in
	err       error
	touchedAt time.Time      // when it was last recorded that trials use the folders; guarded by bundles
	sweeps    []grid.SweepID // those that have asked for it and may be active; guarded by bundles

	failures int       // of its setup step on this node, in a row
	retryAt  time.Time // before that, a setup step that failed does not run again; guarded by bundles
	stopped  bool      // the attempt that prepared it was stopped, which says nothing of others
}

// shared is the folder that setup steps and programs of all sweeps may keep things in: $MLF_CACHE.
func (b *bundles) cacheDir() string { return b.dir + "/cache" }

// prepare fills the attempt's folder with the project, after unpacking it and running its setup if this node has not yet.
func (tr *trialRunner) prepare(s *sweep, slot executor.Slot, a *attempt) error {
	r := s.record
	if bundle := r.BundleOf(a.id.Index); bundle != r.Bundle {
		updated := *r
		updated.Bundle = bundle
		r = &updated
	}
	if r.Bundle == "" && len(r.Task.Setup) == 0 && len(r.Task.Links) == 0 {
		a.initialNames = map[string]bool{}
		return nil
	}
	image := tr.containers.setupImage(r, a.image)
	p, err := tr.bundles.get(s.ctx, r, image, func(dir string) error { return tr.runSetup(s, slot, a, dir) })
	if err != nil {
		return err
	}
	if len(r.Task.Share) > 0 {
		a.sharedFolders = p.folders
	} else {
		defer tr.bundles.unpin(p.folders)
	}
	if err := fillFolder(a.spool.work, p.entries); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			tr.bundles.invalidate(setupKey(r.Bundle, &r.Task, image), r.Bundle, p, len(r.Task.Share) > 0)
		}
		return fmt.Errorf("the attempt's folder could not be filled: %w", err)
	}
	a.initialNames = p.names
	return nil
}

// topNames are the names of entries that lie in no folder, and of the folders that the others lie in.
func topNames(entries []folderEntry) map[string]bool {
	names := map[string]bool{}
	for i := range entries {
		name, _, _ := strings.Cut(entries[i].path, "/")
		names[name] = true
	}
	return names
}

// of gives the prepared project of a sweep, whose folders stay until the caller releases them. The first caller prepares it, others wait. A setup step that fails is the failure of the
// attempt that ran it, and of no other: it is remembered, and those who come or wait meanwhile go on to do so until it may be tried
// again, by one of them, or the sweep is not active any more. What else goes wrong is not kept. One that was stopped meanwhile says nothing of
// the project: another one goes on.
func (b *bundles) get(ctx context.Context, r *grid.Sweep, image string, setup func(dir string) error) (*preparedProject, error) {
	key := setupKey(r.Bundle, &r.Task, image)
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		p, mine, ready := b.claimPreparation(key, r.ID)
		if ready {
			return p, nil
		}
		if mine {
			uses := &pinnedFolders{bundles: b}
			p.entries, p.err = b.build(ctx, r, image, setup, uses)
			p.names = topNames(p.entries)
			p.stopped = p.err != nil && ctx.Err() != nil
			if p.folders = uses.folders; p.err != nil {
				b.unpin(p.folders)
			}
			b.recordPreparation(key, p)
			close(p.done)
			return p, p.err
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if p.stopped || p.err == nil {
			continue
		}
		if p.failures == 0 {
			return p, p.err
		}
		if err := b.awaitRetry(ctx, r.ID, p); err != nil {
			return nil, err
		}
	}
}

// claim gives what is ready under this key, with its folders for the caller to use and to release, or what is being prepared, or has the
// caller prepare it.
func (b *bundles) claimPreparation(key string, id grid.SweepID) (p *preparedProject, mine, ready bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, now := b.prepared[key], time.Now()
	if old != nil && !slices.Contains(old.sweeps, id) {
		old.sweeps = append(old.sweeps, id)
	}
	if old.isReady() {
		if old.foldersExist() {
			b.pinLocked(old, now)
			return old, false, true
		}
	} else if old != nil && (old.retryAt.IsZero() || now.Before(old.retryAt)) {
		return old, false, false
	}
	p = &preparedProject{done: make(chan struct{}), sweeps: []grid.SweepID{id}}
	if old != nil {
		p.failures, p.sweeps = old.failures, old.sweeps
	}
	b.prepared[key] = p
	return p, true, false
}

const (
	// setupPause is the wait before a setup step that failed runs again on this node. It doubles each time, up to longestSetupPause.
	setupRetryDelay    = 2 * time.Second
	maxSetupRetryDelay = time.Minute
	// setupLook is how often it is looked whether it may run again.
	setupRetryPoll = 100 * time.Millisecond
)

// settle remembers the failure of a setup step, and forgets any other.
func (b *bundles) recordPreparation(key string, p *preparedProject) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var failed *setupError
	switch {
	case p.err == nil:
		p.failures, p.touchedAt = 0, time.Now()
		touchFolders(p.folders, p.touchedAt)
		select {
		case b.evictSoon <- struct{}{}:
		default:
		}
	case !p.stopped && errors.As(p.err, &failed) && failed.class != grid.ClassNode:
		p.retryAt = time.Now().Add(min(setupRetryDelay<<min(p.failures, 16), maxSetupRetryDelay))
		p.failures++
	default:
		p.failures = 0
		delete(b.prepared, key)
	}
}

// errInactive is for an attempt that has waited for a setup until its sweep was paused or had ended.
var errInactive = errors.New("the sweep was stopped before the trial began")

// awaitAgain waits until a setup step that failed may run again.
func (b *bundles) awaitRetry(ctx context.Context, id grid.SweepID, p *preparedProject) error {
	tick := time.NewTicker(setupRetryPoll)
	defer tick.Stop()
	for {
		if b.isActive != nil && !b.isActive(id) {
			return errInactive
		}
		b.mu.Lock()
		over := time.Now().After(p.retryAt)
		b.mu.Unlock()
		if over {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// retry lets the setup of a sweep run again at once, if it failed: its user has changed the sweep, or had it go on.
func (b *bundles) allowRetry(r *grid.Sweep, image string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p := b.prepared[setupKey(r.Bundle, &r.Task, image)]; p != nil && !p.retryAt.IsZero() {
		p.retryAt = time.Now()
	}
}

func (b *bundles) build(ctx context.Context, r *grid.Sweep, image string, setup func(string) error, uses *pinnedFolders) ([]folderEntry, error) {
	if err := os.MkdirAll(b.cacheDir(), 0o700); err != nil {
		return nil, fmt.Errorf("the cache folder could not be made: %w", err)
	}
	dir, contents, err := b.unpack(ctx, r, uses)
	if err != nil {
		return nil, err
	}
	links, err := linkEntries(r.Task.Links)
	if err != nil {
		return nil, err
	}
	t := r.Task
	if t.Inputs, err = projects.VenvInputs(dir, &r.Task); err != nil {
		return nil, &setupError{class: grid.ClassExit, reason: "the setup step failed: " + err.Error()}
	}
	if len(t.Setup) > 0 && len(t.Inputs) > 0 {
		entries, err := b.buildFromInputs(ctx, &t, image, dir, contents, setup, uses)
		return append(entries, links...), err
	}
	share := projects.NewShared(t.Share)
	if len(t.Setup) > 0 || share != nil {
		if dir, err = b.setUp(ctx, dir, setupKey(contents, &t, image), &t, nil, setup, uses); err != nil {
			return nil, err
		}
		uses.unpinOthers(dir)
	}
	entries, err := listFolder(dir, share)
	return append(entries, links...), err
}

// makeOfInputs sets up a project whose setup step reads only some of its files: it runs again when one of these has changed. Attempts
// get what it leaves, its inputs among it, over the other files of the project.
func (b *bundles) buildFromInputs(ctx context.Context, t *grid.Task, image, dir, contents string, setup func(string) error,
	uses *pinnedFolders) ([]folderEntry, error) {
	inputs := projects.NewInputs(t.Inputs)
	if inputs == nil {
		return nil, &setupError{class: grid.ClassStart, reason: "the inputs of the setup step name no file"}
	}
	read, err := digestOf(dir, inputs)
	if err != nil {
		return nil, fmt.Errorf("the files that the setup step reads can't be found: %w", err)
	}
	place, err := b.setUp(ctx, dir, setupKey(read, t, image), t, inputs, setup, uses)
	if err != nil {
		return nil, err
	}
	share := projects.NewShared(t.Share)
	files, err := listFolder(dir, share)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(files, folderEntry.isShared) {
		files = nil
		alone := *t
		alone.Setup, alone.Inputs = nil, nil
		if dir, err = b.setUp(ctx, dir, setupKey(contents, &alone, ""), &alone, nil, setup, uses); err == nil {
			files, err = listFolder(dir, share)
		}
		if err != nil {
			return nil, err
		}
	}
	results, err := listFolder(place, share)
	if err != nil {
		return nil, err
	}
	if results, files, err = splitSharedFolders(results, files); err != nil {
		return nil, err
	}
	made := map[string]fs.FileMode{}
	for i := range results {
		made[results[i].path] = results[i].mode
	}
	for i := range files {
		if e := &files[i]; !isCovered(made, e.path) && (e.mode.IsDir() || !matchesPath(inputs, e.path)) {
			results = append(results, *e)
		}
	}
	slices.SortFunc(results, func(x, y folderEntry) int { return cmp.Compare(x.path, y.path) })
	return results, nil
}

// separate takes shared folders apart that are in both lists: attempts then see a folder of their own there, with one link for each file or
// folder in it.
func splitSharedFolders(over, under []folderEntry) ([]folderEntry, []folderEntry, error) {
	for {
		both := map[string]bool{}
		for i := range over {
			both[over[i].path] = over[i].isSharedFolder()
		}
		common := map[string]bool{}
		for i := range under {
			if e := &under[i]; both[e.path] && e.isSharedFolder() {
				common[e.path] = true
			}
		}
		if len(common) == 0 {
			return over, under, nil
		}
		for _, list := range []*[]folderEntry{&over, &under} {
			var all []folderEntry
			for _, e := range *list {
				if !common[e.path] {
					all = append(all, e)
					continue
				}
				parts, err := e.expand()
				if err != nil {
					return nil, nil, err
				}
				all = append(all, parts...)
			}
			*list = all
		}
	}
}

// covered reports whether something is at a path, or a file or link at one of the folders that it is in.
func isCovered(made map[string]fs.FileMode, name string) bool {
	_, there := made[name]
	for dir := filepath.Dir(name); dir != "." && !there; dir = filepath.Dir(dir) {
		mode, found := made[dir]
		there = found && !mode.IsDir()
	}
	return there
}

// named reports whether patterns name a file, or a folder that it is in.
func matchesPath(patterns *projects.Shared, name string) bool {
	for i, c := range name {
		if c == '/' && patterns.Has(name[:i], true) {
			return true
		}
	}
	return patterns.Has(name, false)
}

// digestOf names the contents of some files of a folder.
func digestOf(dir string, some *projects.Shared) (string, error) {
	entries, err := listFolder(dir, nil)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for i := range entries {
		e := &entries[i]
		if e.mode.IsDir() || !matchesPath(some, e.path) {
			continue
		}
		fmt.Fprintf(sum, "%q %o %q %d\n", e.path, e.mode.Perm()&0o111, e.link, e.size)
		if e.mode.IsRegular() {
			f, err := os.Open(e.source)
			if err != nil {
				return "", err
			}
			_, err = io.Copy(sum, f)
			if err = errors.Join(err, f.Close()); err != nil {
				return "", err
			}
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// setUp gives a copy of the project's folder, or of those files in it that are inputs, in which the setup step has run and what attempts share can't be written. The files
// have the times that they had when it ran, so that what it built stays newer than what it was built from.
func (b *bundles) setUp(ctx context.Context, pristine, key string, t *grid.Task, inputs *projects.Shared, setup func(string) error,
	uses *pinnedFolders) (string, error) {
	dir := filepath.Join(b.dir, "setups", key)
	uses.pin(dir)
	one := b.lock(key) // another bundle may have the same contents
	select {
	case one <- struct{}{}:
		defer func() { <-one }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if !exists(dir) || !exists(dir+setupDoneSuffix) {
		if err := copyProject(pristine, dir, inputs); err != nil {
			return "", fmt.Errorf("the setup folder could not be made: %w", err)
		}
		if len(t.Setup) > 0 {
			if err := setup(dir); err != nil {
				return "", err
			}
		}
		err := makeReadOnly(dir, projects.NewShared(t.Share))
		if err == nil {
			err = durable.SyncFileSystem(dir)
		}
		if err == nil {
			err = durable.WriteFile(dir+setupDoneSuffix, []byte("set up\n"), 0o600)
		}
		if err != nil {
			return "", fmt.Errorf("the setup could not be noted: %w", err)
		}
	}
	return dir, nil
}

// lock gives what only one at a time may hold to make the folder of a setup.
func (b *bundles) lock(key string) chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.locks[key] == nil {
		b.locks[key] = make(chan struct{}, 1)
	}
	return b.locks[key]
}

// unpack gives the folder of the sweep's bundle, an empty one when it has none, and the digest of its contents.
func (b *bundles) unpack(ctx context.Context, r *grid.Sweep, uses *pinnedFolders) (dir, contents string, err error) {
	if r.Bundle == "" {
		dir := filepath.Join(b.dir, "empty")
		return dir, "", os.MkdirAll(dir, 0o700)
	}
	uses.pin(filepath.Join(b.dir, "bundles", r.Bundle))
	dir, contents, err = b.cache.Open(r.Bundle, func(w io.Writer) error {
		f, err := b.fetch(ctx, r.Bundle)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
	if err != nil {
		return "", "", fmt.Errorf("the project's bundle could not be unpacked: %w", err)
	}
	return dir, contents, nil
}

// copyProject recreates dir with the project's files, or those that are inputs, for a setup step to work in.
func copyProject(pristine, dir string, inputs *projects.Shared) error {
	if err := removeTree(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := listFolder(pristine, nil)
	if err != nil {
		return err
	}
	if inputs != nil {
		entries = matchingEntries(entries, inputs)
	}
	return fillFolder(dir, entries)
}

// onlyNamed gives the entries that patterns name, and the folders that they are in.
func matchingEntries(entries []folderEntry, patterns *projects.Shared) []folderEntry {
	folders := map[string]bool{}
	for i := range entries {
		if e := &entries[i]; !e.mode.IsDir() && matchesPath(patterns, e.path) {
			for dir := filepath.Dir(e.path); dir != "."; dir = filepath.Dir(dir) {
				folders[dir] = true
			}
		}
	}
	return slices.DeleteFunc(entries, func(e folderEntry) bool {
		return e.mode.IsDir() && !folders[e.path] || !e.mode.IsDir() && !matchesPath(patterns, e.path)
	})
}
