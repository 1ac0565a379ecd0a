package worker

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/worker/allocator"
)

// dispatchInterval is how often the queue is looked at without being told, for leases that came back from a dead node.
const dispatchInterval = time.Second

// dispatch fills free capacity with leases until ctx ends.
func (w *Worker) dispatch(ctx context.Context) {
	tick := time.NewTicker(dispatchInterval)
	defer tick.Stop()
	for {
		var lanes []lane
		if !w.draining.Load() && !w.checkDisk(time.Now()) {
			lanes = w.fairShare.order(w.assessLanes(w.sweeps.lanes()), time.Now())
		}
		w.serveLanes(ctx, lanes)
		w.returnUnstartedTrials(time.Now())
		again := tick.C
		if len(lanes) == 0 && !w.DiskFull() && !w.hasUnstartedTrials() {
			again = nil // nothing to look for
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-again:
		}
	}
}

// assess finds out how many trials of each lane this node may run at a time, and why none.
func (w *Worker) assessLanes(lanes []lane) []lane {
	missing := ""
	for i := range lanes {
		l := &lanes[i]
		if why := w.withheldReason(*l); why != "" {
			l.refusal = grid.Refusal{Code: grid.RefusedWithheld, By: why}
			continue
		}
		if l.slots = w.Slots(l.resources); l.slots < 1 {
			if l.refusal = w.refuseNode(l.resources); l.refusal.Code == "" {
				l.refusal = w.allocator.Explain(l.name, l.resources)
			}
			continue
		}
		var room int
		if room, l.refusal = w.imageSlots(*l); room == 0 { // nothing is held for it while its image is on its way
			missing = cmp.Or(missing, l.refusal.String())
		}
		l.slots = min(l.slots, room)
	}
	w.imageMissing.Store(&missing)
	return lanes
}

// serve goes through the lanes in their order. Those that wait for room keep some from the others.
func (w *Worker) serveLanes(ctx context.Context, lanes []lane) {
	w.allocator.BeginPass()
	w.receiveVictims()
	for _, l := range lanes {
		switch {
		case l.slots < 1: // its trials are for other nodes
			w.allocator.DropHold(l.name)
			continue
		case w.yieldedLanes.isYielded(l.name, time.Now()):
			continue
		}
		if w.fillLane(ctx, l, l.slots) == 0 {
			w.wakeDispatcher() // the lane may want more, and room may have come free meanwhile
			return
		}
		if w.fairShare.isWaiting(l) {
			w.allocator.HoldFor(allocator.WaitingLane{Lane: l.name, Resources: l.resources})
			w.fairShare.startHolding(l, time.Now())
			w.preemptFor(l, time.Now())
		} else {
			w.allocator.DropHold(l.name)
		}
	}
	w.found = nil // the lane that has not come by does not wait any more
}

// fill hands leases of one lane to runners while resources and work last. Room may come free as fast as it is filled, so it is
// at most as many as the machine has room for: then the order of lanes is computed again. It returns how much of the room was left.
func (w *Worker) fillLane(ctx context.Context, l lane, slots int) int {
	for left := slots; left > 0; left-- {
		if ctx.Err() != nil || w.draining.Load() {
			return left
		}
		al, refusal := w.allocator.Reserve(l.name, l.resources)
		if al == nil {
			w.fairShare.setRefusal(l, refusal)
			return left
		}
		if !w.backoff.admit(time.Now()) {
			w.allocator.ReturnUnused(al)
			return left
		}
		h := w.acquireLease(ctx, l)
		if h == nil {
			w.backoff.cancelProbe()
			w.allocator.ReturnUnused(al)
			return left
		}
		now := time.Now()
		if device := w.avoidedDevices.deviceFor(h, now); device != "" {
			if al = w.allocator.ReplaceDevice(al, l.resources, device); slices.Contains(al.UUIDs(), device) && w.allocator.SlotsWithout(l.resources, device) > 0 {
				// Another device will be free. Until then the trial is the master's.
				w.backoff.cancelProbe()
				w.allocator.ReturnUnused(al)
				w.yieldLane(l.name)
				w.leaveLease(h)
				return left
			}
		}
		w.fairShare.runStarted(l, now)
		w.running.Add(1)
		w.idleRunner().assignments <- assignment{handle: h, lane: l, allocation: al, startedAt: now}
	}
	return 0
}

// acquire takes a lease, or joins one of this worker that has trials to spare.
func (w *Worker) acquireLease(ctx context.Context, l lane) *leaseHandle {
	held := w.takeLease(ctx, l)
	w.mu.Lock()
	defer w.mu.Unlock()
	if held != nil {
		h := &leaseHandle{lease: held, takenAt: time.Now(), nextIndex: held.Lo, runners: 1, pendingRunners: 1}
		w.leases[h] = struct{}{}
		w.requestHeartbeat()
		return h
	}
	for h := range w.leases {
		if h.lease.Shape == string(l.name) && h.addRunner(w.sweeps) {
			return h
		}
	}
	return nil
}

// take takes the next lease of a lane. What this node is to avoid is left to others, and comes again after a while: there may be so many
// such leases that the first is back before the last is left.
func (w *Worker) takeLease(ctx context.Context, l lane) *jetstream.GrantedLease {
	for began := time.Now(); ; {
		asked := time.Now()
		held, err := w.cfg.Master.TakeLeases(ctx, string(l.name), 1)
		switch {
		case err != nil:
			if ctx.Err() == nil {
				w.log.Debug("queue could not be asked", "lane", l.name, "err", err)
			}
			return nil
		case len(held) == 0:
			w.fairShare.queueEmpty(l, asked)
			return nil
		}
		if !w.postponeIfAvoided(&held[0]) {
			return &held[0]
		}
		if time.Since(began) > postponeTime/2 || w.draining.Load() {
			return nil
		}
	}
}

// leave takes a runner off the holding; the last one gives the lease back.
func (w *Worker) leaveLease(h *leaseHandle) {
	if !h.removeRunner() {
		return
	}
	h.close()
	if h.isHandedOver() {
		return // it stays known: the last beat says that its attempts go on
	}
	if h.isLost() {
		w.forgetLease(h)
		return
	}
	w.outbox.addRelease(h.lease, func() { w.forgetLease(h) })
}

func (w *Worker) forgetLease(h *leaseHandle) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.leases, h)
}

func (w *Worker) leaseHandles() []*leaseHandle {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]*leaseHandle, 0, len(w.leases))
	for h := range w.leases {
		all = append(all, h)
	}
	return all
}

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

// restAge is how long a lease may take before what nobody has begun of it is given back. Leases are to be done in an eighth of that; where
// trials have become longer than those before, other nodes may be idle beside one.
const unstartedAge = 8 * grid.LeaseTarget

// returnRests has the next beat give back what has not begun of leases that take too long, and of all on a node that is drained.
func (w *Worker) returnUnstartedTrials(now time.Time) {
	if !w.cfg.Heartbeats { // there is no other node
		return
	}
	age := unstartedAge
	if w.draining.Load() {
		age = 0
	}
	for _, h := range w.leaseHandles() {
		if n := h.returnUnstarted(now, age); n > 0 {
			w.log.Debug("the trials of a lease that have not begun are given back", "sweep", h.lease.Sweep, "lease", h.lease.ID, "count", n)
			w.requestHeartbeat()
		}
	}
}

// holdsRest reports whether a lease has trials that nobody has begun.
func (w *Worker) hasUnstartedTrials() bool {
	return slices.ContainsFunc(w.leaseHandles(), func(h *leaseHandle) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.nextIndex < h.lease.Hi
	})
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
