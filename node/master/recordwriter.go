package master

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// recordWriter writes into the records of sweeps what the scheduler has learned of their trials,
// and what nodes are to do about it.
type recordWriter struct {
	m *Master
	s *scheduler
}

// write writes what has changed. What fails is written by a later call.
func (w *recordWriter) write(ctx context.Context) (failed error) {
	decided := w.s.applied >= w.s.lastDecision // otherwise the last decision is not applied yet
	for id, f := range w.s.feeds {
		failed = errors.Join(failed,
			w.storeEstimates(ctx, id, f), w.closeStaleLanes(ctx, id, f), w.storeStoppedRuns(ctx, id, f))
		if decided {
			failed = errors.Join(failed, w.endCancelledTrials(ctx, id, f))
		}
	}
	return failed
}

// storeEstimates stores what was measured of the trials' need of GPUs.
func (w *recordWriter) storeEstimates(ctx context.Context, id grid.SweepID, f *feed) error {
	if f.sharing == nil || !f.sharing.changed || !f.sweep.Active() {
		return nil
	}
	_, err := w.m.editRecord(ctx, id, func(r *jetstream.Record) (bool, error) {
		r.Packing = slices.Clone(f.sharing.estimates)
		return true, nil
	})
	f.sharing.changed = false
	switch {
	case errors.Is(err, jetstream.ErrTooLarge): // as next time; the sweep continues with what is in memory
		w.m.log.Warn("measured use of GPUs is too large for the record", "sweep", id, "err", err)
	case err != nil:
		f.sharing.changed = true
		return fmt.Errorf("store what trials of %s need of a GPU: %w", id, err)
	}
	return nil
}

