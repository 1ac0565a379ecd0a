package worker

import (
	"context"
	"errors"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
	"mlfnode/node/worker/allocator"
)

// Adopter knows what earlier agents have left running. Runs are identified by the names under which
// the executor started them.
type Adopter interface {
	// Adopted returns a func that waits for a run that an earlier agent started. The func blocks
	// until the run has ended, which may be immediately, and returns its outcome; cancelling ctx
	// stops the run as it does in executor.Slot, executor.ErrLeave included. pid is the process of
	// its program, 0 when that is not known. ok is false when nobody has the run, which means that
	// it is not running.
	Adopted(run string) (resume func(ctx context.Context) executor.Outcome, pid int, ok bool)
	// Collected says that the outcome of an adopted run has been recorded.
	Collected(run string)
	// Disown stops the runs for which Adopted has not been called.
	Disown()
}

// adoption is an attempt of an earlier agent that continues under this one.
type adoption struct {
	attempt   *attempt
	manifest  *manifest
	sweep     *sweep
	lane      lane
	handle    *leaseHandle // nil when its lease is not known
	startedAt time.Time

	allocation *allocator.Allocation
	resume     func(context.Context) executor.Outcome
}

// adoptAttempt returns the result of the attempt that a spool names, nil if nobody knows it, or
// reports that the attempt still runs. In that case its resources are reserved and its lease is
// held from here on.
func (rc *recovery) adoptAttempt(a *attempt, m *manifest, r jetstream.Record) (result *grid.Result, goesOn bool) {
	if m.predatesBoot(rc.boot) {
		return nil, false
	}
	if m.Result != nil {
		return m.Result, false
	}
	if rc.cfg.Adopt != nil {
		if resume, pid, ok := rc.cfg.Adopt.Adopted(m.Run); ok {
			ctx, leave := context.WithCancelCause(context.Background())
			leave(executor.ErrLeave) // resume does not wait for the end of the run
			if out := resume(ctx); !out.Left {
				return rc.programs.result(r.Sweep, a, out), false
			}
			rc.adoptions = append(rc.adoptions, rc.restoreAttempt(a, m, r, resume))
			rc.devices.begin(a) // before anybody looks at the devices
			rc.devices.recordProgram(a, executor.Program{PID: pid})
			rc.cfg.Logger.Info("attempt continues", "trial", a.id, "attempt", a.number)
			return nil, true
		}
	}
	switch out, ok, err := executor.ReadRecord(a.spool.record, m.Run); {
	case err != nil:
		rc.cfg.Logger.Warn("the outcome of an attempt can't be read", "trial", a.id, "err", err)
	case ok:
		return rc.programs.result(r.Sweep, a, out), false
	}
	return nil, false
}

// restoreAttempt gives a running attempt its resources and its lease in this worker. The machine
// may have become too small for it meanwhile: then no other attempt starts until it has ended.
func (rc *recovery) restoreAttempt(
	a *attempt, m *manifest, r jetstream.Record, resume func(context.Context) executor.Outcome,
) *adoption {
	ad := &adoption{
		attempt: a, manifest: m, sweep: rc.sweeps.addAdopted(r), resume: resume, startedAt: time.Now(),
		lane: lane{name: r.Sweep.Lane(), resources: r.Sweep.Task.Resources, priority: r.Sweep.Priority},
	}
	if m.Lease != nil {
		if needs, ok := r.AllLanes()[grid.Lane(m.Lease.Shape)]; ok {
			ad.lane.name, ad.lane.resources = grid.Lane(m.Lease.Shape), needs
		}
	}
	if ad.allocation = m.Allocation; ad.allocation == nil { // from an earlier version
		ad.allocation = &allocator.Allocation{
			Lane: ad.lane.name, CPUs: ad.lane.resources.CPUs, Memory: ad.lane.resources.Memory,
		}
	}
	if len(a.task.Share) > 0 {
		a.project.folders = rc.finisher.bundles.pinAll()
	}
	rc.allocator.Restore(ad.allocation)
	rc.fairShare.runStarted(ad.lane, ad.startedAt)
	if m.Lease != nil {
		ad.handle = rc.leases.restore(m.Sweep, m.Lease, a.id.Index)
		ad.handle.addAttempt(a)
	}
	return ad
}

// runAdopted waits for the attempts of earlier agents in the background, and finishes them.
func (rc *recovery) runAdopted() {
	for _, ad := range rc.adoptions {
		rc.runners.running.Add(1)
		go func() {
			defer rc.runners.running.Done()
			goesOn := rc.finishAdopted(ad)
			rc.devices.release(ad.allocation)
			rc.fairShare.runEnded(ad.lane, ad.startedAt, time.Now())
			if h := ad.handle; h != nil {
				if goesOn {
					h.handedOver.Store(true)
				} else {
					h.removeAttempt(ad.attempt)
				}
				rc.leases.leave(h)
			}
			rc.wake.Set()
		}()
	}
	rc.adoptions = nil
}

// finishAdopted waits for the end of an adopted attempt and reports it. Its output is stored once
// more from the beginning, since it is not known how much of it was stored: readers drop what they
// already have. It reports whether the attempt continues under the next agent.
func (rc *recovery) finishAdopted(ad *adoption) (goesOn bool) {
	s := ad.sweep
	if ad.handle != nil {
		s, _ = ad.handle.scope(s)
	}
	out := rc.programs.run(s.ctx, ad.attempt, ad.resume)
	if out.Left {
		return true
	}
	result := rc.programs.result(s.record, ad.attempt, out)
	return !rc.finisher.finish(context.Background(), ad.attempt, result, finishOptions{
		manifest: func() *manifest { return ad.manifest }, snapshotTimeout: snapshotTimeout,
		saving: errors.Is(context.Cause(s.ctx), executor.ErrCancelledSaving),
	})
}
