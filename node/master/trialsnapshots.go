package master

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/checkpoint"
	"mlfnode/node/history"
)

// trialSnapshots removes what trials have saved and nothing needs any more.
type trialSnapshots struct {
	store   *checkpoint.Store // nil where nothing is stored
	sweeps  *sweepTable
	history *history.DB
	log     *slog.Logger
}

// rejectUnreadable removes the newest snapshot of trials whose programs could not read it, so that
// they continue from the one before, or from their beginning. The store itself drops a snapshot
// that is damaged where it is stored. rejectUnreadable is called before the events are folded:
// after a crash they come again.
func (s *trialSnapshots) rejectUnreadable(stored []jetstream.StoredBatch) {
	if s.store == nil {
		return
	}
	for _, b := range stored {
		record, ok := s.sweeps.Sweep(b.Batch.Sweep)
		if !ok || record.Sweep.Task.Checkpoint == nil {
			continue
		}
		for i := range b.Batch.Events {
			e := &b.Batch.Events[i]
			r, id := e.Result, grid.TrialID{Sweep: b.Batch.Sweep, Index: e.Index}
			unreadable := e.Kind == grid.Finished && r != nil && r.Usage.Wall != 0 && r.Unreadable()
			if !unreadable || e.Index < 0 || e.Index >= record.Sweep.Space.Count() {
				continue
			}
			if err := s.store.Reject(id, e.Attempt, r.Resumed); err != nil {
				s.log.Warn("unreadable snapshot could not be removed", "trial", id, "err", err)
				continue
			}
			s.log.Info("snapshot of a trial can't be read; the trial continues from the one before",
				"trial", id, "snapshot", r.Resumed)
		}
	}
}

// discard removes the snapshots of a trial that has succeeded.
func (s *trialSnapshots) discard(t *history.Transition, task *grid.Task) {
	if s.store == nil || task.Checkpoint == nil || t.State != grid.Succeeded {
		return
	}
	if err := s.store.Discard(grid.TrialID{Sweep: t.Sweep, Index: t.Index}); err != nil {
		s.log.Warn("snapshots of a trial that has succeeded could not be removed",
			"sweep", t.Sweep, "trial", t.Index, "err", err)
	}
}

// discardLeftover removes the snapshots of succeeded trials of a sweep that an earlier life of the
// master has not removed.
func (s *trialSnapshots) discardLeftover(ctx context.Context, f *feed) {
	if s.store == nil || f.sweep.Task.Checkpoint == nil {
		return
	}
	for _, index := range s.store.Trials(f.sweep.ID) {
		if !f.done.Has(index) {
			continue
		}
		t, _, err := s.history.Trial(ctx, grid.TrialID{Sweep: f.sweep.ID, Index: index})
		if err != nil {
			s.log.Warn("snapshots of trials that have succeeded may be left", "sweep", f.sweep.ID, "err", err)
			return
		}
		s.discard(&history.Transition{Sweep: f.sweep.ID, Index: index, State: t.State}, &f.sweep.Task)
	}
}

// keepCancelledFor is how long the snapshots of a cancelled sweep are kept, for a retry.
const keepCancelledFor = 24 * time.Hour

// maxSnapshotPercent is how full the store of snapshots may be, in percent, before those of ended
// sweeps are removed.
const maxSnapshotPercent = 90

// clean frees what was discarded. When there is too little room for need more bytes, it removes the
// snapshots of ended sweeps, the oldest first; those of trials that may run again stay. With all,
// it also removes what belongs to no sweep.
func (s *trialSnapshots) clean(all bool, need int64) {
	store := s.store
	if store == nil {
		return
	}
	var errs []error
	var ended []*grid.Sweep
	for _, id := range store.Sweeps() {
		r, ok := s.sweeps.Sweep(id)
		switch {
		case !ok && all:
			errs = append(errs, store.DiscardSweep(id))
		case !ok:
		case all && r.Sweep.State == grid.SweepCancelled && !r.Sweep.Save &&
			time.Since(r.Sweep.Ended) > keepCancelledFor:
			errs = append(errs, store.DiscardSweep(id))
		case r.Sweep.State == grid.SweepCancelled || r.Sweep.State == grid.SweepFinished:
			ended = append(ended, r.Sweep)
		}
	}
	slices.SortFunc(ended, func(a, b *grid.Sweep) int { return cmp.Or(a.Ended.Compare(b.Ended), a.Compare(b)) })
	for _, sweep := range ended {
		if bytes, limit := store.Usage(); bytes+need < limit/100*maxSnapshotPercent {
			break
		}
		s.log.Info("snapshots of an ended sweep are removed, because retention.checkpoints is nearly reached",
			"sweep", sweep.ID)
		errs = append(errs, store.DiscardSweep(sweep.ID))
	}
	if err := errors.Join(append(errs, store.PurgeRemoved())...); err != nil {
		s.log.Warn("snapshots could not be removed; trying again later", "err", err)
	}
}

// Snapshots returns the store of what trials have saved; nil where nothing is stored.
func (m *Master) Snapshots() *checkpoint.Store { return m.cfg.Snapshots }
