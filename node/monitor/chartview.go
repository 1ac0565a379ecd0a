package monitor

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/node/history"
	"mlfnode/node/monitor/chart"
)

const (
	// chartTrials is the number of trials that a chart reads: from a larger sweep, evenly spread
	// blocks.
	chartTrials = 2 << 20
	// etaTrials is the same for the time left, which is requested all the time.
	etaTrials = 200_000
	// recentTrials is the number of trials that determine how many run at a time.
	recentTrials = 2000
	// columnMetrics is the number of metrics of a sweep that are stored in columns.
	columnMetrics = 32
)

// chartViews select the trials that a chart is about. Reading the columns of a sweep is costly, so
// the cache keeps the last selections.
type chartViews struct {
	history *history.DB
	cache   *chartCache
}

// version identifies the state of a sweep at this moment. Running trials change charts without an
// event, so the version also changes with time while any are running. age is how long an answer of
// an older version may be served: least while the sweep is in progress, and 0 at rest, when no
// client asks again.
func (cv *chartViews) version(
	ctx context.Context, s *grid.Sweep, least time.Duration,
) (version string, age time.Duration) {
	version = fmt.Sprintf("%d/%d/%s", cv.history.Version(s.ID), s.Space.Count(), s.State)
	if c, err := cv.history.Counts(ctx, s.ID); err == nil && c.Running > 0 {
		return version + fmt.Sprint("/", time.Now().Unix()/5), least
	}
	if !s.Active() {
		least = 0
	}
	return version, least
}

// view selects trials. Recent selections are cached: all trials, for other filters, and the trials
// of a filter, for the other charts that a page requests. least is how old a selection of a sweep
// in progress may be. The caller holds the semaphore of the cache.
func (cv *chartViews) view(
	ctx context.Context, s *grid.Sweep, value, goal string, where chart.Where, least time.Duration,
) (*keptView, error) {
	version, least := cv.version(ctx, s, least)
	key := fmt.Sprintf("%s %q %q %q", s.ID, value, goal, where.Metrics())
	all := cv.cache.lastView(key, version, least)
	if all == nil {
		began := time.Now()
		d, err := cv.data(ctx, s, value, goal, chartTrials, where.Metrics())
		if err != nil {
			return nil, err
		}
		v, err := chart.New(d, chart.Where{})
		if err != nil {
			return nil, err
		}
		all = &keptView{selection{key, version, began, time.Since(began)}, v}
		cv.cache.keepView(all)
	}
	filter := where.Query().Encode()
	if filter == "" {
		return all, nil
	}
	if v := cv.cache.lastView(key+filter, version, least); v != nil {
		return v, nil
	}
	began := time.Now()
	v, err := all.view.Select(where)
	if err != nil {
		return nil, err
	}
	selected := &keptView{selection{key + filter, all.version, all.made, all.took + time.Since(began)}, v}
	cv.cache.keepView(selected)
	return selected, nil
}

// data reads the columns that a chart needs.
func (cv *chartViews) data(
	ctx context.Context, s *grid.Sweep, value, goal string, limit int64, metrics []string,
) (*chart.Data, error) {
	names, err := cv.history.MetricNames(ctx, s.ID)
	if err != nil {
		return nil, fmt.Errorf("list metrics of %s: %w", s.ID, err)
	}
	d := &chart.Data{Space: s.Space, Order: s.Task.Order, Columns: chart.Columns{Metrics: map[string][]float32{}}}
	column, err := chooseValue(s, names, value, d)
	if err != nil {
		return nil, err
	}
	switch goal {
	case "":
	case "maximize", "minimize":
		d.Maximize = goal == "maximize"
	default:
		return nil, badRequest(fmt.Sprintf("there is no goal %q", goal), "choose maximize or minimize")
	}
	wanted := []history.Column{history.ColumnStarted, history.ColumnEnded, history.ColumnWall}
	if column >= 0 {
		wanted = append(wanted, column)
	}
	byName := map[string]history.Column{}
	for _, name := range metrics {
		if place := slices.Index(names, name); place >= 0 && place < columnMetrics {
			byName[name] = history.ColumnMetric(place)
			wanted = append(wanted, byName[name])
		}
	}
	c, err := cv.history.Columns(ctx, s.ID, limit, wanted...)
	if err != nil {
		return nil, err
	}
	counts, err := cv.history.Counts(ctx, s.ID)
	if err != nil {
		return nil, fmt.Errorf("count trials of %s: %w", s.ID, err)
	}
	d.Blocks, d.Stride, d.Done = c.Blocks, c.Stride, counts.Done()
	d.State, d.Class, d.Cause, d.Node, d.Classes, d.Nodes = c.State, c.Class, c.Cause, c.Node, c.Classes, c.Nodes
	d.Started, d.Ended, d.Wall, d.Base = c.Values[history.ColumnStarted], c.Values[history.ColumnEnded],
		c.Values[history.ColumnWall], c.Base
	d.Now = float64(time.Now().UnixMicro()-c.Base) / 1e6
	if d.Value = c.Values[column]; column < 0 {
		d.Value = make([]float32, len(d.State))
		for i := range d.Value {
			d.Value[i] = float32(math.NaN())
		}
	}
	for name, column := range byName {
		d.Metrics[name] = c.Values[column]
	}
	for _, k := range c.Causes {
		d.Causes = append(d.Causes,
			chart.Cause{ID: k.ID, Class: k.Class, Signature: k.Signature, Attempts: k.Count, Trial: k.Trial})
	}
	return d, nil
}

// chooseValue returns the column of a value and sets its name and goal. The column is -1 if the
// sweep has no value yet.
func chooseValue(s *grid.Sweep, names []string, value string, d *chart.Data) (history.Column, error) {
	objective := s.Task.Objective
	switch {
	case value == "" && objective == nil && len(names) == 0:
		d.Name = "value"
		return -1, nil
	case value == "" && objective == nil:
		value = names[0]
	case value == "" || value == "objective":
		if objective == nil {
			return 0, badRequest(fmt.Sprintf("task %s has no objective", s.Task.Name),
				"choose a metric, or set objective in project.yaml")
		}
		d.Name, d.Maximize = objective.Metric, objective.Goal == "maximize"
		return history.ColumnObjective, nil
	}
	d.Name = value
	if objective != nil && objective.Metric == value {
		d.Maximize = objective.Goal == "maximize"
	}
	if place := slices.Index(names, value); place >= 0 && place < columnMetrics {
		return history.ColumnMetric(place), nil
	}
	if column, ok := map[string]history.Column{"wall": history.ColumnWall, "cpu": history.ColumnCPU,
		"memory": history.ColumnMemory}[value]; ok {
		return column, nil
	}
	return 0, badRequest(fmt.Sprintf("no trial of %s has a metric %.60q among the first %d", s.ID,
		value, columnMetrics),
		"choose objective, wall, cpu, memory or a metric of the sweep")
}
