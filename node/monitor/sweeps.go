package monitor

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/packing"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
	"mlfnode/projects"
)

func (m *Monitor) sweeps(r *http.Request) ([]api.Sweep, error) {
	records := m.cfg.Master.Sweeps()
	slices.SortFunc(records, func(a, b jetstream.Record) int { return a.Sweep.Compare(b.Sweep) })
	all := make([]api.Sweep, 0, len(records))
	for _, rec := range records {
		if rec.Sweep.Removing {
			continue
		}
		s, err := m.view(r.Context(), rec.Sweep)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func (m *Monitor) sweep(r *http.Request) (api.Sweep, error) {
	s, err := m.record(r)
	if err != nil {
		return api.Sweep{}, err
	}
	v, err := m.view(r.Context(), s)
	if err != nil {
		return v, err
	}
	v.LogNext, err = m.cfg.Store.Logs.Next(r.Context())
	return v, err
}

// describe says what a sweep runs. Like the command of one trial it is for operators.
func (m *Monitor) describe(r *http.Request) (api.Description, error) {
	v, err := m.sweep(r)
	if err != nil {
		return api.Description{}, err
	}
	s, err := m.recordOf(v.Sweep)
	if err != nil {
		return api.Description{}, err
	}
	d := api.Description{Sweep: v, Task: api.Spec(&s.Task), Space: api.SpecOf(s.Space), Bundle: s.Bundle, Origin: s.Origin}
	hidden := hiddenVariables(s)
	d.Hidden = nonNil(slices.Sorted(maps.Keys(hidden)))
	d.Task.Env = maps.Clone(s.Task.Env)
	maps.DeleteFunc(d.Task.Env, func(name, _ string) bool { return hidden[name] })
	return d, nil
}

// view joins a record with what history counts.
func (m *Monitor) view(ctx context.Context, s *grid.Sweep) (api.Sweep, error) {
	c, err := m.cfg.History.Counts(ctx, s.ID)
	if err != nil {
		return api.Sweep{}, fmt.Errorf("count trials of %s: %w", s.ID, err)
	}
	metrics, err := m.cfg.History.MetricNames(ctx, s.ID)
	if err != nil {
		return api.Sweep{}, fmt.Errorf("list metrics of %s: %w", s.ID, err)
	}
	v := counted(s, &c)
	v.Metrics = nonNil(metrics)
	if s.Task.Resources.Measured() {
		rec, _ := m.cfg.Master.Sweep(s.ID)
		v.Sharing = sharing(s.Task.MeasureBy, rec.Packing)
	}
	v.Problem = s.Problem
	if s.Active() {
		v.ETA = m.remaining(ctx, s, &v)
		v.Problem = m.cfg.Master.Problem()
		if v.Pending > 0 && v.Running == 0 {
			v.Waits = m.cfg.Master.WaitingNodes(s)
		}
	}
	return v, nil
}

// counted joins a record with the counts of its trials.
func counted(s *grid.Sweep, c *history.Counts) api.Sweep {
	v := api.Sweep{
		SweepCounts: api.SweepCounts{
			Sweep: s.ID, State: s.State, Count: s.Space.Count(), Running: c.Running, Succeeded: c.Succeeded, Failed: c.Failed, Cancelled: c.Cancelled, Stopped: c.Stopped,
		},
		Project: s.Project, Task: s.Task.Name, Name: s.Name, Owner: s.Owner(), Priority: s.Priority, MaxParallel: s.MaxParallel,
		Submitted: s.Submitted, Paused: nonZero(s.Paused), Started: micros(c.Started), Ended: nonZero(s.Ended), CPU: seconds(c.CPU),
		Keys: s.Space.Keys(), Objective: s.Task.Objective, Bundles: shortDigests(s),
		Image: cmp.Or(s.Pinned, s.Task.Image),
	}
	v.Pending = max(0, v.Count-v.Running-v.Succeeded-v.Failed-v.Cancelled)
	if s.State == grid.SweepCancelled {
		v.Cancelled, v.Pending = v.Cancelled+v.Pending, 0
	}
	return v
}

// sharing says what trials get of each model of GPU.
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

// shortDigests names the files of a sweep for a person.
func shortDigests(s *grid.Sweep) []string {
	all := s.Bundles()
	for i := range all {
		all[i] = shortDigest(all[i])
	}
	return all
}

func shortDigest(digest string) string { return digest[:min(len(digest), 12)] }

// extrapolate tells how many seconds a sweep goes on if its other trials take as long as those that are done, as many at one time as now.
// Time in which nothing ran, as while the sweep was paused, does not count.
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

func (m *Monitor) submit(r *http.Request, q *api.Submission) (api.Sweep, error) {
	s, err := q.Check()
	if err == nil {
		err = cmp.Or(projects.CheckShare(s.Task.Share), projects.CheckInputs(s.Task.Inputs))
	}
	if err != nil {
		return api.Sweep{}, badRequest(err.Error(), "")
	}
	if s.Bundle != "" && !isDigest(s.Bundle) {
		return api.Sweep{}, badRequest("a bundle is named by its SHA-256, 64 hex digits in lower case", "")
	}
	rec, err := m.cfg.Master.Submit(r.Context(), s)
	if err != nil {
		return api.Sweep{}, err
	}
	return m.view(r.Context(), rec.Sweep)
}

// remove takes a sweep that does not run out of the store. A sweep of which an interrupted removal has left something is found, too.
func (m *Monitor) remove(r *http.Request) (struct{}, error) {
	id := grid.SweepID(r.PathValue("sweep"))
	if rec, ok := m.cfg.Master.Sweep(id); !ok || !rec.Sweep.Removing {
		s, err := m.record(r)
		if err != nil {
			return struct{}{}, err
		}
		id = s.ID
	}
	return struct{}{}, m.cfg.Master.Remove(r.Context(), id)
}

// change has the master change a sweep, and gives the sweep as it is then. With dry_run nothing changes: touches says how many trials would,
// where do does not.
func (m *Monitor) change(r *http.Request, touches func(*api.Sweep) int64, do func(context.Context, *grid.Sweep) (changed int64, err error)) (api.Done, error) {
	s, err := m.record(r)
	if err != nil {
		return api.Done{}, err
	}
	ctx, dry := r.Context(), r.URL.Query().Get("dry_run") == "true"
	if dry {
		ctx = master.DryRun(ctx)
	}
	changed, err := do(ctx, s)
	if err != nil {
		return api.Done{}, err
	}
	if rec, ok := m.cfg.Master.Sweep(s.ID); ok {
		s = rec.Sweep
	}
	v, err := m.view(ctx, s)
	if dry && touches != nil {
		changed = touches(&v)
	}
	return api.Done{Sweep: v, Changed: changed, DryRun: dry}, err
}

func pending(v *api.Sweep) int64    { return v.Pending }
func running(v *api.Sweep) int64    { return v.Running }
func unfinished(v *api.Sweep) int64 { return v.Pending + v.Running }

func (m *Monitor) pause(r *http.Request) (api.Done, error) {
	return m.change(r, pending, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, err := m.cfg.Master.Pause(ctx, s.ID, false)
		return 0, err
	})
}

func (m *Monitor) kill(r *http.Request) (api.Done, error) {
	return m.change(r, running, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, err := m.cfg.Master.Pause(ctx, s.ID, true)
		return 0, err
	})
}

