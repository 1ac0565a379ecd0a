package grid

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid/problem"
)

// StopRule selects the trials that are stopped early.
type StopRule string

// The rules. Both check a trial when it reaches a rung, which is a step of its program, and compare
// its best value up to that step with the best values of other trials up to the same step.
const (
	// StopMedian stops a trial that is worse than the median of the others, given at least
	// leastOthers of them. Its rungs are the multiples of After.
	StopMedian StopRule = "median"
	// StopHalving stops a trial that is not in the best third of those that have reached the rung.
	// Its rungs are After, 3·After, 9·After, … This is the stopping variant of asynchronous
	// successive halving (ASHA): https://arxiv.org/abs/1810.05934.
	StopHalving StopRule = "asha"
)

// EarlyStop stops trials that do worse than others of their sweep.
type EarlyStop struct {
	Metric string   `json:"metric"`
	Goal   string   `json:"goal"` // "maximize" or "minimize"
	Rule   StopRule `json:"rule"`
	After  float64  `json:"after"` // no trial is stopped before this step
}

// StoppedRun is a run that must be stopped, and the reason.
type StoppedRun struct {
	Index  int64  `json:"i"`
	Run    string `json:"r"`
	Reason string `json:"y"`
}

const (
	leastOthers = 3 // minimum number of trials that StopMedian compares with
	reduction   = 3 // StopHalving lets one trial in this many continue
	maxRungs    = 100
	rungValues  = 1000 // values kept for each rung; later ones replace the earliest
)

// Check returns an error for the first invalid field.
func (s *EarlyStop) Check() error {
	switch {
	case s == nil:
		return nil
	case s.Metric == "":
		return problem.Errorf("Write it like {metric: loss, rule: median, after: 5}, or set an objective.",
			"stop does not name a metric")
	case s.Goal != "maximize" && s.Goal != "minimize":
		return problem.Errorf("Write goal: minimize or goal: maximize.",
			"stop does not say whether a lower or a higher %.60s is better", s.Metric)
	case s.Rule != StopMedian && s.Rule != StopHalving:
		return problem.Errorf("Write median or asha.", "stop.rule is %.60q", string(s.Rule))
	case !(s.After > 0) || math.IsInf(s.After, 0):
		return problem.Errorf("Give a step from which trials may be stopped, like 5.", "stop.after is %v", s.After)
	}
	return CheckLabel("stop.metric", s.Metric)
}

// Complete fills in missing fields from the task's objective: its metric, and its goal if the
// metric is the same. A metric whose name suggests a loss or an error is minimized.
func (s *EarlyStop) Complete(o *Objective) {
	if s.Metric == "" && o != nil {
		s.Metric = o.Metric
	}
	name := strings.ToLower(s.Metric)
	switch {
	case s.Goal != "":
	case o != nil && o.Metric == s.Metric:
		s.Goal = o.Goal
	case strings.HasSuffix(name, "loss") || strings.HasSuffix(name, "error"):
		s.Goal = "minimize"
	}
}

// rung returns the nth step at which trials are compared, counting from 0. It returns false past
// the last one.
func (s *EarlyStop) rung(n int) (float64, bool) {
	step := s.After * float64(n+1)
	if s.Rule == StopHalving {
		step = s.After * math.Pow(reduction, float64(n))
	}
	return step, n < maxRungs && !math.IsInf(step, 0)
}

// Comparison decides which trials of a sweep are stopped early, from the curves of their metric as
// they arrive. It keeps at most maxRungs·rungValues values.
type Comparison struct {
	stop    EarlyStop
	rungs   [][]standing
	reached map[int64]int // number of rungs that each unfinished trial has reached
}

// standing is the best value of a trial up to a rung.
type standing struct {
	index int64
	value float32
}

// NewComparison returns a comparison without any trials.
func NewComparison(s EarlyStop) *Comparison {
	return &Comparison{stop: s, reached: map[int64]int{}}
}

// Add records the curve of a trial so far. It returns the reason to stop the trial, or "" to let it
// continue.
func (c *Comparison) Add(index int64, points []Point) (why string) {
	for n := c.reached[index]; ; n++ {
		step, ok := c.stop.rung(n)
		best, reached := c.best(points, step)
		if !ok || !reached {
			break
		}
		if n == len(c.rungs) {
			c.rungs = append(c.rungs, nil)
		}
		s := standing{index, best}
		if why == "" && c.stop.Rule == StopHalving {
			why = c.checkHalving(n, step, s)
		}
		c.reached[index] = n + 1
		c.rungs[n] = slices.DeleteFunc(c.rungs[n], func(o standing) bool { return o.index == index })
		if len(c.rungs[n]) == rungValues {
			c.rungs[n] = slices.Delete(c.rungs[n], 0, 1)
		}
		c.rungs[n] = append(c.rungs[n], s)
	}
	if c.stop.Rule == StopMedian {
		why = c.checkMedian(index)
	}
	return why
}

// Remove forgets the progress of a trial whose next attempt starts over.
func (c *Comparison) Remove(index int64) { delete(c.reached, index) }

// better reports whether a is a better value than b.
func (c *Comparison) better(a, b float32) bool {
	if c.stop.Goal == "maximize" {
		return a > b
	}
	return a < b
}

// best returns the best value up to a step, and whether the curve has reached the step.
func (c *Comparison) best(points []Point, step float64) (best float32, reached bool) {
	found := false
	for _, p := range points {
		if p.Step <= step && (!found || c.better(p.Value, best)) {
			best, found = p.Value, true
		}
		reached = reached || p.Step >= step
	}
	return best, found && reached
}

// standingsOfOthers returns the values of the other trials that have reached a rung, best first.
func (c *Comparison) standingsOfOthers(n int, index int64) (values []float32) {
	for _, o := range c.rungs[n] {
		if o.index != index {
			values = append(values, o.value)
		}
	}
	slices.SortFunc(values, func(a, b float32) int {
		switch {
		case c.better(a, b):
			return -1
		case c.better(b, a):
			return 1
		}
		return 0
	})
	return values
}

// checkHalving compares a trial with those that reached the rung before it.
func (c *Comparison) checkHalving(n int, step float64, s standing) string {
	others := c.standingsOfOthers(n, s.index)
	stay := (len(others) + 1) / reduction
	if stay == 0 || !c.better(others[stay-1], s.value) {
		return ""
	}
	return fmt.Sprintf("stopped early at step %s: %s is at %s, and the best third of %d trials is at %s (asha)",
		numberText(step), c.stop.Metric, numberText(float64(s.value)), len(others)+1,
		numberText(float64(others[stay-1])))
}

// checkMedian compares a trial with the others at its last rung that enough of them have reached.
func (c *Comparison) checkMedian(index int64) string {
	for n := c.reached[index] - 1; n >= 0; n-- {
		others := c.standingsOfOthers(n, index)
		at := slices.IndexFunc(c.rungs[n], func(s standing) bool { return s.index == index })
		if len(others) < leastOthers || at < 0 {
			continue
		}
		median, value := others[len(others)/2], c.rungs[n][at].value
		if len(others)%2 == 0 {
			median = (others[len(others)/2-1] + median) / 2
		}
		if !c.better(median, value) {
			return ""
		}
		step, _ := c.stop.rung(n)
		return fmt.Sprintf("stopped early at step %s: %s is at %s, and the median of %d "+
			"other trials is %s (median)",
			numberText(step), c.stop.Metric, numberText(float64(value)), len(others), numberText(float64(median)))
	}
	return ""
}

func numberText(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }
