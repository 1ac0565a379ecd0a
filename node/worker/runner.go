package worker

import (
	"slices"
	"sync"
	"time"

	"mlfnode/node/executor"
	"mlfnode/node/worker/allocator"
)

// runner is a goroutine with an executor slot of its own. It keeps both between leases: a slot is fastest on the goroutine
// that made it.
type runner struct {
	turns chan turn
	ended sync.WaitGroup
}

// turn is one lease to work on, with the lane whose resources are reserved for it.
type turn struct {
	holding    *holding
	lane       lane
	allocation *allocator.Allocation
	began      time.Time
	manifest   *manifestTemplate
	environ    *leaseEnviron
}

// runner gives an idle runner, or a new one.
func (w *Worker) runner() *runner {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.idle); n > 0 {
		r := w.idle[n-1]
		w.idle = w.idle[:n-1]
		return r
	}
	r := &runner{turns: make(chan turn, 1)}
	r.ended.Go(func() { w.run(r) })
	return r
}

// warm keeps a runner ready, so that the first trial need not wait for a slot.
func (w *Worker) warm() {
	r := w.runner()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle = append(w.idle, r)
}

// run works on one lease after the other until turns is closed. Without a slot it gives leases back and tries again.
func (w *Worker) run(r *runner) {
	slot, err := w.cfg.Executor.Slot()
	defer func() {
		if err != nil {
			return
		}
		if err := slot.Close(); err != nil {
			w.log.Warn("slot could not be closed", "err", err)
		}
	}()
	for t := range r.turns {
		began := time.Now()
		if err != nil {
			slot, err = w.cfg.Executor.Slot()
		}
		if err != nil {
			w.inTrouble(began, "no slot for an attempt: "+err.Error())
			w.leave(t.holding)
		} else {
			w.work(t, slot)
		}
		w.rest(r, t)
	}
}

// rest gives the runner's resources back and makes it idle.
func (w *Worker) rest(r *runner, t turn) {
	w.release(t.allocation)
	w.fairness.ended(t.lane, t.began, time.Now())
	w.mu.Lock()
	w.idle = append(w.idle, r)
	w.mu.Unlock()
	w.running.Done()
	w.nudge()
}

// work runs trials of the holding until none is left, the sweep is not active any more, or this node is to begin none. The first one
// was let through by the dispatcher, whatever trouble the node has.
func (w *Worker) work(t turn, slot executor.Slot) {
	h, tried, failed := t.holding, false, false
	var err error
	t.manifest, err = newManifestTemplate(manifest{Sweep: h.held.Sweep, Lease: ticketOf(h.held), Boot: w.boot, Allocation: t.allocation})
	t.environ = w.environOf(h.held.Sweep, t.allocation)
	if err != nil {
		w.inTrouble(t.began, err.Error())
		w.leave(h)
		return
	}
	for !w.draining.Load() && (!tried || w.trouble.is() == "") {
		now := time.Now()
		if w.full(now) {
			break
		}
		s, ok := w.sweeps.active(h.held.Sweep)
		if !ok {
			break
		}
		if s, ok = h.under(s); !ok {
			break
		}
		if len(s.record.Updates) < h.held.Updates { // so may its files be: the trial is leased again
			break
		}
		if tried && !w.fit(s.ctx, t.allocation, failed) {
			break
		}
		found, ok := w.findImage(s.record)
		if !ok {
			break
		}
		index, ok := h.take()
		if !ok || index >= s.record.Space.Count() { // the lease is of a newer record than this worker has: the trial is leased again
			break
		}
		if slices.Contains(s.record.Cancelling, index) {
			continue // the master withdraws it
		}
		tried = true
		failed = w.attempt(s, slot, t, found, index, h.held.Attempt+furtherDeliveries(h.held), now)
	}
	if !tried {
		w.trouble.giveUp()
	}
	w.leave(h)
}

// closeRunners ends all runners; they are idle by then.
func (w *Worker) closeRunners() {
	w.mu.Lock()
	idle := w.idle
	w.idle = nil
	w.mu.Unlock()
	for _, r := range idle {
		close(r.turns)
		r.ended.Wait()
	}
}
