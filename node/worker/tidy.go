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
	keepUnused = 14 * 24 * time.Hour
	// defaultShare is the part of the disk that they may fill at most, the least recently used ones
	// going first. keepRecent is how long all the same those are kept that trials have used: to make
	// them again for each trial would take longer than the trials. It does not hold on a disk of which
	// less than nearlyFull is free.
	defaultShare = 0.1
	keepRecent   = time.Hour
	nearlyFull   = 0.05
	// tidyEach is the pause between looks at what can be removed. What is new is looked at soon.
	tidyEach = time.Hour
	// touchEach is how often it is recorded that trials use a folder.
	touchEach = time.Minute
	// gonePrefix marks folders that are being removed.
	gonePrefix = ".gone-"
	// bootID changes with each start of the machine.
	bootID = "/proc/sys/kernel/random/boot_id"
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
		dir: dir, cache: cache, fetch: fetch, limit: limit, prepared: map[string]*prepared{}, locks: map[string]chan struct{}{},
		using: map[string]int{}, sizes: map[string]int64{}, tidySoon: make(chan struct{}, 1),
	}
}

// everything stands in bundles.using for all folders.
const everything = ""

// useAll keeps all folders until the caller releases them: for an attempt of an earlier agent, of
// which nobody knows the folders.
func (b *bundles) useAll() []string {
	all := []string{everything}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.using[everything]++
	return all
}

// release ends the use of folders.
func (b *bundles) release(folders []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range folders {
		if b.using[f]--; b.using[f] <= 0 {
			delete(b.using, f)
		}
	}
}

// useLocked has the caller use the folders of what is ready.
func (b *bundles) useLocked(p *prepared, now time.Time) {
	for _, f := range p.folders {
		b.using[f]++
	}
	if now.Sub(p.touched) > touchEach {
		p.touched = now
		touch(p.folders, now)
	}
}

// forget has a project prepared again that has lost files, from its bundle on. One that attempts see
// in place stays as it is while others than the caller use it.
func (b *bundles) forget(key, bundle string, p *prepared, inPlace bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if inPlace && (b.using[everything] > 0 || slices.ContainsFunc(p.folders, func(f string) bool { return b.using[f] > 1 })) {
		return
	}
	if b.prepared[key] == p {
		delete(b.prepared, key)
	}
	for _, f := range append(slices.Clone(p.folders), filepath.Join(b.dir, "bundles", bundle)) { // without these they are not taken for whole
		_ = errors.Join(os.RemoveAll(f+setupDone), os.RemoveAll(f+projects.ContentsSuffix))
	}
}

// uses are the folders that somebody who prepares a project uses.
type uses struct {
	bundles *bundles
	folders []string
}

// hold keeps a folder from being removed, whether it is there already or not.
func (u *uses) hold(folder string) {
	u.bundles.mu.Lock()
	defer u.bundles.mu.Unlock()
	u.bundles.using[folder]++
	u.folders = append(u.folders, folder)
}

// only gives up all but one of the folders.
func (u *uses) only(folder string) {
	u.bundles.release(slices.DeleteFunc(slices.Clone(u.folders), func(f string) bool { return f == folder }))
	u.folders = []string{folder}
}

