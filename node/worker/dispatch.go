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
		if !w.draining.Load() && !w.full(time.Now()) {
			lanes = w.fairness.order(w.assess(w.sweeps.lanes()), time.Now())
		}
		w.serve(ctx, lanes)
		w.returnRests(time.Now())
		again := tick.C
		if len(lanes) == 0 && !w.Full() && !w.holdsRest() {
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
func (w *Worker) assess(lanes []lane) []lane {
	missing := ""
	for i := range lanes {
		l := &lanes[i]
		if why := w.withheld(*l); why != "" {
			l.refusal = grid.Refusal{Code: grid.RefusedWithheld, By: why}
			continue
		}
		if l.slots = w.Slots(l.resources); l.slots < 1 {
			if l.refusal = w.elsewhere(l.resources); l.refusal.Code == "" {
				l.refusal = w.books.Why(l.name, l.resources)
			}
			continue
		}
		var room int
		if room, l.refusal = w.imageRoom(*l); room == 0 { // nothing is held for it while its image is on its way
			missing = cmp.Or(missing, l.refusal.String())
		}
		l.slots = min(l.slots, room)
	}
	w.imageMissing.Store(&missing)
	return lanes
}

// serve goes through the lanes in their order. Those that wait for room keep some from the others.
func (w *Worker) serve(ctx context.Context, lanes []lane) {
	w.books.Begin()
	w.findings()
	for _, l := range lanes {
		switch {
		case l.slots < 1: // its trials are for other nodes
			w.books.Forget(l.name)
			continue
		case w.declined.others(l.name, time.Now()):
			continue
		}
		if w.fill(ctx, l, l.slots) == 0 {
			w.nudge() // the lane may want more, and room may have come free meanwhile
			return
		}
		if w.fairness.waits(l) {
			w.books.Keep(allocator.Claim{Lane: l.name, Resources: l.resources})
			w.fairness.keeps(l, time.Now())
			w.preempt(l, time.Now())
		} else {
			w.books.Forget(l.name)
		}
	}
	w.found = nil // the lane that has not come by does not wait any more
}

// fill hands leases of one lane to runners while resources and work last. Room may come free as fast as it is filled, so it is
// at most as many as the machine has room for: then the order of lanes is computed again. It returns how much of the room was left.
func (w *Worker) fill(ctx context.Context, l lane, slots int) int {
	for left := slots; left > 0; left-- {
		if ctx.Err() != nil || w.draining.Load() {
			return left
		}
		al, refusal := w.books.Reserve(l.name, l.resources)
		if al == nil {
			w.fairness.refused(l, refusal)
			return left
		}
		if !w.trouble.admits(time.Now()) {
			w.books.Return(al)
			return left
		}
		h := w.acquire(ctx, l)
		if h == nil {
			w.trouble.giveUp()
			w.books.Return(al)
			return left
		}
		now := time.Now()
		if device := w.avoids.of(h, now); device != "" {
			if al = w.books.Exchange(al, l.resources, device); slices.Contains(al.UUIDs(), device) && w.books.SlotsWithout(l.resources, device) > 0 {
				// Another device will be free. Until then the trial is the master's.
				w.trouble.giveUp()
				w.books.Return(al)
				w.letOthers(l.name)
				w.leave(h)
				return left
			}
		}
		w.fairness.began(l, now)
		w.running.Add(1)
		w.runner().turns <- turn{holding: h, lane: l, allocation: al, began: now}
	}
	return 0
}

// acquire takes a lease, or joins one of this worker that has trials to spare.
func (w *Worker) acquire(ctx context.Context, l lane) *holding {
	held := w.take(ctx, l)
	w.mu.Lock()
	defer w.mu.Unlock()
	if held != nil {
		h := &holding{held: held, since: time.Now(), next: held.Lo, runners: 1, due: 1}
		w.holdings[h] = struct{}{}
		w.tellSoon()
		return h
	}
	for h := range w.holdings {
		if h.held.Shape == string(l.name) && h.join(w.sweeps) {
			return h
		}
	}
	return nil
}

// take takes the next lease of a lane. What this node is to avoid is left to others, and comes again after a while: there may be so many
// such leases that the first is back before the last is left.
func (w *Worker) take(ctx context.Context, l lane) *jetstream.GrantedLease {
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
			w.fairness.foundEmpty(l, asked)
			return nil
		}
		if !w.decline(&held[0]) {
			return &held[0]
		}
		if time.Since(began) > declineTime/2 || w.draining.Load() {
			return nil
		}
	}
}

