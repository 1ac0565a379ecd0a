package worker

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
	"mlfnode/node/poll"
	"mlfnode/projects"
)

const (
	// maxUnusedAge is how long a node keeps unpacked bundles and setups that no trial uses.
	maxUnusedAge = 14 * 24 * time.Hour
	// defaultCacheShare is the share of the disk that they may fill; the least recently used ones
	// go first. Those that trials have used within recentUse stay nevertheless: building them again
	// for each trial would take longer than the trials. That does not hold on a disk with less than
	// nearlyFull free.
	defaultCacheShare = 0.1
	recentUse         = time.Hour
	nearlyFull        = 0.05
	// evictInterval is the pause between evictions. New folders trigger one sooner.
	evictInterval = time.Hour
	// touchInterval is how often the use of a folder is recorded.
	touchInterval = time.Minute
	// removedPrefix marks folders that are being removed.
	removedPrefix = ".gone-"
	// bootIDFile changes with each start of the machine.
	bootIDFile = "/proc/sys/kernel/random/boot_id"
)

// removeUnsynced removes all bundles after a start of the machine: they are not synced when they
// are unpacked, so a power cut can have left files without content.
func removeUnsynced(dir, boot string) error {
	was, err := os.ReadFile(filepath.Join(dir, "boot"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(was) == boot {
		return nil
	}
	if err := projects.RemoveTree(filepath.Join(dir, "bundles")); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, "boot"), []byte(boot), 0o600)
}

func newBundles(
	dir string, cache *projects.Cache, fetch func(context.Context, string) (io.ReadCloser, error), limit int64,
) *bundles {
	return &bundles{
		dir: dir, cacheDir: dir + "/cache", cache: cache, fetch: fetch, limit: limit, evictSoon: poll.NewSignal(),
		prepared: map[string]*preparedProject{}, locks: map[string]chan struct{}{}, useCounts: map[string]int{},
		sizes: map[string]int64{},
	}
}

// allFolders is the key in bundles.useCounts that stands for all folders.
const allFolders = ""

// pinAll keeps all folders until the caller unpins them, for an attempt of an earlier agent whose
// folders are not known.
func (b *bundles) pinAll() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.useCounts[allFolders]++
	return []string{allFolders}
}

// unpin ends the use of folders.
func (b *bundles) unpin(folders []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range folders {
		if b.useCounts[f]--; b.useCounts[f] <= 0 {
			delete(b.useCounts, f)
		}
	}
}

// invalidate makes a project that has lost files be prepared again, starting from its bundle. One
// that attempts see in place stays as it is while others than the caller use it.
func (b *bundles) invalidate(key, bundle string, p *preparedProject, inPlace bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	shared := func(f string) bool { return b.useCounts[f] > 1 }
	if inPlace && (b.useCounts[allFolders] > 0 || slices.ContainsFunc(p.folders, shared)) {
		return
	}
	if b.prepared[key] == p {
		delete(b.prepared, key)
	}
	for _, f := range append(slices.Clone(p.folders), filepath.Join(b.dir, "bundles", bundle)) {
		// without these files they don't count as complete
		_ = errors.Join(os.RemoveAll(f+setupDoneSuffix), os.RemoveAll(f+projects.ContentsSuffix))
	}
}

// isReady reports whether the project can be given to attempts.
func (p *preparedProject) isReady() bool {
	return p != nil && poll.Closed(p.done) && p.err == nil
}

