package worker

import (
	"log/slog"
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

// runnerPool keeps the runners that have no lease.
type runnerPool struct {
	work    func(*runner)  // handles the runner's assignments until they are closed
	running sync.WaitGroup // assignments, adopted attempts and searches for preemption victims

	mu   sync.Mutex
	idle []*runner
}

// get returns an idle runner, or a new one.
func (p *runnerPool) get() *runner {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		r := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return r
	}
	r := &runner{assignments: make(chan assignment, 1)}
	r.done.Go(func() { p.work(r) })
	return r
}

// put makes a runner idle.
func (p *runnerPool) put(r *runner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, r)
}

// prestart makes an idle runner, so that the first trial need not wait for a slot.
func (p *runnerPool) prestart() { p.put(p.get()) }

// close ends all runners, which must be idle.
func (p *runnerPool) close() {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.mu.Unlock()
	for _, r := range idle {
		close(r.assignments)
		r.done.Wait()
	}
}

// trialRunner runs the trials of leases.
type trialRunner struct {
	cfg         *Config
	log         *slog.Logger
	boot        string
	runNames    runNames
	sweeps      *sweepSet
	outbox      *outbox
	bundles     *bundles
	spools      *spoolPool
	tail        *outputTail
	devices     *DeviceTracker
	containers  *taskContainers
	uploads     *artifactUploads
	checkpoints *checkpoints
	snapshots   *snapshotUploads
	heartbeats  *heartbeatLoop
	leases      *leaseTable
	wake        signal
	fairShare   *fairShare
	disk        *diskMonitor
	backoff     *nodeBackoff
	classifier  *classifier
	runners     *runnerPool
	environs    *environs
}

// run works on one lease after the other until turns is closed. Without a slot it gives leases back and tries again.
func (tr *trialRunner) runRunner(r *runner) {
	slot, err := tr.cfg.Executor.Slot()
	defer func() {
		if err != nil {
			return
		}
		if err := slot.Close(); err != nil {
			tr.log.Warn("slot could not be closed", "err", err)
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
		tr.wake.set()
	}
}

// work runs trials of the holding until none is left, the sweep is not active any more, or this node is to begin none. The first one
// was let through by the dispatcher, whatever trouble the node has.
func (tr *trialRunner) runAssignment(t assignment, slot executor.Slot) {
	h, tried, failed := t.handle, false, false
	var err error
	t.manifest, err = newManifestTemplate(manifest{Sweep: h.lease.Sweep, Lease: leaseRecordOf(h.lease), Boot: tr.boot, Allocation: t.allocation})
	t.environ = tr.environs.forLease(h.lease.Sweep, t.allocation)
	if err != nil {
		tr.backoff.nodeFailed(t.startedAt, err.Error())
		tr.leases.leave(h)
		return
	}
	for !tr.heartbeats.draining.Load() && (!tried || tr.backoff.currentReason() == "") {
		now := time.Now()
		if tr.disk.check(now) {
			break
		}
		s, ok := tr.sweeps.active(h.lease.Sweep)
		if !ok {
			break
		}
		if s, ok = h.scope(s); !ok {
			break
		}
		if len(s.record.Updates) < h.lease.Updates { // so may its files be: the trial is leased again
			break
		}
		if tried && !tr.devices.usable(s.ctx, t.allocation, failed) {
			break
		}
		found, ok := tr.containers.findImage(s.record)
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
		failed = tr.runAttempt(s, slot, t, found, index, h.lease.Attempt+redeliveries(h.lease), now)
	}
	if !tried {
		tr.backoff.cancelProbe()
	}
	tr.leases.leave(h)
}
