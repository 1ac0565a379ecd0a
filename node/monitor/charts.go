package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/monitor/chart"
)

const (
	// chartTrials is how many trials a chart looks at: of a larger sweep, blocks of them spread evenly.
	chartTrials = 2 << 20
	// etaTrials is the same for the time that is left, which is asked for all the time.
	etaTrials = 200_000
	// recentTrials is how many trials tell how many run at a time.
	recentTrials = 2000
	// columnMetrics is how many metrics of a sweep are kept by column.
	columnMetrics = 32
)

// Query parameters of charts.
var (
	whereQuery = []parameter{
		{"p", "object", "p[KEY]=: only trials with this value of a parameter, or in a range LO..HI; may be repeated, as all of these"},
		{"d", "object", "d[KEY]=: only trials with a value in these positions of an axis, LO..HI"},
		{"m", "object", "m[NAME]=: only trials with a metric in a range LO..HI"},
		{"state", "string", "only trials in this state"}, {"class", "string", "only trials that failed in this class"},
		{"cause", "integer", "only trials that failed for this cause, see the chart failures"}, {"node", "string", "only trials of this node"},
		{"t", "string", "only trials that began in a range LO..HI of seconds since the first event"},
	}
	valueQuery = []parameter{
		{"value", "string", "what the chart is about: objective, wall, cpu, memory or a metric; without it the objective, or the first metric"},
		{"goal", "string", "maximize or minimize; without it the task's for its objective, else minimize"},
	}
)

// chartRoutes are the calls that answer with charts.
func (m *Monitor) chartRoutes() []route {
	about := func(more ...parameter) []parameter { return slices.Concat(more, valueQuery, whereQuery) }
	return []route{
		chartRoute(m, "marginals", "Sum up trials by the values of each parameter", about(),
			func(v *chart.View, _ url.Values) (*chart.Marginals, error) { return v.Marginals(), nil }),
		chartRoute(m, "parallel", "Draw trials along all parameters", about(parameter{"axis", "string", "a parameter; repeated, the axes in this order"}),
			func(v *chart.View, q url.Values) (*chart.Parallel, error) { return v.Parallel(q["axis"]) }),
		chartRoute(m, "heat", "Combine two parameters", about(parameter{"x", "string", "a parameter"}, parameter{"y", "string", "a parameter"},
			parameter{"z", "string", "a parameter with few values, each of which gets a map of its own"},
			parameter{"stat", "string", "mean, best, median, count, failed or done; without it mean"}),
			func(v *chart.View, q url.Values) (*chart.Heat, error) {
				stat := q.Get("stat")
				if stat == "" {
					stat = chart.StatMean
				}
				return v.Heat(q.Get("x"), q.Get("y"), q.Get("z"), stat)
			}),
		chartRoute(m, "matrix", "Combine all pairs of parameters", about(),
			func(v *chart.View, _ url.Values) (*chart.Matrix, error) { return v.Matrix(), nil }),
		chartRoute(m, "slices", "Walk from a trial along each parameter", about(parameter{"trial", "integer", "the index of a trial"}),
			func(v *chart.View, q url.Values) (*chart.Slices, error) {
				trial, err := strconv.ParseInt(q.Get("trial"), 10, 64)
				if err != nil {
					return nil, &chart.Error{Msg: "slices go through a trial", Hint: "name one by its index, as trial=17"}
				}
				return v.Slices(trial)
			}),
		chartRoute(m, "histogram", "Show how values are spread", about(),
			func(v *chart.View, _ url.Values) (*chart.Histogram, error) { return v.Histogram(), nil }),
		chartRoute(m, "history", "Show the best value so far over time", about(),
			func(v *chart.View, _ url.Values) (*chart.History, error) { return v.History(), nil }),
		chartRoute(m, "importance", "Tell which parameters matter", about(parameter{"raw", "boolean", "of values themselves instead of their ranks"}),
			func(v *chart.View, q url.Values) (*chart.Importance, error) {
				return v.Importance(q.Get("raw") == "true"), nil
			}),
		chartRoute(m, "groups", "Average over parameters such as a seed", about(parameter{"over", "string", "a parameter to average over; may be repeated"},
			parameter{"sort", "string", "mean, or bound for the worse end of the confidence interval of the mean, which is the default"}),
			func(v *chart.View, q url.Values) (*chart.Groups, error) {
				return v.Groups(q["over"], q.Get("sort") == "mean")
			}),
		chartRoute(m, "failures", "Group failed trials by cause, with what predicts each", about(),
			func(v *chart.View, _ url.Values) (*chart.Failures, error) { return v.Failures(), nil }),
		chartRoute(m, "timeline", "Show what ran when, and the rate", about(),
			func(v *chart.View, _ url.Values) (*chart.Timeline, error) { return v.Timeline(), nil }),
		chartRoute(m, "coverage", "Show what has not run yet", about(),
			func(v *chart.View, _ url.Values) (*chart.Coverage, error) { return v.Coverage(), nil }),
		chartRoute(m, "suggestions", "Say where to look next", about(),
			func(v *chart.View, _ url.Values) (*chart.Suggestions, error) { return v.Suggestions(), nil }),
		sweepChartRoute(m, "curves", "Show how a metric went",
			about(parameter{"trials", "string", "the indexes of up to 50 trials, with commas between them; without it the best ones"}), m.drawCurves),
		{method: "GET", pattern: api.PathCharts + "eta", access: mayRead, topic: topicCharts, summary: "Say how long a sweep goes on",
			call: call{gives: reflect.TypeFor[chart.ETA](), handler: m.etaChart}},
	}
}

