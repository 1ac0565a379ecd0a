package space

import (
	"encoding/binary"
	"slices"
	"sync"

	"mlfnode/grid/problem"
)

// MaxRows bounds the number of values of zipped axes.
const MaxRows = 100_000

// maxCells bounds the total number of values of all zipped axes in a space: these are expanded,
// even those of formulas.
const maxCells = 1_000_000

// factor is one factor of a product: a single axis, or several zipped axes, row by row.
type factor struct {
	at, n int     // it consists of this axis and the n-1 next ones
	axes  []Axis  // the zipped axes as they were given; nil for a single axis
	rows  []int64 // the digits of its n axes, row by row; nil for a single axis

	once  sync.Once
	index map[string]int64 // row of each tuple of values, built on first use
}

// isZip reports whether the factor consists of zipped axes.
func (w *factor) isZip() bool { return w.axes != nil }

// HasZip reports whether the space has zipped axes.
func HasZip(s Space) bool { return slices.ContainsFunc(s.axes.factors, (*factor).isZip) }

// count returns the number of positions of the factor.
func (w *factor) count(axes []*Values) int64 {
	if !w.isZip() {
		return axes[w.at].Count()
	}
	return int64(len(w.rows) / w.n)
}

// digit returns the digit of its axis c at a position: the position of the axis's value.
func (w *factor) digit(position int64, c int) int64 {
	if !w.isZip() {
		return position
	}
	return w.rows[position*int64(w.n)+int64(c)]
}

// position is the inverse of digit. at holds the digits of all axes of the space.
func (w *factor) position(at []int64) (int64, bool) {
	if !w.isZip() {
		return at[w.at], true
	}
	w.once.Do(func() {
		w.index = make(map[string]int64, len(w.rows)/w.n)
		for r := range len(w.rows) / w.n {
			w.index[rowKey(w.rows[r*w.n:(r+1)*w.n])] = int64(r)
		}
	})
	r, ok := w.index[rowKey(at[w.at:w.at+w.n])]
	return r, ok
}

func rowKey(digits []int64) string {
	b := make([]byte, 0, 3*len(digits))
	for _, d := range digits {
		b = binary.AppendUvarint(b, uint64(d))
	}
	return string(b)
}

// keys returns the key of the axis, or those of its zipped axes.
func (a Axis) keys() []string {
	if a.Zip == nil {
		return []string{a.Key}
	}
	keys := make([]string, len(a.Zip))
	for k, z := range a.Zip {
		keys[k] = z.Key
	}
	return keys
}

// unzipped returns the axis in a zip of one axis, and any other axis unchanged.
func (a Axis) unzipped() Axis {
	if len(a.Zip) == 1 && a.Zip[0].Zip == nil && a.checkZip() == nil {
		return a.Zip[0]
	}
	return a
}

// newFactor returns the factor for an axis or for zipped axes, which begin at index at of the
// space. A zip of one axis is the same as that axis.
func newFactor(a Axis, at int) (*factor, []*Values, *problem.Error) {
	if a = a.unzipped(); a.Zip == nil {
		d, f := newValues(a)
		return &factor{at: at, n: 1}, []*Values{d}, f
	}
	w := &factor{at: at, n: len(a.Zip), axes: []Axis{a}}
	columns, f := columnsOf(a)
	if f != nil {
		return nil, nil, f
	}
	axes := make([]*Values, w.n)
	w.rows = make([]int64, w.n*len(columns[0]))
	for c, values := range columns {
		l := &list{index: map[Value]int64{}}
		for r, v := range values {
			v = canonical(v)
			i, known := l.index[v]
			if !known {
				if f := checkValue(a.Zip[c].Key, v); f != nil {
					return nil, nil, f
				}
				i = int64(len(l.values))
				l.values, l.index[v], l.lists = append(l.values, v), i, l.lists || v.Kind == List
			}
			w.rows[r*w.n+c] = i
		}
		axes[c] = &Values{key: a.Zip[c].Key, pieces: []series{l}, ends: []int64{l.count()}}
	}
	if len(columns[0]) == 1 {
		return w, axes, nil
	}
	seen := make(map[string]int, len(columns[0]))
	for r := range columns[0] {
		key := rowKey(w.rows[r*w.n : (r+1)*w.n])
		if first, twice := seen[key]; twice {
			return nil, nil, problem.Errorf(
				"Keep one of them: it would run the same point again. To repeat points, use repeat.",
				"the points %d and %d of %s are the same", first+1, r+1, namesOf(a))
		}
		seen[key] = r
	}
	return w, axes, nil
}

