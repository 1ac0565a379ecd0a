package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/moments"
	"mlfnode/grid/space"
	"mlfnode/node/api"
)

// quantity is what is summarised: a metric or a resource that trials used.
type quantity struct {
	name string
	goal string                   // "maximize" or "minimize", "" where it is not known which values are better
	of   func(*api.Trial) float64 // NaN where a trial has none
}

// quantityOf returns the quantity that the user names; by default it is the objective, or the first
// metric.
func quantityOf(v *api.Sweep, name string) (*quantity, error) {
	if name == "" || name == "objective" && v.Objective != nil {
		name = mainMetric(v)
	}
	if name == "" {
		return nil, usage(fmt.Sprintf("no trial of %s has reported a metric", v.Sweep), "--value wall, cpu or memory")
	}
	if !slices.Contains(v.Metrics, name) {
		resources := map[string]func(*api.Usage) float64{
			"wall": func(r *api.Usage) float64 { return r.Wall }, "cpu": func(r *api.Usage) float64 { return r.CPU },
			"memory": func(r *api.Usage) float64 { return float64(r.Memory) },
		}
		if used := resources[name]; used != nil {
			return &quantity{name: name, goal: "minimize",
				of: func(t *api.Trial) float64 { return used(&t.Usage) }}, nil
		}
		known := slices.Concat(v.Metrics[:min(len(v.Metrics), 12)], []string{"wall", "cpu", "memory"})
		return nil, usage(fmt.Sprintf("no trial of %s has a metric %q", v.Sweep, name),
			"--value "+strings.Join(known, ", "))
	}
	rule := grid.EarlyStop{Metric: name}
	rule.Complete(v.Objective)
	return &quantity{name, rule.Goal, func(t *api.Trial) float64 {
		f, err := strconv.ParseFloat(string(t.Metrics[name]), 64)
		if err != nil || math.IsInf(f, 0) {
			return math.NaN()
		}
		return f
	}}, nil
}

// group is the trials that have the same values of some parameters.
type group struct {
	params space.Params // those
	trials int64
	failed int64
	values moments.Moments // of those that succeeded
	best   float64
	trial  string // that has the best value
}

// figure is a number in JSON; NaN and infinity are null.
type figure float64