// chartRoute is the call of one chart.
func chartRoute[T any](m *Monitor, name, summary string, query []parameter, draw func(*chart.View, url.Values) (*T, error)) route {
	return sweepChartRoute(m, name, summary, query, func(_ context.Context, _ *grid.Sweep, v *chart.View, q url.Values) (*T, error) { return draw(v, q) })
}

// sweepChartRoute is the call of a chart that needs more of the sweep than the view.
func sweepChartRoute[T any](m *Monitor, name, summary string, query []parameter,
	draw func(context.Context, *grid.Sweep, *chart.View, url.Values) (*T, error)) route {
	return route{method: "GET", pattern: api.PathCharts + name, access: mayRead, topic: topicCharts, summary: summary, query: query,
		call: call{gives: reflect.TypeFor[T](), handler: func(w http.ResponseWriter, r *http.Request) {
			a, err := m.chart(r, name, described(query, r.URL.Query()), func(s *grid.Sweep, v *chart.View, q url.Values) (any, error) {
				return draw(r.Context(), s, v, q)
			})
			sendAnswer(w, r, a, err)
		}}}
}

// described gives the part of a query that a call knows: what else somebody sends must not make another answer to keep.
func described(known []parameter, q url.Values) url.Values {
	out := url.Values{}
	for key, values := range q {
		if slices.ContainsFunc(known, func(p parameter) bool { return p.is(key) }) {
			out[key] = values
		}
	}
	return out
}

func sendAnswer(w http.ResponseWriter, r *http.Request, a *answer, err error) {
	switch {
	case err != nil:
		refuse(w, chartRefusal(err))
	default:
		if age := int(time.Since(a.made).Seconds()); age > 0 {
			w.Header().Set("Age", strconv.Itoa(age))
		}
		sendBytes(w, r, a.body)
	}
}

// chartRefusal is the answer to a request that a chart can't be made for.
func chartRefusal(err error) error {
	var wrong *chart.Error
	if errors.As(err, &wrong) {
		return badRequest(wrong.Msg, wrong.Hint)
	}
	return err
}

// chart gives the answer of one chart of the sweep that a request names.
func (m *Monitor) chart(r *http.Request, name string, q url.Values, draw func(*grid.Sweep, *chart.View, url.Values) (any, error)) (*answer, error) {
	s, err := m.record(r)
	if err != nil {
		return nil, err
	}
	where, err := chart.ParseWhere(q)
	if err != nil {
		return nil, err
	}
	key := fmt.Sprintf("%s %s?%s", s.ID, name, q.Encode())
	version, least := m.chartVersion(r.Context(), s, leastAge)
	return m.charts.get(r.Context(), key, version, least, func() (any, error) {
		v, err := m.chartView(r.Context(), s, q.Get("value"), q.Get("goal"), where)
		if err != nil {
			return nil, err
		}
		return draw(s, v, q)
	})
}

