package master

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// sweepActions are what users do to sweeps that are stored.
type sweepActions struct {
	table   *sweepTable
	history *history.DB
	events  *jetstream.Events
	inbox   *inbox
}

type dryRunKey struct{}

// DryRun returns a context for actions that check and count what they would do, and do nothing.
func DryRun(ctx context.Context) context.Context { return context.WithValue(ctx, dryRunKey{}, true) }

func isDryRun(ctx context.Context) bool { return ctx.Value(dryRunKey{}) != nil }

// Pause starts no further trial of the sweep; with halt, it kills the running ones, which run again
// after Resume. Trials of a task that declares a checkpoint save their state and stop in any case,
// since they lose nothing by it; with halt on a sweep that is paused already, they are killed while
// they save.
func (a *sweepActions) Pause(ctx context.Context, id grid.SweepID, halt bool) (jetstream.Record, error) {
	return a.table.editSweep(ctx, id, func(s *grid.Sweep) error {
		switch s.State {
		case grid.SweepRunning, grid.SweepPaused:
			if s.State == grid.SweepRunning {
				s.Paused = time.Now().UTC()
				halt = halt && s.Task.Checkpoint == nil
			}
			s.State, s.Halt = grid.SweepPaused, s.Halt || halt
			return nil
		}
		return conflict(fmt.Sprintf("%s is %s and can't be paused", id, s.State), "")
	})
}

// Resume continues a paused sweep. A finished one stays as it is.
func (a *sweepActions) Resume(ctx context.Context, id grid.SweepID) (jetstream.Record, error) {
	c, err := a.history.Counts(ctx, id)
	if err != nil {
		return jetstream.Record{}, fmt.Errorf("count trials of %s: %w", id, err)
	}
	return a.table.editSweep(ctx, id, func(s *grid.Sweep) error {
		switch s.State {
		case grid.SweepRunning, grid.SweepPaused:
			if s.State == grid.SweepPaused && s.Task.StopAfter > 0 {
				s.Accepted = c.Failed
			}
			s.State, s.Halt, s.Paused, s.Problem = grid.SweepRunning, false, time.Time{}, ""
		case grid.SweepCancelled:
			return conflict(fmt.Sprintf("%s is cancelled", id),
				fmt.Sprintf("run what is left of it with: mlfnode retry %s", id))
		}
		return nil
	})
}

// Cancel ends a sweep: running trials are stopped, the others never run. With save, trials of a
// task that declares a checkpoint first save their state, from which a retry continues.
func (a *sweepActions) Cancel(ctx context.Context, id grid.SweepID, save bool) (jetstream.Record, error) {
	return a.table.editSweep(ctx, id, func(s *grid.Sweep) error {
		switch s.State {
		case grid.SweepFinished:
			return conflict(fmt.Sprintf("%s is finished already", id), "")
		case grid.SweepRunning, grid.SweepPaused:
			if save && s.Task.Checkpoint == nil {
				return conflict(fmt.Sprintf(
					"the task of %s declares no checkpoint, so its trials can't save their state", id,
				), "leave --save out")
			}
			s.State, s.Ended, s.Save, s.Cancelling = grid.SweepCancelled, time.Now().UTC(), save, nil
		}
		return nil
	})
}

// Extend adds values to axes of the sweep, or points to its sample, and returns how many points
// that adds. It refuses lists of values that would turn the sweep into a long one.
func (a *sweepActions) Extend(ctx context.Context, id grid.SweepID, q api.Extend) (jetstream.Record, int64, error) {
	c, err := a.history.Counts(ctx, id)
	if err != nil {
		return jetstream.Record{}, 0, fmt.Errorf("count trials of %s: %w", id, err)
	}
	var added int64
	r, err := a.table.editSweep(ctx, id, func(s *grid.Sweep) error {
		if s.State == grid.SweepCancelled {
			return conflict(fmt.Sprintf("%s is cancelled and can't be extended", id), "submit a new sweep")
		}
		before := s.Space.Count()
		extend := func() (space.Space, error) { return s.Space.Extend(q.Axes) }
		if q.Draw != 0 {
			if len(q.Axes) > 0 {
				return conflict("values can't be added to axes while points are added to the sample",
					"one after the other")
			}
			extend = func() (space.Space, error) { return s.Space.Draw(q.Draw) }
		}
		points, err := extend()
		if err != nil {
			return conflict(err.Error(), "")
		}
		added = points.Count() - before
		if err := setExtended(s, points, q); err != nil {
			return err
		}
		if s.State == grid.SweepFinished {
			s.State, s.Ended = grid.SweepRunning, time.Time{}
			if s.Task.StopAfter > 0 {
				s.Accepted = c.Failed
			}
		}
		return nil
	})
	return r, added, err
}

// setExtended gives a sweep its extended space. It never makes a sweep a long one: older nodes that
// run its trials could no longer read its record, and would follow no directive.
func setExtended(s *grid.Sweep, points space.Space, q api.Extend) error {
	if q.Draw != 0 { // the lists stay as they are
		s.Space = points
		return nil
	}
	wasLong := s.Long
	if err := s.SetSpace(points); err != nil {
		return err
	}
	if s.Long && !wasLong {
		return &api.Error{
			Status: http.StatusRequestEntityTooLarge,
			Msg:    fmt.Sprintf("these values are too many to add to %s: its record would be too large", s.ID),
			Hint: "submit a new sweep; or use intervals in place of long lists, " +
				"or keep the values in a file of the project and sweep over its lines, " +
				"with $(sed -n {line}p FILE) in a command of sh -c",
		}
	}
	return nil
}

// Set changes the priority of a sweep, how many of its trials may run at a time, and for how long
// each. Running trials go on as they are. Leases that no node has taken yet are made again with the
// new values.
func (a *sweepActions) Set(ctx context.Context, id grid.SweepID, q api.Set) (jetstream.Record, error) {
	return a.table.editRecord(ctx, id, func(r *jetstream.Record) (bool, error) {
		s := r.Sweep
		priority, parallel, timeout := s.Priority, s.MaxParallel, s.Task.Timeout
		if q.Timeout != nil {
			s.Task.Timeout = time.Duration(*q.Timeout)
		}
		if q.MaxParallel != nil {
			s.MaxParallel = *q.MaxParallel
		}
		if q.Priority != nil && *q.Priority != priority {
			lanes := r.AllLanes() // nodes may still hold leases in them
			s.Priority = *q.Priority
			if delete(lanes, s.Lane()); len(lanes) > jetstream.MaxLanes {
				return false, conflict(fmt.Sprintf(
					"trials of %s still run under %d earlier priorities or sizes, and that is the most",
					id, jetstream.MaxLanes,
				), "try again when some have ended")
			}
			r.Lanes = lanes
		}
		return s.Priority != priority || s.MaxParallel != parallel || s.Task.Timeout != timeout, nil
	})
}

func notFound(id grid.SweepID) error {
	return &api.Error{
		Status: http.StatusNotFound, Msg: fmt.Sprintf("there is no sweep %q", id),
		Hint: "list them with: mlfnode sweeps",
	}
}

func conflict(msg, hint string) error {
	return &api.Error{Status: http.StatusConflict, Msg: msg, Hint: hint}
}