// MarshalJSON implements json.Marshaler.
func (f figure) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) || math.IsInf(float64(f), 0) {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

func (f figure) cell() string {
	if math.IsNaN(float64(f)) {
		return ""
	}
	return strconv.FormatFloat(float64(f), 'g', -1, 64)
}

func (f figure) text() string {
	if math.IsNaN(float64(f)) {
		return ""
	}
	return strconv.FormatFloat(float64(f), 'g', 6, 64)
}

// groupSummary is a group as `results --group-by --json` prints it.
type groupSummary struct {
	Params space.Params `json:"params"`
	Trials int64        `json:"trials"`
	Failed int64        `json:"failed"`
	N      int64        `json:"n"` // trials with a value
	Mean   figure       `json:"mean"`
	SD     figure       `json:"sd"` // of a sample
	Best   figure       `json:"best"`
	Trial  string       `json:"trial"` // that has the best value
}

func (g *group) summary() groupSummary {
	s := groupSummary{Params: g.params, Trials: g.trials, Failed: g.failed, N: g.values.N,
		Mean: figure(g.values.Mean()),
		SD:   figure(g.values.SD()), Best: figure(g.best), Trial: g.trial}
	if s.N == 0 {
		s.Mean = figure(math.NaN())
	}
	return s
}

// grouping is the trials of a sweep grouped by some parameters, in the order of the first trial of
// each group.
type grouping struct {
	all   []*group
	place map[string]*group // by pointKey
}

// pointKey returns a text that is the same for equal points, however their numbers are written: 0.1
// or 1e-1.
func pointKey(params space.Params) string {
	var b []byte
	for _, p := range params {
		if f, err := strconv.ParseFloat(p.Value.Text, 64); err == nil && p.Value.Kind == space.Number {
			p.Value.Text = strconv.FormatFloat(f, 'g', -1, 64)
		}
		b = space.Params{p}.AppendJSON(b)
	}
	return string(b)
}

// groupTrials groups the selected trials by the parameters that keys names.
func groupTrials(
	ctx context.Context, c *api.Client, v *api.Sweep, keys []string, value *quantity, q api.TrialQuery,
) (*grouping, error) {
	g := &grouping{place: map[string]*group{}}
	for t, err := range c.Trials().List(ctx, v.Sweep, q) {
		if err != nil {
			return nil, err
		}
		params := make(space.Params, 0, len(keys))
		for _, key := range keys {
			if p := t.Params.Find(key); p != nil {
				params = append(params, *p)
			}
		}
		place := pointKey(params)
		into := g.place[place]
		if into == nil {
			into = &group{params: params, best: math.NaN()}
			g.place[place] = into
			g.all = append(g.all, into)
		}
		into.add(&t, value)
	}
	return g, nil
}

func (g *group) add(t *api.Trial, value *quantity) {
	g.trials++
	switch t.State {
	case grid.Failed:
		g.failed++
	case grid.Succeeded:
		f := value.of(t)
		if math.IsNaN(f) {
			return
		}
		g.values.Add(f)
		first := value.goal != "" && g.trial == "" // without a goal no value is better than another
		if first || value.goal == "maximize" && f > g.best || value.goal == "minimize" && f < g.best {
			g.best, g.trial = f, t.Trial
		}
	}
}

// checkKeys refuses names that are not parameters of a sweep.
func checkKeys(v *api.Sweep, names []string) error {
	for _, name := range names {
		if !slices.Contains(v.Keys, name) {
			return usage(fmt.Sprintf("%s has no parameter %q", v.Sweep, name),
				"its parameters are "+strings.Join(v.Keys, ", "))
		}
	}
	return nil
}

// groupOrder returns a comparison of groups by mean, sd, n, best or a parameter. Groups without the
// figure come last.
func groupOrder(f *listFlags, value *quantity, keys []string) (func(a, b *group) int, error) {
	figures := map[string]func(*group) float64{
		"mean": func(g *group) float64 { return g.values.Mean() },
		"sd":   func(g *group) float64 { return g.values.SD() },
		"n":    func(g *group) float64 { return float64(g.values.N) }, "best": func(g *group) float64 { return g.best },
	}
	sort, descending := f.sort, f.desc
	if sort == "index" {
		sort, descending = "mean", f.desc || value.goal == "maximize"
	}
	if key := slices.Index(keys, strings.TrimPrefix(sort, "parameter:")); key >= 0 &&
		(figures[sort] == nil || keys[key] != sort) {
		return func(a, b *group) int {
			return inDirection(compareValues(paramValue(a.params, keys[key]), paramValue(b.params, keys[key])),
				descending)
		}, nil
	}
	by := figures[sort]
	if by == nil {
		return nil, usage(fmt.Sprintf("groups have no column %q", sort),
			"sort by "+strings.Join(slices.Concat([]string{"mean, sd, n, best"}, keys), ", "))
	}
	return func(a, b *group) int {
		x, y := by(a), by(b)
		switch {
		case math.IsNaN(x) && math.IsNaN(y):
			return 0
		case math.IsNaN(x):
			return 1
		case math.IsNaN(y):
			return -1
		}
		return inDirection(cmp.Compare(x, y), descending)
	}, nil
}

func inDirection(c int, turned bool) int {
	if turned {
		return -c
	}
	return c
}

// compareValues orders numbers before other values.
func compareValues(a, b space.Value) int {
	number := func(v space.Value) float64 {
		f, err := strconv.ParseFloat(v.Text, 64)
		if v.Kind != space.Number || err != nil {
			return math.Inf(1)
		}
		return f
	}
	return cmp.Or(cmp.Compare(number(a), number(b)), cmp.Compare(a.Text, b.Text))
}

// paramValue returns the value of a parameter, the zero value if the trial does not have it.
func paramValue(params space.Params, key string) space.Value {
	if p := params.Find(key); p != nil {
		return p.Value
	}
	return space.Value{}
}

// groupFlags say how trials are grouped.
type groupFlags struct {
	by    []string
	over  []string
	value string
}

func (f *groupFlags) given() bool { return len(f.by)+len(f.over) > 0 }

// keys returns the parameters that distinguish groups.
func (f *groupFlags) keys(v *api.Sweep) ([]string, error) {
	if err := checkKeys(v, slices.Concat(f.by, f.over)); err != nil {
		return nil, err
	}
	if len(f.by) > 0 && len(f.over) > 0 {
		return nil, usage("--group-by names the parameters to group by, --over those to average over",
			"use one of the two")
	}
	if len(f.by) > 0 {
		var keys []string
		for _, key := range f.by {
			if !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		return keys, nil
	}
	return withoutKeys(v.Keys, f.over), nil
}

func withoutKeys(keys, others []string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return slices.Contains(others, key) })
}

