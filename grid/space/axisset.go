package space

import (
	"slices"

	"mlfnode/grid/condition"
	"mlfnode/grid/problem"
)

// axisSet is the axes of a space, and the expressions on them.
type axisSet struct {
	values  []*Values     // of each axis
	factors []*factor     // of the combinations
	rules   *excludeRules // nil without exclude expressions
}

func tooManyAxes(n int) *problem.Error {
	return problem.Errorf("Turn those with one value into constants in a file.", "the space has %d axes, more than %d",
		n, maxAxes)
}

// add adds an axis after the others.
func (x *axisSet) add(a Axis) *problem.Error {
	if n := len(x.values) + len(a.keys()); n > maxAxes {
		return tooManyAxes(n)
	}
	w, values, f := newFactor(a, len(x.values))
	if f != nil {
		return f
	}
	for i, v := range values {
		if x.find(v.key) >= 0 || slices.ContainsFunc(values[:i], func(e *Values) bool { return e.key == v.key }) {
			return problem.Errorf("Put all its values in one place.", "the axis %s is given twice", v.key)
		}
	}
	x.factors, x.values = append(x.factors, w), append(x.values, values...)
	return x.checkCells()
}

// checkCells bounds the memory of zipped axes.
func (x *axisSet) checkCells() *problem.Error {
	cells := 0
	for _, w := range x.factors {
		cells += len(w.rows)
	}
	if cells > maxCells {
		return tooManyCells()
	}
	return nil
}

// find returns the number of an axis, or -1.
func (x *axisSet) find(key string) int {
	return slices.IndexFunc(x.values, func(v *Values) bool { return v.key == key })
}

// keys returns the keys of the axes in order.
func (x *axisSet) keys() []string {
	keys := make([]string, len(x.values))
	for k, v := range x.values {
		keys[k] = v.key
	}
	return keys
}

// product returns the product of all values of all axes.
func (x *axisSet) product() *product {
	b := &product{}
	for _, w := range x.factors {
		b.lo, b.hi = append(b.lo, 0), append(b.hi, w.count(x.values))
	}
	return b
}

// split returns the number of factors that expressions depend on.
func (x *axisSet) split() int {
	if x.rules == nil {
		return 0
	}
	for k, w := range x.factors {
		if w.at > x.rules.last {
			return k
		}
	}
	return len(x.factors)
}

// fill sets the axes of the factors from up to to according to the number of their combination.
func (x *axisSet) fill(p Params, b *product, from, to int, i int64) {
	for k := to - 1; k >= from; k-- {
		n := b.hi[k] - b.lo[k]
		w, position := x.factors[k], b.lo[k]+i%n
		for c, v := range x.values[w.at : w.at+w.n] {
			p[w.at+c] = Param{Key: v.key, Value: v.At(w.digit(position, c))}
		}
		i /= n
	}
}

// operands sets the values of a factor's axes at a position.
func (x *axisSet) operands(values []condition.Value, k int, position int64) {
	w := x.factors[k]
	for c, v := range x.values[w.at : w.at+w.n] {
		values[w.at+c] = operand(v.At(w.digit(position, c)))
	}
}
