package space

import (
	"slices"
	"strings"

	"mlfnode/grid/problem"
)

// Extend adds values to axes of the space. The new points follow the old ones, whose indexes do not
// change. Values that an axis already has are skipped; it is an error if nothing new remains or if
// an axis is unknown. Each extended axis adds one product: the old values of the axes before it,
// its new values, and all values of the axes after it.
func (s Space) Extend(axes []Axis) (Space, error) {
	if sample, of, ok := s.Sample(); ok && sample.Size < of {
		return Space{}, problem.Errorf("Run the rest of the grid first.",
			"the sweep is a sample of %d of %d points, so values can't be added to its axes", sample.Size, of)
	}
	more := Space{products: slices.Clone(s.products)}
	more.axes.values, more.axes.factors = slices.Clone(s.axes.values), slices.Clone(s.axes.factors)
	if len(more.products) == 0 {
		more.products = products{{kept: 1, tail: 1}}
	}
	if err := more.axes.extend(axes); err != nil {
		return Space{}, err
	}
	if s.axes.rules != nil {
		r, err := compileExclude(s.axes.rules.sources, more.axes.values)
		if err != nil {
			return Space{}, err
		}
		more.axes.rules = r
	}
	for k, w := range s.axes.factors {
		before, after := w.count(s.axes.values), more.axes.factors[k].count(more.axes.values)
		if before == after {
			continue
		}
		b := more.axes.product()
		b.lo[k] = before
		for j, w := range s.axes.factors[:k] {
			b.hi[j] = w.count(s.axes.values)
		}
		if err := more.products.add(b, &more.axes); err != nil {
			return Space{}, err
		}
	}
	if more.Count() == s.Count() {
		return Space{}, problem.Errorf("Add a new value, or one that no exclude condition leaves out.",
			"there is nothing new to run")
	}
	return more, nil
}

// extend appends the new values to each axis.
func (x *axisSet) extend(axes []Axis) error {
	seen := map[string]bool{}
	for _, a := range axes {
		a = a.unzipped()
		for _, key := range a.keys() {
			switch {
			case x.find(key) < 0:
				hint := "It has no axes at all, so start a new sweep."
				if len(x.values) > 0 {
					hint = "Its axes are " + strings.Join(x.keys(), ", ") + ". For another one start a new sweep."
				}
				return problem.Errorf(hint, "the sweep has no axis %s", key)
			case seen[key]:
				return problem.Errorf("Put all its values in one place.", "the axis %s is given twice", key)
			}
			seen[key] = true
		}
		if f := x.extendAxis(a); f != nil {
			return f
		}
	}
	return nil
}

func (x *axisSet) extendAxis(a Axis) *problem.Error {
	if len(a.keys()) == 0 {
		return a.check()
	}
	at := x.find(a.keys()[0])
	k := slices.IndexFunc(x.factors, func(w *factor) bool { return at < w.at+w.n })
	w := x.factors[k]
	switch {
	case w.isZip() && !slices.Equal(a.keys(), w.axes[0].keys()):
		return problem.Errorf("Add values of all of them, in this order: zip={…: […], …: […]}.",
			"%s go together in this sweep", namesOf(w.axes[0]))
	case !w.isZip() && a.Zip != nil:
		return problem.Errorf("Add values to each on its own.", "%s don't go together in this sweep", namesOf(a))
	case !w.isZip():
		fresh, f := x.values[at].missing(a)
		if f == nil && fresh != nil {
			x.values[at], f = x.values[at].append(fresh)
		}
		return f
	}
	e, values, f := newFactor(a, 0)
	if f != nil {
		return f
	}
	sum, all, more, f := w.append(x.values, e, values, false)
	if f != nil || more == 0 {
		return f
	}
	x.factors[k] = sum
	copy(x.values[w.at:], all)
	return x.checkCells()
}
