package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/jetstream"
	"mlfnode/node/executor"
)

// leaseHandle is a lease in this worker's hands and the runners that work on it.
type leaseHandle struct {
	lease   *jetstream.GrantedLease
	takenAt time.Time // when this worker took it

	handedOver atomic.Bool // the next agent has it: it is neither acknowledged nor returned

	mu             sync.Mutex
	nextIndex      int64
	keptHi         int64 // trials from here on are given back; 0 for none
	runners        int
	pendingRunners int   // runners that have yet to take their first trial
	lost           bool  // the lease is no longer this worker's
	haltCause      error // why its attempts are stopped, to continue elsewhere; nil while they are not
	attempts       map[*attempt]struct{}
	scoped         scopedSweep
}

// addAttempt adds an attempt that runs under the lease.
func (h *leaseHandle) addAttempt(a *attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.attempts == nil {
		h.attempts = map[*attempt]struct{}{}
	}
	h.attempts[a] = struct{}{}
}

func (h *leaseHandle) removeAttempt(a *attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.attempts, a)
}

// held describes the lease and the attempts that run under it, for a heartbeat. lost says that the
// lease is no longer this worker's.
func (h *leaseHandle) held() (l jetstream.HeldLease, lost bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l = jetstream.HeldLease{
		Seq: h.lease.Seq, Deliveries: h.lease.Deliveries, ID: h.lease.ID, Sweep: h.lease.Sweep, Hi: h.keptHi,
	}
	for a := range h.attempts {
		l.Attempts = append(l.Attempts, jetstream.RunningAttempt{
			Index: a.id.Index, Attempt: a.number, Run: a.run, Started: a.started.UnixMicro(),
			Age: time.Since(a.started),
		})
	}
	return l, h.lost
}

// stopStarting makes no further trial of the lease start.
func (h *leaseHandle) stopStarting() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nextIndex = h.lease.Hi
}

// nextTrial returns the next trial to run.
func (h *leaseHandle) nextTrial() (int64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.nextIndex >= h.lease.Hi {
		return 0, false
	}
	h.nextIndex++
	h.pendingRunners = max(h.pendingRunners-1, 0)
	return h.nextIndex - 1, true
}

// halt stops the attempts under the lease, to continue later.
func (h *leaseHandle) halt(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.haltCause = cause
	h.scoped.end(cause)
}

// markLost stops the attempts under the lease, which belongs to somebody else: they are not
// reported, and it is not given back. It reports whether any run; a lease that this worker has
// finished is reported lost as soon as the master knows.
func (h *leaseHandle) markLost() (runs bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = true
	h.scoped.end(executor.ErrLost)
	return h.runners > 0
}

// scope returns the sweep as the trials of this lease see it: its context also ends when the lease
// is lost. It returns false when that has happened already.
func (h *leaseHandle) scope(s *sweep) (*sweep, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	scoped := h.scoped.of(s)
	if h.lost {
		h.scoped.end(executor.ErrLost)
	} else if h.haltCause != nil {
		h.scoped.end(h.haltCause)
	}
	return scoped, !h.lost
}

// isPreempted reports whether the attempts under the lease are being stopped for something more
// urgent.
func (h *leaseHandle) isPreempted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.haltCause == errPreempted && h.runners > 0
}

// returnUnstarted takes the unstarted trials out of a lease of at least this age, and returns their
// number.
func (h *leaseHandle) returnUnstarted(now time.Time, age time.Duration) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.takenAt.IsZero() || now.Sub(h.takenAt) < age || h.runners == 0 || h.lost || h.handedOver.Load() ||
		h.nextIndex == h.lease.Lo {
		return 0
	}
	n := h.lease.Hi - h.nextIndex
	if n > 0 {
		h.keptHi, h.nextIndex = h.nextIndex, h.lease.Hi
	}
	return n
}

// addRunner adds a runner if there are unstarted trials to spare. A sweep with a limit on parallel
// trials has one runner for each lease, since the limit counts leases.
func (h *leaseHandle) addRunner(s *sweepSet) bool {
	w, ok := s.active(h.lease.Sweep)
	if !ok || w.record.MaxParallel > 0 {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost || h.runners == 0 || h.lease.Hi-h.nextIndex <= int64(h.pendingRunners) {
		return false
	}
	h.runners++
	h.pendingRunners++
	return true
}

// removeRunner removes a runner. It reports whether that was the last one, whose end releases the
// lease's context, and what has become of the lease.
func (h *leaseHandle) removeRunner() (last, lost bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runners--
	h.pendingRunners = min(h.pendingRunners, h.runners)
	last = h.runners == 0
	if last {
		h.scoped.end(nil)
	}
	return last, h.lost
}

// scopedSweep is a sweep as the trials of one lease see it: a copy whose context also ends with the
// lease.
type scopedSweep struct {
	base, copied *sweep
	cancel       context.CancelCauseFunc // nil before the first copy
}

// of returns the copy of a sweep: another one after the sweep's record has changed.
func (s *scopedSweep) of(base *sweep) *sweep {
	if s.base != base {
		if base.ctx.Err() != nil {
			return base // nothing starts in it, and trials that did have been stopped
		}
		copied := *base
		if s.base != nil && s.base.ctx == base.ctx {
			copied.ctx = s.copied.ctx // shared with the trials that already run
		} else {
			copied.ctx, s.cancel = context.WithCancelCause(base.ctx)
		}
		s.base, s.copied = base, &copied
	}
	return s.copied
}

// end ends the context of the copy.
func (s *scopedSweep) end(cause error) {
	if s.cancel != nil {
		s.cancel(cause)
	}
}
