package master

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/checkpoint"
	"mlfnode/node/history"
)

// newestSnapshot returns the snapshot from which the trial of a lease continues. Leases of tasks
// that declare a checkpoint have one trial each.
func (m *Master) newestSnapshot(s *grid.Sweep, l *lease) (number, bad int) {
	if m.cfg.Snapshots == nil || s.Task.Checkpoint == nil {
		return 0, 0
	}
	return m.cfg.Snapshots.Newest(grid.TrialID{Sweep: s.ID, Index: l.lo})
}

// rejectUnreadable removes the newest snapshot of trials whose programs could not read it, so that
// they continue from the one before, or from their beginning. The store itself drops a snapshot
// that is damaged where it is stored. rejectUnreadable is called before the events are folded:
// after a crash they come again.
func (m *Master) rejectUnreadable(stored []jetstream.StoredBatch) {
	for _, s := range stored {
		record, ok := m.Sweep(s.Batch.Sweep)
		if !ok || m.cfg.Snapshots == nil || record.Sweep.Task.Checkpoint == nil {
			continue
		}
		for i := range s.Batch.Events {
			e := &s.Batch.Events[i]
			r, id := e.Result, grid.TrialID{Sweep: s.Batch.Sweep, Index: e.Index}
			if e.Kind != grid.Finished || r == nil || r.Usage.Wall == 0 || !r.Unreadable() || e.Index < 0 || e.Index >= record.Sweep.Space.Count() {
				continue
			}
			if err := m.cfg.Snapshots.Reject(id, e.Attempt, r.Resumed); err != nil {
				m.log.Warn("unreadable snapshot could not be removed", "trial", id, "err", err)
				continue
			}
			m.log.Info("snapshot of a trial can't be read; the trial continues from the one before", "trial", id, "snapshot", r.Resumed)
		}
	}
}

// discardSnapshots removes the snapshots of a trial that has succeeded.
func (s *scheduler) discardSnapshots(f *feed, t *history.Transition) {
	if s.m.cfg.Snapshots == nil || f.sweep.Task.Checkpoint == nil || t.State != grid.Succeeded {
		return
	}
	if err := s.m.cfg.Snapshots.Discard(grid.TrialID{Sweep: t.Sweep, Index: t.Index}); err != nil {
		s.m.log.Warn("snapshots of a trial that has succeeded could not be removed", "sweep", t.Sweep, "trial", t.Index, "err", err)
	}
}

// discardLeftoverSnapshots removes the snapshots of succeeded trials of a sweep that an earlier
// life of the master has not removed.
func (s *scheduler) discardLeftoverSnapshots(ctx context.Context, f *feed) {
	if s.m.cfg.Snapshots == nil || f.sweep.Task.Checkpoint == nil {
		return
	}
	for _, index := range s.m.cfg.Snapshots.Trials(f.sweep.ID) {
		if !f.done.Has(index) {
			continue
		}
		t, _, err := s.m.cfg.History.Trial(ctx, grid.TrialID{Sweep: f.sweep.ID, Index: index})
		if err != nil {
			s.m.log.Warn("snapshots of trials that have succeeded may be left", "sweep", f.sweep.ID, "err", err)
			return
		}
		s.discardSnapshots(f, &history.Transition{Sweep: f.sweep.ID, Index: index, State: t.State})
	}
}

// HoldsTrial reports whether a node holds a lease with the trial.
func (m *Master) HoldsTrial(ctx context.Context, node grid.NodeID, id grid.TrialID) (bool, error) {
	answer := make(chan bool, 1)
	call := func(s *scheduler) {
		f := s.feeds[id.Sweep]
		answer <- f != nil && node != "" && slices.ContainsFunc(f.leasesOver(id.Index, ""), func(l grid.LeaseID) bool { return m.leases.holderOf(l) == node })
	}
	if err := m.call(ctx, call); err != nil {
		return false, err
	}
	return <-answer, nil
}

// keepCancelledFor is how long the snapshots of a cancelled sweep are kept, for a retry.
const keepCancelledFor = 24 * time.Hour

// maxSnapshotPercent is how full the store of snapshots may be, in percent, before those of ended
// sweeps are removed.
const maxSnapshotPercent = 90

// freeSnapshots frees so many bytes in the store, as far as ended sweeps have snapshots there.
func (m *Master) freeSnapshots(need int64) { m.cleanSnapshots(false, need) }

// cleanSnapshots frees what was discarded. When there is too little room for need more bytes, it
// removes the snapshots of ended sweeps, the oldest first; those of trials that may run again stay.
// With all, it also removes what belongs to no sweep.
func (m *Master) cleanSnapshots(all bool, need int64) {
	store := m.cfg.Snapshots
	if store == nil {
		return
	}
	var errs []error
	var ended []*grid.Sweep
	for _, id := range store.Sweeps() {
		r, ok := m.Sweep(id)
		switch {
		case !ok && all:
			errs = append(errs, store.DiscardSweep(id))
		case !ok:
		case r.Sweep.State == grid.SweepCancelled && !r.Sweep.Save && all && time.Since(r.Sweep.Ended) > keepCancelledFor:
			errs = append(errs, store.DiscardSweep(id))
		case r.Sweep.State == grid.SweepCancelled || r.Sweep.State == grid.SweepFinished:
			ended = append(ended, r.Sweep)
		}
	}
	slices.SortFunc(ended, func(a, b *grid.Sweep) int { return cmp.Or(a.Ended.Compare(b.Ended), a.Compare(b)) })
	for _, s := range ended {
		if bytes, limit := store.Usage(); bytes+need < limit/100*maxSnapshotPercent {
			break
		}
		m.log.Info("snapshots of an ended sweep are removed, because retention.checkpoints is nearly reached", "sweep", s.ID)
		errs = append(errs, store.DiscardSweep(s.ID))
	}
	if err := errors.Join(append(errs, store.PurgeRemoved())...); err != nil {
		m.log.Warn("snapshots could not be removed; trying again later", "err", err)
	}
}

// Snapshots returns the store of what trials have saved; nil where nothing is stored.
func (m *Master) Snapshots() *checkpoint.Store { return m.cfg.Snapshots }