// leave takes a runner off the holding; the last one gives the lease back.
func (w *Worker) leave(h *holding) {
	if !h.leave() {
		return
	}
	h.end()
	if h.isLeft() {
		return // it stays known: the last beat says that its attempts go on
	}
	if h.gone() {
		w.forget(h)
		return
	}
	w.outbox.release(h.held, func() { w.forget(h) })
}

func (w *Worker) forget(h *holding) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.holdings, h)
}

func (w *Worker) held() []*holding {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]*holding, 0, len(w.holdings))
	for h := range w.holdings {
		all = append(all, h)
	}
	return all
}

// holding is a lease in this worker's hands and the runners that work on it.
type holding struct {
	held  *jetstream.GrantedLease
	since time.Time // when this worker took it

	mu      sync.Mutex
	next    int64
	hi      int64 // trials from here on are given back; 0 for none
	runners int
	due     int   // runners that are yet to take their first trial
	left    bool  // the next agent has it: it is neither acknowledged nor returned
	lost    bool  // the lease is not ours any more
	halted  error // why what runs under it is stopped to go on elsewhere; nil while it is not
	runs    map[*attempt]struct{}

	parent, own *sweep // what own was made from, and the sweep as the holding's trials see it
	cancel      context.CancelCauseFunc
}

// began notes an attempt that runs under the lease, and ended one whose report is on its way.
func (h *holding) began(a *attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runs == nil {
		h.runs = map[*attempt]struct{}{}
	}
	h.runs[a] = struct{}{}
}

func (h *holding) ended(a *attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.runs, a)
}

// running lists what runs under the lease.
func (h *holding) running() []jetstream.RunningAttempt {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []jetstream.RunningAttempt
	for a := range h.runs {
		all = append(all, jetstream.RunningAttempt{
			Index: a.id.Index, Attempt: a.number, Run: a.run, Started: a.started.UnixMicro(), Age: time.Since(a.started),
		})
	}
	return all
}

// beginNone has no further trial of the lease begin.
func (h *holding) beginNone() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next = h.held.Hi
}

// take gives the next trial.
func (h *holding) take() (int64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next >= h.held.Hi {
		return 0, false
	}
	h.next++
	h.due = max(h.due-1, 0)
	return h.next - 1, true
}

// restAge is how long a lease may take before what nobody has begun of it is given back. Leases are to be done in an eighth of that; where
// trials have become longer than those before, other nodes may be idle beside one.
const restAge = 8 * grid.LeaseTarget

// returnRests has the next beat give back what has not begun of leases that take too long, and of all on a node that is drained.
func (w *Worker) returnRests(now time.Time) {
	if !w.cfg.Beats { // there is no other node
		return
	}
	age := restAge
	if w.draining.Load() {
		age = 0
	}
	for _, h := range w.held() {
		if n := h.returnRest(now, age); n > 0 {
			w.log.Debug("the trials of a lease that have not begun are given back", "sweep", h.held.Sweep, "lease", h.held.ID, "count", n)
			w.tellSoon()
		}
	}
}

// holdsRest reports whether a lease has trials that nobody has begun.
func (w *Worker) holdsRest() bool {
	return slices.ContainsFunc(w.held(), func(h *holding) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.next < h.held.Hi
	})
}

// returnRest takes those trials out of the holding, if it is of this age, that nobody has begun, and gives their number.
func (h *holding) returnRest(now time.Time, age time.Duration) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.since.IsZero() || now.Sub(h.since) < age || h.runners == 0 || h.lost || h.left || h.next == h.held.Lo {
		return 0
	}
	n := h.held.Hi - h.next
	if n > 0 {
		h.hi, h.next = h.next, h.held.Hi
	}
	return n
}

// kept gives where the trials end that are kept, 0 if none is given back.
func (h *holding) kept() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hi
}

// join adds a runner if there are trials that nobody has begun. A sweep with a limit on parallel trials has one runner for
// each lease, since the limit counts leases.
func (h *holding) join(s *sweeps) bool {
	w, ok := s.active(h.held.Sweep)
	if !ok || w.record.MaxParallel > 0 {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost || h.runners == 0 || h.held.Hi-h.next <= int64(h.due) {
		return false
	}
	h.runners++
	h.due++
	return true
}

// leave removes a runner and reports whether it was the last.
func (h *holding) leave() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runners--
	h.due = min(h.due, h.runners)
	return h.runners == 0
}
