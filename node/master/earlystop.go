package master

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
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

// loadEarlyStopping loads what history knows of the trials of a sweep, of which some have ended.
func loadEarlyStopping(ctx context.Context, db *history.DB, s *grid.Sweep, done *ranges.Set) (*earlyStopping, error) {
	e := &earlyStopping{comparison: grid.NewComparison(*s.Task.Stop), stopping: map[int64]grid.StoppedRun{}}
	for _, run := range s.Stopping {
		if !done.Has(run.Index) {
			e.stopping[run.Index] = run
		}
	}
	var ended []int64
	for r := range done.All() {
		for i := r.Lo; i < r.Hi && len(ended) < maxLoadedCurves; i++ {
			ended = append(ended, i)
		}
	}
	curves, err := db.Curves(ctx, s.ID, s.Task.Stop.Metric, ended)
	if err != nil {
		return nil, fmt.Errorf("load curves of %s: %w", s.ID, err)
	}
	for _, i := range slices.Sorted(maps.Keys(curves)) {
		e.comparison.Add(i, curves[i])
		e.comparison.Remove(i)
	}
	return e, nil
}

// observeProgress compares a running trial by its newest metrics, and keeps the reason if it is to
// be stopped.
func (c *earlyStopping) observeProgress(f *feed, e *grid.Event) {
	points, err := e.Curves[f.sweep.Task.Stop.Metric].Points()
	if _, known := c.stopping[e.Index]; err != nil || known || f.started[e.Index] != e.Attempt {
		return
	}
	if e.Index < 0 || e.Index >= f.count || f.done.Has(e.Index) {
		return
	}
	if why := c.comparison.Add(e.Index, points); why != "" {
		c.stopping[e.Index], c.changed = grid.StoppedRun{Index: e.Index, Run: e.Run, Reason: why}, true
	}
}

// observeEnd takes the whole curve of a trial that has ended, with which others are compared.
func (c *earlyStopping) observeEnd(t *history.Transition) {
	if c == nil || t.Change == grid.Began || t.Change == grid.Reconnect {
		return
	}
	if points, err := t.Curve.Points(); err == nil && t.State == grid.Succeeded {
		c.comparison.Add(t.Index, points)
	}
	for i := t.Index; i < max(t.End, t.Index+1); i++ { // End is set with grid.Reopen
		c.comparison.Remove(i)
		delete(c.stopping, i)
	}
}
