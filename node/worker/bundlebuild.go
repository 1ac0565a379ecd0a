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

	"mlfnode/grid"
	"mlfnode/node/durable"
	"mlfnode/projects"
)

func (b *bundles) build(
	ctx context.Context, r *grid.Sweep, image string, setup func(string) error, uses *pinnedFolders,
) ([]folderEntry, error) {
	if err := os.MkdirAll(b.cacheDir(), 0o700); err != nil {
		return nil, fmt.Errorf("the cache folder could not be created: %w", err)
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

// buildFromInputs sets up a project whose setup step reads only some of its files: the step runs
// again only when one of these has changed. Attempts get what it leaves, its inputs included, over
// the other files of the project.
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

// splitSharedFolders expands shared folders that are in both lists: attempts then see a folder of
// their own there, with one link for each file or folder in it.
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

// isCovered reports whether the path is taken, or a file or link takes the place of one of its
// parent folders.
func isCovered(made map[string]fs.FileMode, name string) bool {
	_, there := made[name]
	for dir := filepath.Dir(name); dir != "." && !there; dir = filepath.Dir(dir) {
		mode, found := made[dir]
		there = found && !mode.IsDir()
	}
	return there
}

// matchesPath reports whether the patterns match a file, or a folder that it is in.
func matchesPath(patterns *projects.Shared, name string) bool {
	for i, c := range name {
		if c == '/' && patterns.Has(name[:i], true) {
			return true
		}
	}
	return patterns.Has(name, false)
}

// digestOf returns a digest of the files in a folder that the patterns match.
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

// setUp returns a copy of the project's folder, or of those files in it that are inputs, in which
// the setup step has run and what attempts share is read-only. The files keep the times that they
// had when the step ran, so that what it built stays newer than its sources.
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
			return "", fmt.Errorf("the setup folder could not be created: %w", err)
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
			return "", fmt.Errorf("the setup could not be recorded: %w", err)
		}
	}
	return dir, nil
}

// lock returns the token that a goroutine must hold to create the folder of a setup.
func (b *bundles) lock(key string) chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.locks[key] == nil {
		b.locks[key] = make(chan struct{}, 1)
	}
	return b.locks[key]
}

// unpack returns the folder of the sweep's bundle, an empty one when it has none, and the digest of
// its contents.
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

// copyProject recreates dir with the project's files, or with those that are inputs, for a setup
// step to work in.
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

// matchingEntries returns the entries that the patterns match, and the folders that they are in.
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
