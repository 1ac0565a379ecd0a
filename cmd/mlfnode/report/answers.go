package report

import (
	"encoding/json"
	"math"
)

// The parts of the API's answers that the drawings need.

// figure is a number in an answer; NaN where the answer has null.
type figure float64

// UnmarshalJSON reads a number or null.
func (f *figure) UnmarshalJSON(b []byte) error {
	v := math.NaN()
	if string(b) != "null" {
		if err := json.Unmarshal(b, &v); err != nil {
			return err
		}
	}
	*f = figure(v)
	return nil
}

type axis struct {
	Key    string
	Levels []struct{ Label string }
}

type parallelAnswer struct {
	Value string
	Axes  []axis
	Edges []figure
	Bands []struct {
		From, To []int
		N        []int64
		Rank     []figure
	}
	Lines struct {
		Trial       []int64
		Levels      [][]int
		Value, Rank []figure
	}
}

type heatAnswer struct {
	Value, Goal string
	X, Y        axis
	Cells       []struct {
		N     [][]int64
		Value [][]figure
	}
}

type curvesAnswer struct {
	Value                    string
	Sampled                  int64
	Steps, Low, Median, High []figure
	Curves                   []struct {
		Trial         int64
		State         string
		Steps, Values []figure
	}
}

// axisShare is the share that a parameter explains.
type axisShare struct {
	Key   string
	Share figure
}
