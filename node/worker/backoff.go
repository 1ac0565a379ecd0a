package worker

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
	"mlfnode/node/poll"
)

const (
	// minBackoff is how long a node that could not run a trial starts none. It doubles with each
	// failure, up to maxBackoff.
	minBackoff = 250 * time.Millisecond
	maxBackoff = 30 * time.Second
)

// backoff keeps a node that can't run trials from starting them. Such a node is always free, so it
// would take most trials. After a failure of the node itself no attempt starts for a while. Then
// one is let through as a probe; if it runs, the backoff ends, and if it fails, the next pause is
// twice as long. The zero value is a node that has not failed.
type backoff struct {
	mu       sync.Mutex
	failures int // in a row; 0 outside of a backoff
	reason   string
	failedAt time.Time // when the node last failed
	until    time.Time // nothing starts before
	probing  bool      // an attempt has been let through as a probe
}

// admit reports whether an attempt may start. During a backoff it lets one through as a probe once
// the pause is over; the caller must start it or call cancelProbe.
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

// cancelProbe says that the attempt that was let through does not start.
func (t *backoff) cancelProbe() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.probing = false
}

// currentReason returns why the node is in a backoff; "" when it is not.
func (t *backoff) currentReason() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reason
}

// recordFailure records that the node could not run an attempt. A failure of something that was
// under way before the last recorded failure is ignored. It reports whether this failure begins the
// backoff.
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

// recordSuccess records that an attempt that began at this time has run, and reports whether that
// ends a backoff.
func (t *backoff) recordSuccess(began time.Time) (ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failures == 0 || began.Before(t.failedAt) {
		return false
	}
	t.failures, t.probing, t.reason = 0, false, ""
	return true
}

// nodeBackoff is the backoff of this node, with those that are notified of it.
type nodeBackoff struct {
	backoff
	cfg        *Config
	heartbeats *heartbeatLoop
	wake       poll.Signal
	tail       *outputTail
	disk       *diskMonitor
	containers *taskContainers
	devices    *DeviceTracker
}

// update derives the node's backoff from how an attempt has ended. An attempt that was stopped
// tells nothing.
func (nb *nodeBackoff) update(a *attempt, result *grid.Result) {
	f := grid.FailureOf(result.Class)
	switch {
	case result.Class == grid.ClassNode:
		nb.nodeFailed(a.started, result.Reason)
	case f.ProgramRan():
		if nb.recordSuccess(a.started) {
			nb.cfg.Logger.Info("this node can run trials again")
		}
	default: // it is not known whether it would have run
		nb.cancelProbe()
	}
}

// nodeFailed makes the node pause, because it could not run what began at this time.
func (nb *nodeBackoff) nodeFailed(began time.Time, reason string) {
	reason, _, _ = strings.Cut(reason, "\n")
	if nb.recordFailure(began, time.Now(), reason) {
		nb.cfg.Logger.Warn("this node can't run trials at the moment", "why", reason)
		nb.heartbeats.soon.Set()
	}
	nb.mu.Lock()
	pause := time.Until(nb.until)
	nb.mu.Unlock()
	time.AfterFunc(pause, nb.wake.Set)
}

// startedCallback ends a backoff as soon as a program runs, since a trial may take days, and passes
// the program's process on to the device watch.
func (nb *nodeBackoff) startedCallback(a *attempt) func(executor.Program) {
	if nb.currentReason() == "" && !nb.devices.watches(a) {
		return nil
	}
	return func(b executor.Program) {
		nb.devices.recordProgram(a, b)
		if nb.recordSuccess(a.started) {
			nb.cfg.Logger.Info("this node can run trials again")
			nb.wake.Set()
		}
	}
}

// unavailableReason returns what keeps this node from running trials at the moment; "" when nothing
// does.
func (nb *nodeBackoff) unavailableReason() string {
	if nb.disk.full.Load() {
		return "its disk is full: " + nb.cfg.Dir
	}
	why := nb.currentReason()
	if missing := nb.containers.missing.Load(); why == "" && missing != nil && nb.tail.count() == 0 {
		why = *missing
	}
	return why
}

// isNodeError reports whether an error in preparing an attempt is the node's: files that can't be
// created or read, or a store that does not answer. Errors that the project itself causes are not.
func isNodeError(err error) bool {
	var errno syscall.Errno
	switch {
	case errors.Is(err, jetstream.ErrNotFound):
		return false // a project that does not exist is missing on every node
	case errors.As(err, &errno), errors.Is(err, fs.ErrClosed), errors.Is(err, os.ErrDeadlineExceeded):
		return true
	}
	return errors.Is(err, jetstream.ErrDisk) || errors.Is(err, jetstream.ErrClosed)
}
