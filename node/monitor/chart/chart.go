// Package chart computes the answers behind the charts of a sweep. It is pure: it takes columns of
// values, one entry for each trial in the order of index, and derives the parameters of a trial
// arithmetically from its index. So every chart is one or a few passes over columns of small
// numbers, and a page gets sums, histograms and the best trials, never all rows.
//
// Data is what is known of a sweep. New selects trials of it by a Where and returns a View; the
// charts are methods of the View.
package chart

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"sync"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/parallel"
)

// Data is what is known of a sweep and its trials.
type Data struct {
	Columns
	Space    space.Space
	Order    grid.Order // in which trials start
	Stride   int        // one block in this many is included; with 0 and 1, all are
	Done     int64      // terminal trials of the whole sweep
	Name     string     // of the value
	Maximize bool       // greater values are better
	Recent   Recent     // if Stride exceeds 1
	Base     int64      // microseconds since 1970
	Now      float64    // seconds since Base

	Classes []grid.Class
	Nodes   []grid.NodeID // by number, from 1
	Causes  []Cause
}

// Cause is a group of similar failures.
type Cause struct {
	ID        uint8
	Class     grid.Class
	Signature string
	Attempts  int64 // that failed this way, including those of trials that ran again
	Trial     int64 // an example
}

// Head is the part that all answers about a selection share.
type Head struct {
	Value    string `json:"value"`            // what the chart is about
	Goal     string `json:"goal"`             // maximize or minimize
	Matched  int64  `json:"matched"`          // trials that the filter selects, of those with events
	Known    int64  `json:"known"`            // trials with events that were looked at
	Count    int64  `json:"count"`            // trials of the sweep
	Stride   int    `json:"stride,omitempty"` // of so many blocks of trials one was looked at
	Parts    []Part `json:"parts,omitempty"`  // when nothing matches: what each part of the filter selects alone
	Sentence string `json:"sentence"`
}

// Part is one part of a filter, with the number of trials that it selects on its own.
type Part struct {
	Part  string `json:"part"`
	Count int64  `json:"count"`
}

// trials are all trials of the data, with what charts derive from it. Views share them.
type trials struct {
	d      *Data
	axes   []*axis   // those with more than one value
	hidden []string  // the keys of the others
	levels [][]uint8 // by axis, of every row
	// by axis, the position of every row; nil if each level has one position, or if there are too
	// many
	long [][]uint16
	// value is that of trials that have ended: what others have reported so far is not their
	// result. An infinite value ranks below all finite ones, whatever its sign: an infinite value
	// that would be the best is treated as missing, NaN.
	value   []float32
	known   int64           // trials with events
	margins func() *margins // computed once
}

// View is a selection of trials, with the charts of it.
type View struct {
	selection
}

// selection is some of all trials.
type selection struct {
	*trials
	from  *selection // that it was selected from; nil for all trials
	rows  []int32    // that are selected
	parts []Part

	// Computed once, as a cached view has several users: the selected rows that have a value, with
	// their values, the best first and equal ones by index; and for each row of these its rank, see
	// rank.
	order func() ([]int32, []float32)
	ranks func() []float32
}

func newView(t *trials, from *selection, rows []int32) *View {
	v := &View{selection{trials: t, from: from, rows: rows}}
	v.order, v.ranks = sync.OnceValues(v.sort), sync.OnceValue(v.rank)
	return v
}

// New selects the trials of d that match w.
func New(d *Data, w Where) (*View, error) {
	v, err := all(d)
	if err != nil {
		return nil, err
	}
	return v.Select(w)
}

