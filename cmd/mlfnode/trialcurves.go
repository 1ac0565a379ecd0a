package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// mainMetric returns what a sweep is about: its objective, or else the first metric that does not
// just count steps; "" if there is none.
func mainMetric(v *api.Sweep) string {
	if v.Objective != nil {
		return v.Objective.Metric
	}
	steps := grid.StepNames()
	if i := slices.IndexFunc(v.Metrics, func(name string) bool { return !slices.Contains(steps[:], name) }); i >= 0 {
		return v.Metrics[i]
	}
	return slices.Concat(v.Metrics, []string{""})[0]
}

// printCurves prints the metrics of a trial, a row for each step.
func printCurves(ctx context.Context, ui *console, c *api.Client, id grid.TrialID, attempt int) error {
	attempts, err := c.Trials().Attempts(ctx, id)
	if err != nil {
		return err
	}
	curves, err := c.Trials().Curves(ctx, id)
	if err != nil {
		return err
	}
	run := ""
	for _, at := range attempts {
		has := slices.ContainsFunc(curves, func(c api.Curve) bool { return c.Run == at.Run })
		if at.Attempt == attempt || attempt == 0 && (has || run == "") {
			run = at.Run
		}
	}
	curves = slices.DeleteFunc(curves, func(c api.Curve) bool { return c.Run != run })
	if ui.json {
		return ui.printJSON(append([]api.Curve{}, curves...))
	}
	if len(curves) == 0 {
		return failed(fmt.Sprintf("%s has no metric with more than one value", id),
			"curves are made from the lines of $MLF_METRICS, or of the file under metrics.log in project.yaml")
	}
	slices.SortFunc(curves, func(a, b api.Curve) int { return cmp.Compare(a.Metric, b.Metric) })
	head := []string{"step"}
	rows := map[float64][]string{}
	for k := range curves {
		head = append(head, curves[k].Metric)
		for i, step := range curves[k].Steps[:min(len(curves[k].Steps), len(curves[k].Values))] {
			if rows[step] == nil {
				rows[step] = make([]string, len(curves))
			}
			rows[step][k] = strconv.FormatFloat(float64(curves[k].Values[i]), 'g', 6, 32)
		}
	}
	t := newTable(ui.stdout, head...)
	for _, step := range slices.Sorted(maps.Keys(rows)) {
		row := []string{strconv.FormatFloat(step, 'f', -1, 64)}
		for _, value := range rows[step] {
			row = append(row, cmp.Or(value, "-"))
		}
		t.row(row...)
	}
	return t.flush()
}

// sparklines draws the curves of a metric, by trial. The map is empty if the node can't give
// curves.
func sparklines(
	ctx context.Context, c *api.Client, id grid.SweepID, metric string, trials []api.Trial,
) (map[int64]string, error) {
	if metric == "" || len(trials) == 0 {
		return nil, nil
	}
	var indexes []string
	for i := range trials {
		indexes = append(indexes, strconv.FormatInt(trials[i].Index, 10))
	}
	body, err := c.Trials().Chart(ctx, id, "curves", url.Values{"value": {metric},
		"trials": {strings.Join(indexes, ",")}})
	if refusal := (*api.Error)(nil); errors.As(err, &refusal) {
		return nil, nil // an older version, or no such metric
	}
	if err != nil {
		return nil, err
	}
	var drawn struct {
		Curves []struct {
			Trial  int64
			Values []*float64 // null for what is not a number
		}
	}
	if err := json.Unmarshal(body, &drawn); err != nil {
		return nil, fmt.Errorf("decode curves of %s: %w", id, err)
	}
	lines := map[int64]string{}
	for _, curve := range drawn.Curves {
		var values []float64
		for _, f := range curve.Values {
			if f != nil {
				values = append(values, *f)
			}
		}
		if len(values) > 1 {
			lines[curve.Trial] = sparkline(values)
		}
	}
	return lines, nil
}

// sparkWidth is how many columns a sparkline takes at most.
const sparkWidth = 16

// sparkline draws values between the smallest and the largest, in at most sparkWidth characters;
// the last character shows the last value.
func sparkline(values []float64) string {
	lo, hi := slices.Min(values), slices.Max(values)
	width := min(len(values), sparkWidth)
	var b strings.Builder
	for i := range width {
		at := i
		if width > 1 {
			at = i * (len(values) - 1) / (width - 1)
		}
		level := 3                         // a flat line
		if span := hi/2 - lo/2; span > 0 { // halves do not overflow, though the least numbers have none
			level = int(math.Round(7 * ((values[at]/2 - lo/2) / span)))
		}
		b.WriteRune([]rune("▁▂▃▄▅▆▇█")[level])
	}
	return b.String()
}
