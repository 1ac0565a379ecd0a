package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"mlfnode/grid"

	"golang.org/x/sys/unix"
)

// minFreeDisk is how much of the disk must be free for trials to start: their output and results
// must fit.
const minFreeDisk = 4 << 20

// diskCheckInterval is how long the finding that there is room holds: a thousand short trials don't
// each need their own.
const diskCheckInterval = 20 * time.Millisecond

// diskUsage is what a file system reports about itself, in bytes.
type diskUsage struct {
	size int64
	free int64 // what this user may still write
}

// readDiskUsage queries the file system that holds dir.
func readDiskUsage(dir string) (diskUsage, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return diskUsage{}, fmt.Errorf("read the room on the disk of %s: %w", dir, err)
	}
	return diskUsage{size: int64(st.Blocks) * st.Bsize, free: int64(st.Bavail) * st.Bsize}, nil
}

// diskMonitor checks the disk of the state folder.
type diskMonitor struct {
	dir string
	log *slog.Logger

	full       atomic.Bool  // there is no room for further trials
	checkedAt  atomic.Int64 // in nanoseconds since 1970
	unreadable atomic.Bool  // the file system does not report its usage
}

// check reports whether the disk has no room for further trials: running ones may end, and none
// starts. A file system that can't be queried (because it is gone or broken) counts as it did
// before: if trials can't write there, each of them fails as the node's, and the node backs off
// until one has run.
func (dm *diskMonitor) check(now time.Time) bool {
	if !dm.full.Load() && now.UnixNano()-dm.checkedAt.Load() < int64(diskCheckInterval) {
		return false
	}
	dm.checkedAt.Store(now.UnixNano())
	d, err := readDiskUsage(dm.dir)
	if dm.unreadable.Swap(err != nil) != (err != nil) {
		dm.log.Warn("room on the disk can be read", "readable", err == nil, "dir", dm.dir, "err", err)
	}
	if err != nil {
		return dm.full.Load()
	}
	full := d.free < minFreeDisk
	if dm.full.Swap(full) != full {
		dm.log.Warn("room on the disk for trials", "full", full, "dir", dm.dir)
	}
	return full
}

// probeSize is how much a probe writes.
const probeSize = 4 << 10

// exhausted reports whether the disk of the state folder is full, or this user's share of it.
// Unlike check it also writes something, since a file system does not report quotas.
func (dm *diskMonitor) exhausted() bool {
	if d, err := readDiskUsage(dm.dir); err == nil && d.free < minFreeDisk {
		return true
	}
	f, err := os.CreateTemp(dm.dir, ".probe-*")
	if err == nil {
		_, err = f.Write(make([]byte, probeSize))
		err = errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// attribute makes the failure of a program the node's when the disk is full at its end: that it
// could not write is most likely the reason. A trial whose own files fill half of the disk has
// itself to blame.
func (dm *diskMonitor) attribute(a *attempt, result *grid.Result) {
	if result.Class != grid.ClassExit && result.Class != grid.ClassSignal || !dm.exhausted() {
		return
	}
	own := folderSize(a.spool.dir)
	if a.checkpoint != nil {
		own += folderSize(a.checkpoint.dir)
	}
	if d, err := readDiskUsage(dm.dir); err == nil && own > d.size/2 {
		result.Reason = joinReason(result.Reason,
			"the disk is full, and this attempt's files fill more than half of it")
		return
	}
	result.Class = grid.ClassNode
	result.Reason = fmt.Sprintf("the node's disk was full when the program ended: %s (%s)", dm.dir, result.Reason)
}

// folderSize adds up the files of a folder.
func folderSize(dir string) (total int64) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}
