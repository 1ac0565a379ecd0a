package monitor

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// mostSorted bounds the trials of a listing by a parameter, which are sorted in memory.
const mostSorted = 2 << 20

// fixedSorts are the orders that every sweep has.
var fixedSorts = []string{
	"index", string(history.SortStarted), string(history.SortEnded), string(history.SortWall), string(history.SortCPU), string(history.SortMemory),
	string(history.SortObjective), string(history.SortState), string(history.SortAttempts),
}

// chooseSort finds out what a listing is sorted by: what every sweep has, a parameter, or a metric. Names are those of the
// columns of results: a prefix tells apart what has one name.
func (m *Monitor) chooseSort(ctx context.Context, s *grid.Sweep, q *api.TrialQuery) (parameter string, err error) {
	if q.Sort == string(history.SortObjective) && s.Task.Objective == nil {
		return "", badRequest(fmt.Sprintf("task %s has no objective to sort by", s.Task.Name), "sort by a metric, or set objective in project.yaml")
	}
	if slices.Contains(fixedSorts, q.Sort) {
		return "", nil
	}
	keys := s.Space.Keys()
	if key := strings.TrimPrefix(q.Sort, "parameter:"); slices.Contains(keys, q.Sort) || slices.Contains(keys, key) {
		if slices.Contains(keys, q.Sort) {
			key = q.Sort
		}
		return key, nil
	}
	names, err := m.cfg.History.MetricNames(ctx, s.ID)
	if err != nil {
		return "", fmt.Errorf("list metrics of %s: %w", s.ID, err)
	}
	if name, found := strings.CutPrefix(q.Sort, "metric:"); found && !slices.Contains(names, q.Sort) {
		q.Sort = name
	}
	if slices.Contains(names, q.Sort) || len(names) >= history.MaxNames { // others may be there, too
		return "", nil
	}
	hint := "it has no parameters, and no trial has reported a metric yet"
	if known := slices.Concat(names, keys); len(known) > 0 {
		for i, name := range known { // programs choose the names of metrics
			known[i] = printable.Line([]byte(name))
		}
		hint = "sort by " + strings.Join(known[:min(len(known), 12)], ", ") + ", or by index, state, attempts, started, ended, wall, cpu or memory"
	}
	return "", badRequest(fmt.Sprintf("no trial of %s has a metric %q, and it is not a parameter either", s.ID, q.Sort), hint)
}

// descending merges rows and gaps from the last index to the first.
func (l *listing) descending(ctx context.Context) error {
	next := l.sweep.Space.Count() // what is above has been emitted
	for t, err := range l.m.cfg.History.Trials(ctx, l.sweep.ID, history.Query{Sort: history.SortIndex, Desc: true}) {
		if err != nil {
			return err
		}
		if err := l.fillDown(&next, t.Index+1); err != nil || l.left == 0 {
			return err
		}
		next = t.Index
		if !l.wants(state(&t)) {
			continue
		}
		if err := l.put(&t); err != nil || l.left == 0 {
			return err
		}
	}
	return l.fillDown(&next, 0)
}

// fillDown emits trials without a row below next down to end.
func (l *listing) fillDown(next *int64, end int64) error {
	if !l.wantsUnknown() {
		return nil
	}
	if jump := min(l.skip, max(0, *next-end)); jump > 0 {
		*next -= jump
		l.skip -= jump
	}
	for ; *next > end && l.left > 0; *next-- {
		if err := l.put(&grid.Trial{Index: *next - 1, State: l.unknownState()}); err != nil {
			return err
		}
	}
	return nil
}

// byState lists one state after the other, each by index, so that trials without a row stand among those of their state.
func (l *listing) byState(ctx context.Context) error {
	states := slices.Clone(grid.States[:])
	if l.q.Desc {
		slices.Reverse(states)
	}
	wanted := l.q.States
	l.q.Sort, l.q.Desc = "index", false
	for _, s := range states {
		if len(wanted) > 0 && !slices.Contains(wanted, s) {
			continue
		}
		l.q.States = []grid.State{s}
		if err := l.run(ctx); err != nil || l.left == 0 {
			return err
		}
	}
	return nil
}

// ranked is a trial with its place in the order of a parameter.
type ranked struct {
	index  int64
	number float64
	text   string
	class  uint8 // numbers, then texts, then flags
}

// byParameter sorts trials by the value of a parameter, equal ones by index.
func (l *listing) byParameter(ctx context.Context, key string) error {
	if n := l.sweep.Space.Count(); n > mostSorted {
		return badRequest(fmt.Sprintf("%s has %d trials, and at most %d can be sorted by a parameter", l.sweep.ID, n, mostSorted),
			"write all of them with --csv, and sort that file")
	}
	var all []ranked
	every := &listing{m: l.m, sweep: l.sweep, q: api.TrialQuery{States: l.q.States, Sort: "index"}, left: math.MaxInt64}
	every.emit = func(t *grid.Trial) error {
		p, err := l.sweep.Space.At(t.Index)
		all = append(all, rank(p, t.Index, key))
		return cmp.Or(err, ctx.Err())
	}
	if err := every.run(ctx); err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b ranked) int {
		c := cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.text, b.text))
		if l.q.Desc {
			c = -c
		}
		return cmp.Or(cmp.Compare(a.class, b.class), c, cmp.Compare(a.index, b.index))
	})
	indexes := make([]int64, len(all))
	for i, r := range all {
		indexes[i] = r.index
	}
	return l.these(ctx, indexes)
}

// these emits trials in the order of their indexes here.
func (l *listing) these(ctx context.Context, all []int64) error {
	all = all[min(l.skip, int64(len(all))):]
	l.skip = 0
	for _, index := range all {
		if l.left == 0 {
			break
		}
		if err := l.one(ctx, index); err != nil {
			return err
		}
	}
	return nil
}

func rank(p grid.Params, index int64, key string) ranked {
	r := ranked{index: index, class: 2}
	for _, q := range p {
		if q.Key != key {
			continue
		}
		switch r.text = q.Value.Text; q.Value.Kind {
		case grid.Number:
			r.class, r.text = 0, ""
			r.number, _ = strconv.ParseFloat(q.Value.Text, 64) // a number too great is infinite
		case grid.Text:
			r.class = 1
		}
	}
	return r
}

// one emits one trial.
func (l *listing) one(ctx context.Context, index int64) error {
	for t, err := range l.m.cfg.History.Trials(ctx, l.sweep.ID, history.Query{From: index, Limit: 1}) {
		if err != nil {
			return err
		}
		if t.Index == index {
			return l.put(&t)
		}
	}
	return l.put(&grid.Trial{Index: index, State: l.unknownState()})
}
