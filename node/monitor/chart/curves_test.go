package chart

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// TestCurveBand makes the band of four straight curves: they are straight between two points, and
// have no value outside their steps.
func TestCurveBand(t *testing.T) {
	s := spaceOf(t, nil, numbers("a", "0 1 2 3 4"))
	v := viewOf(t, dataOf(t, s, func(i int64, _ map[string]string) trial {
		return trial{state: grid.Succeeded, value: float64(i)}
	}), "")
	points := map[int64][]grid.Point{
		0: {{Step: 0, Value: 0}, {Step: 10, Value: 10}},
		1: {{Step: 0, Value: 1}, {Step: 5, Value: 6}, {Step: 10, Value: 11}},
		2: {{Step: 10, Value: 12}, {Step: 0, Value: 2}}, // the program went back
		3: {{Step: 5, Value: 100}, {Step: 20, Value: 100}},
	}
	picked, band, err := v.CurveTrials(nil)
	if want := []int64{0, 1, 2, 3, 4}; err != nil || !slices.Equal(picked, want) || !slices.Equal(band, want) {
		t.Fatalf("got %v and %v, %v", picked, band, err)
	}
	got := v.Curves([]int64{2, 4}, band, points)
	want := &Curves{
		Head: got.Head, Sampled: 4, Steps: []Number{0, 5, 10, 20}, Low: []Number{0, 5, 10, 100},
		Median: []Number{1, 7, 12, 100},
		High:   []Number{2, 100, 100, 100}, Counts: []int64{3, 4, 4, 1},
		Curves: []TrialCurve{
			{Trial: 2, State: "succeeded", Steps: []Number{0, 10}, Values: []Number{2, 12}},
			{Trial: 4, State: "succeeded", Steps: []Number{}, Values: []Number{}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if want := "The middle 80 % of 4 curves of loss end between 2 and 100, half of them below 11."; got.Sentence != want {
		t.Errorf("sentence: got %q, want %q", got.Sentence, want)
	}
	none := v.Curves(nil, band, nil)
	if want := "None of these trials has reported loss more than once."; none.Sentence != want || none.Steps == nil ||
		none.Curves == nil {
		t.Errorf("without curves: got %+v", none)
	}
}

// TestCurveProperties draws arbitrary curves: the answer is bounded, its steps ascend within those
// of the curves, its quantiles are in order and within the values, and the band of a single curve
// is that curve.
func TestCurveProperties(t *testing.T) {
	s := spaceOf(t, nil, space.Axis{Key: "a", Interval: []json.Number{"0", "3000"}})
	v := viewOf(t, dataOf(t, s, func(i int64, _ map[string]string) trial {
		return trial{state: grid.Succeeded, value: float64(i)}
	}), "")
	rapid.Check(t, func(t *rapid.T) {
		points := map[int64][]grid.Point{}
		lo, hi := math.Inf(1), math.Inf(-1)
		for i := range rapid.IntRange(1, 20).Draw(t, "curves") {
			step := 0.0
			for range rapid.IntRange(1, grid.MaxPoints).Draw(t, "points") {
				step += float64(rapid.IntRange(1, 5).Draw(t, "step"))
				value := rapid.Float32Range(-1e6, 1e6).Draw(t, "value")
				points[int64(i)] = append(points[int64(i)], grid.Point{Step: step, Value: value})
				lo, hi = min(lo, float64(value)), max(hi, float64(value))
			}
		}
		picked, band, err := v.CurveTrials(nil)
		if err != nil || len(picked) != bestChosen || len(band) != bandCurves {
			t.Fatalf("got %d picked and %d for the band, %v", len(picked), len(band), err)
		}
		c := v.Curves(picked, slices.Concat(band, []int64{1, 3, 5, 7, 9, 11, 13, 15, 17, 19}), points)
		if len(c.Steps) > bandSteps || !slices.IsSorted(c.Steps) {
			t.Fatalf("steps: got %v", c.Steps)
		}
		for i := range c.Steps {
			if c.Low[i] > c.Median[i] || c.Median[i] > c.High[i] || float64(c.Low[i]) < lo-1e-6 ||
				float64(c.High[i]) > hi+1e-6 || c.Counts[i] < 1 {
				t.Fatalf("at %v: got %v, %v, %v of %d curves within %v..%v", c.Steps[i], c.Low[i], c.Median[i],
					c.High[i], c.Counts[i], lo, hi)
			}
		}
		one := v.Curves([]int64{0}, []int64{0}, points)
		if !slices.Equal(one.Median, one.Curves[0].Values) || !slices.Equal(one.Steps, one.Curves[0].Steps) {
			t.Fatalf("the band of one curve: got %v at %v, want %v", one.Median, one.Steps, one.Curves[0])
		}
	})
}

// TestCurvesAreSmall answers with the maximum number of curves of the maximum number of points in
// less than 200 kB.
func TestCurvesAreSmall(t *testing.T) {
	s := spaceOf(t, nil, space.Axis{Key: "a", Interval: []json.Number{"0", "3000"}})
	v := viewOf(t, dataOf(t, s, func(i int64, _ map[string]string) trial {
		return trial{state: grid.Succeeded, value: float64(i)}
	}), "")
	points, chosen := map[int64][]grid.Point{}, []int64{}
	for i := range s.Count() {
		for k := range grid.MaxPoints {
			points[i] = append(points[i],
				grid.Point{Step: 1e6 + float64(k)*1234.5678, Value: -float32(i) / 7e7 * float32(k+1)})
		}
		if i < maxChosen {
			chosen = append(chosen, i)
		}
	}
	picked, band, err := v.CurveTrials(chosen)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v.Curves(picked, band, points))
	if err != nil || len(b) > 200<<10 {
		t.Errorf("got %d bytes, %v", len(b), err)
	}
	if _, _, err := v.CurveTrials(append(chosen, 100)); err == nil {
		t.Errorf("%s trials are not refused", strconv.Itoa(maxChosen+1))
	}
	if _, _, err := v.CurveTrials([]int64{3000}); err == nil {
		t.Error("a trial that the sweep does not have is not refused")
	}
}
