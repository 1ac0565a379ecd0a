package worker

import (
	"cmp"
	"context"
	"time"

	"mlfnode/grid"
	"mlfnode/node/worker/allocator"
)

// dispatchInterval is how often the queue is polled without a signal, for leases that came back
// from a dead node.
const dispatchInterval = time.Second

// dispatcher fills the free capacity of the node with leases: it decides which lane is next,
// reserves resources for a trial, takes a lease, and hands it to a runner.
type dispatcher struct {
	*capacity
	avoidance
	cfg        *Config
	sweeps     *sweepSet
	leases     *leaseTable
	preemption *preemption
	runners    *runnerPool
	disk       *diskMonitor
	containers *taskContainers
	backoff    *nodeBackoff
	heartbeats *heartbeatLoop
}

// run fills free capacity with leases until ctx ends.
func (ds *dispatcher) run(ctx context.Context) {
	tick := time.NewTicker(dispatchInterval)
	defer tick.Stop()
	for {
		var lanes []lane
		if !ds.heartbeats.draining.Load() && !ds.disk.check(time.Now()) {
			lanes = ds.fairShare.order(ds.assessLanes(ds.sweeps.lanes()), time.Now())
		}
		ds.serveLanes(ctx, lanes)
		ds.returnUnstartedTrials(time.Now())
		again := tick.C
		if len(lanes) == 0 && !ds.disk.full.Load() && !ds.leases.hasUnstartedTrials() {
			again = nil // nothing to poll for
		}
		select {
		case <-ctx.Done():
			return
		case <-ds.wake:
		case <-again:
		}
	}
}

// assessLanes determines how many trials of each lane this node may run at a time, and why none.
func (ds *dispatcher) assessLanes(lanes []lane) []lane {
	missing := ""
	for i := range lanes {
		l := &lanes[i]
		if why := ds.heartbeats.withheldReason(*l); why != "" {
			l.refusal = grid.Refusal{Code: grid.RefusedWithheld, By: why}
			continue
		}
		if l.slots = ds.slots(l.resources); l.slots < 1 {
			if l.refusal = ds.refuseNode(l.resources); l.refusal.Code == "" {
				l.refusal = ds.allocator.Explain(l.name, l.resources)
			}
			continue
		}
		var room int
		if room, l.refusal = ds.containers.imageSlots(*l); room == 0 {
			// nothing is held for it while its image is being pulled
			missing = cmp.Or(missing, l.refusal.String())
		}
		l.slots = min(l.slots, room)
	}
	ds.containers.missing.Store(&missing)
	return lanes
}

// serveLanes goes through the lanes in order. A lane that waits for room holds some of it against
// the lanes behind it.
func (ds *dispatcher) serveLanes(ctx context.Context, lanes []lane) {
	ds.allocator.BeginPass()
	ds.preemption.receiveVictims()
	for _, l := range lanes {
		if l.slots < 1 { // its trials are for other nodes
			ds.allocator.DropHold(l.name)
			continue
		}
		if ds.yieldedLanes.isYielded(l.name, time.Now()) {
			continue
		}
		if ds.fillLane(ctx, l) == 0 {
			ds.wake.Set() // the lane may want more, and room may have become free meanwhile
			return
		}
		waiting, held := ds.fairShare.hold(l, time.Now())
		if !waiting {
			ds.allocator.DropHold(l.name)
			continue
		}
		ds.allocator.HoldFor(allocator.WaitingLane{Lane: l.name, Resources: l.resources})
		if l.preempt && held >= ds.preemption.after {
			ds.preemption.preemptFor(l, time.Now())
		}
	}
	ds.preemption.found = nil // the lane that has not come up no longer waits
}

