package chart

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"mlfnode/grid/space"
)

// maxLevels bounds the levels of an axis: a longer one has several neighbouring values in each.
const maxLevels = 64

// Axis describes an axis of charts.
type Axis struct {
	Key    string  `json:"key"`
	Scale  string  `json:"scale"` // linear, log or category
	Size   int64   `json:"size"`  // how many values it has
	Levels []Level `json:"levels"`
}

// Level is one value of an axis, or some neighbouring ones.
type Level struct {
	Label  string `json:"label"`
	Number Number `json:"number"` // of the value, or of the one in the middle; null for what is not a number
	Lo     int64  `json:"lo"`     // position of the first value
	Hi     int64  `json:"hi"`     // behind the last one
	Points int64  `json:"points"` // trials of the sweep that have it
}

// axis is an Axis with the data that the computations need.
type axis struct {
	Axis
	place int // in the space
}

func newAxis(s space.Space, place int, key string) *axis {
	values := s.Values()[place]
	size := values.Count()
	a := &axis{place: place, Axis: Axis{Key: key, Size: size}}
	n := min(size, maxLevels)
	a.Levels = make([]Level, n)
	for l := range a.Levels {
		lo, hi := firstOf(int64(l), size, n), firstOf(int64(l)+1, size, n)
		level := Level{Lo: lo, Hi: hi, Number: number(values.At(lo + (hi-1-lo)/2)), Label: label(values.At(lo))}
		if hi > lo+1 {
			level.Label += ".." + label(values.At(hi-1))
		}
		a.Levels[l] = level
	}
	a.Scale = scale(a.Levels)
	a.points(s)
	return a
}

// firstOf returns the first position of a level of an axis with n levels: level·size/n, rounded up.
func firstOf(level, size, n int64) int64 {
	hi, lo := bits.Mul64(uint64(level), uint64(size))
	first, rest := bits.Div64(hi, lo, uint64(n))
	if rest > 0 {
		first++
	}
	return int64(first)
}

// levelOf returns the level of a position.
func (a *axis) levelOf(position int64) uint8 {
	if a.Size <= maxLevels {
		return uint8(position)
	}
	hi, lo := bits.Mul64(uint64(position), maxLevels)
	level, _ := bits.Div64(hi, lo, uint64(a.Size))
	return uint8(level)
}

func (a *axis) levelsOf(dest []uint8, positions []int64) {
	if a.Size <= maxLevels {
		for i, p := range positions {
			dest[i] = uint8(p)
		}
		return
	}
	for i, p := range positions {
		dest[i] = a.levelOf(p)
	}
}

// exactPoints bounds the points that are counted in a space with exclude expressions; of a larger
// space, sampledPoints are examined.
const (
	exactPoints   = 1 << 18
	sampledPoints = 1 << 14
)

// points counts the trials that have each level; for a large space with excluded points it returns
// an estimate.
func (a *axis) points(s space.Space) {
	for _, p := range s.Products() {
		if !p.Whole {
			counts := make([]float64, len(a.Levels))
			weight := eachPoint(s, p, func(at [][]int64, i int) { counts[a.levelOf(at[a.place][i])]++ })
			for l := range counts {
				a.Levels[l].Points += int64(math.Round(counts[l] * weight))
			}
			continue
		}
		lo, hi := p.Lo[a.place], p.Hi[a.place]
		each := p.Count / (hi - lo)
		for l := range a.Levels {
			level := &a.Levels[l]
			if n := min(hi, level.Hi) - max(lo, level.Lo); n > 0 {
				level.Points += n * each
			}
		}
	}
}

// eachPoint calls fn for the points of a part of a space or, if there are many, for evenly spread
// blocks of them, and returns how many points each of those stands for.
func eachPoint(s space.Space, p space.Product, fn func(at [][]int64, i int)) (weight float64) {
	at := make([][]int64, len(p.Lo))
	for k := range at {
		at[k] = make([]int64, BlockTrials)
	}
	step := int64(BlockTrials)
	if p.Count > exactPoints {
		step = p.Count / (sampledPoints / BlockTrials)
	}
	seen := int64(0)
	for from := int64(0); from >= 0 && from < p.Count; from += step { // it is negative after an overflow
		lo := p.Start + from
		hi := lo + min(BlockTrials, p.Count-from)
		if s.Positions(lo, hi, at) != nil {
			return 0 // the record is inconsistent, which other readers report
		}
		for i := range int(hi - lo) {
			fn(at, i)
		}
		seen += hi - lo
	}
	return float64(p.Count) / float64(max(seen, 1))
}

func label(v space.Value) string {
	switch v.Kind {
	case space.True:
		return "true"
	case space.False:
		return "false"
	}
	return v.Text
}

func number(v space.Value) Number {
	if v.Kind != space.Number {
		return Number(math.NaN())
	}
	f, err := strconv.ParseFloat(v.Text, 64)
	if err != nil {
		f = math.NaN()
	}
	return Number(f)
}

// scale guesses how to draw an axis: on a logarithmic scale if its values span more than a factor
// of 20 and are spread more evenly that way.
func scale(levels []Level) string {
	values := make([]float64, len(levels))
	for l := range levels {
		values[l] = float64(levels[l].Number)
		if math.IsNaN(values[l]) {
			return "category"
		}
	}
	slices.Sort(values)
	if lo, hi := values[0], values[len(values)-1]; lo <= 0 || hi/lo < 20 || len(values) < 3 {
		return "linear"
	}
	widest := func(f func(float64) float64) float64 { // the share of the widest gap
		most := 0.0
		for i := range values[1:] {
			most = max(most, f(values[i+1])-f(values[i]))
		}
		return most / (f(values[len(values)-1]) - f(values[0]))
	}
	if widest(math.Log) < widest(func(x float64) float64 { return x }) {
		return "log"
	}
	return "linear"
}

// axisOf finds the axis of a key. It returns an *Error if the view has none.
func (t *trials) axisOf(key string) (int, error) {
	var keys []string
	for a := range t.axes {
		if t.axes[a].Key == key {
			return a, nil
		}
		keys = append(keys, t.axes[a].Key)
	}
	hint := "choose one of " + strings.Join(keys, ", ")
	if len(keys) == 0 {
		hint = "choose one of none: every parameter of the sweep has one value"
	}
	if slices.Contains(t.hidden, key) {
		return 0, &Error{fmt.Sprintf("the parameter %s has one value only", key), hint}
	}
	return 0, &Error{fmt.Sprintf("the sweep has no parameter %q", key), hint}
}

// Error describes what is wrong with a request, and what to do about it.
type Error struct{ Msg, Hint string }

func (e *Error) Error() string { return e.Msg }
