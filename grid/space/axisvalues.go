package space

import (
	"errors"
	"math"
	"math/big"
	"slices"
	"sort"
	"strconv"

	"mlfnode/grid/problem"
	"mlfnode/grid/ranges"
)

// Values are the values of an axis of a space including all extensions: those of its pieces in
// sequence. They are numbered from 0.
type Values struct {
	key    string
	axes   []Axis
	pieces []series
	ends   []int64 // ends[k] is the number of values in the pieces up to k
}

func newValues(a Axis) (*Values, *problem.Error) {
	if f := checkKey(a.Key); f != nil {
		return nil, f
	}
	s, f := newSeries(a)
	if f != nil {
		return nil, f
	}
	return &Values{key: a.Key, axes: []Axis{a}, pieces: []series{s}, ends: []int64{s.count()}}, nil
}

// Count returns the number of values.
func (d *Values) Count() int64 { return d.ends[len(d.ends)-1] }

// At returns value number i, from 0 up to Count.
func (d *Values) At(i int64) Value {
	k := 0
	if len(d.ends) > 1 {
		k = sort.Search(len(d.ends), func(k int) bool { return i < d.ends[k] })
	}
	if k > 0 {
		i -= d.ends[k-1]
	}
	return d.pieces[k].at(i)
}

// Find returns the number of a value; ok is false if the axis does not have it.
func (d *Values) Find(v Value) (int64, bool) {
	for k, p := range d.pieces {
		if i, ok := p.find(v); ok {
			if k > 0 {
				i += d.ends[k-1]
			}
			return i, true
		}
	}
	return 0, false
}

// Within adds to into the numbers of the numeric values from lo to hi, inclusive.
func (d *Values) Within(lo, hi float64, into *ranges.Set) {
	base := int64(0)
	for k, p := range d.pieces {
		number := func(i int) float64 {
			v := p.at(int64(i))
			f, err := strconv.ParseFloat(v.Text, 64)
			if v.Kind != Number || err != nil && !errors.Is(err, strconv.ErrRange) {
				return math.NaN()
			}
			return f
		}
		n := int(p.count())
		if _, ok := p.(*list); ok {
			for i := range n {
				if f := number(i); f >= lo && f <= hi {
					into.Add(base+int64(i), base+int64(i)+1)
				}
			}
		} else { // the numbers of a formula are monotonic
			up := number(0) <= number(n-1)
			from := sort.Search(n, func(i int) bool { return up && number(i) >= lo || !up && number(i) <= hi })
			to := sort.Search(n, func(i int) bool { return up && number(i) > hi || !up && number(i) < lo })
			into.Add(base+int64(from), base+int64(to))
		}
		base = d.ends[k]
	}
}

// append returns the values followed by those of e. The two must not share a value.
func (d *Values) append(e *Values) (*Values, *problem.Error) {
	sum := &Values{key: d.key}
	sum.axes = append(append(sum.axes, d.axes...), e.axes...)
	sum.pieces = append(append(sum.pieces, d.pieces...), e.pieces...)
	sum.ends = append(sum.ends, d.ends...)
	for _, end := range e.ends {
		if end > math.MaxInt64-d.Count() {
			return nil, problem.Errorf("Use a larger step.", "%s has more values than 64 bits can count", d.key)
		}
		sum.ends = append(sum.ends, d.Count()+end)
	}
	return sum, nil
}

// Overlapping axes are compared value by value up to maxCompared values. Longer ones are compared
// by arithmetic, which leaves at most maxPieces pieces.
const (
	maxCompared = 1 << 16
	maxPieces   = 1000
)

// missing returns the part of the axis that d lacks, or nil if d has all of it.
func (d *Values) missing(a Axis) (*Values, *problem.Error) {
	e, f := newValues(a)
	if f != nil {
		return nil, f
	}
	if e.Count() <= maxCompared || a.Values != nil {
		return d.missingValues(e)
	}
	known, f := d.overlap(a.Key, e.pieces[0])
	if f != nil {
		return nil, f
	}
	if known.Count() == 0 {
		return e, nil
	}
	return missingSlices(e, known)
}

