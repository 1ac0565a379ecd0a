package monitor

import (
	"context"
	"errors"
	"fmt"
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
	"mlfnode/node/master"
	"mlfnode/node/monitor/chart"
)

// Query parameters of charts.
var (
	whereQuery = []parameter{
		{"p", "object", "p[KEY]=: only trials with this value of a parameter, or with one in a range LO..HI; these conditions may be repeated"},
		{"d", "object", "d[KEY]=: only trials whose value is at these positions of an axis, LO..HI"},
		{"m", "object", "m[NAME]=: only trials with a metric in a range LO..HI"},
		{"state", "string", "only trials in this state"}, {"class", "string", "only trials that failed in this class"},
		{"cause", "integer", "only trials that failed for this cause, numbered as in the chart failures"},
		{"node", "string", "only trials that ran on this node"},
		{"t", "string", "only trials that began in a range LO..HI of seconds since the first event"},
	}
	valueQuery = []parameter{
		{"value", "string",
			"the value to chart: objective, wall, cpu, memory or a metric; default: the objective, or the first metric"},
		{"goal", "string",
			"maximize or minimize; default: the task's goal for its objective, minimize for other values"},
	}
)

// chartHandlers answer calls for charts.
type chartHandlers struct {
	lookup  *lookup
	master  *master.Master
	history *history.DB
	charts  *chartViews
	eta     *etaEstimator
}

// routes returns the routes of charts.
func (h *chartHandlers) routes() []route {
	about := func(more ...parameter) []parameter { return slices.Concat(more, valueQuery, whereQuery) }
	return []route{
		chartRoute(h, "marginals", "Summarize trials by the values of each parameter", about(),
			func(v *chart.View, _ url.Values) (*chart.Marginals, error) { return v.Marginals(), nil }),
		chartRoute(h, "parallel", "Show trials in parallel coordinates",
			about(parameter{"axis", "string", "a parameter; may be repeated to choose the axes and their order"}),
			func(v *chart.View, q url.Values) (*chart.Parallel, error) { return v.Parallel(q["axis"]) }),
		chartRoute(h, "heat", "Show a heat map of two parameters",
			about(parameter{"x", "string", "a parameter"}, parameter{"y", "string", "a parameter"},
				parameter{"z", "string", "a parameter with few values, for a separate map of each"},
				parameter{"stat", "string", "mean, best, median, count, failed or done; default mean"}),
			func(v *chart.View, q url.Values) (*chart.Heat, error) {
				stat := q.Get("stat")
				if stat == "" {
					stat = chart.StatMean
				}
				return v.Heat(q.Get("x"), q.Get("y"), q.Get("z"), stat)
			}),
		chartRoute(h, "matrix", "Show heat maps of all pairs of parameters", about(),
			func(v *chart.View, _ url.Values) (*chart.Matrix, error) { return v.Matrix(), nil }),
		chartRoute(h, "slices", "Show how the value changes from a trial along each parameter",
			about(parameter{"trial", "integer", "the index of a trial"}),
			func(v *chart.View, q url.Values) (*chart.Slices, error) {
				trial, err := strconv.ParseInt(q.Get("trial"), 10, 64)
				if err != nil {
					return nil, &chart.Error{Msg: "slices go through a trial",
						Hint: "name one by its index, as trial=17"}
				}
				return v.Slices(trial)
			}),
		chartRoute(h, "histogram", "Show the distribution of values", about(),
			func(v *chart.View, _ url.Values) (*chart.Histogram, error) { return v.Histogram(), nil }),
		chartRoute(h, "history", "Show the best value so far over time", about(),
			func(v *chart.View, _ url.Values) (*chart.History, error) { return v.History(), nil }),
		chartRoute(h, "importance", "Show which parameters matter",
			about(parameter{"raw", "boolean", "use the values themselves instead of their ranks"}),
			func(v *chart.View, q url.Values) (*chart.Importance, error) {
				return v.Importance(q.Get("raw") == "true"), nil
			}),
		chartRoute(h, "groups", "Average over parameters such as a seed",
			about(parameter{"over", "string", "a parameter to average over; may be repeated"},
				parameter{"sort", "string",
					"mean, or bound (the default), the worse end of the mean's confidence interval"}),
			func(v *chart.View, q url.Values) (*chart.Groups, error) {
				return v.Groups(q["over"], q.Get("sort") == "mean")
			}),
		chartRoute(h, "failures", "Group failed trials by cause, with the parameters that predict each", about(),
			func(v *chart.View, _ url.Values) (*chart.Failures, error) { return v.Failures(), nil }),
		chartRoute(h, "timeline", "Show when trials ran, and the rate", about(),
			func(v *chart.View, _ url.Values) (*chart.Timeline, error) { return v.Timeline(), nil }),
		chartRoute(h, "coverage", "Show what has not run yet", about(),
			func(v *chart.View, _ url.Values) (*chart.Coverage, error) { return v.Coverage(), nil }),
		chartRoute(h, "suggestions", "Suggest where to look next", about(),
			func(v *chart.View, _ url.Values) (*chart.Suggestions, error) { return v.Suggestions(), nil }),
		sweepChartRoute(h, "curves", "Show a metric over the steps of trials",
			about(parameter{"trials", "string", "comma-separated indexes of up to 50 trials; default: the best ones"}),
			h.curves),
		{method: "GET", pattern: api.PathCharts + "eta", access: mayRead, topic: topicCharts,
			summary: "Estimate how long a sweep will still run",
			call:    call{gives: reflect.TypeFor[chart.ETA](), handler: h.timeLeft}},
	}
}

