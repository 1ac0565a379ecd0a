package chart

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"mlfnode/grid"
)

// Curves shows the course of a metric in the selected trials, by step.
type Curves struct {
	Head
	// curves that the band comes from, of trials spread evenly over those that match
	Sampled int64        `json:"sampled"`
	Steps   []Number     `json:"steps"` // of the band
	Low     []Number     `json:"low"`   // 10 % of the curves are below
	Median  []Number     `json:"median"`
	High    []Number     `json:"high"` // 10 % of the curves are above
	Counts  []int64      `json:"counts"`
	Curves  []TrialCurve `json:"curves"`
}

// TrialCurve is the curve of one trial; its lists are empty for a trial without one.
type TrialCurve struct {
	Trial  int64    `json:"trial"`
	State  string   `json:"state"`
	Steps  []Number `json:"steps"` // ascending
	Values []Number `json:"values"`
}

const (
	// maxChosen bounds the curves that are drawn individually; bestChosen is their number if the
	// request chooses none.
	maxChosen  = 50
	bestChosen = 10
	// bandCurves is the number of curves from which a band is made.
	bandCurves = 2000
	// bandSteps is the maximum number of steps of a band.
	bandSteps = 64
)

// CurveTrials returns the trials whose curves Curves needs: the chosen ones, by default the best,
// and those from which the band is made.
func (v *selection) CurveTrials(chosen []int64) (picked, band []int64, err error) {
	if len(chosen) > maxChosen {
		return nil, nil, &Error{fmt.Sprintf("%d curves are too many for a chart", len(chosen)),
			fmt.Sprintf("choose at most %d trials", maxChosen)}
	}
	for _, trial := range chosen {
		if trial < 0 || trial >= v.d.Space.Count() {
			return nil, nil, &Error{fmt.Sprintf("the sweep has no trial %d", trial),
				fmt.Sprintf("it has %d, from 0 on", v.d.Space.Count())}
		}
	}
	if picked = chosen; len(picked) == 0 {
		sorted, _ := v.order()
		for _, r := range sorted[:min(bestChosen, len(sorted))] {
			picked = append(picked, v.d.index(r))
		}
	}
	n := min(len(v.rows), bandCurves)
	for i := range n {
		band = append(band, v.d.index(v.rows[i*len(v.rows)/n]))
	}
	return picked, band, nil
}

// Value returns the name of the value that the charts of the view show.
func (t *trials) Value() string { return t.d.Name }

// Curves draws the curves of the picked trials over the band of many, both as returned by
// CurveTrials.
func (v *View) Curves(picked, band []int64, points map[int64][]grid.Point) *Curves {
	c := &Curves{Steps: []Number{}, Low: []Number{}, Median: []Number{}, High: []Number{}, Counts: []int64{},
		Curves: []TrialCurve{}}
	var all [][]grid.Point
	var ends []float64
	for _, trial := range band {
		if p := points[trial]; len(p) > 0 {
			ends = append(ends, float64(p[len(p)-1].Value))
			all = append(all, byStep(p))
		}
	}
	c.Sampled = int64(len(all))
	c.addBand(all)
	for _, trial := range picked {
		state, _ := v.lookUp(trial)
		t := TrialCurve{Trial: trial, State: state, Steps: []Number{}, Values: []Number{}}
		for _, p := range byStep(points[trial]) {
			t.Steps, t.Values = append(t.Steps, Number(p.Step)), append(t.Values, Number(p.Value))
		}
		c.Curves = append(c.Curves, t)
	}
	sentence := "None of these trials has reported " + v.d.Name + " more than once."
	if len(ends) > 0 {
		slices.Sort(ends)
		sentence = fmt.Sprintf("The middle 80 %% of %d curves of %s end between %s and %s, half of them below %s.",
			len(ends), v.d.Name, show(quantile(ends, 0.1)), show(quantile(ends, 0.9)), show(quantile(ends, 0.5)))
	}
	c.Head = v.head(sentence)
	return c
}

// byStep sorts points by step. If a program went back to an earlier step and continued from there,
// both branches remain.
func byStep(points []grid.Point) []grid.Point {
	byStep := func(p, q grid.Point) int { return cmp.Compare(p.Step, q.Step) }
	if slices.IsSortedFunc(points, byStep) {
		return points
	}
	return slices.SortedStableFunc(slices.Values(points), byStep)
}

// addBand sets the quantiles of curves at each step that they have, or at evenly spread steps. A
// curve is straight between two points, and has no value before the first and after the last.
func (c *Curves) addBand(curves [][]grid.Point) {
	at := make([]int, len(curves)) // the first point of each curve that is not before the step
	values := make([]float64, 0, len(curves))
	for _, step := range stepsOf(curves) {
		values = values[:0]
		for i, points := range curves {
			for at[i] < len(points) && points[at[i]].Step < step {
				at[i]++
			}
			if f, ok := valueAt(points, at[i], step); ok {
				values = append(values, f)
			}
		}
		if len(values) == 0 {
			continue // a gap between the curves
		}
		slices.Sort(values)
		c.Steps, c.Counts = append(c.Steps, Number(step)), append(c.Counts, int64(len(values)))
		c.Low, c.Median = append(c.Low, Number(quantile(values, 0.1))), append(c.Median, Number(quantile(values, 0.5)))
		c.High = append(c.High, Number(quantile(values, 0.9)))
	}
}

// stepsOf returns the steps of a band over curves.
func stepsOf(curves [][]grid.Point) []float64 {
	seen := map[float64]bool{}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, points := range curves {
		for _, p := range points {
			lo, hi = min(lo, p.Step), max(hi, p.Step)
			if len(seen) <= bandSteps {
				seen[p.Step] = true
			}
		}
	}
	var steps []float64
	if len(seen) <= bandSteps {
		for step := range seen {
			steps = append(steps, step)
		}
		slices.Sort(steps)
		return steps
	}
	for i := range bandSteps {
		part := float64(i) / (bandSteps - 1)
		steps = append(steps, lo*(1-part)+hi*part)
	}
	return steps
}

// valueAt returns the value of a curve at a step, where i is the first point that is not before the
// step.
func valueAt(points []grid.Point, i int, step float64) (float64, bool) {
	switch {
	case i == len(points):
		return 0, false
	case points[i].Step == step:
		return float64(points[i].Value), true
	case i == 0:
		return 0, false
	}
	a, b := points[i-1], points[i]
	part := (step - a.Step) / (b.Step - a.Step)
	return float64(a.Value)*(1-part) + float64(b.Value)*part, true
}

// quantile returns a quantile of sorted values.
func quantile(sorted []float64, q float64) float64 {
	return sorted[int(math.Round(q*float64(len(sorted)-1)))]
}
