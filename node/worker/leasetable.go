package worker

import (
	"maps"
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// leaseTable holds the leases in this worker's hands.
type leaseTable struct {
	outbox *outbox

	mu      sync.Mutex
	handles map[*leaseHandle]struct{}
}

// add adds a lease that the master has just granted, with one runner.
func (lt *leaseTable) add(granted *jetstream.GrantedLease) *leaseHandle {
	h := &leaseHandle{lease: granted, takenAt: time.Now(), nextIndex: granted.Lo, runners: 1, pendingRunners: 1}
	lt.mu.Lock()
	defer lt.mu.Unlock()
	lt.handles[h] = struct{}{}
	return h
}

// share adds a runner to a lease of the lane that has trials to spare; nil where none has.
func (lt *leaseTable) share(name grid.Lane, sweeps *sweepSet) *leaseHandle {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	for h := range lt.handles {
		if h.lease.Shape == string(name) && h.addRunner(sweeps) {
			return h
		}
	}
	return nil
}

// leave takes a runner off a lease; the last one gives the lease back.
func (lt *leaseTable) leave(h *leaseHandle) {
	last, lost := h.removeRunner()
	switch {
	case !last:
	case h.handedOver.Load(): // it stays known: the last heartbeat says that its attempts continue
	case lost:
		lt.forget(h)
	default:
		lt.outbox.addRelease(h.lease, func() { lt.forget(h) })
	}
}

func (lt *leaseTable) forget(h *leaseHandle) {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	delete(lt.handles, h)
}

func (lt *leaseTable) all() []*leaseHandle {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	return slices.AppendSeq(make([]*leaseHandle, 0, len(lt.handles)), maps.Keys(lt.handles))
}

// restore holds the lease of an attempt that continues. Its other trials are not started here,
// because some of them may have ended: those behind the last attempt that continues are given back
// at once, those before it with the lease.
func (lt *leaseTable) restore(id grid.SweepID, t *leaseRecord, index int64) *leaseHandle {
	lt.mu.Lock()
	defer lt.mu.Unlock()
	for h := range lt.handles {
		if h.lease.Seq == t.Seq && h.lease.ID == t.ID {
			h.runners++
			h.keptHi = max(h.keptHi, index+1)
			return h
		}
	}
	held := &jetstream.GrantedLease{
		Lease: jetstream.Lease{Sweep: id, Lo: t.Lo, Hi: t.Hi, Attempt: t.Attempt, Shape: t.Shape, ID: t.ID},
		Seq:   t.Seq, Deliveries: t.Deliveries,
	}
	h := &leaseHandle{lease: held, nextIndex: t.Hi, keptHi: index + 1, runners: 1}
	lt.handles[h] = struct{}{}
	return h
}

// cancelTrials stops the running attempts of trials that a person has cancelled.
func (lt *leaseTable) cancelTrials(s *grid.Sweep) {
	if len(s.Cancelling) == 0 {
		return
	}
	for _, h := range lt.all() {
		if h.lease.Sweep != s.ID {
			continue
		}
		h.mu.Lock()
		for a := range h.attempts {
			if slices.Contains(s.Cancelling, a.id.Index) {
				a.cancel()
			}
		}
		h.mu.Unlock()
	}
}

// hasUnstartedTrials reports whether a lease has unstarted trials.
func (lt *leaseTable) hasUnstartedTrials() bool {
	return slices.ContainsFunc(lt.all(), func(h *leaseHandle) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.nextIndex < h.lease.Hi
	})
}
