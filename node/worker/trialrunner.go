package worker

import (
	"slices"
	"time"

	"mlfnode/node/executor"
)

// trialRunner runs the trials of leases, one after the other on each runner.
type trialRunner struct {
	*capacity
	cfg        *Config
	boot       string
	sweeps     *sweepSet
	leases     *leaseTable
	runners    *runnerPool
	heartbeats *heartbeatLoop
	devices    *DeviceTracker
	disk       *diskMonitor
	backoff    *nodeBackoff
	environs   *environs
	attempts   *attemptRunner
}

// runRunner works on one lease after the other until the runner's assignments are closed. Without a
// slot it gives leases back and tries again.
func (tr *trialRunner) runRunner(r *runner) {
	slot, err := tr.cfg.Executor.Slot()
	defer func() {
		if err != nil {
			return
		}
		if err := slot.Close(); err != nil {
			tr.cfg.Logger.Warn("slot could not be closed", "err", err)
		}
	}()
	for t := range r.assignments {
		began := time.Now()
		if err != nil {
			slot, err = tr.cfg.Executor.Slot()
		}
		if err != nil {
			tr.backoff.nodeFailed(began, "no slot for an attempt: "+err.Error())
			tr.leases.leave(t.handle)
		} else {
			tr.runAssignment(t, slot)
		}
		tr.devices.release(t.allocation)
		tr.fairShare.runEnded(t.lane, t.startedAt, time.Now())
		tr.runners.put(r)
		tr.runners.running.Done()
		tr.wake.Set()
	}
}

// runAssignment runs trials of the lease until none is left, the sweep is no longer active, or this
// node is to start none. The dispatcher has let the first one through, whatever backoff the node is
// in.
func (tr *trialRunner) runAssignment(t assignment, slot executor.Slot) {
	h, tried, failed := t.handle, false, false
	var err error
	t.manifest, err = newManifestTemplate(
		manifest{Sweep: h.lease.Sweep, Lease: &leaseRecord{
			ID: h.lease.ID, Seq: h.lease.Seq, Lo: h.lease.Lo, Hi: h.lease.Hi, Attempt: h.lease.Attempt,
			Deliveries: h.lease.Deliveries, Shape: h.lease.Shape,
		}, Boot: tr.boot, Allocation: t.allocation},
	)
	t.environ = tr.environs.forLease(h.lease.Sweep, t.allocation)
	if err != nil {
		tr.backoff.nodeFailed(t.startedAt, err.Error())
		tr.leases.leave(h)
		return
	}
	for !tr.heartbeats.draining.Load() && (!tried || tr.backoff.currentReason() == "") {
		now := time.Now()
		s, ok := tr.sweeps.active(h.lease.Sweep)
		if tr.disk.check(now) || !ok {
			break
		}
		// with fewer updates, its files may be older too: the trial is leased again
		if s, ok = h.scope(s); !ok || len(s.record.Updates) < h.lease.Updates {
			break
		}
		if tried && !tr.devices.usable(s.ctx, t.allocation, failed) {
			break
		}
		found, ok := tr.environs.containers.findImage(s.record)
		if !ok {
			break
		}
		index, ok := h.nextTrial()
		if !ok || index >= s.record.Space.Count() {
			// the lease is of a newer record than this worker has: the trial is leased again
			break
		}
		if slices.Contains(s.record.Cancelling, index) {
			continue // the master withdraws it
		}
		tried = true
		failed = tr.attempts.run(s, slot, t, found, index, h.lease.Attempt+redeliveries(h.lease), now)
	}
	if !tried {
		tr.backoff.cancelProbe()
	}
	tr.leases.leave(h)
}