// checkZip returns a problem if a zip has other fields set, or has no axes or too many.
func (a Axis) checkZip() *problem.Error {
	if a.Key != "" || a.Values != nil || len(a.Formulas()) > 0 || len(a.Zip) == 0 {
		return problem.Errorf("Write zip: {lr: [0.1, 0.01], batch: [32, 64]}.", "a zip may contain only axes")
	}
	if len(a.Zip) > maxAxes {
		return tooManyAxes(len(a.Zip))
	}
	return nil
}

// columnsOf returns the values of zipped axes, all of the same length. It expands formulas only
// after it has counted all axes.
func columnsOf(a Axis) ([][]Value, *problem.Error) {
	if f := a.checkZip(); f != nil {
		return nil, f
	}
	columns, formulas, rows := make([][]Value, len(a.Zip)), make([]series, len(a.Zip)), int64(0)
	for c, z := range a.Zip {
		if f := checkKey(z.Key); f != nil {
			return nil, f
		}
		if z.Zip != nil {
			return nil, problem.Errorf("Put all axes into one zip.", "a zip contains another one")
		}
		columns[c] = z.Values
		n := int64(len(z.Values))
		if n == 0 || len(z.Formulas()) > 0 {
			s, f := newSeries(z)
			if f != nil {
				return nil, f
			}
			formulas[c], n = s, s.count()
		}
		if c == 0 {
			rows = n
		}
		switch {
		case n > MaxRows:
			return nil, tooManyRows(z.Key, n)
		case n != rows:
			return nil, problem.Errorf(
				"Give all of them the same number of values: the first ones form one point, the second ones the next.",
				"%s has %s and %s has %s, but they go together",
				a.Zip[0].Key, quantity(int(rows), "value"), z.Key, quantity(int(n), "value"))
		}
	}
	if rows*int64(len(a.Zip)) > maxCells {
		return nil, tooManyCells()
	}
	for c, s := range formulas {
		if s == nil {
			continue
		}
		columns[c] = make([]Value, rows)
		for i := range rows {
			columns[c][i] = s.at(i)
		}
	}
	return columns, nil
}

func tooManyCells() *problem.Error {
	return problem.Errorf("Put them into a file of the project, and go over its lines.",
		"axes that go together have more than %d values in all", maxCells)
}

func tooManyRows(key string, n int64) *problem.Error {
	return problem.Errorf("Use a grid, or several sweeps.",
		"%s has %d values, and axes that go together have at most %d", key, n, MaxRows)
}

func namesOf(a Axis) string {
	keys := a.keys()
	text := keys[0]
	for _, k := range keys[1:] {
		text += ", " + k
	}
	return text
}

// append returns a factor with the rows of e appended, and its axes with the new values fresh. It
// skips rows that the factor already has, unless known is set; more is the number of rows added.
func (w *factor) append(axes []*Values, e *factor, fresh []*Values, known bool) (sum *factor, all []*Values,
	more int, f *problem.Error) {
	all = make([]*Values, w.n)
	digits := make([][]int64, w.n)
	for c := range w.n {
		d := axes[w.at+c]
		var added []Value
		for i := range fresh[c].Count() {
			v := fresh[c].At(i)
			at, ok := d.Find(v)
			if !ok {
				at = d.Count() + int64(len(added))
				added = append(added, v)
			}
			digits[c] = append(digits[c], at)
		}
		all[c] = d
		if len(added) > 0 {
			e, f := newValues(Axis{Key: d.key, Values: added})
			if f != nil {
				return nil, nil, 0, f
			}
			if all[c], f = d.append(e); f != nil {
				return nil, nil, 0, f
			}
		}
	}
	sum = &factor{at: w.at, n: w.n, rows: slices.Clone(w.rows)}
	at := make([]int64, w.at+w.n)
	var kept []int64
	for r := range len(e.rows) / w.n {
		row := at[w.at:]
		for c := range row {
			row[c] = digits[c][e.rows[r*w.n+c]]
		}
		if _, ok := w.position(at); ok && !known {
			continue
		}
		sum.rows, kept = append(sum.rows, row...), append(kept, int64(r))
	}
	if n := len(sum.rows) / w.n; n > MaxRows {
		return nil, nil, 0, tooManyRows(namesOf(w.axes[0]), int64(n))
	}
	if len(sum.rows) > maxCells {
		return nil, nil, 0, tooManyCells()
	}
	sum.axes = append(slices.Clone(w.axes), e.rowsOf(fresh, kept))
	return sum, all, len(kept), nil
}

// rowsOf returns some rows as zipped axes.
func (w *factor) rowsOf(axes []*Values, rows []int64) Axis {
	a := Axis{Zip: make([]Axis, w.n)}
	for c := range w.n {
		a.Zip[c].Key = axes[c].key
		for _, r := range rows {
			a.Zip[c].Values = append(a.Zip[c].Values, axes[c].At(w.rows[r*int64(w.n)+int64(c)]))
		}
	}
	return a
}
