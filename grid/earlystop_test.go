package grid

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid/space"
)

// constantCurve returns the curve of a metric that stays at value from the first step to the last.
func constantCurve(value float32, last int) []Point {
	var points []Point
	for i := 1; i <= last; i++ {
		points = append(points, Point{Step: float64(i), Value: value})
	}
	return points
}

// TestMedianStops compares trials at multiples of `after` with the median of at least three others.
func TestMedianStops(t *testing.T) {
	c := NewComparison(EarlyStop{Metric: "loss", Goal: "minimize", Rule: StopMedian, After: 5})
	for i, last := range []int{20, 20} {
		if why := c.Add(int64(i), constantCurve(float32(i+1), last)); why != "" {
			t.Errorf("trial %d among too few others: %s", i, why)
		}
	}
	if why := c.Add(2, constantCurve(90, 20)); why != "" {
		t.Errorf("the third trial has two others: %s", why)
	}
	if why := c.Add(3, constantCurve(50, 4)); why != "" {
		t.Errorf("before the first rung: %s", why)
	}
	if why := c.Add(3, constantCurve(2, 5)); why != "" {
		t.Errorf("as good as the median: %s", why)
	}
	want := "stopped early at step 10: loss is at 2.5, and the median of 3 other trials is 2 (median)"
	if why := c.Add(4, constantCurve(2.5, 11)); why != want {
		t.Errorf("worse than the median: got %q, want %q", why, want)
	}
	falling := append(constantCurve(100, 4), Point{5, 0.5}, Point{6, 200})
	if why := c.Add(5, falling); why != "" {
		t.Errorf("its best value counts, not the last: %s", why)
	}
	late := NewComparison(EarlyStop{Metric: "loss", Goal: "minimize", Rule: StopMedian, After: 2})
	for i := range int64(2) {
		late.Add(i, constantCurve(1, 4))
	}
	if late.Add(9, constantCurve(5, 40)) != "" {
		t.Error("there are two others so far")
	}
	late.Add(2, constantCurve(1, 4))
	if late.Add(9, constantCurve(5, 41)) == "" {
		t.Error("the third has come to a rung that the worse trial has left behind long ago")
	}
	up := NewComparison(EarlyStop{Metric: "accuracy", Goal: "maximize", Rule: StopMedian, After: 1})
	for i := range int64(4) {
		up.Add(i, constantCurve(0.9, 3))
	}
	if up.Add(4, constantCurve(0.5, 3)) == "" || up.Add(5, constantCurve(0.95, 3)) != "" {
		t.Error("with goal maximize less is worse, and more is better")
	}
}

// TestHalvingStops checks that the best third of the trials that have reached a rung continue.
func TestHalvingStops(t *testing.T) {
	c := NewComparison(EarlyStop{Metric: "loss", Goal: "minimize", Rule: StopHalving, After: 2})
	var stopped []int64
	for i, value := range []float32{5, 6, 4, 3, 9, 2, 1, 8, 1} {
		if why := c.Add(int64(i), constantCurve(value, 2)); why != "" {
			if !strings.Contains(why, "the best third of") {
				t.Errorf("trial %d: %s", i, why)
			}
			stopped = append(stopped, int64(i))
		}
	}
	if got := fmt.Sprint(stopped); got != "[4 7]" {
		t.Errorf("stopped at the first rung: got %s, want [4 7]", got)
	}
	if c.Add(0, constantCurve(5, 5)) != "" || c.Add(2, constantCurve(4, 6)) != "" ||
		c.Add(3, constantCurve(4.5, 6)) != "" || c.Add(5, constantCurve(2, 6)) != "" {
		t.Error("too few have come to the second rung, at step 6, to stop one")
	}
	if c.Add(1, constantCurve(6, 6)) == "" {
		t.Error("the last at the second rung goes on")
	}
}