// chartVersion names what is known of a sweep at this moment. Running trials change charts without an event, so it also changes with time
// while there are any. The age is how long an answer of another version may still be given: least while the sweep is in motion, and 0
// at rest, when nobody asks again later.
func (m *Monitor) chartVersion(ctx context.Context, s *grid.Sweep, least time.Duration) (version string, age time.Duration) {
	version = fmt.Sprintf("%d/%d/%s", m.cfg.History.Version(s.ID), s.Space.Count(), s.State)
	if c, err := m.cfg.History.Counts(ctx, s.ID); err == nil && c.Running > 0 {
		return version + fmt.Sprint("/", time.Now().Unix()/5), least
	}
	if !s.Active() {
		least = 0
	}
	return version, least
}

// chartView selects trials. The last selections are kept: all trials for other filters, and those of a filter for the other charts that a
// page asks for. The caller has the charts' turn.
func (m *Monitor) chartView(ctx context.Context, s *grid.Sweep, value, goal string, where chart.Where) (*chart.View, error) {
	version, least := m.chartVersion(ctx, s, leastAge)
	key := fmt.Sprintf("%s %q %q %q", s.ID, value, goal, where.Metrics())
	all := m.charts.lastView(key, version, least)
	if all == nil {
		d, err := m.chartData(ctx, s, value, goal, chartTrials, where.Metrics())
		if err != nil {
			return nil, err
		}
		if all, err = chart.New(d, chart.Where{}); err != nil {
			return nil, err
		}
		m.charts.keepView(key, version, all)
	}
	filter := where.Query().Encode()
	if filter == "" {
		return all, nil
	}
	if v := m.charts.lastView(key+filter, version, least); v != nil {
		return v, nil
	}
	v, err := all.Select(where)
	if err == nil {
		m.charts.keepView(key+filter, version, v)
	}
	return v, err
}

// chartData reads the columns that a chart needs.
func (m *Monitor) chartData(ctx context.Context, s *grid.Sweep, value, goal string, limit int64, metrics []string) (*chart.Data, error) {
	names, err := m.cfg.History.MetricNames(ctx, s.ID)
	if err != nil {
		return nil, fmt.Errorf("list metrics of %s: %w", s.ID, err)
	}
	d := &chart.Data{Space: s.Space, Order: s.Task.Order, Metrics: map[string][]float32{}}
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
	c, err := m.cfg.History.Columns(ctx, s.ID, limit, wanted...)
	if err != nil {
		return nil, err
	}
	counts, err := m.cfg.History.Counts(ctx, s.ID)
	if err != nil {
		return nil, fmt.Errorf("count trials of %s: %w", s.ID, err)
	}
	d.Blocks, d.Stride, d.Done = c.Blocks, c.Stride, counts.Done()
	d.State, d.Class, d.Cause, d.Node, d.Classes, d.Nodes = c.State, c.Class, c.Cause, c.Node, c.Classes, c.Nodes
	d.Started, d.Ended, d.Wall, d.Base = c.Values[history.ColumnStarted], c.Values[history.ColumnEnded], c.Values[history.ColumnWall], c.Base
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
		d.Causes = append(d.Causes, chart.Cause{ID: k.ID, Class: k.Class, Signature: k.Signature, Attempts: k.Count, Trial: k.Trial})
	}
	return d, nil
}

// chooseValue finds the column of a value, -1 for a sweep that has none yet, and sets its name and goal.
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
			return 0, badRequest(fmt.Sprintf("task %s has no objective", s.Task.Name), "choose a metric, or set objective in project.yaml")
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
	if column, ok := map[string]history.Column{"wall": history.ColumnWall, "cpu": history.ColumnCPU, "memory": history.ColumnMemory}[value]; ok {
		return column, nil
	}
	return 0, badRequest(fmt.Sprintf("no trial of %s has a metric %.60q among the first %d", s.ID, value, columnMetrics),
		"choose objective, wall, cpu, memory or a metric of the sweep")
}

