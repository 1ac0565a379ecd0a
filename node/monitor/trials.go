package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
	"mlfnode/node/monitor/chart"
)

// trialHandlers answer calls about trials.
type trialHandlers struct {
	lookup  *lookup
	master  *master.Master
	history *history.DB
	store   *jetstream.Store
	charts  *chartViews
	log     *slog.Logger
	pages   *trialPages
}

// listOld streams the trials that the query selects, for clients of older versions.
func (h *trialHandlers) listOld(w http.ResponseWriter, r *http.Request) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		sendError(w, err)
		return
	}
	l, err := h.newListing(r, s)
	if err != nil {
		sendError(w, err)
		return
	}
	out := newLineWriter(w)
	out.close(r.Context(), l.each(r.Context(), func(t *api.Trial) error { return out.write(t) }))
}

// newListing returns the listing that a request asks for; trials that have not run yet are derived
// from the space.
func (h *trialHandlers) newListing(r *http.Request, s *grid.Sweep) (*listing, error) {
	q, err := parseQuery(r)
	if err != nil {
		return nil, err
	}
	parameter, err := h.chooseSort(r.Context(), s, &q)
	if err != nil {
		return nil, err
	}
	l := &listing{
		listingPage:   listingPage{sweep: s, q: q, left: q.Limit, skip: q.Offset, lastUnrecorded: -1},
		listingPlaces: listingPlaces{parameter: parameter, sorted: q.Sort}, trials: h,
	}
	if l.left <= 0 {
		l.left = s.Space.Count()
	}
	where, err := chart.ParseWhere(r.Form)
	if err != nil {
		return nil, chartError(err)
	}
	l.filtered = where.NeedsColumns()
	if err := l.parseAfter(r); err != nil {
		return nil, err
	}
	if l.filtered {
		if err := l.selectTrials(r.Context(), where); err != nil {
			return nil, chartError(err)
		}
	}
	return l, nil
}

// each calls put for every trial of the listing.
func (l *listing) each(ctx context.Context, put func(*api.Trial) error) error {
	kept := keptOutput(ctx, l.trials.store, l.trials.log)
	l.emit = func(t *grid.Trial) error {
		l.last = t
		v := apiTrial(l.sweep, t)
		v.Output = keptOutputOf(t.Result.Log, kept.First(t.Node))
		return put(v)
	}
	if l.q.Class != "" && !l.filtered {
		if len(l.q.States) == 0 {
			l.q.States = []grid.State{grid.Failed}
			if l.q.Class.EndsTrial() {
				l.q.States = []grid.State{grid.Cancelled}
			}
		}
		if l.parameter == "" {
			l.q.Limit, l.q.Offset = 0, 0 // history does not select by class
			l.keepClass(l.q.Class)
		}
	}
	if err := l.run(ctx); !errors.Is(err, errEnough) {
		return err
	}
	return nil
}

// errEnough ends a listing that is complete.
var errEnough = errors.New("the listing is complete")

func parseQuery(r *http.Request) (api.TrialQuery, error) {
	q := api.TrialQuery{Sort: r.FormValue("sort"), Desc: r.FormValue("desc") == "true"}
	if q.Sort == "" {
		q.Sort = "index"
	}
	for _, s := range r.Form["state"] {
		if !slices.Contains(grid.States[:], grid.State(s)) {
			return q, badRequest(fmt.Sprintf("%q is not a state of a trial", s),
				"states are pending, running, succeeded, failed, cancelled")
		}
		q.States = append(q.States, grid.State(s))
	}
	if q.Class = grid.Class(r.FormValue("class")); q.Class != "" && grid.FailureOf(q.Class).Cause == "" {
		return q, badRequest(fmt.Sprintf("%q is not a failure class", string(q.Class)), "")
	}
	for name, v := range map[string]*int64{"limit": &q.Limit, "offset": &q.Offset} {
		if text := r.FormValue(name); text != "" {
			n, err := strconv.ParseInt(text, 10, 64)
			if err != nil || n < 0 {
				return q, badRequest(fmt.Sprintf("%s %q is not a whole number of at least 0", name, text), "")
			}
			*v = n
		}
	}
	return q, nil
}

// listing joins the rows of history with the trials that have none.
type listing struct {
	listingPage
	listingPlaces

	trials   *trialHandlers
	selected []int64 // indexes, if a filter selects trials
	matched  int64   // the number of trials that the filter selects
}

