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
	// preemptAfter is how long a lane that preempts must have kept room before others have to save their state for it.
	preemptAfter = time.Minute
	// preemptRest is how long a trial that has gone on from what it saved is left alone.
	minPreemptInterval = 10 * time.Minute
)

// errPreempted is for attempts that save their state because something more urgent waits.
var errPreempted = fmt.Errorf("something more urgent waits: %w", executor.ErrHalted)

// victim is an attempt that may be stopped for something more urgent.
type preemptionVictim struct {
	handle   *leaseHandle
	attempt  *attempt
	lostWork time.Duration // what would be done again
}

// preempt stops as many attempts of lower priority as must go for one trial of the lane to fit, if their tasks declare checkpoints: first
// those that lose the least. While some are being stopped, no further ones are. Folders are looked through in another goroutine, for one lane
// at a time; what is found is acted on in a later pass at the same place, for what the lane may have depends on the claims of those before it.
func (w *Worker) preemptFor(l lane, now time.Time) {
	if !l.preempt || w.fairShare.holdingFor(l, now) < w.preemptAfter {
		return
	}
	switch {
	case w.found != nil && w.found.lane == l.name:
		w.haltVictims(l, w.found.victims)
		w.found = nil
		return
	case w.found != nil || w.preempting:
		return // for another lane
	}
	w.preempting = true
	w.running.Add(1)
	go func() {
		defer w.running.Done()
		w.victimsFound <- foundVictims{l.name, w.findVictims(l, now)}
		w.wakeDispatcher()
	}()
}

// findings takes over what was found for a lane, for the pass that begins.
func (w *Worker) receiveVictims() {
	select {
	case found := <-w.victimsFound:
		w.preempting, w.found = false, &found
	default:
	}
}

// foundVictims are the attempts that may be stopped for a lane.
type foundVictims struct {
	lane    grid.Lane
	victims []preemptionVictim
}

// victims lists the attempts that may be stopped for a trial of the lane.
func (w *Worker) findVictims(l lane, now time.Time) (all []preemptionVictim) {
	for _, h := range w.leaseHandles() {
		priority, saves := w.sweeps.preemptible(h.lease.Sweep)
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
		all[i].lostWork = now.Sub(all[i].attempt.lastSave())
	}
	slices.SortFunc(all, func(a, b preemptionVictim) int { return cmp.Compare(a.lostWork, b.lostWork) })
	return all
}

func (w *Worker) haltVictims(l lane, all []preemptionVictim) {
	var allocations []*allocator.Allocation
	for _, v := range all {
		allocations = append(allocations, v.attempt.allocation)
	}
	needed := w.allocator.Victims(l.name, l.resources, allocations)
	for _, v := range all {
		if slices.Contains(needed, v.attempt.allocation) {
			w.log.Info("trial saves its state for a more urgent one", "trial", v.attempt.id, "lane", l.name)
			v.handle.halt(errPreempted)
		}
	}
}

// lastSaved is when something in the attempt's folder was last written, or when it began.
func (a *attempt) lastSave() time.Time {
	files, _ := checkpoint.Scan(a.checkpoint.liveDir()) // of none that can be listed
	if last := checkpoint.LastChange(files); last.After(a.started) {
		return last
	}
	return a.started
}

// saves reports whether the attempt has its folder by now.
func (a *attempt) hasCheckpointFolder() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.checkpoint != nil
}

// yields gives the priority of a sweep, and whether its trials can save their state.
func (s *sweepSet) preemptible(id grid.SweepID) (priority int, saves bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.known[id]
	if w == nil {
		return 0, false
	}
	return w.record.Priority, w.record.Task.Checkpoint != nil
}

// isHalted reports whether what runs under the holding is being stopped for something more urgent.
func (h *leaseHandle) isPreempted() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.haltCause == errPreempted && h.runners > 0
}
