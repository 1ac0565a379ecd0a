package monitor

import (
	"context"
	"fmt"
	"math"

	"mlfnode/node/history"
	"mlfnode/node/monitor/chart"
)

// selectTrials restricts a listing to the trials with events that a filter of charts selects. It
// uses the same columns as the charts, so values are compared as 32-bit floats; the listed values
// are exact.
func (l *listing) selectTrials(ctx context.Context, where chart.Where) error {
	if n := l.sweep.Space.Count(); n > chartTrials {
		return badRequest(fmt.Sprintf("%s has %d trials, and at most %d can be filtered by parameters and values",
			l.sweep.ID, n, chartTrials),
			"filter by state and class, or write all of them with --csv")
	}
	order, value := chart.Order{By: l.q.Sort, Key: l.parameter, Desc: l.q.Desc}, ""
	switch history.Sort(l.q.Sort) {
	case history.SortIndex, history.SortState, history.SortStarted, history.SortEnded, history.SortWall:
	default:
		if l.parameter == "" {
			order.By, value = "value", l.q.Sort
		}
	}
	leave, err := l.trials.charts.cache.compute.acquire(ctx)
	if err != nil {
		return err
	}
	defer leave()
	v, err := l.trials.charts.view(ctx, l.sweep, value, "", where, minAge)
	if err != nil {
		return err
	}
	if l.after != nil {
		order.After = &chart.Place{Index: l.after.Index, Value: math.NaN()}
		if f, ok := l.after.Value.(float64); ok {
			order.After.Value = f
		}
	}
	all, places, known := v.view.Trials(order)
	if !known {
		return badRequest(fmt.Sprintf("filtered trials can't be sorted by %.60q", l.q.Sort), "sort by another column")
	}
	l.selected, l.places = all, func(n int) history.Cursor {
		p := places(n)
		if math.IsNaN(p.Value) {
			return history.Cursor{Index: p.Index}
		}
		return history.Cursor{Index: p.Index, Value: p.Value}
	}
	l.matched = int64(v.view.Matched())
	return nil
}
