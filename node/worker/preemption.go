package worker

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/node/checkpoint"
	"mlfnode/node/executor"
	"mlfnode/node/worker/allocator"
)

const (
	// preemptAfter is how long a lane that preempts must have held room before other trials have to
	// save their state for it.
	preemptAfter = time.Minute
	// minPreemptInterval is how long a trial that has resumed is not preempted again.
	minPreemptInterval = 10 * time.Minute
)

// errPreempted is for attempts that save their state because something more urgent waits.
var errPreempted = fmt.Errorf("something more urgent waits: %w", executor.ErrHalted)

// preemptionVictim is an attempt that may be stopped for something more urgent.
type preemptionVictim struct {
	handle   *leaseHandle
	attempt  *attempt
	lostWork time.Duration // what would have to be repeated
}

// preemption makes room for lanes whose trials may stop others. The dispatcher owns its state.
type preemption struct {
	*capacity
	cfg     *Config
	leases  *leaseTable
	sweeps  *sweepSet
	runners *runnerPool

	after        time.Duration     // preemptAfter, except in tests
	searching    bool              // a goroutine is looking for victims
	victimsFound chan foundVictims // has room for one
	found        *foundVictims     // not used by any lane yet
}

// preemptFor stops as many attempts of lower priority as necessary for one trial of the lane to
// fit, if their tasks declare checkpoints: first those that lose the least work. The lane has held
// room for preemptAfter. While some attempts are being stopped, no others are. Another goroutine
// scans the folders, for one lane at a time; its result is used in a later pass, at the lane's
// place in the order, because what the lane may have depends on the lanes before it.
func (pr *preemption) preemptFor(l lane, now time.Time) {
	if pr.searching || pr.found != nil && pr.found.lane != l.name {
		return // for another lane
	}
	if pr.found != nil {
		var allocations []*allocator.Allocation
		for _, v := range pr.found.victims {
			allocations = append(allocations, v.attempt.allocation)
		}
		needed := pr.allocator.Victims(l.name, l.resources, allocations)
		for _, v := range pr.found.victims {
			if slices.Contains(needed, v.attempt.allocation) {
				pr.cfg.Logger.Info("trial saves its state for a more urgent one", "trial", v.attempt.id, "lane", l.name)
				v.handle.halt(errPreempted)
			}
		}
		pr.found = nil
		return
	}
	pr.searching = true
	pr.runners.running.Add(1)
	go func() {
		defer pr.runners.running.Done()
		pr.victimsFound <- foundVictims{l.name, pr.findVictims(l, now)}
		pr.wake.Set()
	}()
}

// receiveVictims takes the result of a finished search, for the pass that begins.
func (pr *preemption) receiveVictims() {
	select {
	case found := <-pr.victimsFound:
		pr.searching, pr.found = false, &found
	default:
	}
}

// foundVictims are the attempts that may be stopped for a lane.
type foundVictims struct {
	lane    grid.Lane
	victims []preemptionVictim
}

// findVictims lists the attempts that may be stopped for a trial of the lane.
func (pr *preemption) findVictims(l lane, now time.Time) (all []preemptionVictim) {
	for _, h := range pr.leases.all() {
		priority, saves := pr.sweeps.preemptible(h.lease.Sweep)
		if h.isPreempted() {
			return nil
		}
		if !saves || priority >= l.priority {
			continue
		}
		h.mu.Lock()
		for a := range h.attempts {
			if a.hasCheckpointFolder() && (a.number == 1 || now.Sub(a.started) >= minPreemptInterval) {
				all = append(all, preemptionVictim{handle: h, attempt: a})
			}
		}
		h.mu.Unlock()
	}
	for i := range all {
		a := all[i].attempt
		last := a.started
		files, _ := checkpoint.Scan(a.checkpoint.liveDir()) // none if it can't be listed
		if saved := checkpoint.LastChange(files); saved.After(last) {
			last = saved
		}
		all[i].lostWork = now.Sub(last)
	}
	slices.SortFunc(all, func(a, b preemptionVictim) int { return cmp.Compare(a.lostWork, b.lostWork) })
	return all
}

// hasCheckpointFolder reports whether the attempt has been given its folder yet.
func (a *attempt) hasCheckpointFolder() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.checkpoint != nil
}
