// Package filelock locks files against other processes, see flock(2). A lock lasts until its file
// is closed or its process ends, however that ends.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/node/poll"
)

// ErrLocked means that another process, or another open file of this one, has the lock.
var ErrLocked = errors.New("another process has locked it")

// retryInterval is how often Lock tries.
const retryInterval = 50 * time.Millisecond

// TryLock creates a file for this user alone if it does not exist, and locks it. The error wraps
// ErrLocked if another process has the lock.
func TryLock(path string) (*os.File, error) {
	return open(path, tryLock)
}

// Lock is TryLock, but waits for another process that has the lock, for at most the limit. The
// error wraps ErrLocked if that took too long, and is the cause of ctx's end if that came first. It
// waits for the file that was there when it began, even if that is removed meanwhile.
func Lock(ctx context.Context, path string, limit time.Duration) (*os.File, error) {
	bounded, stop := context.WithTimeoutCause(ctx, limit, fmt.Errorf("lock %s: %w", path, ErrLocked))
	defer stop()
	return open(path, func(f *os.File) error {
		return poll.Until(bounded, retryInterval, func() (bool, error) {
			err := tryLock(f)
			if errors.Is(err, ErrLocked) {
				return false, nil
			}
			return err == nil, err
		})
	})
}

// open opens a file, creates it if necessary, and locks it by the given func.
func open(path string, lock func(*os.File) error) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func tryLock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// IsLocked reports whether another process, or another open file of this one, has locked a file for
// itself. On a file system without locks it returns true.
func IsLocked(f *os.File) bool {
	if unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil {
		return true
	}
	_ = unix.Flock(int(f.Fd()), unix.LOCK_UN) // the lock would end with the file
	return false
}
