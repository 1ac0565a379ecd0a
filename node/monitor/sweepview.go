package monitor

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/packing"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

// sweepViews makes the API's representation of a sweep.
type sweepViews struct {
	master  *master.Master
	history *history.DB
	eta     *etaEstimator
}

// of joins a record with its counts in history.
func (sv *sweepViews) of(ctx context.Context, s *grid.Sweep) (api.Sweep, error) {
	c, err := sv.history.Counts(ctx, s.ID)
	if err != nil {
		return api.Sweep{}, fmt.Errorf("count trials of %s: %w", s.ID, err)
	}
	metrics, err := sv.history.MetricNames(ctx, s.ID)
	if err != nil {
		return api.Sweep{}, fmt.Errorf("list metrics of %s: %w", s.ID, err)
	}
	v := sweepWithCounts(s, &c)
	v.Metrics = nonNil(metrics)
	if s.Task.Resources.Measured() {
		rec, _ := sv.master.Sweep(s.ID)
		v.Sharing = sharing(s.Task.MeasureBy, rec.Packing)
	}
	v.Problem = s.Problem
	if s.Active() {
		v.ETA = sv.eta.remaining(ctx, s, &v)
		v.Problem = sv.master.Problem()
		if v.Pending > 0 && v.Running == 0 {
			v.Waits = sv.master.WaitingNodes(s)
		}
	}
	return v, nil
}

// sweepWithCounts joins a record with the counts of its trials.
func sweepWithCounts(s *grid.Sweep, c *history.Counts) api.Sweep {
	v := api.Sweep{
		SweepCounts: api.SweepCounts{
			Sweep: s.ID, State: s.State, Count: s.Space.Count(), Running: c.Running, Succeeded: c.Succeeded,
			Failed: c.Failed, Cancelled: c.Cancelled, Stopped: c.Stopped,
		},
		Project: s.Project, Task: s.Task.Name, Name: s.Name, Owner: s.Owner(), Priority: s.Priority,
		MaxParallel: s.MaxParallel,
		Submitted:   s.Submitted, Paused: nonZero(s.Paused), Started: micros(c.Started), Ended: nonZero(s.Ended),
		CPU:  seconds(c.CPU),
		Keys: s.Space.Keys(), Objective: s.Task.Objective, Bundles: s.Bundles(),
		Image: cmp.Or(s.Pinned, s.Task.Image),
	}
	for i, digest := range v.Bundles {
		v.Bundles[i] = shortDigest(digest)
	}
	v.Pending = max(0, v.Count-v.Running-v.Succeeded-v.Failed-v.Cancelled)
	if s.State == grid.SweepCancelled {
		v.Cancelled, v.Pending = v.Cancelled+v.Pending, 0
	}
	return v
}

// sharing returns the shares that trials get on each model of GPU.
func sharing(by string, all packing.Estimates) []api.Sharing {
	var list []api.Sharing
	for i := range all {
		e := &all[i]
		n, memory, _ := e.Fit(packing.Step)
		value := ""
		if e.Value != "" {
			value = by + "=" + e.Value
		}
		list = append(list, api.Sharing{Model: e.Model, Value: value, Trials: n, Memory: memory, Text: e.String()})
	}
	return list
}

func shortDigest(digest string) string { return digest[:min(len(digest), 12)] }

// extrapolate returns how many seconds a sweep will still run if its remaining trials take as long
// as the completed ones, with as many at a time as now. Time in which nothing ran, for example
// while the sweep was paused, does not count.
func extrapolate(v *api.Sweep, c *history.Counts) *float64 {
	done := v.Succeeded + v.Failed + v.Cancelled
	if done == 0 || c.Wall == 0 {
		return nil
	}
	rest := float64(v.Count-done) * seconds(c.Wall) / float64(done) / float64(max(v.Running, 1))
	return &rest
}

func micros(t int64) *time.Time {
	if t == 0 {
		return nil
	}
	u := time.UnixMicro(t).UTC()
	return &u
}

func nonZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func seconds(us int64) float64 { return float64(us) / 1e6 }
