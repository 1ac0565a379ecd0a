package monitor

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

// observer reads the states of topics for the hub.
type observer struct {
	master  *master.Master
	history *history.DB
	store   *jetstream.Store
	members func() []api.Member // nil on a node that stands alone
	eta     *etaEstimator
	log     *slog.Logger
}

// observe returns the current states of a topic, by key.
func (ob *observer) observe(ctx context.Context, t topic, rates *rates) (map[string]observed, error) {
	all := map[string]observed{}
	switch t.kind {
	case "overview":
		return ob.overview(ctx, rates)
	case "nodes":
		names := []grid.NodeID{}
		for _, member := range ob.members() {
			all["node:"+string(member.Node)] = observed{"node", member}
			names = append(names, member.Node)
		}
		slices.Sort(names)
		all["members"] = observed{"members", names}
	case "sweep":
		v, err := ob.sweepState(ctx, t.sweep, rates)
		if err != nil {
			return nil, err
		}
		all["sweep:"+string(t.sweep)] = observed{"sweep", v}
	case "trial":
		v, err := ob.trialState(ctx, grid.TrialID{Sweep: t.sweep, Index: t.index})
		if err != nil {
			return nil, err
		}
		all["trial:"+v.Trial] = observed{"trial", v}
	}
	return all, nil
}

// observed is a state with the name of its event.
type observed struct {
	name  string
	value any
}

// overview returns the totals of the cluster, the state of each sweep in progress, and one last
// time the state of a sweep that has just ended.
func (ob *observer) overview(ctx context.Context, rates *rates) (map[string]observed, error) {
	o := &api.Overview{Problem: ob.master.Problem()}
	all := map[string]observed{"overview": {"overview", o}}
	nowMoving := map[grid.SweepID]bool{}
	for _, rec := range ob.master.Sweeps() {
		s := rec.Sweep
		if s.Removing {
			continue
		}
		c, err := ob.history.Counts(ctx, s.ID)
		if err != nil {
			return nil, fmt.Errorf("count trials of %s: %w", s.ID, err)
		}
		o.Sweeps++
		o.Running += c.Running
		o.Succeeded += c.Succeeded
		o.Failed += c.Failed
		if s.Active() {
			o.Active++
			o.Pending += max(0, s.Space.Count()-c.Running-c.Done())
		}
		if moving := s.Active() || c.Running > 0; moving || rates.moving[s.ID] {
			nowMoving[s.ID] = moving
			all["sweep:"+string(s.ID)] = observed{"sweep", ob.stateOf(ctx, s, &c, rates)}
		}
	}
	rates.moving = nowMoving // only now: a failed read must not lose the end of a sweep
	return all, nil
}

func (ob *observer) sweepState(ctx context.Context, id grid.SweepID, rates *rates) (*api.SweepState, error) {
	rec, ok := ob.master.Sweep(id)
	if !ok || rec.Sweep.Removing {
		return &api.SweepState{SweepCounts: api.SweepCounts{Sweep: id, State: sweepRemoved}}, nil
	}
	s := rec.Sweep
	c, err := ob.history.Counts(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("count trials of %s: %w", id, err)
	}
	return ob.stateOf(ctx, s, &c, rates), nil
}

func (ob *observer) stateOf(ctx context.Context, s *grid.Sweep, c *history.Counts, rates *rates) *api.SweepState {
	v := sweepWithCounts(s, c)
	state := &api.SweepState{SweepCounts: v.SweepCounts}
	if s.Active() {
		state.Rate = rates.update(s.ID, c.Done(), time.Now())
		if rest := ob.eta.remaining(ctx, s, &v); rest != nil {
			seconds := float64(int64(*rest))
			state.ETA = &seconds
		}
	}
	return state
}

// The states of removed things, which exist in events only.
const (
	sweepRemoved grid.SweepState = "removed"
	trialRemoved grid.State      = "removed"
)

// trialState returns the state of a trial, or of one whose sweep has been removed.
func (ob *observer) trialState(ctx context.Context, id grid.TrialID) (*api.Trial, error) {
	rec, ok := ob.master.Sweep(id.Sweep)
	if !ok || rec.Sweep.Removing {
		return &api.Trial{Trial: id.String(), Index: id.Index, State: trialRemoved, Params: space.Params{},
			Metrics: grid.Metric{}}, nil
	}
	t, known, err := ob.history.Trial(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", id, err)
	}
	if !known {
		t = grid.Trial{Index: id.Index, State: unrecordedState(rec.Sweep)}
	}
	v := apiTrial(rec.Sweep, &t)
	kept := keptOutput(ctx, ob.store, ob.log)
	v.Output = keptOutputOf(t.Result.Log, kept.First(t.Node))
	if v.State == grid.Running {
		v.Usage.Wall = 0 // otherwise it would change at every moment
	}
	return v, nil
}