// fillLane hands leases of one lane to runners while there are resources and work. Room may become
// free as fast as it is filled, so it takes at most one machine's worth per pass: then the order of
// lanes is computed again. It returns how much of that was left.
func (ds *dispatcher) fillLane(ctx context.Context, l lane) int {
	for left := l.slots; left > 0; left-- {
		if ctx.Err() != nil || ds.heartbeats.draining.Load() {
			return left
		}
		al, refusal := ds.allocator.Reserve(l.name, l.resources)
		if al == nil {
			ds.fairShare.setRefusal(l, refusal)
			return left
		}
		if !ds.backoff.admit(time.Now()) {
			ds.allocator.Release(al, false)
			return left
		}
		h := ds.acquireLease(ctx, l)
		if h == nil {
			ds.backoff.cancelProbe()
			ds.allocator.Release(al, false)
			return left
		}
		now := time.Now()
		if device := ds.avoidedDevices.deviceFor(h, now); device != "" {
			var wait bool
			if al, wait = ds.allocator.ReplaceDevice(al, l.resources, device); wait {
				// Another device will be free. Until then the master keeps the trial.
				ds.backoff.cancelProbe()
				ds.allocator.Release(al, false)
				ds.yieldLane(l.name)
				ds.leases.leave(h)
				return left
			}
		}
		ds.fairShare.runStarted(l, now)
		ds.runners.running.Add(1)
		ds.runners.get().assignments <- assignment{handle: h, lane: l, allocation: al, startedAt: now}
	}
	return 0
}

// acquireLease takes the next lease of a lane, or shares one of this worker that has trials to
// spare. Leases that this node is to avoid are left to others, and come back after a while: there
// may be so many of them that the first is back before the last is left.
func (ds *dispatcher) acquireLease(ctx context.Context, l lane) *leaseHandle {
	for began := time.Now(); ; {
		asked := time.Now()
		granted, err := ds.cfg.Master.TakeLeases(ctx, string(l.name), 1)
		switch {
		case err != nil && ctx.Err() == nil:
			ds.cfg.Logger.Debug("queue could not be polled", "lane", l.name, "err", err)
		case err == nil && len(granted) == 0:
			ds.fairShare.queueEmpty(l, asked)
		}
		if err != nil || len(granted) == 0 {
			break
		}
		if !ds.postponeIfAvoided(&granted[0]) {
			h := ds.leases.add(&granted[0])
			ds.heartbeats.soon.Set()
			return h
		}
		if time.Since(began) > postponeTime/2 || ds.heartbeats.draining.Load() {
			break
		}
	}
	return ds.leases.share(l.name, ds.sweeps)
}

// unstartedAge is how long a lease may take before its unstarted trials are given back. Leases
// should be done in an eighth of that; where trials have become longer than those before, other
// nodes may be idle meanwhile.
const unstartedAge = 8 * grid.LeaseTarget

// returnUnstartedTrials makes the next heartbeat give back the unstarted trials of leases that take
// too long, and of all leases on a node that is drained.
func (ds *dispatcher) returnUnstartedTrials(now time.Time) {
	if !ds.cfg.Heartbeats { // there is no other node
		return
	}
	age := unstartedAge
	if ds.heartbeats.draining.Load() {
		age = 0
	}
	for _, h := range ds.leases.all() {
		if n := h.returnUnstarted(now, age); n > 0 {
			ds.cfg.Logger.Debug("unstarted trials of a lease are given back",
				"sweep", h.lease.Sweep, "lease", h.lease.ID, "count", n)
			ds.heartbeats.soon.Set()
		}
	}
}

// slots returns how many attempts with these resources this worker can run at a time.
func (ds *dispatcher) slots(r grid.Resources) int {
	if ds.refuseNode(r).Code != "" {
		return 0
	}
	return ds.allocator.Slots(r)
}

// refuseNode refuses trials whose task names other nodes.
func (ds *dispatcher) refuseNode(r grid.Resources) grid.Refusal {
	if r.Nodes.Has(ds.cfg.Node, ds.cfg.Labels) {
		return grid.Refusal{}
	}
	return grid.Refusal{Code: grid.RefusedNodes, What: string(r.Nodes)}
}
