package chart

import (
	"fmt"
	"math"

	"mlfnode/grid"
)

// Slices are the trials that differ from a given one in a single parameter.
type Slices struct {
	Head
	Trial int64   `json:"trial"`
	State string  `json:"state"`
	Of    Number  `json:"of"` // the value of the trial
	Axes  []Slice `json:"axes"`
}

// Slice is one parameter; its lists have an entry for each value, or only for the values around
// that of the trial if there are many.
type Slice struct {
	Key   string   `json:"key"`
	Scale string   `json:"scale"`
	At    int      `json:"at"` // the place of the trial itself in the lists
	Label []string `json:"label"`
	X     []Number `json:"x"`     // the values as numbers
	Index []int64  `json:"index"` // of the trials; -1 where the sweep has none
	State []string `json:"state"`
	Value []Number `json:"value"`
}

// Slices walks from a trial along each axis.
func (v *View) Slices(trial int64) (*Slices, error) {
	values := v.d.Space.Values()
	at := make([][]int64, len(values))
	for k := range at {
		at[k] = make([]int64, 1)
	}
	if trial < 0 || trial >= v.d.Space.Count() {
		return nil, &Error{fmt.Sprintf("the sweep has no trial %d", trial),
			fmt.Sprintf("it has %d, from 0 on", v.d.Space.Count())}
	}
	if err := v.d.Space.Positions(trial, trial+1, at); err != nil {
		return nil, err
	}
	s := &Slices{Trial: trial, Axes: []Slice{}}
	s.State, s.Of = v.lookUp(trial)
	point := make([]int64, len(at))
	for k := range at {
		point[k] = at[k][0]
	}
	steps, better := 0, 0
	for _, a := range v.axes {
		here := point[a.place]
		lo := max(0, min(here-maxLevels/2, a.Size-maxLevels))
		hi := min(a.Size, lo+maxLevels)
		slice := Slice{Key: a.Key, Scale: a.Scale, At: int(here - lo)}
		for p := lo; p < hi; p++ {
			point[a.place] = p
			value := values[a.place].At(p)
			index, ok := v.d.Space.IndexAt(point)
			state, f := "", Number(math.NaN())
			if !ok {
				index = -1
			} else {
				state, f = v.lookUp(index)
			}
			slice.Label, slice.X = append(slice.Label, label(value)), append(slice.X, number(value))
			slice.Index, slice.State, slice.Value = append(slice.Index, index), append(slice.State, state),
				append(slice.Value, f)
			if p == here-1 || p == here+1 {
				if steps++; v.better(float32(f), float32(s.Of)) {
					better++
				}
			}
		}
		point[a.place] = here
		s.Axes = append(s.Axes, slice)
	}
	s.Head = v.head(fmt.Sprintf("Trial %d is %s; %d of its %d neighbours are better.", trial, s.State, better, steps))
	return s, nil
}

// lookUp returns the state and the value of a trial, whether it is selected or not.
func (t *trials) lookUp(index int64) (state string, value Number) {
	row, ok := t.d.row(index)
	if !ok {
		return string(grid.Pending), Number(math.NaN())
	}
	return string(grid.States[t.d.State[row]-1]), Number(t.value[row])
}