// printGroups prints for each group of trials their number, and the mean, standard deviation and
// best of a value.
func printGroups(ctx context.Context, ui *console, c *api.Client, v *api.Sweep, f *listFlags) error {
	keys, err := f.groups.keys(v)
	if err != nil {
		return err
	}
	value, err := quantityOf(v, f.groups.value)
	if err != nil {
		return err
	}
	order, err := groupOrder(f, value, keys)
	if err != nil {
		return err
	}
	g, err := groupTrials(ctx, c, v, keys, value, api.TrialQuery{})
	if err != nil {
		return err
	}
	slices.SortStableFunc(g.all, order)
	all := g.all[min(f.offset, int64(len(g.all))):]
	limit := f.limit
	if limit < 0 && !ui.json && f.csv == "" {
		limit = tableRows
	}
	more := len(all)
	if limit > 0 {
		all = all[:min(limit, int64(len(all)))]
	}
	more -= len(all)
	switch {
	case ui.json:
		out := jsonArray{w: ui.stdout}
		for _, g := range all {
			if err := out.add(g.summary()); err != nil {
				return err
			}
		}
		return out.close()
	case f.csv == "-":
		return writeGroups(ui.stdout, keys, all)
	case f.csv != "":
		return writeTableFile(v, f.csv, "--csv", func(w io.Writer) error { return writeGroups(w, keys, all) })
	}
	t := newTable(ui.stdout, groupHead(keys)...)
	for _, g := range all {
		t.row(g.cells(keys, figure.text)...)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if more > 0 {
		fmt.Fprintf(ui.stdout, "… of %d groups; all of them with --limit 0\n", len(g.all))
	}
	ui.say("%s of %s: %s", value.name, v.Sweep, plural(int64(len(g.all)), "group"))
	if value.goal == "" {
		ui.say("there is no best trial, since %s has no goal; a sweep gets one with: --objective %[1]s:max", value.name)
	}
	return nil
}

func groupHead(keys []string) []string {
	v := api.Sweep{Keys: keys}
	tail := []string{"trials", "failed", "n", "mean", "sd", "best", "trial"}
	heads, _ := columnNames(&v, tail)
	return append(heads, tail...)
}

func (g *group) cells(keys []string, show func(figure) string) []string {
	row := make([]string, 0, len(keys)+7)
	for _, key := range keys {
		row = append(row, paramValue(g.params, key).Text)
	}
	s := g.summary()
	n := func(n int64) string { return strconv.FormatInt(n, 10) }
	return append(row, n(s.Trials), n(s.Failed), n(s.N), show(s.Mean), show(s.SD), show(s.Best), s.Trial)
}

func writeGroups(w io.Writer, keys []string, all []*group) error {
	out := csv.NewWriter(w)
	if err := out.Write(groupHead(keys)); err != nil {
		return err
	}
	for _, g := range all {
		if err := out.Write(g.cells(keys, figure.cell)); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}