func (m *Monitor) resume(r *http.Request) (api.Done, error) {
	return m.change(r, pending, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, err := m.cfg.Master.Resume(ctx, s.ID)
		return 0, err
	})
}

func (m *Monitor) cancel(r *http.Request) (api.Done, error) {
	return m.change(r, unfinished, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, err := m.cfg.Master.Cancel(ctx, s.ID, r.URL.Query().Get("save") == "true")
		return 0, err
	})
}

func (m *Monitor) cancelTrial(r *http.Request) (api.Done, error) {
	one := func(*api.Sweep) int64 { return 1 }
	return m.change(r, one, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		index, err := trialIndex(s, r.PathValue("index"))
		if err == nil && index < 0 {
			err = badRequest("there is no trial "+r.PathValue("index"), "")
		}
		if err != nil {
			return 0, err
		}
		_, err = m.cfg.Master.CancelTrial(ctx, grid.TrialID{Sweep: s.ID, Index: index})
		return 1, err
	})
}

func (m *Monitor) retry(r *http.Request, q *api.Retry) (api.Done, error) {
	return m.change(r, nil, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		if _, err := trialIndex(s, strconv.FormatInt(q.Index, 10)); err != nil {
			return 0, err
		}
		if q.Bundle != "" && !isDigest(q.Bundle) {
			return 0, badRequest("the bundle of the retry is not named by a SHA-256 digest", "use an mlfnode of the node's version")
		}
		_, changed, err := m.cfg.Master.Retry(ctx, s.ID, *q)
		return changed, err
	})
}

func (m *Monitor) extend(r *http.Request, q *api.Extend) (api.Done, error) {
	return m.change(r, nil, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, changed, err := m.cfg.Master.Extend(ctx, s.ID, *q)
		return changed, err
	})
}

func (m *Monitor) set(r *http.Request, q *api.Set) (api.Done, error) {
	if err := q.Check(); err != nil {
		return api.Done{}, badRequest(err.Error(), "")
	}
	return m.change(r, pending, func(ctx context.Context, s *grid.Sweep) (int64, error) {
		_, err := m.cfg.Master.Set(ctx, s.ID, *q)
		return 0, err
	})
}
