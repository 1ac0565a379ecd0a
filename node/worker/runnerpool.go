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
	assignments chan assignment
	done        sync.WaitGroup
}

// turn is one lease to work on, with the lane whose resources are reserved for it.
type assignment struct {
	handle     *leaseHandle
	lane       lane
	allocation *allocator.Allocation
	startedAt  time.Time
	manifest   *manifestTemplate
	environ    *leaseEnviron
}

// runner gives an idle runner, or a new one.
func (w *Worker) idleRunner() *runner {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.idleRunners); n > 0 {
		r := w.idleRunners[n-1]
		w.idleRunners = w.idleRunners[:n-1]
		return r
	}
	r := &runner{assignments: make(chan assignment, 1)}
	r.done.Go(func() { w.runRunner(r) })
	return r
}

// warm keeps a runner ready, so that the first trial need not wait for a slot.
func (w *Worker) prestartRunner() {
	r := w.idleRunner()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idleRunners = append(w.idleRunners, r)
}

// run works on one lease after the other until turns is closed. Without a slot it gives leases back and tries again.
func (w *Worker) runRunner(r *runner) {
	slot, err := w.cfg.Executor.Slot()
	defer func() {
		if err != nil {
			return
		}
		if err := slot.Close(); err != nil {
			w.log.Warn("slot could not be closed", "err", err)
		}
	}()
	for t := range r.assignments {
		began := time.Now()
		if err != nil {
			slot, err = w.cfg.Executor.Slot()
		}
		if err != nil {
			w.recordNodeFailure(began, "no slot for an attempt: "+err.Error())
			w.leaveLease(t.handle)
		} else {
			w.runAssignment(t, slot)
		}
		w.finishAssignment(r, t)
	}
}

// rest gives the runner's resources back and makes it idle.
func (w *Worker) finishAssignment(r *runner, t assignment) {
	w.releaseAllocation(t.allocation)
	w.fairShare.runEnded(t.lane, t.startedAt, time.Now())
	w.mu.Lock()
	w.idleRunners = append(w.idleRunners, r)
	w.mu.Unlock()
	w.running.Done()
	w.wakeDispatcher()
}

// work runs trials of the holding until none is left, the sweep is not active any more, or this node is to begin none. The first one
// was let through by the dispatcher, whatever trouble the node has.
func (w *Worker) runAssignment(t assignment, slot executor.Slot) {
	h, tried, failed := t.handle, false, false
	var err error
	t.manifest, err = newManifestTemplate(manifest{Sweep: h.lease.Sweep, Lease: leaseRecordOf(h.lease), Boot: w.boot, Allocation: t.allocation})
	t.environ = w.environOf(h.lease.Sweep, t.allocation)
	if err != nil {
		w.recordNodeFailure(t.startedAt, err.Error())
		w.leaveLease(h)
		return
	}
	for !w.draining.Load() && (!tried || w.backoff.currentReason() == "") {
		now := time.Now()
		if w.checkDisk(now) {
			break
		}
		s, ok := w.sweeps.active(h.lease.Sweep)
		if !ok {
			break
		}
		if s, ok = h.scope(s); !ok {
			break
		}
		if len(s.record.Updates) < h.lease.Updates { // so may its files be: the trial is leased again
			break
		}
		if tried && !w.devicesUsable(s.ctx, t.allocation, failed) {
			break
		}
		found, ok := w.findImage(s.record)
		if !ok {
			break
		}
		index, ok := h.nextTrial()
		if !ok || index >= s.record.Space.Count() { // the lease is of a newer record than this worker has: the trial is leased again
			break
		}
		if slices.Contains(s.record.Cancelling, index) {
			continue // the master withdraws it
		}
		tried = true
		failed = w.runAttempt(s, slot, t, found, index, h.lease.Attempt+redeliveries(h.lease), now)
	}
	if !tried {
		w.backoff.cancelProbe()
	}
	w.leaveLease(h)
}

// closeRunners ends all runners; they are idle by then.
func (w *Worker) closeRunners() {
	w.mu.Lock()
	idle := w.idleRunners
	w.idleRunners = nil
	w.mu.Unlock()
	for _, r := range idle {
		close(r.assignments)
		r.done.Wait()
	}
}