// drawCurves draws how a metric went in the trials of a sweep.
func (m *Monitor) drawCurves(ctx context.Context, s *grid.Sweep, v *chart.View, q url.Values) (*chart.Curves, error) {
	var chosen []int64
	for _, text := range strings.FieldsFunc(q.Get("trials"), func(c rune) bool { return c == ',' }) {
		trial, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, &chart.Error{Msg: fmt.Sprintf("%.40q is not the index of a trial", text), Hint: "name trials by their indexes, as trials=3,17"}
		}
		chosen = append(chosen, trial)
	}
	picked, band, err := v.CurveTrials(chosen)
	if err != nil {
		return nil, err
	}
	points, err := m.cfg.History.Curves(ctx, s.ID, v.Value(), slices.Concat(picked, band))
	if err != nil {
		return nil, err
	}
	return v.Curves(picked, band, points), nil
}

// etaChart answers how long a sweep goes on.
func (m *Monitor) etaChart(w http.ResponseWriter, r *http.Request) {
	s, err := m.record(r)
	if err != nil {
		refuse(w, err)
		return
	}
	version, least := m.chartVersion(r.Context(), s, etaAge)
	a, err := m.etas.get(r.Context(), string(s.ID), version, least, m.fitETA(r.Context(), s))
	sendAnswer(w, r, a, err)
}

// fitETA fits the model of how long trials take.
func (m *Monitor) fitETA(ctx context.Context, s *grid.Sweep) func() (any, error) {
	return func() (any, error) {
		d, err := m.chartData(ctx, s, "wall", "", etaTrials, nil)
		if err != nil {
			return nil, err
		}
		if err := m.addRecent(ctx, s, d); err != nil {
			return nil, err
		}
		v, err := chart.New(d, chart.Where{})
		if err != nil {
			return nil, err
		}
		return v.ETA(), nil
	}
}

// addRecent adds the trials that run, and the newest that have ended, to a part of a sweep.
func (m *Monitor) addRecent(ctx context.Context, s *grid.Sweep, d *chart.Data) error {
	if d.Stride <= 1 {
		return nil
	}
	since := func(t int64) float64 { return float64(t-d.Base) / 1e6 }
	for _, q := range []history.Query{{States: []grid.State{grid.Running}}, {Sort: history.SortEnded, Desc: true}} {
		q.Limit = recentTrials
		for t, err := range m.cfg.History.Trials(ctx, s.ID, q) {
			if err != nil {
				return fmt.Errorf("list what ran last of %s: %w", s.ID, err)
			}
			run := chart.Run{Index: t.Index, Start: since(t.Result.Started), End: since(t.Ended), Running: t.State == grid.Running}
			switch {
			case t.Index >= s.Space.Count() || t.Result.Started == 0 || run.Running == (q.Sort != ""):
				continue
			case run.Running:
				run.End = d.Now
			default:
				d.RecentFrom = run.End
			}
			d.Recent = append(d.Recent, run)
		}
	}
	return nil
}

// remaining is how many seconds a sweep goes on: by the model, or by the number of trials done while that does not tell.
func (m *Monitor) remaining(ctx context.Context, s *grid.Sweep, v *api.Sweep) *float64 {
	if v.Running+v.Succeeded+v.Failed == 0 {
		return nil
	}
	version, _ := m.chartVersion(ctx, s, etaAge)
	a, err := m.etas.recent(string(s.ID), version, etaAge, m.fitETA(ctx, s))
	if err == nil && a != nil {
		var e chart.ETA
		if err = json.Unmarshal(a.body, &e); err == nil && !math.IsNaN(float64(e.Seconds)) {
			left := max(0, float64(e.Seconds)-time.Since(a.made).Seconds())
			return &left
		}
	}
	if err != nil {
		m.log.Debug("estimate the time left", "sweep", s.ID, "err", err)
	}
	c, err := m.cfg.History.Counts(ctx, s.ID)
	if err != nil {
		return nil // history says elsewhere what is wrong with it
	}
	return extrapolate(v, &c)
}

// answer is a chart as it was at one moment.
type answer struct {
	key     string
	version string
	made    time.Time
	took    time.Duration
	body    []byte
	used    time.Time // when it was last asked for; guarded by charts.mu
}

func newAnswer(key, version string, compute func() (any, error)) (*answer, error) {
	began := time.Now()
	v, err := compute()
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode chart: %w", err)
	}
	return &answer{key: key, version: version, made: began, took: time.Since(began), body: append(body, '\n'), used: time.Now()}, nil
}