// all selects all trials.
func all(d *Data) (*View, error) {
	t := &trials{d: d, value: make([]float32, len(d.Value))}
	for r, f := range d.Value {
		if !ended(d.State[r]) || math.IsInf(float64(f), 1) && d.Maximize || math.IsInf(float64(f), -1) && !d.Maximize {
			f = float32(math.NaN())
		}
		t.value[r] = f
	}
	keys := d.Space.Keys()
	for k, values := range d.Space.Values() {
		if values.Count() == 1 {
			t.hidden = append(t.hidden, keys[k])
			continue
		}
		t.axes = append(t.axes, newAxis(d.Space, k, keys[k]))
	}
	n := len(d.State)
	t.levels = make([][]uint8, len(t.axes))
	t.long = make([][]uint16, len(t.axes))
	for a, axis := range t.axes {
		t.levels[a] = make([]uint8, n)
		if axis.Size > maxLevels && axis.Size <= tableSize {
			t.long[a] = make([]uint16, n)
		}
	}
	err := d.eachBlock(func(from int, at [][]int64) {
		for a, axis := range t.axes {
			axis.levelsOf(t.levels[a][from:from+BlockTrials], at[axis.place])
			if long := t.long[a]; long != nil {
				for i, position := range at[axis.place] {
					long[from+i] = uint16(position)
				}
			}
		}
	})
	rows := make([]int32, 0, n)
	count := d.Space.Count()
	for row, state := range d.State {
		if state != 0 && d.index(int32(row)) < count { // the sweep may have been extended in the meantime
			rows = append(rows, int32(row))
		}
	}
	t.known = int64(len(rows))
	v := newView(t, nil, rows)
	t.margins = sync.OnceValue(func() *margins { return newMargins(v) })
	return v, err
}

const (
	// leastBlocks and leastRows are the minimum numbers of blocks and rows in each part when a loop
	// is divided.
	leastBlocks = 128
	leastRows   = leastBlocks * BlockTrials
)

// eachBlock calls fn with the first row of each block and with the positions of its trials on the
// axes of the space. It processes several blocks concurrently.
func (d *Data) eachBlock(fn func(from int, at [][]int64)) error {
	parts := parallel.Split(len(d.Blocks), leastBlocks)
	errs := make([]error, len(parts))
	parallel.Each(len(parts), func(i int) {
		at := make([][]int64, len(d.Space.Values()))
		for k := range at {
			at[k] = make([]int64, BlockTrials)
		}
		for b := parts[i].Lo; b < parts[i].Hi && errs[i] == nil; b++ {
			if errs[i] = d.Space.Positions(d.Blocks[b], d.Blocks[b]+BlockTrials, at); errs[i] == nil {
				fn(b*BlockTrials, at)
			}
		}
	})
	return cmp.Or(errs...)
}

// kept returns those rows for which keep reports true, in their order, and retains no memory for
// others. Several goroutines call keep.
func kept(rows []int32, keep func(row int32) bool) []int32 { return keptParts(rows, matching(keep)) }

func keptParts(rows []int32, keep rowFilter) []int32 {
	spans := parallel.Split(len(rows), leastRows)
	out, counts := make([]int32, len(rows)), make([]int, len(spans))
	parallel.Each(len(spans), func(i int) {
		counts[i] = keep(out[spans[i].Lo:spans[i].Hi], rows[spans[i].Lo:spans[i].Hi])
	})
	return joined(out, spans, counts)
}

// joined joins the kept prefixes of the parts of a list, and retains no memory for the rest.
func joined[T any](list []T, spans []parallel.Span, counts []int) []T {
	n := 0
	for i, span := range spans {
		n += copy(list[n:], list[span.Lo:span.Lo+counts[i]])
	}
	if n < len(list)/2 {
		return slices.Clone(list[:n])
	}
	return list[:n]
}

// Select selects those trials of the view that also match w. The axes and their levels are those of
// the view: selecting again takes a fraction of the time of New.
func (v *View) Select(w Where) (*View, error) {
	if len(w.parts) == 0 {
		return v, nil
	}
	f, err := w.compile(v)
	if err != nil {
		return nil, err
	}
	some := newView(v.trials, &v.selection, keptParts(v.rows, f.keep))
	if len(some.rows) == 0 {
		for _, test := range f {
			some.parts = append(some.parts, Part{test.name, int64(len(keptParts(v.rows, test.keep)))})
		}
	}
	return some, nil
}