// TestTheBestIsNeverStopped checks, for both rules and for any reports in any order, that a trial
// continues if no other trial has ever been better, and that memory stays bounded.
func TestTheBestIsNeverStopped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := EarlyStop{Metric: "m", Goal: rapid.SampledFrom([]string{"minimize", "maximize"}).Draw(t, "goal"),
			Rule: rapid.SampledFrom([]StopRule{StopMedian, StopHalving}).Draw(t,
				"rule"), After: float64(rapid.IntRange(1, 4).Draw(t, "after"))}
		c := NewComparison(s)
		sign := map[string]float32{"minimize": 1, "maximize": -1}[s.Goal]
		curves := map[int64][]Point{}
		for range rapid.IntRange(1, 60).Draw(t, "reports") {
			i := rapid.Int64Range(0, 12).Draw(t, "trial")
			value := sign * float32(rapid.IntRange(0, 50).Draw(t, "value"))
			if i == 0 {
				value = -sign // better than all others
			}
			curves[i] = append(curves[i], Point{Step: float64(len(curves[i]) + 1), Value: value})
			if why := c.Add(i, curves[i]); why != "" && i == 0 {
				t.Fatalf("the best trial: %s", why)
			}
			if rapid.Bool().Draw(t, "ends") {
				c.Remove(i)
				curves[i] = nil
			}
		}
	})
	c := NewComparison(EarlyStop{Metric: "m", Goal: "minimize", Rule: StopMedian, After: 1})
	for i := range int64(3 * rungValues) {
		c.Add(i, constantCurve(float32(i), MaxPoints))
		c.Remove(i)
	}
	if len(c.rungs) > maxRungs || len(c.rungs[0]) != rungValues || len(c.reached) != 0 {
		t.Errorf("kept: %d rungs, %d values of the first, %d trials", len(c.rungs), len(c.rungs[0]), len(c.reached))
	}
}

// TestStopIsCompleted fills in missing fields from the objective or from the name of the metric.
func TestStopIsCompleted(t *testing.T) {
	accuracy := &Objective{Metric: "accuracy", Goal: "maximize"}
	for _, c := range []struct {
		stop      EarlyStop
		objective *Objective
		want      string // metric and goal, or the error
	}{
		{EarlyStop{}, accuracy, "accuracy maximize"},
		{EarlyStop{Metric: "accuracy"}, accuracy, "accuracy maximize"},
		{EarlyStop{Metric: "val/Loss"}, accuracy, "val/Loss minimize"},
		{EarlyStop{Metric: "test_error"}, nil, "test_error minimize"},
		{EarlyStop{Metric: "reward", Goal: "maximize"}, nil, "reward maximize"},
		{EarlyStop{Metric: "accuracy"}, nil, "does not say whether a lower or a higher accuracy is better"},
		{EarlyStop{}, nil, "stop does not name a metric"},
	} {
		s := c.stop
		s.Rule, s.After = StopMedian, 1
		s.Complete(c.objective)
		got := s.Metric + " " + s.Goal
		if err := s.Check(); err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%+v with %+v: got %q, want %q", c.stop, c.objective, got, c.want)
		}
	}
}

// TestLevels checks that leases of sweeps with newer features go only to newer nodes.
func TestLevels(t *testing.T) {
	plain, err := space.New([]space.Axis{{Key: "a", Values: []space.Value{{Text: "1", Kind: space.Number}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for want, tasks := range map[int][]Task{
		LevelPlain:    {{}, {StopAfter: 3}},
		LevelEquipped: {{Checkpoint: &Checkpoint{}}, {Image: "x"}, {Resources: Resources{GPUs: One}}},
		LevelNodes:    {{Order: OrderLongest, Repeat: true}, {Resources: Resources{Nodes: "gpu1"}}},
		LevelFeatures: {{Repeat: true}, {Venv: ".venv"}, {Stop: &EarlyStop{}},
			{Venv: ".venv", Resources: Resources{GPUs: One}}},
	} {
		for i := range tasks {
			s := &Sweep{Task: tasks[i]}
			if err := s.SetSpace(plain); err != nil {
				t.Fatal(err)
			}
			if got := s.Level(); got != want {
				t.Errorf("task %d of level %d: got %d", i, want, got)
			}
			s.Long = true
			if got := s.Level(); got != LevelLong {
				t.Errorf("task %d of a long sweep: got level %d", i, got)
			}
		}
	}
}
