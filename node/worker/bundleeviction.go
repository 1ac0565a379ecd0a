package worker

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
	"mlfnode/projects"
)

const (
	// keepUnused is how long a node keeps unpacked bundles and setups that no trial asks for.
	maxUnusedAge = 14 * 24 * time.Hour
	// defaultShare is the part of the disk that they may fill at most, the least recently used ones
	// going first. keepRecent is how long all the same those are kept that trials have used: to make
	// them again for each trial would take longer than the trials. It does not hold on a disk of which
	// less than nearlyFull is free.
	defaultCacheShare = 0.1
	recentUse         = time.Hour
	nearlyFull        = 0.05
	// tidyEach is the pause between looks at what can be removed. What is new is looked at soon.
	evictInterval = time.Hour
	// touchEach is how often it is recorded that trials use a folder.
	touchInterval = time.Minute
	// gonePrefix marks folders that are being removed.
	removedPrefix = ".gone-"
	// bootID changes with each start of the machine.
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
	if err := removeTree(filepath.Join(dir, "bundles")); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, "boot"), []byte(boot), 0o600)
}

func newBundles(dir string, cache *projects.Cache, fetch func(context.Context, string) (io.ReadCloser, error), limit int64) *bundles {
	return &bundles{
		dir: dir, cache: cache, fetch: fetch, limit: limit, prepared: map[string]*preparedProject{}, locks: map[string]chan struct{}{},
		useCounts: map[string]int{}, sizes: map[string]int64{}, evictSoon: make(chan struct{}, 1),
	}
}

// everything stands in bundles.using for all folders.
const allFolders = ""

// useAll keeps all folders until the caller releases them: for an attempt of an earlier agent, of
// which nobody knows the folders.
func (b *bundles) pinAll() []string {
	all := []string{allFolders}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.useCounts[allFolders]++
	return all
}

// release ends the use of folders.
func (b *bundles) unpin(folders []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range folders {
		if b.useCounts[f]--; b.useCounts[f] <= 0 {
			delete(b.useCounts, f)
		}
	}
}

// useLocked has the caller use the folders of what is ready.
func (b *bundles) pinLocked(p *preparedProject, now time.Time) {
	for _, f := range p.folders {
		b.useCounts[f]++
	}
	if now.Sub(p.touchedAt) > touchInterval {
		p.touchedAt = now
		touchFolders(p.folders, now)
	}
}

// forget has a project prepared again that has lost files, from its bundle on. One that attempts see
// in place stays as it is while others than the caller use it.
func (b *bundles) invalidate(key, bundle string, p *preparedProject, inPlace bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if inPlace && (b.useCounts[allFolders] > 0 || slices.ContainsFunc(p.folders, func(f string) bool { return b.useCounts[f] > 1 })) {
		return
	}
	if b.prepared[key] == p {
		delete(b.prepared, key)
	}
	for _, f := range append(slices.Clone(p.folders), filepath.Join(b.dir, "bundles", bundle)) { // without these they are not taken for whole
		_ = errors.Join(os.RemoveAll(f+setupDoneSuffix), os.RemoveAll(f+projects.ContentsSuffix))
	}
}

// uses are the folders that somebody who prepares a project uses.
type pinnedFolders struct {
	bundles *bundles
	folders []string
}

// hold keeps a folder from being removed, whether it is there already or not.
func (u *pinnedFolders) pin(folder string) {
	u.bundles.mu.Lock()
	defer u.bundles.mu.Unlock()
	u.bundles.useCounts[folder]++
	u.folders = append(u.folders, folder)
}

// only gives up all but one of the folders.
func (u *pinnedFolders) unpinOthers(folder string) {
	u.bundles.unpin(slices.DeleteFunc(slices.Clone(u.folders), func(f string) bool { return f == folder }))
	u.folders = []string{folder}
}

// ready reports whether attempts can be given the project.
func (p *preparedProject) isReady() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return p.err == nil
	default:
		return false
	}
}

// isThere reports whether nobody has removed the project's folders.
func (p *preparedProject) foldersExist() bool {
	return !slices.ContainsFunc(p.folders, func(f string) bool { return !exists(f) })
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// touch records when trials used folders. At worst they are made again sooner.
func touchFolders(folders []string, now time.Time) {
	for _, f := range folders {
		if os.Chtimes(f+setupDoneSuffix, now, now) != nil {
			_ = os.Chtimes(f, now, now)
		}
	}
}

// tidyBundles removes what need not be kept, from time to time.
func (w *Worker) evictBundles(ctx context.Context) {
	tick := time.NewTicker(evictInterval)
	defer tick.Stop()
	for {
		if err := w.trials.attempts.preparer.bundles.evict(time.Now()); err != nil {
			w.log.Warn("unpacked projects could not be removed", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-w.trials.attempts.preparer.bundles.evictSoon:
		}
	}
}

// keptFolder is an unpacked bundle or a setup.
type cachedFolder struct {
	path string
	used time.Time
	size int64
}

// tidy removes bundles and setups that no trial has asked for in a long time, and the least
// recently used ones while all together are larger than the limit. What is in use stays, and what was
// used lately or active sweeps have prepared goes for the limit only on a disk that is nearly full, or
// not at all.
func (b *bundles) evict(now time.Time) error {
	b.dropStaleFailures(now)
	folders, err := b.listCached()
	d, diskErr := readDiskUsage(b.dir)
	errs := []error{err, diskErr}
	limit := b.limit
	if limit == 0 {
		limit = d.defaultCacheLimit()
	}
	recent := now.Add(-recentUse)
	if float64(d.free) < float64(d.size)*nearlyFull {
		recent = now
	}
	wanted := b.activeFolders()
	var sum int64
	for _, f := range folders {
		sum += f.size
	}
	slices.SortFunc(folders, func(x, y cachedFolder) int { return cmp.Or(x.used.Compare(y.used), cmp.Compare(x.path, y.path)) })
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

// projects is how much of the disk they may fill at most by default. A file system that does not say
// how large it is sets no limit.
func (d diskUsage) defaultCacheLimit() int64 {
	if d.size <= 0 {
		return math.MaxInt64
	}
	return int64(float64(d.size) * defaultCacheShare)
}

// wanted gives the folders that sweeps whose trials may begin have prepared.
func (b *bundles) activeFolders() map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	folders := map[string]bool{}
	for _, p := range b.prepared {
		p.sweeps = slices.DeleteFunc(p.sweeps, func(id grid.SweepID) bool { return b.isActive != nil && !b.isActive(id) })
		if len(p.sweeps) > 0 && p.isReady() {
			for _, f := range p.folders {
				folders[f] = true
			}
		}
	}
	return folders
}

// forgetFailed forgets setup steps that failed and that nobody wants any more.
func (b *bundles) dropStaleFailures(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, p := range b.prepared {
		if !p.retryAt.IsZero() && now.Sub(p.retryAt) > evictInterval {
			delete(b.prepared, key)
		}
	}
}

// kept lists what is unpacked or set up, and removes what an earlier removal has left.
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
				errs = append(errs, removeTree(path))
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

// size gives the size of a folder. Nobody changes one that is whole.
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
	return true, removeTree(gone)
}

// moveAside takes a folder that is not in use from where it is looked for, in one step.
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
	for _, suffix := range []string{setupDoneSuffix, projects.ContentsSuffix, ".log"} { // before the folder, which without them is not whole
		if err := os.RemoveAll(path + suffix); err != nil {
			return false, err
		}
	}
	err = os.Rename(path, gone)
	return err == nil, err
}