func (l *listing) run(ctx context.Context) error {
	switch {
	case l.filtered:
		return l.byIndexes(ctx, l.selected)
	case l.parameter != "":
		return l.byParameter(ctx, l.parameter)
	case l.q.Sort == "index" && l.q.Desc:
		return l.byIndexDescending(ctx)
	case l.q.Sort == string(history.SortState):
		return l.byState(ctx)
	case l.q.Sort == "index" && len(l.q.States) == 0:
		return l.byIndex(ctx)
	}
	if l.after == nil || !l.after.unknown {
		if l.q.Sort == "index" && !l.q.Desc && l.wantsUnrecorded() {
			return l.byIndexFiltered(ctx)
		}
		if err := l.recorded(ctx); err != nil {
			return err
		}
	}
	if !l.wantsUnrecorded() {
		return nil
	}
	from := int64(0) // trials without a row follow the others by index, in any order
	if l.after != nil && (l.after.unknown || l.q.Sort == string(history.SortIndex)) {
		from = l.firstIndex()
	}
	return l.fillGaps(l.trials.history.Known(l.sweep.ID), from, l.sweep.Space.Count())
}

// byIndex merges rows and gaps by index; in this order the offset is an index.
func (l *listing) byIndex(ctx context.Context) error {
	next := l.skip + l.firstIndex()
	l.skip = 0
	for t, err := range l.trials.history.Trials(ctx, l.sweep.ID, history.Query{From: next, Limit: l.left}) {
		if err != nil {
			return err
		}
		if err := l.fill(&next, t.Index); err != nil || l.left == 0 {
			return err
		}
		if err := l.emitOrSkip(&t); err != nil || l.left == 0 {
			return err
		}
		next = t.Index + 1
	}
	return l.fill(&next, l.sweep.Space.Count())
}

// byIndexFiltered is like byIndex, with a filter.
func (l *listing) byIndexFiltered(ctx context.Context) error {
	rows, next := l.trials.history.Known(l.sweep.ID), l.firstIndex()
	if l.skip >= farSkip && rows.Count() <= chartTrials { // otherwise their states take too much memory
		if err := l.skipRecorded(ctx, rows, &next); err != nil {
			return err
		}
	}
	for t, err := range l.trials.history.Trials(ctx, l.sweep.ID, history.Query{States: l.q.States, From: next}) {
		if err != nil {
			return err
		}
		if err := l.fillGaps(rows, next, t.Index); err != nil || l.left == 0 {
			return err
		}
		next = t.Index + 1
		if err := l.emitOrSkip(&t); err != nil || l.left == 0 {
			return err
		}
	}
	return l.fillGaps(rows, next, l.sweep.Space.Count())
}

// farSkip is the offset from which on trials are skipped by reading only their states.
const farSkip = 500

// skipRecorded skips trials up to the first one without a row.
func (l *listing) skipRecorded(ctx context.Context, rows *ranges.Set, next *int64) error {
	end := l.sweep.Space.Count()
	if gap, ok := rows.Gap(*next, end); ok {
		end = gap.Lo
	}
	c, err := l.trials.history.Columns(ctx, l.sweep.ID, 0)
	if err != nil {
		return err
	}
	for b, first := range c.Blocks {
		for i, known := range c.State[b*history.BlockTrials : (b+1)*history.BlockTrials] {
			switch index := first + int64(i); {
			case index < *next:
			case index >= end || known == 0 || l.skip == 0:
				return nil
			default:
				if l.wantsState(grid.States[known-1]) {
					l.skip--
				}
				*next = index + 1
			}
		}
	}
	return nil
}

// recorded emits trials with rows, in the requested order.
func (l *listing) recorded(ctx context.Context) error {
	states := l.q.States
	q := history.Query{States: states, Sort: history.Sort(l.q.Sort), Desc: l.q.Desc, Limit: l.left, Offset: l.skip,
		After: l.historyCursor()}
	emitted := int64(0)
	for t, err := range l.trials.history.Trials(ctx, l.sweep.ID, q) {
		if err != nil {
			return err
		}
		emitted++
		l.skip = 0
		if err := l.emitOrSkip(&t); err != nil || l.left == 0 {
			return err
		}
	}
	if emitted > 0 || l.skip == 0 {
		return nil
	}
	c, err := l.trials.history.Counts(ctx, l.sweep.ID) // the offset has skipped all rows
	if err != nil {
		return err
	}
	rows := map[grid.State]int64{
		grid.Pending: c.Retrying, grid.Running: c.Running, grid.Succeeded: c.Succeeded, grid.Failed: c.Failed,
		grid.Cancelled: c.Cancelled,
	}
	for s, n := range rows {
		if len(states) == 0 || slices.Contains(states, s) {
			l.skip -= min(l.skip, n)
		}
	}
	return nil
}

func stateOf(t *grid.Trial) grid.State {
	if t.State == "" {
		return grid.Pending
	}
	return t.State
}

