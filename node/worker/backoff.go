package worker

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
)

const (
	// troublePause is how long a node that could not run a trial begins none. It doubles while that goes on, up to longestPause.
	minBackoff = 250 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// trouble makes a node that can't run trials back off. Such a node is always free, so it would take most trials. After a failure of the
// node itself no attempt begins for a while. Then one is tried; if it runs, the trouble is over, and if it fails, the next pause is twice
// as long. The zero value is a node without trouble.
type backoff struct {
	mu       sync.Mutex
	failures int // failed tries in a row; 0 without trouble
	reason   string
	failedAt time.Time // of the last failure
	until    time.Time // nothing begins before
	probing  bool      // an attempt has been let through to find out
}

// admits reports whether an attempt may begin. In trouble it lets one through when the pause is over; the caller must begin it
// or call giveUp.
func (t *backoff) admit(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failures == 0 {
		return true
	}
	if t.probing || now.Before(t.until) {
		return false
	}
	t.probing = true
	return true
}

// giveUp takes back that an attempt was let through.
func (t *backoff) cancelProbe() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.probing = false
}

// is says what the trouble is; "" for none.
func (t *backoff) currentReason() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reason
}

// wait is how long nothing begins from now on.
func (t *backoff) remaining(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return max(t.until.Sub(now), 0)
}

// failed notes that the node could not run an attempt. What was under way when it was noted the last time says nothing new. It
// reports whether the trouble is of a moment ago.
func (t *backoff) recordFailure(began, now time.Time, reason string) (news bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failures > 0 && !t.probing && began.Before(t.failedAt) {
		return false
	}
	pause := min(minBackoff<<min(t.failures, 16), maxBackoff)
	t.failures++
	t.probing, t.failedAt, t.until, t.reason = false, now, now.Add(pause), reason
	return t.failures == 1
}

// ran notes that an attempt has run which began at this time, and reports whether that ends a trouble.
func (t *backoff) recordSuccess(began time.Time) (ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failures == 0 || began.Before(t.failedAt) {
		return false
	}
	t.failures, t.probing, t.reason = 0, false, ""
	return true
}

// judge has the node's trouble follow from how an attempt has ended, which a stop does not tell.
func (w *Worker) updateBackoff(a *attempt, result *grid.Result) {
	f := grid.FailureOf(result.Class)
	switch {
	case result.Class == grid.ClassNode:
		w.recordNodeFailure(a.started, result.Reason)
	case f.ProgramRan():
		if w.backoff.recordSuccess(a.started) {
			w.log.Info("this node can run trials again")
		}
	default: // nobody knows whether it would have run
		w.backoff.cancelProbe()
	}
}

// inTrouble has the node pause, because it could not run what began at this time.
func (w *Worker) recordNodeFailure(began time.Time, reason string) {
	reason, _, _ = strings.Cut(reason, "\n")
	if w.backoff.recordFailure(began, time.Now(), reason) {
		w.log.Warn("this node can't run trials at the moment", "why", reason)
		w.requestHeartbeat()
	}
	time.AfterFunc(w.backoff.remaining(time.Now()), w.wakeDispatcher)
}

// begun ends the trouble of a node as soon as a program runs: a trial may take days. The watch on the devices learns its number.
func (w *Worker) startedCallback(a *attempt) func(executor.Program) {
	if w.backoff.currentReason() == "" && !w.watches(a) {
		return nil
	}
	return func(b executor.Program) {
		w.recordProgram(a, b)
		if w.backoff.recordSuccess(a.started) {
			w.log.Info("this node can run trials again")
			w.wakeDispatcher()
		}
	}
}

// Trouble says what keeps this node from running trials at the moment; "" when nothing does.
func (w *Worker) UnavailableReason() string {
	if w.DiskFull() {
		return "its disk is full: " + w.cfg.Dir
	}
	why := w.backoff.currentReason()
	if missing := w.imageMissing.Load(); why == "" && missing != nil && w.Running() == 0 {
		why = *missing
	}
	return why
}

// nodeError reports whether an error of preparing an attempt is the node's: files that can't be made or read, or a store that does
// not answer. What the project itself is the reason of is not.
func isNodeError(err error) bool {
	var errno syscall.Errno
	switch {
	case errors.Is(err, jetstream.ErrNotFound):
		return false // a project that is not there is nowhere
	case errors.As(err, &errno), errors.Is(err, fs.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
		return true
	}
	return errors.Is(err, jetstream.ErrDisk) || errors.Is(err, jetstream.ErrClosed)
}

// blameDisk makes the failure of a program the node's when the disk is full at its end: what it could not write is most likely the
// reason. A trial whose own files fill half of the disk has itself to blame.
func (w *Worker) attributeToFullDisk(a *attempt, result *grid.Result) {
	if result.Class != grid.ClassExit && result.Class != grid.ClassSignal || !w.diskExhausted() {
		return
	}
	own := folderSize(a.spool.dir)
	if a.checkpoint != nil {
		own += folderSize(a.checkpoint.dir)
	}
	if d, err := readDiskUsage(w.cfg.Dir); err == nil && own > d.size/2 {
		result.Reason = joinReason(result.Reason, "the disk is full, and this attempt's files fill more than half of it")
		return
	}
	result.Class = grid.ClassNode
	result.Reason = fmt.Sprintf("the node's disk was full when the program ended: %s (%s)", w.cfg.Dir, result.Reason)
}

// sizeOf adds up the files of a folder.
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