// chartRoute returns the route of one chart.
func chartRoute[T any](
	h *chartHandlers, name, summary string, query []parameter, draw func(*chart.View, url.Values) (*T, error),
) route {
	return sweepChartRoute(h, name, summary, query,
		func(_ context.Context, _ *grid.Sweep, v *chart.View, q url.Values) (*T, error) { return draw(v, q) })
}

// sweepChartRoute returns the route of a chart that needs the record of the sweep, not only the
// view.
func sweepChartRoute[T any](h *chartHandlers, name, summary string, query []parameter,
	draw func(context.Context, *grid.Sweep, *chart.View, url.Values) (*T, error)) route {
	return route{method: "GET", pattern: api.PathCharts + name, access: mayRead, topic: topicCharts,
		summary: summary, query: query,
		call: call{gives: reflect.TypeFor[T](), handler: func(w http.ResponseWriter, r *http.Request) {
			a, err := h.chart(r, name, knownParameters(query, r.URL.Query()),
				func(s *grid.Sweep, v *chart.View, q url.Values) (any, error) {
					return draw(r.Context(), s, v, q)
				})
			sendChart(w, r, a, err)
		}}}
}

// knownParameters returns the part of a query that a route documents: other parameters must not
// create another cache entry.
func knownParameters(known []parameter, q url.Values) url.Values {
	out := url.Values{}
	for key, values := range q {
		if slices.ContainsFunc(known, func(p parameter) bool { return p.is(key) }) {
			out[key] = values
		}
	}
	return out
}

func sendChart(w http.ResponseWriter, r *http.Request, a *answer, err error) {
	switch {
	case err != nil:
		sendError(w, chartError(err))
	default:
		if age := int(time.Since(a.made).Seconds()); age > 0 {
			w.Header().Set("Age", strconv.Itoa(age))
		}
		sendBytes(w, r, a.body)
	}
}

// chartError returns the response to a request for a chart that cannot be drawn.
func chartError(err error) error {
	var wrong *chart.Error
	if errors.As(err, &wrong) {
		return badRequest(wrong.Msg, wrong.Hint)
	}
	return err
}

// chart returns one chart of the sweep that a request names.
func (h *chartHandlers) chart(
	r *http.Request, name string, q url.Values, draw func(*grid.Sweep, *chart.View, url.Values) (any, error),
) (*answer, error) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		return nil, err
	}
	where, err := chart.ParseWhere(q)
	if err != nil {
		return nil, err
	}
	key := fmt.Sprintf("%s %s?%s", s.ID, name, q.Encode())
	version, least := h.charts.version(r.Context(), s, minAge)
	return h.charts.cache.get(r.Context(), key, version, least, func() (any, selection, error) {
		v, err := h.charts.view(r.Context(), s, q.Get("value"), q.Get("goal"), where, h.charts.cache.viewAge())
		if err != nil {
			return nil, selection{}, err
		}
		drawn, err := draw(s, v.view, q)
		return drawn, v.selection, err
	})
}

// curves answers with the course of a metric in the trials of a sweep.
func (h *chartHandlers) curves(ctx context.Context, s *grid.Sweep, v *chart.View, q url.Values) (*chart.Curves, error) {
	var chosen []int64
	for _, text := range strings.FieldsFunc(q.Get("trials"), func(c rune) bool { return c == ',' }) {
		trial, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, &chart.Error{Msg: fmt.Sprintf("%.40q is not the index of a trial", text),
				Hint: "name trials by their indexes, as trials=3,17"}
		}
		chosen = append(chosen, trial)
	}
	picked, band, err := v.CurveTrials(chosen)
	if err != nil {
		return nil, err
	}
	points, err := h.history.Curves(ctx, s.ID, v.Value(), slices.Concat(picked, band))
	if err != nil {
		return nil, err
	}
	return v.Curves(picked, band, points), nil
}

// etaChartAge is the minimum age at which the estimate of timeLeft is recomputed. It is short
// because the answer counts from when the estimate was made.
const etaChartAge = 250 * time.Millisecond

// timeLeft answers with the time that a sweep will still run.
func (h *chartHandlers) timeLeft(w http.ResponseWriter, r *http.Request) {
	s, err := h.lookup.sweep(r)
	if err != nil {
		sendError(w, err)
		return
	}
	version, least := h.charts.version(r.Context(), s, etaChartAge)
	a, err := h.eta.cache.get(r.Context(), string(s.ID), version, least, h.eta.fit(r.Context(), s))
	sendChart(w, r, a, err)
}