func (d *Values) missingValues(e *Values) (*Values, *problem.Error) {
	var values []Value
	for i := range e.Count() {
		v := e.At(i)
		if !contains(d.Find, v) {
			values = append(values, v)
		}
	}
	if int64(len(values)) == e.Count() {
		return e, nil
	}
	if len(values) == 0 {
		return nil, nil
	}
	return newValues(Axis{Key: e.key, Values: values})
}

// overlap returns the positions of the values of a long series that d already has.
func (d *Values) overlap(key string, s series) (*ranges.Set, *problem.Error) {
	var known ranges.Set
	for _, p := range d.pieces {
		if p.count() <= maxCompared {
			for i := range p.count() {
				v := p.at(i)
				if v.Kind == Text {
					v.Kind = Number // it is the same argument
				}
				if at, ok := s.find(v); ok {
					known.Add(at, at+1)
				}
			}
			continue
		}
		old, okOld := p.(*interval)
		long, okNew := s.(*interval)
		r, ok := ranges.Range{}, okOld && okNew
		if ok {
			r, ok = long.shared(old)
		}
		if !ok {
			return nil, problem.Errorf("Add values that start after the old ones, or an interval with the same step.",
				"%s has too many values to find those that are new", key)
		}
		known.Add(r.Lo, r.Hi)
	}
	return &known, nil
}

// shared returns the positions of the values of v that old also has, if they are adjacent.
func (v *interval) shared(old *interval) (ranges.Range, bool) {
	scale := max(v.scale, old.scale)
	up := func(x *big.Int, from int) *big.Int { return decimal{x, from}.at(scale) }
	start, step := up(v.start, v.scale), up(v.step, v.scale)
	lo, hi := up(old.start, old.scale), up(old.big(old.n-1), old.scale)
	way := new(big.Int).Sub(start, lo)
	if lo.Cmp(hi) > 0 {
		lo, hi = hi, lo
	}
	if step.Sign() < 0 {
		lo, hi = hi, lo
	}
	r := ranges.Range{
		Lo: clampDiv(new(big.Int).Sub(lo, start), step, v.n, true),
		Hi: clampDiv(new(big.Int).Sub(hi, start), step, v.n, false),
	}
	if r.Lo >= r.Hi {
		return ranges.Range{}, true
	}
	oldStep := up(old.step, old.scale)
	aligned := new(big.Int).Rem(step, oldStep).Sign() == 0 && new(big.Int).Rem(way, oldStep).Sign() == 0
	return r, aligned
}

// clampDiv divides x by step, rounded up or past the last whole step, and clamps the result to
// 0..n.
func clampDiv(x, step *big.Int, n int64, up bool) int64 {
	q, m := new(big.Int).DivMod(new(big.Int).Mul(x, big.NewInt(int64(step.Sign()))), new(big.Int).Abs(step),
		new(big.Int))
	if m.Sign() != 0 || !up {
		q.Add(q, big.NewInt(1))
	}
	switch {
	case q.Sign() < 0:
		return 0
	case !q.IsInt64() || q.Int64() > n:
		return n
	}
	return q.Int64()
}

// missingSlices removes the known values from a long interval.
func missingSlices(e *Values, known *ranges.Set) (*Values, *problem.Error) {
	long, ok := e.pieces[0].(*interval)
	if !ok || known.Len() > maxPieces {
		return nil, problem.Errorf("Add values that start after the old ones, or an interval with the same step.",
			"%s has too many values to take out those that are there already", e.key)
	}
	var rest *Values
	var failed *problem.Error
	known.Gaps(0, long.n, func(g ranges.Range) {
		if failed != nil {
			return
		}
		piece, f := newValues(Axis{Key: e.key, Interval: long.slice(g.Lo, g.Hi)})
		if f == nil && rest != nil {
			piece, f = rest.append(piece)
		}
		rest, failed = piece, f
	})
	return rest, failed
}

// HasLists reports whether a value is a list of arguments.
func (d *Values) HasLists() bool {
	return slices.ContainsFunc(d.pieces, func(p series) bool {
		l, ok := p.(*list)
		return ok && l.lists
	})
}
