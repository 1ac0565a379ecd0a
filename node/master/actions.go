package master

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
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
	trials := m.toReopen(ctx, id, q)
	if isDryRun(ctx) {
		n := int64(0)
		for _, err := range trials {
			if err != nil {
				return r, 0, err
			}
			n++
		}
		rest, err := m.countRevived(ctx, r.Sweep, q, n)
		return r, n + rest, err
	}
	now := time.Now()
	if q.Bundle != "" {
		var err error
		if trials, err = m.updateFiles(ctx, id, q.Bundle, trials, now); err != nil {
			return r, 0, err
		}
	}
	defer m.holdOpen(id)()
	o := &reopening{m: m, sweep: id, at: now.UnixMicro(), revive: r.Sweep.State == grid.SweepCancelled, whole: r.Sweep.Task.StopAfter > 0}
	if err := o.reopen(ctx, trials); err != nil {
		return r, 0, err
	}
	reopened := o.count
	if !revives(r.Sweep, q, reopened) {
		var err error
		if reopened, err = m.countUnfinished(ctx, r.Sweep); reopened == 0 || err != nil {
			return r, 0, err
		}
	}
	// The record is written in any case: the scheduler may be about to finish the sweep, since it
	// has not applied the events yet.
	r, err := o.resumeSweep(ctx)
	return r, reopened, err
}

// revives reports whether a retry that reopens trials continues a sweep, and with it the trials of
// a cancelled one that have never run.
func revives(s *grid.Sweep, q api.Retry, reopened int64) bool {
	return reopened > 0 || s.State == grid.SweepCancelled && !q.FailedOnly && q.Class == ""
}

// countRevived counts the trials that a retry lets run without reopening them.
func (m *Master) countRevived(ctx context.Context, s *grid.Sweep, q api.Retry, reopened int64) (int64, error) {
	if s.State != grid.SweepCancelled || !revives(s, q, reopened) {
		return m.countUnfinished(ctx, s)
	}
	c, err := m.cfg.History.Counts(ctx, s.ID)
	if err != nil {
		return 0, fmt.Errorf("count trials of %s: %w", s.ID, err)
	}
	return max(0, s.Space.Count()-c.Done()), nil
}

// countUnfinished counts the trials of a finished sweep that have no result. There are none, unless
// an earlier version finished the sweep during a retry.
func (m *Master) countUnfinished(ctx context.Context, s *grid.Sweep) (int64, error) {
	if s.State != grid.SweepFinished {
		return 0, nil
	}
	c, err := m.cfg.History.Counts(ctx, s.ID)
	if err != nil {
		return 0, fmt.Errorf("count trials of %s: %w", s.ID, err)
	}
	return max(0, s.Space.Count()-c.Done()), nil
}

// updateFiles gives trials newer files, and returns the trials. The update is stored before they
// are reopened, so that no later attempt runs the older files.
func (m *Master) updateFiles(ctx context.Context, id grid.SweepID, bundle string, trials iter.Seq2[int64, error], now time.Time) (iter.Seq2[int64, error], error) {
	var all ranges.Set
	for i, err := range trials {
		if err != nil {
			return nil, err
		}
		all.Add(i, i+1)
	}
	same := func(yield func(int64, error) bool) {
		for r := range all.All() {
			for i := r.Lo; i < r.Hi; i++ {
				if !yield(i, nil) {
					return
				}
			}
		}
	}
	if all.Count() == 0 {
		return same, nil
	}
	return same, m.storeUpdate(ctx, id, grid.NewUpdate(bundle, now, &all))
}

func (m *Master) storeUpdate(ctx context.Context, id grid.SweepID, u grid.Update) error {
	if len(u.Trials) > grid.MaxUpdateRanges {
		return conflict(fmt.Sprintf("the trials to update lie in %d places of %s, and %d is the most", len(u.Trials), id, grid.MaxUpdateRanges),
			"start a new sweep with the changed files")
	}
	unlock, err := m.lockSubmissions(ctx) // a bundle must not be removed between the check for it and the record that names it
	if err != nil {
		return err
	}
	defer unlock()
	if err := m.checkBundle(ctx, u.Bundle); err != nil {
		return err
	}
	_, err = m.editSweep(ctx, id, func(s *grid.Sweep) error {
		if len(s.Updates) >= grid.MaxUpdates {
			return conflict(fmt.Sprintf("%s has been updated %d times, and that is the most", id, len(s.Updates)), "start a new sweep with the changed files")
		}
		s.Updates = append(slices.Clone(s.Updates), u)
		return nil
	})
	return err
}

// toReopen yields the trials that a retry applies to: those that have ended, by what history says
// now. It leaves out trials that fail while they are read, which happens when others of them run
// again already; it recognises them by the nodes' clocks alone.
func (m *Master) toReopen(ctx context.Context, id grid.SweepID, q api.Retry) iter.Seq2[int64, error] {
	wanted := history.Query{States: []grid.State{grid.Failed, grid.Cancelled}}
	if q.FailedOnly {
		wanted.States = wanted.States[:1]
	}
	if q.Index >= 0 {
		wanted.From, wanted.Limit = q.Index, 1
	}
	before, err := m.cfg.History.Counts(ctx, id)
	return func(yield func(int64, error) bool) {
		if err != nil {
			yield(0, fmt.Errorf("count trials of %s: %w", id, err))
			return
		}
		for t, err := range m.cfg.History.Trials(ctx, id, wanted) {
			if err != nil {
				yield(0, fmt.Errorf("find trials of %s to run again: %w", id, err))
				return
			}
			if q.Index < 0 && q.Class == "" && t.Result.Class == grid.ClassStopped {
				continue // it would do no better now
			}
			if t.Ended > before.Ended {
				continue
			}
			if (q.Index < 0 || q.Index == t.Index) && (q.Class == "" || q.Class == t.Result.Class) && !yield(t.Index, nil) {
				return
			}
		}
	}
}
