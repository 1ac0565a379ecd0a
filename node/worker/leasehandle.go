package worker

import (
	"context"
	"slices"
	"sync"
	"time"

	"mlfnode/jetstream"
	"mlfnode/node/executor"
)

// holding is a lease in this worker's hands and the runners that work on it.
type leaseHandle struct {
	lease   *jetstream.GrantedLease
	takenAt time.Time // when this worker took it

	mu             sync.Mutex
	nextIndex      int64
	keptHi         int64 // trials from here on are given back; 0 for none
	runners        int
	pendingRunners int   // runners that are yet to take their first trial
	handedOver     bool  // the next agent has it: it is neither acknowledged nor returned
	lost           bool  // the lease is not ours any more
	haltCause      error // why what runs under it is stopped to go on elsewhere; nil while it is not
	attempts       map[*attempt]struct{}

	baseSweep, scopedSweep *sweep // what own was made from, and the sweep as the holding's trials see it
	cancel                 context.CancelCauseFunc
}

// began notes an attempt that runs under the lease, and ended one whose report is on its way.
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

// running lists what runs under the lease.
func (h *leaseHandle) runningAttempts() []jetstream.RunningAttempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []jetstream.RunningAttempt
	for a := range h.attempts {
		all = append(all, jetstream.RunningAttempt{
			Index: a.id.Index, Attempt: a.number, Run: a.run, Started: a.started.UnixMicro(), Age: time.Since(a.started),
		})
	}
	return all
}

// beginNone has no further trial of the lease begin.
func (h *leaseHandle) stopStarting() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nextIndex = h.lease.Hi
}

// take gives the next trial.
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

// leftOn notes that an attempt of the lease goes on without this worker.
func (h *leaseHandle) markHandedOver() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handedOver = true
}

func (h *leaseHandle) isHandedOver() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.handedOver
}

// halt stops what runs under the holding, to go on later.
func (h *leaseHandle) halt(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.haltCause = cause
	if h.cancel != nil {
		h.cancel(cause)
	}
}

// lose stops what runs under the holding. It is not reported or given back: it belongs to somebody else. It reports whether
// anything runs: a lease that this worker has brought to an end is not held by it any more as soon as the master knows.
func (h *leaseHandle) markLost() (runs bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = true
	if h.cancel != nil {
		h.cancel(executor.ErrLost)
	}
	return h.runners > 0
}

// gone reports whether the lease is lost.
func (h *leaseHandle) isLost() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lost
}

// under gives the sweep as the trials of this holding see it: they stop when the lease is lost, too. It reports false when that
// is so already.
func (h *leaseHandle) scope(s *sweep) (*sweep, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.baseSweep != s {
		own := *s
		own.ctx, h.cancel = context.WithCancelCause(s.ctx)
		h.baseSweep, h.scopedSweep = s, &own
	}
	if h.lost {
		h.cancel(executor.ErrLost)
	} else if h.haltCause != nil {
		h.cancel(h.haltCause)
	}
	return h.scopedSweep, !h.lost
}

// end lets go of the contexts of a holding on which nobody works any more.
func (h *leaseHandle) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cancel != nil {
		h.cancel(nil)
	}
}
func (h *leaseHandle) cancelTrials(indexes []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for a := range h.attempts {
		if slices.Contains(indexes, a.id.Index) {
			a.cancel()
		}
	}
}

// isHalted reports whether what runs under the holding is being stopped for something more urgent.
func (h *leaseHandle) isPreempted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.haltCause == errPreempted && h.runners > 0
}

// returnRest takes those trials out of the holding, if it is of this age, that nobody has begun, and gives their number.
func (h *leaseHandle) returnUnstarted(now time.Time, age time.Duration) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.takenAt.IsZero() || now.Sub(h.takenAt) < age || h.runners == 0 || h.lost || h.handedOver || h.nextIndex == h.lease.Lo {
		return 0
	}
	n := h.lease.Hi - h.nextIndex
	if n > 0 {
		h.keptHi, h.nextIndex = h.nextIndex, h.lease.Hi
	}
	return n
}

// kept gives where the trials end that are kept, 0 if none is given back.
func (h *leaseHandle) keptEnd() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keptHi
}

// join adds a runner if there are trials that nobody has begun. A sweep with a limit on parallel trials has one runner for
// each lease, since the limit counts leases.
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

// leave removes a runner and reports whether it was the last.
func (h *leaseHandle) removeRunner() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runners--
	h.pendingRunners = min(h.pendingRunners, h.runners)
	return h.runners == 0
}