// apiTrial returns the API's representation of a trial.
func apiTrial(s *grid.Sweep, t *grid.Trial) *api.Trial {
	params, err := s.Space.At(t.Index)
	if err != nil {
		params = space.Params{} // a trial is listed even if its sweep's record is inconsistent
	}
	v := &api.Trial{
		Trial: grid.TrialID{Sweep: s.ID, Index: t.Index}.String(), Index: t.Index, State: stateOf(t),
		Attempt: t.Attempt, Attempts: t.Attempts, Node: t.Node, Class: t.Result.Class, Reason: t.Result.Reason,
		Params: params, Metrics: t.Result.Metrics,
		Started: micros(t.Result.Started), Ended: micros(t.Ended), Usage: apiUsage(t.Result.Usage), Left: t.Result.Left,
		Devices: t.Result.Devices,
	}
	if s.State == grid.SweepCancelled && !v.State.Terminal() {
		v.State = grid.Cancelled
	}
	if v.Metrics == nil {
		v.Metrics = grid.Metric{}
	}
	if t.Ended > 0 {
		v.ExitCode = exitCode(&t.Result)
	}
	v.Usage.Wall = elapsed(v.Usage.Wall, t.Result.Started, t.Ended, v.State == grid.Running)
	if len(s.Updates) > 0 && t.Attempt > t.Floor {
		v.Bundle = shortDigest(s.BundleAt(t.Index, t.Retried)) // both times are from the master's clock
	} else if len(s.Updates) > 0 && t.Attempt > 0 {
		v.Bundle = shortDigest(s.BundleAt(t.Index, t.Result.Started))
	}
	return v
}

// elapsed returns how long an attempt has run, in seconds, even if it is still running or its end
// was not observed.
func elapsed(wall float64, started, ended int64, running bool) float64 {
	if running {
		ended = time.Now().UnixMicro()
	}
	if wall > 0 || started == 0 || ended <= started {
		return wall
	}
	return seconds(ended - started)
}

// exitCode returns nil if there is no exit code.
func exitCode(r *grid.Result) *int {
	if r.ExitCode == grid.NoExit {
		return nil
	}
	code := r.ExitCode
	return &code
}

func apiUsage(u grid.Usage) api.Usage {
	r := api.Usage{Wall: seconds(u.Wall), CPU: seconds(u.CPU), Memory: u.Memory}
	for _, d := range u.GPU {
		r.GPUs = append(r.GPUs, api.GPUUse{UUID: d.UUID, Memory: d.Peak, Busy: d.Busy})
	}
	return r
}

func (h *trialHandlers) explain(r *http.Request) (api.Explanation, error) {
	s, index, err := h.lookup.trial(r)
	if err != nil {
		return api.Explanation{}, err
	}
	return h.master.Explain(r.Context(), grid.TrialID{Sweep: s.ID, Index: index})
}

func (h *trialHandlers) attempts(r *http.Request) ([]api.Attempt, error) {
	s, index, err := h.lookup.trial(r)
	if err != nil {
		return nil, err
	}
	known, err := h.history.Attempts(r.Context(), grid.TrialID{Sweep: s.ID, Index: index})
	if err != nil {
		return nil, err
	}
	all := make([]api.Attempt, 0, len(known))
	kept := keptOutput(r.Context(), h.store, h.log)
	for i := range known {
		v := apiAttempt(&known[i])
		if len(s.Updates) > 0 {
			v.Bundle = shortDigest(s.BundleAt(index, known[i].Started))
		}
		v.Output = keptOutputOf(known[i].Result.Log, kept.First(known[i].Node))
		all = append(all, v)
	}
	return all, nil
}

// curves answers with the curves of all attempts of a trial.
func (h *trialHandlers) curves(r *http.Request) ([]api.Curve, error) {
	s, index, err := h.lookup.trial(r)
	if err != nil {
		return nil, err
	}
	known, err := h.history.TrialCurves(r.Context(), grid.TrialID{Sweep: s.ID, Index: index})
	if err != nil {
		return nil, err
	}
	all := make([]api.Curve, len(known))
	for i, c := range known {
		all[i] = api.Curve{Run: c.Run, Metric: c.Metric, Steps: make([]float64, len(c.Points)),
			Values: make([]float32, len(c.Points))}
		for k, p := range c.Points {
			all[i].Steps[k], all[i].Values[k] = p.Step, p.Value
		}
	}
	return all, nil
}

func apiAttempt(a *history.Attempt) api.Attempt {
	v := api.Attempt{
		Attempt: a.Number, Run: a.Run, Node: a.Node, Outcome: string(a.Outcome), Class: a.Result.Class,
		Rule: a.Result.Rule, Device: a.Result.Device,
		Snapshot: a.Result.Snapshot, Resumed: a.Result.Resumed,
		ExitCode: exitCode(&a.Result), Reason: a.Result.Reason, Started: micros(a.Started), Ended: micros(a.Ended),
		Usage:   apiUsage(a.Result.Usage),
		Devices: a.Result.Devices,
	}
	running := a.Outcome == history.IsRunning
	if running {
		v.ExitCode = nil
	}
	v.Usage.Wall = elapsed(v.Usage.Wall, a.Started, a.Ended, running)
	return v
}
