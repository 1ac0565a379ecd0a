package monitor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/grid/space"
	"mlfnode/node/api"
	"mlfnode/node/history"
)

// maxSorted bounds the trials of a listing by a parameter, which are sorted in memory.
const maxSorted = 2 << 20

// maxValues bounds the values of a parameter that are sorted for one page.
const maxValues = 1 << 16

// fixedSorts are the orders that every sweep has.
var fixedSorts = []string{
	"index", string(history.SortStarted), string(history.SortEnded), string(history.SortWall), string(history.SortCPU),
	string(history.SortMemory),
	string(history.SortObjective), string(history.SortState), string(history.SortAttempts),
}

// chooseSort determines the sort key of a listing: a field that every sweep has, a parameter, or a
// metric. Names are those of the columns of results; a prefix resolves ambiguous names.
func (h *trialHandlers) chooseSort(
	ctx context.Context, s *grid.Sweep, q *api.TrialQuery,
) (parameter string, err error) {
	if q.Sort == string(history.SortObjective) && s.Task.Objective == nil {
		return "", badRequest(fmt.Sprintf("task %s has no objective to sort by", s.Task.Name),
			"sort by a metric, or set objective in project.yaml")
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
	names, err := h.history.MetricNames(ctx, s.ID)
	if err != nil {
		return "", fmt.Errorf("list metrics of %s: %w", s.ID, err)
	}
	if name, found := strings.CutPrefix(q.Sort, "metric:"); found && !slices.Contains(names, q.Sort) {
		q.Sort = name
	}
	if slices.Contains(names, q.Sort) || len(names) >= history.MaxNames { // others may exist, too
		return "", nil
	}
	hint := "it has no parameters, and no trial has reported a metric yet"
	if known := slices.Concat(names, keys); len(known) > 0 {
		for i, name := range known { // programs choose the names of metrics
			known[i] = printable.Line([]byte(name))
		}
		hint = "sort by " + strings.Join(known[:min(len(known), 12)], ", ") +
			", or by index, state, attempts, started, ended, wall, cpu or memory"
	}
	return "", badRequest(fmt.Sprintf("no trial of %s has a metric %q, and it is not a parameter either", s.ID, q.Sort),
		hint)
}

// byIndexDescending merges rows and gaps from the last index to the first.
func (l *listing) byIndexDescending(ctx context.Context) error {
	unrecorded := l.wantsUnrecorded()
	next := l.sweep.Space.Count() // everything above has been emitted
	if l.after != nil {
		next = min(next, l.after.Index)
	}
	for t, err := range l.trials.history.Trials(ctx, l.sweep.ID,
		history.Query{Sort: history.SortIndex, Desc: true, After: l.historyCursor()}) {
		if err != nil {
			return err
		}
		if unrecorded {
			if err := l.fillDown(&next, t.Index+1); err != nil || l.left == 0 {
				return err
			}
		}
		next = t.Index
		if !l.wantsState(stateOf(&t)) {
			continue
		}
		if err := l.emitOrSkip(&t); err != nil || l.left == 0 {
			return err
		}
	}
	if !unrecorded {
		return nil
	}
	return l.fillDown(&next, 0)
}

// byState lists one state after the other, each by index, so that trials without a row appear among
// those of their state.
func (l *listing) byState(ctx context.Context) error {
	states := slices.Clone(grid.States[:])
	if l.q.Desc {
		slices.Reverse(states)
	}
	wanted := l.q.States
	l.q.Sort, l.q.Desc = "index", false
	if l.after != nil {
		at, _ := l.after.Value.(int64)
		states = states[max(0, slices.IndexFunc(states, func(s grid.State) bool {
			return int64(slices.Index(grid.States[:], s)) == at
		})):]
	}
	for i, s := range states {
		if i > 0 {
			l.after = nil // it is in the first list
		}
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

// ranked is a value of a parameter with its sort key.
type ranked struct {
	place  int64 // among the values of the axis
	number float64
	text   string
	class  uint8 // numbers, then texts, then Booleans
}

// byParameter sorts trials by the value of a parameter, and trials with equal values by index.
func (l *listing) byParameter(ctx context.Context, key string) error {
	points := l.sweep.Space
	axis := slices.Index(points.Keys(), key)
	if len(l.q.States) == 0 && l.q.Class == "" && points.Values()[axis].Count() <= maxValues {
		if order, ok := newAxisOrder(points, axis, valuePlaces(points, axis, l.q.Desc)); ok {
			return l.byAxisOrder(ctx, order)
		}
	}
	if n := points.Count(); n > maxSorted {
		return badRequest(fmt.Sprintf("%s has %d trials, and at most %d can be sorted by a parameter",
			l.sweep.ID, n, maxSorted),
			"write all of them with --csv, and sort that file")
	}
	wanted, err := l.filter(ctx)
	if err != nil {
		return err
	}
	places := valuePlaces(points, axis, l.q.Desc)
	at := make([][]int64, len(points.Values()))
	for k := range at {
		at[k] = make([]int64, history.BlockTrials)
	}
	each := func(fn func(index int64, place int32)) error {
		for lo := int64(0); lo < points.Count(); lo += history.BlockTrials {
			if err := cmp.Or(points.Positions(lo, lo+history.BlockTrials, at), ctx.Err()); err != nil {
				return err
			}
			for i := range min(history.BlockTrials, points.Count()-lo) {
				if wanted(lo + i) {
					fn(lo+i, places[at[axis][i]])
				}
			}
		}
		return nil
	}
	begin := make([]int64, len(places)+1) // the first position of each place
	if err := each(func(_ int64, place int32) { begin[place+1]++ }); err != nil {
		return err
	}
	for i := range places {
		begin[i+1] += begin[i]
	}
	indexes := make([]int64, begin[len(places)])
	if err := each(func(index int64, place int32) {
		indexes[begin[place]] = index
		begin[place]++
	}); err != nil {
		return err
	}
	if l.after != nil {
		at, err := firstAfter(l.after.Index, indexes, points, axis, places)
		if err != nil {
			return err
		}
		indexes = indexes[at:]
	}
	return l.byIndexes(ctx, indexes)
}

// byAxisOrder emits trials in the order of an axis.
func (l *listing) byAxisOrder(ctx context.Context, order *axisOrder) error {
	from := l.skip
	if l.after != nil {
		value, known, err := valueOf(l.sweep.Space, l.after.Index, order.axis)
		if !known {
			return err
		}
		from = order.place(value, l.after.Index)
	}
	l.skip = 0
	for l.left > 0 {
		page := order.from(from, min(l.left, history.BlockTrials))
		if len(page) == 0 {
			return nil
		}
		if err := l.byIndexes(ctx, page); err != nil {
			return err
		}
		from += int64(len(page))
	}
	return nil
}

// firstAfter returns the position of the first trial after another one, in the order of the places
// of an axis.
func firstAfter(last int64, indexes []int64, points space.Space, axis int, places []int32) (int, error) {
	value, known, err := valueOf(points, last, axis)
	if !known {
		return len(indexes), err
	}
	n, _ := slices.BinarySearchFunc(indexes, last, func(index, last int64) int {
		other, _, err2 := valueOf(points, index, axis)
		err = cmp.Or(err, err2)
		return cmp.Or(cmp.Compare(places[other], places[value]), cmp.Compare(index, last+1))
	})
	return n, err
}

// valueOf returns the number of the value that a trial has on an axis; not ok if the space has no
// such trial.
func valueOf(s space.Space, index int64, axis int) (value int64, ok bool, err error) {
	at := make([][]int64, len(s.Values()))
	for k := range at {
		at[k] = make([]int64, 1)
	}
	if index >= s.Count() {
		return 0, false, nil
	}
	err = s.Positions(index, index+1, at)
	return at[axis][0], err == nil, err
}

// filter returns a function that reports whether a trial has one of the requested states and the
// requested class.
func (l *listing) filter(ctx context.Context) (func(index int64) bool, error) {
	if len(l.q.States) == 0 && l.q.Class == "" {
		return func(int64) bool { return true }, nil
	}
	c, err := l.trials.history.Columns(ctx, l.sweep.ID, 0)
	if err != nil {
		return nil, err
	}
	return func(index int64) bool {
		state, class := unrecordedState(l.sweep), grid.ClassNone
		block, ok := slices.BinarySearch(c.Blocks, index&^(history.BlockTrials-1))
		if ok {
			row := int64(block)*history.BlockTrials + index%history.BlockTrials
			if known := c.State[row]; known > 0 {
				state = grid.States[known-1]
			}
			class, _ = c.ClassOf(int(row))
		}
		return l.wantsState(state) && (l.q.Class == "" || class == l.q.Class)
	}, nil
}

// valuePlaces returns the rank of each value of an axis: numbers, then texts, then Booleans. Equal
// values share a rank.
func valuePlaces(s space.Space, axis int, desc bool) []int32 {
	values := s.Values()[axis]
	all := make([]ranked, values.Count())
	for i := range all {
		all[i] = newRanked(values.At(int64(i)), int64(i))
	}
	compare := func(a, b ranked) int {
		c := cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.text, b.text))
		if desc {
			c = -c
		}
		return cmp.Or(cmp.Compare(a.class, b.class), c)
	}
	slices.SortFunc(all, compare)
	places := make([]int32, len(all))
	place := int32(0)
	for i, r := range all {
		if i > 0 && compare(all[i-1], r) != 0 {
			place++
		}
		places[r.place] = place
	}
	return places
}

// byIndexes emits trials in the order of the given indexes.
func (l *listing) byIndexes(ctx context.Context, all []int64) error {
	all = all[min(l.skip, int64(len(all))):]
	l.skip = 0
	for page := range slices.Chunk(all, history.BlockTrials) {
		page = page[:min(l.left, int64(len(page)))]
		known, err := l.trials.history.TrialsAt(ctx, l.sweep.ID, page)
		if err != nil {
			return err
		}
		for _, index := range page {
			t := known[index]
			if t == nil {
				t = l.unrecorded(index)
			}
			if err := l.emitOrSkip(t); err != nil {
				return err
			}
		}
		if l.left == 0 {
			break
		}
	}
	return nil
}

func newRanked(v space.Value, place int64) ranked {
	r := ranked{place: place, class: 2}
	switch v.Kind {
	case space.Number:
		r.class = 0
		r.number, _ = strconv.ParseFloat(v.Text, 64) // a number out of range is infinite
	case space.Text:
		r.class, r.text = 1, v.Text
	default:
		r.text = v.Text
	}
	return r
}
