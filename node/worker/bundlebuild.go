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

// preparation is the preparation of a project for the trials of a sweep.
type preparation struct {
	*bundles
	sweep   *grid.Sweep
	image   string                 // on which its setup step depends
	setup   func(dir string) error // runs the setup step
	folders []string               // those that may not be removed meanwhile
}

// pin keeps a folder from being removed, whether it exists already or not.
func (pr *preparation) pin(folder string) {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.useCounts[folder]++
	pr.folders = append(pr.folders, folder)
}

// build unpacks the project, runs its setup step if this node has not done so yet, and lists what
// attempts get.
func (pr *preparation) build(ctx context.Context) ([]folderEntry, error) {
	if err := os.MkdirAll(pr.cacheDir, 0o700); err != nil {
		return nil, fmt.Errorf("the cache folder could not be created: %w", err)
	}
	dir, contents, err := pr.unpack(ctx)
	if err != nil {
		return nil, err
	}
	links, err := linkEntries(pr.sweep.Task.Links)
	if err != nil {
		return nil, err
	}
	t := pr.sweep.Task
	if t.Inputs, err = projects.VenvInputs(dir, &t); err != nil {
		return nil, &setupError{class: grid.ClassExit, reason: "the setup step failed: " + err.Error()}
	}
	if len(t.Setup) > 0 && len(t.Inputs) > 0 {
		entries, err := pr.buildFromInputs(ctx, &t, dir, contents)
		return append(entries, links...), err
	}
	share := projects.NewShared(t.Share)
	if len(t.Setup) > 0 || share != nil {
		if dir, err = pr.setUp(ctx, dir, setupKey(contents, &t, pr.image), &t, nil); err != nil {
			return nil, err
		}
		pr.unpin(slices.DeleteFunc(pr.folders, func(folder string) bool { return folder == dir }))
		pr.folders = []string{dir}
	}
	entries, err := listFolder(dir, share)
	return append(entries, links...), err
}

// buildFromInputs sets up a project whose setup step reads only some of its files: the step runs
// again only when one of these has changed. Attempts get what it leaves, its inputs included, over
// the other files of the project.
func (pr *preparation) buildFromInputs(
	ctx context.Context, t *grid.Task, dir, contents string,
) ([]folderEntry, error) {
	inputs := projects.NewInputs(t.Inputs)
	if inputs == nil {
		return nil, &setupError{class: grid.ClassStart, reason: "the inputs of the setup step name no file"}
	}
	read, err := digestOf(dir, inputs)
	if err != nil {
		return nil, fmt.Errorf("the files that the setup step reads can't be found: %w", err)
	}
	place, err := pr.setUp(ctx, dir, setupKey(read, t, pr.image), t, inputs)
	if err != nil {
		return nil, err
	}
	share := projects.NewShared(t.Share)
	files, err := listFolder(dir, share)
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(files, folderEntry.isShared) {
		alone := *t
		alone.Setup, alone.Inputs = nil, nil
		if dir, err = pr.setUp(ctx, dir, setupKey(contents, &alone, ""), &alone, nil); err != nil {
			return nil, err
		}
		if files, err = listFolder(dir, share); err != nil {
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
		e := &files[i]
		// The path may be taken, or a file or link may take the place of one of its parent folders.
		_, covered := made[e.path]
		for dir := filepath.Dir(e.path); dir != "." && !covered; dir = filepath.Dir(dir) {
			mode, found := made[dir]
			covered = found && !mode.IsDir()
		}
		if !covered && (e.mode.IsDir() || !matchesPath(inputs, e.path)) {
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
func (pr *preparation) setUp(
	ctx context.Context, pristine, key string, t *grid.Task, inputs *projects.Shared,
) (string, error) {
	dir := filepath.Join(pr.dir, "setups", key)
	pr.pin(dir)
	pr.mu.Lock()
	one := pr.locks[key] // another bundle may have the same contents
	if one == nil {
		one = make(chan struct{}, 1)
		pr.locks[key] = one
	}
	pr.mu.Unlock()
	select {
	case one <- struct{}{}:
		defer func() { <-one }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	if exists(dir) && exists(dir+setupDoneSuffix) {
		return dir, nil
	}
	entries, err := listFolder(pristine, nil)
	if inputs != nil {
		entries = matchingEntries(entries, inputs)
	}
	if err == nil {
		err = projects.RemoveTree(dir)
	}
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = fillFolder(dir, entries)
	}
	if err != nil {
		return "", fmt.Errorf("the setup folder could not be created: %w", err)
	}
	if len(t.Setup) > 0 {
		if err := pr.setup(dir); err != nil {
			return "", err
		}
	}
	if err = makeReadOnly(dir, projects.NewShared(t.Share)); err == nil {
		err = durable.SyncFileSystem(dir)
	}
	if err == nil {
		err = durable.WriteFile(dir+setupDoneSuffix, []byte("set up\n"), 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("the setup could not be recorded: %w", err)
	}
	return dir, nil
}

// unpack returns the folder of the sweep's bundle, an empty one when it has none, and the digest of
// its contents.
func (pr *preparation) unpack(ctx context.Context) (dir, contents string, err error) {
	digest := pr.sweep.Bundle
	if digest == "" {
		dir := filepath.Join(pr.dir, "empty")
		return dir, "", os.MkdirAll(dir, 0o700)
	}
	pr.pin(filepath.Join(pr.dir, "bundles", digest))
	dir, contents, err = pr.cache.Open(digest, func(w io.Writer) error {
		f, err := pr.fetch(ctx, digest)
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
