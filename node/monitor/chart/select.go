package chart

import (
	"cmp"
	"slices"

	"mlfnode/grid"
)

// Order is how Trials are sorted.
type Order struct {
	By   string // value, started, wall, ended, state or index; with Key it is not looked at
	Key  string // of a parameter
	Desc bool
}

// maxPlaces bounds the values of a parameter to sort by.
const maxPlaces = 2 << 20

// Trials gives the indexes of the selected trials in an order, equal ones by index and those without what it sorts by last. It
// reports whether that is known here.
func (v *View) Trials(o Order) ([]int64, bool) {
	rows := v.rows
	switch {
	case o.Key != "":
		at := slices.Index(v.d.Space.Keys(), o.Key)
		if at < 0 || v.d.Space.Sizes()[at] > maxPlaces {
			return nil, false
		}
		rows = v.byParameter(at, o.Desc)
	case o.By == "index":
		if o.Desc {
			rows = slices.Clone(rows)
			slices.Reverse(rows)
		}
	case o.By == "state":
		rows = v.byColumn(v.column(func(r int32) float32 { return float32(v.d.State[r]) }), o.Desc)
	case o.By == "value":
		rows = v.byColumn(v.d.Value, o.Desc)
	case o.By == "started":
		rows = v.byColumn(v.d.Started, o.Desc)
	case o.By == "wall":
		rows = v.byColumn(v.d.Wall, o.Desc)
	case o.By == "ended":
		rows = v.byColumn(v.column(func(r int32) float32 { return v.d.Started[r] + v.d.Wall[r] }), o.Desc)
	default:
		return nil, false
	}
	all := make([]int64, len(rows))
	for i, r := range rows {
		all[i] = v.d.index(r)
	}
	return all, true
}

// column computes a column for the selected rows.
func (v *View) column(of func(int32) float32) []float32 {
	c := make([]float32, len(v.d.State))
	for _, r := range v.rows {
		c[r] = of(r)
	}
	return c
}

// byColumn sorts the selected rows by a column, those without a value behind all others.
func (v *View) byColumn(column []float32, desc bool) []int32 {
	rows := sortRows(v.rows, column, desc)
	if len(rows) < len(v.rows) {
		for _, r := range v.rows {
			if column[r] != column[r] {
				rows = append(rows, r)
			}
		}
	}
	return rows
}

// byParameter sorts the selected rows by the values of a parameter: numbers, then texts, then flags.
func (v *View) byParameter(at int, desc bool) []int32 {
	s := v.d.Space
	positions := make([]int64, len(v.d.State))
	block := make([][]int64, len(s.Sizes()))
	for k := range block {
		block[k] = make([]int64, BlockTrials)
	}
	for b, first := range v.d.Blocks {
		if s.Positions(first, first+BlockTrials, block) == nil { // New has read the same
			copy(positions[b*BlockTrials:], block[at])
		}
	}
	places := placesOf(s, at, desc)
	rows := slices.Clone(v.rows)
	slices.SortStableFunc(rows, func(a, b int32) int { return cmp.Compare(places[positions[a]], places[positions[b]]) })
	return rows
}

// placesOf gives the place of each value of an axis in the order of its values.
func placesOf(s grid.Space, at int, desc bool) []int64 {
	n := s.Sizes()[at]
	order := make([]int64, n)
	for i := range order {
		order[i] = int64(i)
	}
	kind := func(v grid.Value) int {
		switch v.Kind {
		case grid.Number:
			return 0
		case grid.Text:
			return 1
		}
		return 2
	}
	slices.SortStableFunc(order, func(a, b int64) int {
		x, y := s.Value(at, a), s.Value(at, b)
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