// foldersExist reports whether the project's folders are still there.
func (p *preparedProject) foldersExist() bool {
	return !slices.ContainsFunc(p.folders, func(folder string) bool { return !exists(folder) })
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// touchFolders records when trials used folders. If that fails, they are built again sooner.
func touchFolders(folders []string, now time.Time) {
	for _, f := range folders {
		if os.Chtimes(f+setupDoneSuffix, now, now) != nil {
			_ = os.Chtimes(f, now, now)
		}
	}
}

// runEviction evicts bundles and setups from time to time, until ctx ends.
func (b *bundles) runEviction(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(evictInterval)
	defer tick.Stop()
	for {
		if err := b.evict(time.Now()); err != nil {
			log.Warn("unpacked projects could not be removed", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-b.evictSoon:
		}
	}
}

// cachedFolder is an unpacked bundle or a setup.
type cachedFolder struct {
	path string
	used time.Time
	size int64
}

// evict removes bundles and setups that no trial has used for a long time, and the least recently
// used ones while all together exceed the limit. Folders in use stay. Folders that were used
// recently, or that active sweeps have prepared, go for the sake of the limit only on a disk that
// is nearly full, or not at all.
func (b *bundles) evict(now time.Time) error {
	folders, err := b.listCached()
	d, diskErr := readDiskUsage(b.dir)
	errs := []error{err, diskErr}
	limit := cmp.Or(b.limit, d.defaultCacheLimit())
	recent := now.Add(-recentUse)
	if float64(d.free) < float64(d.size)*nearlyFull {
		recent = now
	}
	wanted := b.activeFolders(now)
	var sum int64
	for _, f := range folders {
		sum += f.size
	}
	slices.SortFunc(folders, func(x, y cachedFolder) int {
		return cmp.Or(x.used.Compare(y.used), cmp.Compare(x.path, y.path))
	})
	for _, f := range folders {
		if f.used.After(now.Add(-maxUnusedAge)) && (sum <= limit || f.used.After(recent) || wanted[f.path]) {
			continue
		}
		removed, err := b.remove(f.path)
		errs = append(errs, err)
		if removed {
			sum -= f.size
		}
	}
	return errors.Join(errs...)
}

// defaultCacheLimit is how much of the disk bundles and setups may fill by default. A file system
// that does not report its size sets no limit.
func (d diskUsage) defaultCacheLimit() int64 {
	if d.size <= 0 {
		return math.MaxInt64
	}
	return int64(float64(d.size) * defaultCacheShare)
}

// activeFolders returns the folders of sweeps whose trials may start. It forgets failed setup steps
// that no sweep needs any more.
func (b *bundles) activeFolders(now time.Time) map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	over := func(id grid.SweepID) bool { return b.isActive != nil && !b.isActive(id) }
	folders := map[string]bool{}
	for key, p := range b.prepared {
		if !p.retryAt.IsZero() && now.Sub(p.retryAt) > evictInterval {
			delete(b.prepared, key)
			continue
		}
		p.sweeps = slices.DeleteFunc(p.sweeps, over)
		if len(p.sweeps) > 0 && p.isReady() {
			for _, f := range p.folders {
				folders[f] = true
			}
		}
	}
	return folders
}

// listCached lists what is unpacked or set up, and finishes earlier removals.
func (b *bundles) listCached() (folders []cachedFolder, err error) {
	var errs []error
	for _, kind := range []string{"bundles", "setups"} {
		dir := filepath.Join(b.dir, kind)
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			switch {
			case strings.HasPrefix(e.Name(), removedPrefix):
				errs = append(errs, projects.RemoveTree(path))
				continue
			case !e.IsDir() || strings.HasPrefix(e.Name(), "."): // being unpacked
				continue
			}
			info, err := os.Stat(path + setupDoneSuffix)
			if err != nil {
				info, err = e.Info()
			}
			if err == nil {
				folders = append(folders, cachedFolder{path: path, used: info.ModTime(), size: b.cachedSize(path)})
			}
		}
	}
	return folders, errors.Join(errs...)
}

// cachedSize returns the size of a folder. A complete folder does not change.
func (b *bundles) cachedSize(path string) int64 {
	whole := filepath.Base(filepath.Dir(path)) == "bundles" || exists(path+setupDoneSuffix)
	b.mu.Lock()
	size, known := b.sizes[path]
	b.mu.Unlock()
	if known && whole {
		return size
	}
	size = folderSize(path)
	if whole {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sizes[path] = size
	}
	return size
}

// remove removes a folder with its log, unless it is in use.
func (b *bundles) remove(path string) (removed bool, err error) {
	gone := filepath.Join(filepath.Dir(path), removedPrefix+filepath.Base(path))
	if removed, err = b.detach(path, gone); !removed {
		return false, err
	}
	return true, projects.RemoveTree(gone)
}

// detach renames a folder that is not in use, so that it is gone in one step.
func (b *bundles) detach(path, gone string) (moved bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.useCounts[path] > 0 || b.useCounts[allFolders] > 0 {
		return false, nil
	}
	for key, p := range b.prepared {
		if p.isReady() && slices.Contains(p.folders, path) {
			delete(b.prepared, key)
		}
	}
	delete(b.sizes, path)
	delete(b.locks, filepath.Base(path))
	for _, suffix := range []string{setupDoneSuffix, projects.ContentsSuffix, ".log"} {
		// before the folder, which is incomplete without them
		if err := os.RemoveAll(path + suffix); err != nil {
			return false, err
		}
	}
	err = os.Rename(path, gone)
	return err == nil, err
}
