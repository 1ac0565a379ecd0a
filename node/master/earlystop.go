package master

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/history"
)

const (
	// maxStopping bounds the attempts in a record that are being stopped; further ones wait until
	// some have ended.
	maxStopping = 1000
	// maxLoadedCurves bounds the curves of ended trials that are loaded when a sweep with Task.Stop
	// is opened.
	maxLoadedCurves = 1000
)

// earlyStopping is what the scheduler knows of the trials of a sweep that may be stopped early.
type earlyStopping struct {
	comparison *grid.Comparison
	stopping   map[int64]grid.StoppedRun // runs that are to stop and, as far as is known, still run
	changed    bool                      // since the record was written
}

// loadEarlyStopping loads what history knows of the trials of a sweep.
func (s *scheduler) loadEarlyStopping(ctx context.Context, f *feed) error {
	stop := f.sweep.Task.Stop
	if stop == nil {
		return nil
	}
	f.earlyStop = &earlyStopping{comparison: grid.NewComparison(*stop), stopping: map[int64]grid.StoppedRun{}}
	for _, run := range f.sweep.Stopping {
		if !f.done.Has(run.Index) {
			f.earlyStop.stopping[run.Index] = run
		}
	}
	var ended []int64
	for r := range f.done.All() {
		for i := r.Lo; i < r.Hi && len(ended) < maxLoadedCurves; i++ {
			ended = append(ended, i)
		}
	}
	curves, err := s.m.cfg.History.Curves(ctx, f.sweep.ID, stop.Metric, ended)
	if err != nil {
		return fmt.Errorf("load curves of %s: %w", f.sweep.ID, err)
	}
	for _, i := range slices.Sorted(maps.Keys(curves)) {
		f.earlyStop.comparison.Add(i, curves[i])
		f.earlyStop.comparison.Remove(i)
	}
	return nil
}

// compareProgress makes the scheduler compare running trials by their newest metrics.
func (m *Master) compareProgress(batches []*grid.Batch) {
	var some []*grid.Batch
	for _, b := range batches {
		if r, ok := m.Sweep(b.Sweep); ok && r.Sweep.Task.Stop != nil {
			some = append(some, b)
		}
	}
	if len(some) == 0 {
		return
	}
	m.post(func(s *scheduler) {
		for _, b := range some {
			if f := s.feeds[b.Sweep]; f != nil && f.earlyStop != nil {
				for i := range b.Events {
					f.observeProgress(&b.Events[i])
				}
			}
		}
	})
}

// observeProgress compares a running trial, and keeps the reason if it is to be stopped.
func (f *feed) observeProgress(e *grid.Event) {
	c := f.earlyStop
	points, err := e.Curves[f.sweep.Task.Stop.Metric].Points()
	if _, known := c.stopping[e.Index]; err != nil || known || e.Index < 0 || e.Index >= f.count || f.done.Has(e.Index) || f.started[e.Index] != e.Attempt {
		return
	}
	if why := c.comparison.Add(e.Index, points); why != "" {
		c.stopping[e.Index], c.changed = grid.StoppedRun{Index: e.Index, Run: e.Run, Reason: why}, true
	}
}

// observeEnd takes the whole curve of a trial that has ended, with which others are compared.
func (f *feed) observeEnd(t *history.Transition) {
	c := f.earlyStop
	if c == nil || t.Change == grid.Began || t.Change == grid.Reconnect {
		return
	}
	if points, err := t.Curve.Points(); err == nil && t.State == grid.Succeeded {
		c.comparison.Add(t.Index, points)
	}
	c.comparison.Remove(t.Index)
	delete(c.stopping, t.Index)
}

// storeStoppedRuns writes into the records of sweeps which runs nodes are to stop.
func (s *scheduler) storeStoppedRuns(ctx context.Context) (failed error) {
	for id, f := range s.feeds {
		c := f.earlyStop
		if c == nil || !c.changed || !f.sweep.Active() {
			continue
		}
		var all []grid.StoppedRun
		for _, i := range slices.Sorted(maps.Keys(c.stopping)) {
			if len(all) < maxStopping {
				all = append(all, c.stopping[i])
			}
		}
		differs := false
		_, err := s.m.editRecord(ctx, id, func(r *jetstream.Record) (bool, error) {
			differs = !slices.Equal(r.Sweep.Stopping, all)
			r.Sweep.Stopping = all
			return differs, nil
		})
		c.changed = len(c.stopping) > len(all)
		switch {
		case errors.Is(err, jetstream.ErrTooLarge): // the next trial to stop retries it
			c.changed = false
			s.m.log.Warn("list of trials to stop is too large for the record", "sweep", id, "trials", len(all), "err", err)
		case err != nil:
			c.changed = true
			failed = errors.Join(failed, fmt.Errorf("stop trials of %s: %w", id, err))
		case differs:
			s.m.log.Info("trials that do worse than others are stopped", "sweep", id, "trials", len(all))
		}
	}
	return failed
}
