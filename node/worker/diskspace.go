package worker

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// leastFree is how much of the disk must be free for trials to begin: what they write, and how they end, has to fit.
const minFreeDisk = 4 << 20

// roomTime is how long a look at the disk that found room holds: a thousand short trials need no look of their own each.
const diskCheckInterval = 20 * time.Millisecond

// disk is what a file system says about itself, in bytes.
type diskUsage struct {
	size int64
	free int64 // what this user may still write
}

// readDisk asks the file system that holds dir.
func readDiskUsage(dir string) (diskUsage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return diskUsage{}, fmt.Errorf("read the room on the disk of %s: %w", dir, err)
	}
	return diskUsage{size: int64(st.Blocks) * st.Bsize, free: int64(st.Bavail) * st.Bsize}, nil
}

// full reports whether the disk has no room for further trials: what has begun may end, and nothing begins. A disk that does not say
// how much room it has (a file system that is gone or broken) counts as it did before: if trials can't write there, each of them
// fails as the node's, and that holds the node back until one has run.
func (w *Worker) checkDisk(now time.Time) bool {
	if !w.diskFull.Load() && now.UnixNano()-w.diskCheckedAt.Load() < int64(diskCheckInterval) {
		return false
	}
	w.diskCheckedAt.Store(now.UnixNano())
	d, err := readDiskUsage(w.cfg.Dir)
	if w.diskUnreadable.Swap(err != nil) != (err != nil) {
		w.log.Warn("room on the disk can be read", "readable", err == nil, "dir", w.cfg.Dir, "err", err)
	}
	if err != nil {
		return w.diskFull.Load()
	}
	full := d.free < minFreeDisk
	if w.diskFull.Swap(full) != full {
		w.log.Warn("room on the disk for trials", "full", full, "dir", w.cfg.Dir)
	}
	return full
}

// Full reports whether the worker takes no trials because its disk is full.
func (w *Worker) DiskFull() bool { return w.diskFull.Load() }

// probeSize is how much a probe writes.
const probeSize = 4 << 10

// noRoom reports whether the disk of the state folder is full, or what this user may have of it. Other than full it also writes
// something, since a quota is not among what a file system says about itself.
func (w *Worker) diskExhausted() bool {
	if d, err := readDiskUsage(w.cfg.Dir); err == nil && d.free < minFreeDisk {
		return true
	}
	f, err := os.CreateTemp(w.cfg.Dir, ".probe-*")
	if err == nil {
		_, err = f.Write(make([]byte, probeSize))
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}
