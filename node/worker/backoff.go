package worker

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
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

// nodeBackoff is the backoff of this node, with those who are told of it.
type nodeBackoff struct {
	backoff
	cfg        *Config
	log        *slog.Logger
	heartbeats *heartbeatLoop
	wake       signal
	tail       *outputTail
	disk       *diskMonitor
	containers *taskContainers
	devices    *DeviceTracker
}

// judge has the node's trouble follow from how an attempt has ended, which a stop does not tell.
func (nb *nodeBackoff) update(a *attempt, result *grid.Result) {
	f := grid.FailureOf(result.Class)
	switch {
	case result.Class == grid.ClassNode:
		nb.nodeFailed(a.started, result.Reason)
	case f.ProgramRan():
		if nb.recordSuccess(a.started) {
			nb.log.Info("this node can run trials again")
		}
	default: // nobody knows whether it would have run
		nb.cancelProbe()
	}
}

// inTrouble has the node pause, because it could not run what began at this time.
func (nb *nodeBackoff) nodeFailed(began time.Time, reason string) {
	reason, _, _ = strings.Cut(reason, "\n")
	if nb.recordFailure(began, time.Now(), reason) {
		nb.log.Warn("this node can't run trials at the moment", "why", reason)
		nb.heartbeats.soon.set()
	}
	time.AfterFunc(nb.remaining(time.Now()), nb.wake.set)
}

// begun ends the trouble of a node as soon as a program runs: a trial may take days. The watch on the devices learns its number.
func (nb *nodeBackoff) startedCallback(a *attempt) func(executor.Program) {
	if nb.currentReason() == "" && !nb.devices.watches(a) {
		return nil
	}
	return func(b executor.Program) {
		nb.devices.recordProgram(a, b)
		if nb.recordSuccess(a.started) {
			nb.log.Info("this node can run trials again")
			nb.wake.set()
		}
	}
}

// Trouble says what keeps this node from running trials at the moment; "" when nothing does.
func (nb *nodeBackoff) unavailableReason() string {
	if nb.disk.isFull() {
		return "its disk is full: " + nb.cfg.Dir
	}
	why := nb.currentReason()
	if missing := nb.containers.missing.Load(); why == "" && missing != nil && nb.tail.count() == 0 {
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