// ready reports whether attempts can be given the project.
func (p *prepared) ready() bool {
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
func (p *prepared) isThere() bool {
	return !slices.ContainsFunc(p.folders, func(f string) bool { return !exists(f) })
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// touch records when trials used folders. At worst they are made again sooner.
func touch(folders []string, now time.Time) {
	for _, f := range folders {
		if os.Chtimes(f+setupDone, now, now) != nil {
			_ = os.Chtimes(f, now, now)
		}
	}
}

// tidyBundles removes what need not be kept, from time to time.
func (w *Worker) tidyBundles(ctx context.Context) {
	tick := time.NewTicker(tidyEach)
	defer tick.Stop()
	for {
		if err := w.bundles.tidy(time.Now()); err != nil {
			w.log.Warn("unpacked projects could not be removed", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-w.bundles.tidySoon:
		}
	}
}

// keptFolder is an unpacked bundle or a setup.
type keptFolder struct {
	path string
	used time.Time
	size int64
}

// tidy removes bundles and setups that no trial has asked for in a long time, and the least
// recently used ones while all together are larger than the limit. What is in use stays, and what was
// used lately or active sweeps have prepared goes for the limit only on a disk that is nearly full, or
// not at all.
func (b *bundles) tidy(now time.Time) error {
	b.forgetFailed(now)
	folders, err := b.kept()
	d, diskErr := readDisk(b.dir)
	errs := []error{err, diskErr}
	limit := b.limit
	if limit == 0 {
		limit = d.projects()
	}
	recent := now.Add(-keepRecent)
	if float64(d.free) < float64(d.size)*nearlyFull {
		recent = now
	}
	wanted := b.wanted()
	var sum int64
	for _, f := range folders {
		sum += f.size
	}
	slices.SortFunc(folders, func(x, y keptFolder) int { return cmp.Or(x.used.Compare(y.used), cmp.Compare(x.path, y.path)) })
	for _, f := range folders {
		if f.used.After(now.Add(-keepUnused)) && (sum <= limit || f.used.After(recent) || wanted[f.path]) {
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
func (d disk) projects() int64 {
	if d.size <= 0 {
		return math.MaxInt64
	}
	return int64(float64(d.size) * defaultShare)
}

// wanted gives the folders that sweeps whose trials may begin have prepared.
func (b *bundles) wanted() map[string]bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	folders := map[string]bool{}
	for _, p := range b.prepared {
		p.sweeps = slices.DeleteFunc(p.sweeps, func(id grid.SweepID) bool { return b.active != nil && !b.active(id) })
		if len(p.sweeps) > 0 && p.ready() {
			for _, f := range p.folders {
				folders[f] = true
			}
		}
	}
	return folders
}

// forgetFailed forgets setup steps that failed and that nobody wants any more.
func (b *bundles) forgetFailed(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, p := range b.prepared {
		if !p.again.IsZero() && now.Sub(p.again) > tidyEach {
			delete(b.prepared, key)
		}
	}
}

// kept lists what is unpacked or set up, and removes what an earlier removal has left.
func (b *bundles) kept() (folders []keptFolder, err error) {
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
			case strings.HasPrefix(e.Name(), gonePrefix):
				errs = append(errs, removeTree(path))
				continue
			case !e.IsDir() || strings.HasPrefix(e.Name(), "."): // being unpacked
				continue
			}
			info, err := os.Stat(path + setupDone)
			if err != nil {
				info, err = e.Info()
			}
			if err == nil {
				folders = append(folders, keptFolder{path: path, used: info.ModTime(), size: b.size(path)})
			}
		}
	}
	return folders, errors.Join(errs...)
}

// size gives the size of a folder. Nobody changes one that is whole.
func (b *bundles) size(path string) int64 {
	whole := filepath.Base(filepath.Dir(path)) == "bundles" || exists(path+setupDone)
	b.mu.Lock()
	size, known := b.sizes[path]
	b.mu.Unlock()
	if known && whole {
		return size
	}
	size = sizeOf(path)
	if whole {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sizes[path] = size
	}
	return size
}

// remove removes a folder with its log, unless it is in use.
func (b *bundles) remove(path string) (removed bool, err error) {
	gone := filepath.Join(filepath.Dir(path), gonePrefix+filepath.Base(path))
	if removed, err = b.moveAside(path, gone); !removed {
		return false, err
	}
	return true, removeTree(gone)
}

// moveAside takes a folder that is not in use from where it is looked for, in one step.
func (b *bundles) moveAside(path, gone string) (moved bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.using[path] > 0 || b.using[everything] > 0 {
		return false, nil
	}
	for key, p := range b.prepared {
		if p.ready() && slices.Contains(p.folders, path) {
			delete(b.prepared, key)
		}
	}
	delete(b.sizes, path)
	delete(b.locks, filepath.Base(path))
	for _, suffix := range []string{setupDone, projects.ContentsSuffix, ".log"} { // before the folder, which without them is not whole
		if err := os.RemoveAll(path + suffix); err != nil {
			return false, err
		}
	}
	err = os.Rename(path, gone)
	return err == nil, err
}
