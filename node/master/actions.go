package master

import (
	"context"
	"fmt"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// Retry runs trials again that did not succeed: one (index ≥ 0) or all, failed ones only or
// cancelled ones too. It returns how many it reopened. A sweep that the master has paused
// continues. Retry waits for trials of a cancelled sweep that are still being stopped.
func (m *Master) Retry(ctx context.Context, id grid.SweepID, q api.Retry) (jetstream.Record, int64, error) {
	r, ok := m.Sweep(id)
	if !ok {
		return r, 0, notFound(id)
	}
	if q.Index >= 0 && r.Sweep.State == grid.SweepCancelled {
		return r, 0, conflict(fmt.Sprintf("%s is cancelled as a whole", id),
			fmt.Sprintf("run all that did not succeed with: mlfnode retry %s", id))
	}
	if r.Sweep.State == grid.SweepCancelled && !isDryRun(ctx) {
		if err := m.awaitDrained(ctx, id); err != nil {
			return r, 0, err
		}
	}
	trials, err := m.toReopen(ctx, id, q)
	if err != nil {
		return r, 0, err
	}
	if isDryRun(ctx) {
		rest, err := m.countRevived(ctx, r.Sweep, q, trials.Count())
		return r, trials.Count() + rest, err
	}
	now := time.Now()
	// stored before they are reopened, so that no later attempt runs the older files
	if q.Bundle != "" && trials.Count() > 0 {
		if err := m.storeUpdate(ctx, id, grid.NewUpdate(q.Bundle, now, trials)); err != nil {
			return r, 0, err
		}
	}
	defer m.holdOpen(id)()
	o := &reopening{m: m, sweep: id, at: now.UnixMicro(), revive: r.Sweep.State == grid.SweepCancelled,
		whole: r.Sweep.Task.StopAfter > 0}
	if err := o.reopen(ctx, trials); err != nil {
		return r, 0, err
	}
	reopened := o.count
	if !revives(r.Sweep, q, reopened) {
		if reopened, err = m.countRevived(ctx, r.Sweep, q, reopened); reopened == 0 || err != nil {
			return r, 0, err
		}
	}
	// The record is written in any case: the scheduler may be about to finish the sweep, since it
	// has not applied the events yet.
	r, err = o.resumeSweep(ctx)
	return r, reopened, err
}

// revives reports whether a retry that reopens trials continues a sweep, and with it the trials of
// a cancelled one that have never run.
func revives(s *grid.Sweep, q api.Retry, reopened int64) bool {
	return reopened > 0 || s.State == grid.SweepCancelled && !q.FailedOnly && q.Class == ""
}

// countRevived counts the trials that a retry lets run without reopening them: those without a
// result of a cancelled sweep that it continues, and of a finished one. The latter has none, unless
// an earlier version finished it during a retry.
func (m *Master) countRevived(ctx context.Context, s *grid.Sweep, q api.Retry, reopened int64) (int64, error) {
	if s.State != grid.SweepFinished && (s.State != grid.SweepCancelled || !revives(s, q, reopened)) {
		return 0, nil
	}
	c, err := m.cfg.History.Counts(ctx, s.ID)
	if err != nil {
		return 0, fmt.Errorf("count trials of %s: %w", s.ID, err)
	}
	return max(0, s.Space.Count()-c.Done()), nil
}

// storeUpdate records that trials get newer files.
func (m *Master) storeUpdate(ctx context.Context, id grid.SweepID, u grid.Update) error {
	if len(u.Trials) > grid.MaxUpdateRanges {
		return conflict(fmt.Sprintf("the trials to update lie in %d places of %s, and %d is the most", len(u.Trials),
			id, grid.MaxUpdateRanges),
			"start a new sweep with the changed files")
	}
	// a bundle must not be removed between the check for it and the record that names it
	unlock, err := m.lockSubmissions(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.checkBundle(ctx, u.Bundle); err != nil {
		return err
	}
	_, err = m.editSweep(ctx, id, func(s *grid.Sweep) error {
		if len(s.Updates) >= grid.MaxUpdates {
			return conflict(fmt.Sprintf("%s has been updated %d times, and that is the most", id, len(s.Updates)),
				"start a new sweep with the changed files")
		}
		s.Updates = append(slices.Clone(s.Updates), u)
		return nil
	})
	return err
}

// toReopen returns the trials that a retry applies to: those that have ended, by what history says
// now. It reads two bytes of each trial.
func (m *Master) toReopen(ctx context.Context, id grid.SweepID, q api.Retry) (*ranges.Set, error) {
	isWanted := func(state grid.State, class grid.Class) bool {
		if q.Index < 0 && q.Class == "" && class == grid.ClassStopped {
			return false // it would do no better now
		}
		return (state == grid.Failed || state == grid.Cancelled && !q.FailedOnly) && (q.Class == "" || q.Class == class)
	}
	all := &ranges.Set{}
	if q.Index >= 0 {
		t, _, err := m.cfg.History.Trial(ctx, grid.TrialID{Sweep: id, Index: q.Index})
		if err == nil && isWanted(t.State, t.Result.Class) {
			all.Add(q.Index, q.Index+1)
		}
		return all, err
	}
	c, err := m.cfg.History.Columns(ctx, id, 0)
	if err != nil {
		return nil, fmt.Errorf("find trials of %s to run again: %w", id, err)
	}
	var open ranges.Range // found last, and not in all yet
	for row, code := range c.State {
		if code == 0 {
			continue // it has no row
		}
		class, known := c.ClassOf(row)
		if !known || !isWanted(grid.States[code-1], class) { // a trial of an unknown class is just failing
			continue
		}
		i := c.Index(row)
		if i != open.Hi {
			all.Add(open.Lo, open.Hi)
			open.Lo = i
		}
		open.Hi = i + 1
	}
	all.Add(open.Lo, open.Hi)
	return all, nil
}
