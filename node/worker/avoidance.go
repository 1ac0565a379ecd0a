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
	// declineTime is how long a lease that this node is to avoid stays out of everybody's hands. Then other nodes have a lead of
	// declineLead to take it.
	postponeTime = 300 * time.Millisecond
	othersLead   = 200 * time.Millisecond
	// declineLimit is how often a lease may have been taken before it is given back, for the master to say again who is to avoid it, or its trial
	// runs here all the same where no other node could run it.
	maxPostponed = 3
)

// declined is until when other nodes go first in a lane, since this worker has left a lease of it to them. The zero value is ready to use.
type yieldedLanes struct {
	mu    sync.Mutex
	lanes map[grid.Lane]time.Time
}

// decline gives back a lease that other nodes are to have first. It reports whether it is not for
// this node: so also where the master has not said that it knows, since the lease may be in other
// hands by now. If it is in nobody's, the master takes it back.
func (ds *dispatcher) postponeIfAvoided(held *jetstream.GrantedLease) bool {
	often := held.Deliveries > maxPostponed
	if !slices.Contains(held.Avoid, ds.cfg.Node) || often && !held.Elsewhere {
		return false
	}
	if often {
		ds.outbox.addRelease(held, func() {})
	} else if err := ds.cfg.Master.PostponeLease(context.Background(), held, postponeTime); err != nil { // a call bounds itself
		ds.log.Debug("lease could not be left to another node", "sweep", held.Sweep, "err", err)
	}
	ds.log.Debug("trial is left to another node first", "sweep", held.Sweep, "trial", held.Lo)
	ds.yieldLane(grid.Lane(held.Shape))
	return true
}

// letOthers has other nodes go first in a lane for a while.
func (ds *dispatcher) yieldLane(l grid.Lane) {
	ds.yieldedLanes.yield(l, time.Now())
	time.AfterFunc(postponeTime+othersLead, ds.wake.set)
}

// furtherDeliveries is how often a lease came after somebody may have run its trials.
func redeliveries(held *jetstream.GrantedLease) int {
	if len(held.Avoid) > 0 {
		return max(0, held.Deliveries-1-maxPostponed)
	}
	return held.Deliveries - 1
}

// withheld says why this node is to take no trials of a lane, since such trials failed here and not elsewhere; "" if it may.
func (hl *heartbeatLoop) withheldReason(l lane) string {
	without := hl.withheld.Load()
	switch {
	case without == nil || len(*without) == 0:
		return ""
	case (*without)[grid.ScopeOfLane(l.name)] != "":
		return (*without)[grid.ScopeOfLane(l.name)]
	case l.resources.NeedsGPU():
		if why := (*without)[grid.ScopeGPUs]; why != "" {
			return why
		}
	}
	if len(l.images) > 0 {
		return (*without)[grid.ScopeContainers]
	}
	return ""
}

// note has others go first in a lane for a while.
func (d *yieldedLanes) yield(lane grid.Lane, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lanes == nil {
		d.lanes = map[grid.Lane]time.Time{}
	}
	maps.DeleteFunc(d.lanes, func(_ grid.Lane, until time.Time) bool { return now.After(until) })
	d.lanes[lane] = now.Add(postponeTime + othersLead)
}

// others reports whether other nodes go first in a lane now.
func (d *yieldedLanes) isYielded(lane grid.Lane, now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return now.Before(d.lanes[lane])
}

const (
	// avoidTime is how long a trial avoids a device on which it failed.
	avoidTime = time.Hour
	// maxAvoided bounds the trials of which that is remembered.
	maxAvoided = 4096
)

// avoidedDevices are the devices on which trials failed in a class that avoids them. The zero value is ready to use.
type avoidedDevices struct {
	mu     sync.Mutex
	trials map[grid.TrialID]avoidedDevice
}

type avoidedDevice struct {
	device string
	until  time.Time
}

// note has the further attempts of a trial on this node avoid a device.
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

// of gives the device that the trial of a lease avoids; "" for none.
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
