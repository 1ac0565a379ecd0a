package worker

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

const (
	// postponeTime is how long a lease that this node is to avoid is not offered to any node. After
	// that, other nodes have a lead of othersLead to take it.
	postponeTime = 300 * time.Millisecond
	othersLead   = 200 * time.Millisecond
	// maxPostponed is how often a lease may be delivered before it is given back, so that the
	// master decides again which nodes are to avoid it, or runs its trial here where no other node
	// could run it.
	maxPostponed = 3
)

// avoidance is what this node leaves to others, and which of its devices trials avoid.
type avoidance struct {
	yieldedLanes   yieldedLanes
	avoidedDevices avoidedDevices
}

// yieldedLanes holds until when other nodes go first in a lane, after this worker has left a lease
// of it to them. The zero value is ready to use.
type yieldedLanes struct {
	mu    sync.Mutex
	lanes map[grid.Lane]time.Time
}

// postponeIfAvoided gives back a lease that other nodes are to have first. It reports whether the
// lease is not for this node. That is also the case when the master has not confirmed that it
// knows, since the lease may be in other hands by now; if it is in nobody's, the master takes it
// back.
func (ds *dispatcher) postponeIfAvoided(held *jetstream.GrantedLease) bool {
	often := held.Deliveries > maxPostponed
	if !slices.Contains(held.Avoid, ds.cfg.Node) || often && !held.Elsewhere {
		return false
	}
	if often {
		ds.leases.outbox.addRelease(held, func() {})
	} else if err := ds.cfg.Master.PostponeLease(context.Background(), held, postponeTime); err != nil {
		// the call has its own timeout
		ds.cfg.Logger.Debug("lease could not be postponed for another node", "sweep", held.Sweep, "err", err)
	}
	ds.cfg.Logger.Debug("trial is left to another node first", "sweep", held.Sweep, "trial", held.Lo)
	ds.yieldLane(grid.Lane(held.Shape))
	return true
}

// yieldLane lets other nodes go first in a lane for a while.
func (ds *dispatcher) yieldLane(l grid.Lane) {
	ds.yieldedLanes.add(l, time.Now())
	time.AfterFunc(postponeTime+othersLead, ds.wake.Set)
}

func (d *yieldedLanes) add(lane grid.Lane, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lanes == nil {
		d.lanes = map[grid.Lane]time.Time{}
	}
	maps.DeleteFunc(d.lanes, func(_ grid.Lane, until time.Time) bool { return now.After(until) })
	d.lanes[lane] = now.Add(postponeTime + othersLead)
}

// redeliveries counts the deliveries of a lease after which its trials may have run.
func redeliveries(held *jetstream.GrantedLease) int {
	if len(held.Avoid) > 0 {
		return max(0, held.Deliveries-1-maxPostponed)
	}
	return held.Deliveries - 1
}

// withheldReason returns why this node is to take no trials of a lane, because such trials failed
// here and not elsewhere; "" if it may take them.
func (hl *heartbeatLoop) withheldReason(l lane) string {
	without := hl.withheld.Load()
	if without == nil || len(*without) == 0 {
		return ""
	}
	why := (*without)[grid.ScopeOfLane(l.name)]
	if why == "" && l.resources.NeedsGPU() {
		why = (*without)[grid.ScopeGPUs]
	}
	if why == "" && len(l.images) > 0 {
		why = (*without)[grid.ScopeContainers]
	}
	return why
}

// isYielded reports whether other nodes go first in a lane now.
func (d *yieldedLanes) isYielded(lane grid.Lane, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return now.Before(d.lanes[lane])
}

const (
	// avoidTime is how long a trial avoids a device on which it failed.
	avoidTime = time.Hour
	// maxAvoided bounds how many trials are remembered with the device that they avoid.
	maxAvoided = 4096
)

// avoidedDevices are the devices on which trials failed with a class that avoids the device. The
// zero value is ready to use.
type avoidedDevices struct {
	mu     sync.Mutex
	trials map[grid.TrialID]avoidedDevice
}

type avoidedDevice struct {
	device string
	until  time.Time
}

// add makes further attempts of a trial on this node avoid a device.
func (d *avoidedDevices) add(id grid.TrialID, device string, now time.Time) {
	if device == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.trials == nil {
		d.trials = map[grid.TrialID]avoidedDevice{}
	}
	if len(d.trials) >= maxAvoided {
		maps.DeleteFunc(d.trials, func(_ grid.TrialID, a avoidedDevice) bool { return now.After(a.until) })
	}
	if len(d.trials) < maxAvoided {
		d.trials[id] = avoidedDevice{device, now.Add(avoidTime)}
	}
}

// deviceFor returns the device that the trial of a lease avoids; "" for none.
func (d *avoidedDevices) deviceFor(h *leaseHandle, now time.Time) string {
	if h.lease.Attempt < 2 {
		return "" // it may have several trials, and none of them has failed
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a := d.trials[grid.TrialID{Sweep: h.lease.Sweep, Index: h.lease.Lo}]
	if now.After(a.until) {
		return ""
	}
	return a.device
}