// closeStaleLanes removes the lanes of earlier priorities that hold no lease of the sweep any more
// and will get none.
func (w *recordWriter) closeStaleLanes(ctx context.Context, id grid.SweepID, f *feed) error {
	var stale []grid.Lane
	for name, need := range f.lanes {
		if f.leasesInLane[name] == 0 && name != f.laneFor(need) {
			stale = append(stale, name)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	record, err := w.m.editRecord(ctx, id, func(r *jetstream.Record) (bool, error) {
		for _, name := range stale {
			delete(r.Lanes, name)
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("close lanes of %s: %w", id, err)
	}
	f.lanes = record.Lanes
	return nil
}

// storeStoppedRuns stores which runs nodes are to stop.
func (w *recordWriter) storeStoppedRuns(ctx context.Context, id grid.SweepID, f *feed) error {
	c := f.earlyStop
	if c == nil || !c.changed || !f.sweep.Active() {
		return nil
	}
	indexes := slices.Sorted(maps.Keys(c.stopping))
	var all []grid.StoppedRun
	for _, i := range indexes[:min(len(indexes), maxStopping)] {
		all = append(all, c.stopping[i])
	}
	differs := false
	_, err := w.m.editRecord(ctx, id, func(r *jetstream.Record) (bool, error) {
		differs = !slices.Equal(r.Sweep.Stopping, all)
		r.Sweep.Stopping = all
		return differs, nil
	})
	c.changed = len(c.stopping) > len(all)
	switch {
	case errors.Is(err, jetstream.ErrTooLarge): // the next trial to stop retries it
		c.changed = false
		w.m.log.Warn("list of trials to stop is too large for the record", "sweep", id, "trials", len(all), "err", err)
	case err != nil:
		c.changed = true
		return fmt.Errorf("stop trials of %s: %w", id, err)
	case differs:
		w.m.log.Info("trials that do worse than others are stopped", "sweep", id, "trials", len(all))
	}
	return nil
}

// endCancelledTrials ends the trials that people have cancelled and of which nothing runs, and
// removes those that have ended from the list.
func (w *recordWriter) endCancelledTrials(ctx context.Context, id grid.SweepID, f *feed) error {
	r, ok := w.m.Sweep(id) // the newest record, which says what is to run again
	if !ok || len(r.Sweep.Cancelling) == 0 {
		return nil
	}
	// isOver: the trial has ended, and no lease is left under which a node could start it.
	isOver := func(i int64) bool {
		return i < 0 || i >= f.count || f.done.Has(i) && len(f.leasesOver(i, "")) == 0
	}
	// isHeld: a node that is not lost has the trial, so it stops the trial or gives its lease back.
	isHeld := func(lease grid.LeaseID) bool {
		holder, _ := w.m.nodes.get(w.m.leases.holderOf(lease))
		return w.m.cfg.Store.Queue.WasGranted(lease) && !holder.dead
	}
	now := time.Now()
	batch := &grid.Batch{V: grid.EventVersion, Sweep: id}
	for _, i := range r.Sweep.Cancelling {
		if !isOver(i) && !f.done.Has(i) && !slices.ContainsFunc(f.leasesOver(i, ""), isHeld) {
			batch.Events = append(batch.Events, withdrawnEvent(i, now))
		}
	}
	if len(batch.Events) > 0 {
		if err := w.s.publishDecision(ctx, batch); err != nil {
			return fmt.Errorf("cancel trials of %s: %w", id, err)
		}
	}
	if slices.ContainsFunc(r.Sweep.Cancelling, isOver) {
		return w.m.uncancel(ctx, id, isOver)
	}
	return nil
}

// pauseFailing pauses the sweeps in which as many trials have failed as their tasks allow. A sweep
// whose trials have all ended is not paused: that would save nothing.
func (w *recordWriter) pauseFailing(ctx context.Context) error {
	for id, f := range w.s.feeds {
		limit := f.sweep.Task.StopAfter
		if limit == 0 || !f.sweep.Active() || f.complete() {
			continue
		}
		c, err := w.m.cfg.History.Counts(ctx, id)
		if err != nil {
			return fmt.Errorf("count trials of %s: %w", id, err)
		}
		failed := c.Failed - f.sweep.Accepted
		if failed < limit {
			continue
		}
		w.m.log.Info("sweep is paused: too many trials have failed", "sweep", id, "failed", failed, "limit", limit)
		_, err = w.m.editSweep(ctx, id, func(r *grid.Sweep) error {
			if r.State == grid.SweepRunning && r.Accepted == f.sweep.Accepted {
				r.State, r.Paused = grid.SweepPaused, time.Now().UTC()
				r.Problem = fmt.Sprintf("paused, because %d trials have failed (stop_after: %d)\n"+
					"to continue anyway: mlfnode resume %s", failed, limit, id)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pinImages makes all trials of a sweep run in the image that the first one ran in: moving a tag
// must not mix two images in one table of results.
func (w *recordWriter) pinImages(ctx context.Context, used map[grid.SweepID]string) error {
	for id, image := range used {
		f := w.s.feeds[id]
		if f == nil || f.sweep.Task.Image == "" || f.sweep.Pinned != "" {
			continue
		}
		_, err := w.m.editSweep(ctx, id, func(r *grid.Sweep) error {
			if r.Pinned == "" {
				r.Pinned = image
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// imagesUsed returns the image in which a trial of each sweep first ran, as its node has named it.
// It skips what is not the name of an image.
func imagesUsed(stored []jetstream.StoredBatch) map[grid.SweepID]string {
	var used map[grid.SweepID]string
	for _, s := range stored {
		for i := range s.Batch.Events {
			e := &s.Batch.Events[i]
			if e.Image == "" || used[s.Batch.Sweep] != "" {
				continue
			}
			succeeded := e.Kind == grid.Finished && e.Result != nil && e.Result.Class == grid.ClassNone
			named := grid.CheckImage(e.Image) == nil && strings.Contains(e.Image, "sha256:")
			if named && (succeeded || e.Kind == grid.Started) {
				if used == nil {
					used = map[grid.SweepID]string{}
				}
				used[s.Batch.Sweep] = e.Image
			}
		}
	}
	return used
}
