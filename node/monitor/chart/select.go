package chart

import (
	"cmp"
	"math"
	"slices"

	"mlfnode/grid/space"
)

// Order is the sort order of Trials.
type Order struct {
	By    string // value, started, wall, ended, state or index; ignored if Key is set
	Key   string // of a parameter
	Desc  bool
	After *Place // only the trials after it
}

// Place is a position in an order.
type Place struct {
	Index int64
	Value float64 // the sort key, which for a parameter is derived from the index; NaN for none
}

// maxPlaces bounds the values of a parameter to sort by.
const maxPlaces = 2 << 20

// Matched returns the number of trials that the view selects.
func (v *selection) Matched() int { return len(v.rows) }

// Trials returns the indexes of the selected trials in an order, and the position of each. Trials
// with equal keys are ordered by index, and those without a key are last. It reports whether the
// order is known here.
func (v *selection) Trials(o Order) (all []int64, places func(n int) Place, ok bool) {
	column, desc, rows := []float32(nil), o.Desc, v.rows
	switch {
	case o.Key != "":
		at := slices.Index(v.d.Space.Keys(), o.Key)
		if at < 0 || v.d.Space.Values()[at].Count() > maxPlaces {
			return nil, nil, false
		}
		places := placesOf(v.d.Space, at, o.Desc)
		rows, column = sortByParameter(v, at, places)
		desc = false // the ranks of the values include it
		if o.After != nil {
			// the axis may have been extended since
			o.After = &Place{o.After.Index, valuePlace(v, o.After.Index, at, places)}
		}
	case o.By == "index":
		if o.Desc {
			rows = slices.Clone(rows)
			slices.Reverse(rows)
		}
	case o.By == "state":
		column = make([]float32, len(v.d.State))
		for r, state := range v.d.State {
			column[r] = float32(state)
		}
	case o.By == "value":
		column = v.d.Value
	case o.By == "started":
		column = v.d.Started
	case o.By == "wall":
		column = v.d.Wall
	case o.By == "ended":
		column = v.d.Ended
	default:
		return nil, nil, false
	}
	if column != nil && o.Key == "" {
		rows = sortRows(v.rows, column, desc)
		if len(rows) < len(v.rows) {
			for _, r := range v.rows { // those without a value are last
				if column[r] != column[r] {
					rows = append(rows, r)
				}
			}
		}
	}
	place := func(r int32) Place {
		p := Place{Index: v.d.index(r), Value: math.NaN()}
		if column != nil {
			p.Value = float64(column[r])
		}
		return p
	}
	if o.After != nil {
		behind := func(r int32, last Place) int {
			p := place(r)
			c := cmp.Compare(p.Value, last.Value)
			if missing := math.IsNaN(p.Value); missing != math.IsNaN(last.Value) {
				c = map[bool]int{true: 1, false: -1}[missing]
			} else if desc {
				c = -c
			}
			i := cmp.Compare(p.Index, last.Index)
			if column == nil && desc {
				i = -i
			}
			return cmp.Or(c, i, -1)
		}
		at, _ := slices.BinarySearchFunc(rows, *o.After, behind)
		rows = rows[at:]
	}
	all = make([]int64, len(rows))
	for i, r := range rows {
		all[i] = v.d.index(r)
	}
	return all, func(n int) Place { return place(rows[n]) }, true
}

// sortByParameter sorts the selected rows by the values of a parameter, whose ranks are passed in:
// numbers, then texts, then Booleans. It also returns the ranks of the values of all rows.
func sortByParameter(v *selection, at int, places []int64) ([]int32, []float32) {
	s := v.d.Space
	positions := make([]int64, len(v.d.State))
	block := make([][]int64, len(s.Values()))
	for k := range block {
		block[k] = make([]int64, BlockTrials)
	}
	for b, first := range v.d.Blocks {
		if s.Positions(first, first+BlockTrials, block) == nil { // New has read the same
			copy(positions[b*BlockTrials:], block[at])
		}
	}
	column := make([]float32, len(positions))
	for r, position := range positions {
		column[r] = float32(places[position])
	}
	return sortRows(v.rows, column, false), column
}

// valuePlace returns the rank of the value that a trial has on an axis, or NaN if the sweep has no
// such trial.
func valuePlace(v *selection, index int64, at int, places []int64) float64 {
	position := make([][]int64, len(v.d.Space.Values()))
	for k := range position {
		position[k] = make([]int64, 1)
	}
	if index >= v.d.Space.Count() || v.d.Space.Positions(index, index+1, position) != nil {
		return math.NaN()
	}
	return float64(places[position[at][0]])
}

// placesOf returns the rank of each value of an axis in the order of its values.
func placesOf(s space.Space, at int, desc bool) []int64 {
	values := s.Values()[at]
	n := values.Count()
	order := make([]int64, n)
	for i := range order {
		order[i] = int64(i)
	}
	kind := func(v space.Value) int {
		switch v.Kind {
		case space.Number:
			return 0
		case space.Text:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(order, func(a, b int64) int {
		x, y := values.At(a), values.At(b)
		c := cmp.Compare(number(x), number(y))
		if kind(x) != 0 {
			c = cmp.Compare(label(x), label(y))
		}
		if desc {
			c = -c
		}
		return cmp.Or(cmp.Compare(kind(x), kind(y)), c)
	})
	places := make([]int64, n)
	for place, position := range order {
		places[position] = int64(place)
	}
	return places
}
