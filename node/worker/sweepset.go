package worker

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
)

// The causes with which running attempts are stopped to run again later, or left to the next agent.
var (
	errLeaving  = fmt.Errorf("the node agent is replaced: %w", executor.ErrLeave)
	errStopping = fmt.Errorf("the node stops: %w", executor.ErrHalted)
	// errDrained is for attempts that can continue elsewhere from what they save.
	errDrained = fmt.Errorf("the node is drained: %w", executor.ErrHalted)
	// errSaving is for a task that saves its state before a pause.
	errSaving = fmt.Errorf("the sweep was paused: %w", executor.ErrHalted)
	// errPaused is for a user who pauses and does not want to wait for running trials.
	errPaused = fmt.Errorf("the sweep was paused: %w: %w", executor.ErrHalted, executor.ErrKill)
)

// sweepSet is what the worker knows of the sweeps that may run.
type sweepSet struct {
	mu        sync.Mutex
	known     map[grid.SweepID]*sweep
	startable map[grid.SweepID]*sweep // those of known whose trials may start, so that the others need not be looked at
	stopCause error                   // set once the worker stops
}

// sweep is one known sweep. The record is replaced as a whole, by a summary when the sweep has
// ended; ctx ends when its running attempts are to be stopped.
type sweep struct {
	record  *grid.Sweep
	lanes   map[grid.Lane]grid.Resources // all that its leases may be in
	ctx     context.Context
	stop    context.CancelCauseFunc
	environ func() []string // environment that all its attempts share; nil once the sweep has ended

	kill     <-chan struct{} // closed by endGrace, which ends the time that attempts have to save their state
	endGrace func()
}

func newSweepSet() *sweepSet {
	return &sweepSet{known: map[grid.SweepID]*sweep{}, startable: map[grid.SweepID]*sweep{}}
}

// update applies a changed record.
func (s *sweepSet) update(c jetstream.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Synced || s.stopCause != nil {
		return
	}
	old := s.known[c.ID]
	if c.Deleted {
		if old != nil {
			old.stop(executor.ErrCancelled)
			delete(s.known, c.ID)
			delete(s.startable, c.ID)
		}
		return
	}
	n := updatedSweep(old, &c.Record)
	if n.record.State == grid.SweepFinished || n.record.State == grid.SweepCancelled {
		// Running attempts have the whole record. Of a sweep that has ended little is kept: there
		// may be thousands.
		r := n.record
		n.environ, n.record = nil, &grid.Sweep{
			V: r.V, ID: r.ID, State: r.State, Save: r.Save, Ended: r.Ended, Priority: r.Priority,
			Task: grid.Task{Checkpoint: r.Task.Checkpoint},
		}
	}
	s.addLocked(n)
}

// addLocked makes a sweep known.
func (s *sweepSet) addLocked(n *sweep) {
	id := n.record.ID
	s.known[id] = n
	if n.record.Active() {
		s.startable[id] = n
	} else {
		delete(s.startable, id)
	}
}

// updatedSweep keeps the context of a sweep while its attempts may continue.
func updatedSweep(old *sweep, record *jetstream.Record) *sweep {
	r := record.Sweep
	n := &sweep{record: r, lanes: record.AllLanes()}
	if old != nil {
		r.Space = space.Reuse(r.Space, old.record.Space)
	}
	if old != nil && old.ctx.Err() == nil {
		n.ctx, n.stop, n.environ, n.kill, n.endGrace = old.ctx, old.stop, old.environ, old.kill, old.endGrace
	} else {
		// The worker owns this context: stopAll ends it.
		n.ctx, n.stop = context.WithCancelCause(context.Background())
		kill := make(chan struct{})
		n.kill, n.endGrace = kill, sync.OnceFunc(func() { close(kill) })
	}
	if n.environ == nil {
		n.environ = sync.OnceValue(func() []string { return r.Environment(os.Environ(), keptVariable) })
	}
	if old != nil && r.State == grid.SweepPaused && r.Halt {
		old.endGrace() // what is being stopped has the old context
	}
	switch {
	case r.State == grid.SweepCancelled && r.Save:
		n.stop(executor.ErrCancelledSaving)
	case r.State == grid.SweepCancelled:
		n.stop(executor.ErrCancelled)
	case r.State == grid.SweepPaused && r.Task.Checkpoint != nil:
		n.stop(errSaving)
		if r.Halt {
			n.endGrace()
		}
	case r.State == grid.SweepPaused && r.Halt:
		n.stop(errPaused)
	}
	return n
}

// active returns the sweep if its trials may start.
func (s *sweepSet) active(id grid.SweepID) (*sweep, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.known[id]
	return w, w != nil && w.record.Active() && s.stopCause == nil
}

// lane is a queue to take leases from.
type lane struct {
	name      grid.Lane
	resources grid.Resources
	priority  int

	images  []*grid.Sweep // active sweeps whose trials run in an image
	preempt bool          // trials of lower priority that can save their state make room for it

	slots   int          // most trials of it on this node at one time, see dispatcher.assessLanes
	refusal grid.Refusal // why there are none
}

// lanes lists the lanes of active sweeps.
func (s *sweepSet) lanes() []lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopCause != nil {
		return nil
	}
	all := map[grid.Lane]lane{}
	for _, w := range s.startable {
		for name, need := range w.lanes {
			l := lane{
				name: name, resources: need, priority: w.record.Priority, // also for a lane of an earlier priority
				images: all[name].images, preempt: all[name].preempt || w.record.Task.Preempt,
			}
			if other, shared := all[name]; shared {
				l.priority = max(l.priority, other.priority)
			}
			if w.record.Task.Image != "" {
				l.images = append(l.images, w.record)
			}
			all[name] = l
		}
	}
	return slices.Collect(maps.Values(all))
}

// endGraceAll ends the time that attempts have to save their state.
func (s *sweepSet) endGraceAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.known {
		w.endGrace()
	}
}

// stopAll stops every running attempt and lets no more start.
func (s *sweepSet) stopAll(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopCause = cause
	for _, w := range s.known {
		w.stop(cause)
	}
}

// addAdopted makes a sweep known before the records are watched, because an attempt of it is
// running.
func (s *sweepSet) addAdopted(r jetstream.Record) *sweep {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := r.Sweep.ID
	if s.known[id] == nil {
		s.addLocked(updatedSweep(nil, &r))
	}
	return s.known[id]
}

// earlyStopReason returns why a run is to be stopped early; "" lets it continue.
func (s *sweepSet) earlyStopReason(id grid.SweepID, run string) string {
	if r := s.recordOf(id); r != nil {
		for i := range r.Stopping {
			if r.Stopping[i].Run == run {
				return r.Stopping[i].Reason
			}
		}
	}
	return ""
}

// isCancelled reports whether a person has cancelled the trial.
func (s *sweepSet) isCancelled(id grid.TrialID) bool {
	r := s.recordOf(id.Sweep)
	return r != nil && slices.Contains(r.Cancelling, id.Index)
}

// preemptible returns the priority of a sweep, and whether its trials can save their state.
func (s *sweepSet) preemptible(id grid.SweepID) (priority int, saves bool) {
	r := s.recordOf(id)
	if r == nil {
		return 0, false
	}
	return r.Priority, r.Task.Checkpoint != nil
}

// recordOf returns the record of a known sweep, else nil. A record that is known does not change.
func (s *sweepSet) recordOf(id grid.SweepID) *grid.Sweep {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := s.known[id]; w != nil {
		return w.record
	}
	return nil
}