func (v *selection) head(sentence string) Head {
	h := Head{
		Value: v.d.Name, Goal: "minimize", Matched: int64(len(v.rows)), Known: v.known, Count: v.d.Space.Count(),
		Parts: v.parts, Sentence: sentence,
	}
	if v.d.Maximize {
		h.Goal = "maximize"
	}
	if v.d.Stride > 1 {
		h.Stride = v.d.Stride
	}
	if len(v.rows) == 0 {
		h.Sentence = "No trial that has run matches the filter."
		if v.known == 0 {
			h.Sentence = "No trial has run yet."
		}
	}
	return h
}

func (t *trials) axis(key string) int {
	return slices.IndexFunc(t.axes, func(a *axis) bool { return a.Key == key })
}

// better reports whether a is a better value than b.
func (t *trials) better(a, b float32) bool {
	if t.d.Maximize {
		return a > b
	}
	return a < b
}

// largePart determines when the order of a selection is derived from that of its view, which is
// kept for other selections: if the selection has at least one in largePart of the rows.
const largePart = 8

// sort computes the order of the view.
func (v *selection) sort() ([]int32, []float32) {
	if v.from == nil || len(v.rows) < len(v.from.rows)/largePart {
		sorted := sortRows(v.rows, v.value, v.d.Maximize)
		values := make([]float32, len(sorted))
		spans := parallel.Split(len(sorted), leastRows)
		parallel.Each(len(spans), func(i int) {
			for n := spans[i].Lo; n < spans[i].Hi; n++ {
				values[n] = v.value[sorted[n]]
			}
		})
		return sorted, values
	}
	selected := make([]uint8, len(v.d.State)) // 1 or 0: adding it is faster than a branch
	for _, r := range v.rows {
		selected[r] = 1
	}
	rows, all := v.from.order()
	sorted, values := make([]int32, len(rows)), make([]float32, len(rows))
	spans := parallel.Split(len(rows), leastRows)
	counts := make([]int, len(spans))
	parallel.Each(len(spans), func(i int) {
		n := spans[i].Lo
		for at := n; at < spans[i].Hi; at++ {
			sorted[n], values[n] = rows[at], all[at]
			n += int(selected[rows[at]])
		}
		counts[i] = n - spans[i].Lo
	})
	return joined(sorted, spans, counts), joined(values, spans, counts)
}

// sortRows sorts rows by a column, in linear time, and leaves out those that have no value in it.
func sortRows(rows []int32, column []float32, desc bool) []int32 {
	out := kept(rows, func(r int32) bool { return column[r] == column[r] })
	keys := make([]uint32, len(out))
	spans := parallel.Split(len(out), leastRows)
	parallel.Each(len(spans), func(p int) {
		for i := spans[p].Lo; i < spans[p].Hi; i++ {
			keys[i] = grid.SortKey(column[out[i]], desc)
		}
	})
	return parallel.Sort(keys, out, leastRows)
}

// rank returns for each row of order its rank from 0, the best, to 1; equal values share a rank.
// Rows without a value have NaN.
func (v *selection) rank() []float32 {
	sorted, values := v.order()
	ranks := make([]float32, len(v.d.State))
	for i := range ranks {
		ranks[i] = float32(math.NaN())
	}
	scale := 1 / float32(max(1, len(sorted)-1))
	behind := func(lo int) int { // the rows that share the value of the row before
		for lo > 0 && lo < len(values) && values[lo] == values[lo-1] {
			lo++
		}
		return lo
	}
	spans := parallel.Split(len(sorted), leastRows)
	parallel.Each(len(spans), func(i int) {
		for lo, end := behind(spans[i].Lo), spans[i].Hi; lo < end; {
			hi := behind(lo + 1)
			mid := float32(lo+hi-1) / 2 * scale
			for ; lo < hi; lo++ {
				ranks[sorted[lo]] = mid
			}
		}
	})
	return ranks
}

// Number is a number that is null in JSON if it is not finite.
type Number float64

// MarshalJSON writes five more significant digits than a page shows.
func (n Number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, f, 'g', 7, 64), nil
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (n *Number) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*n = Number(math.NaN())
		return nil
	}
	f, err := strconv.ParseFloat(string(b), 64)
	*n = Number(f)
	return err
}
