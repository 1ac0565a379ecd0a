package space

import (
	"slices"

	"mlfnode/grid/problem"
)

// Extend adds values to axes of the space. The new points follow the old ones, whose indexes do not
// change. Values that an axis already has are skipped; it is an error if nothing new remains or if
// an axis is unknown. Each extended axis adds one product: the old values of the axes before it,
// its new values, and all values of the axes after it.
func (s Space) Extend(axes []Axis) (Space, error) {
	more := Space{dims: slices.Clone(s.dims), factors: slices.Clone(s.factors), products: slices.Clone(s.products)}
	if s.incomplete() {
		sample, of, _ := s.Sample()
		return Space{}, problem.Errorf("Run the rest of the grid first.",
			"the sweep is a sample of %d of %d points, so values can't be added to its axes", sample.Size, of)
	}
	if len(more.products) == 0 {
		more.products = []*product{{kept: 1, tail: 1}}
	}
	if err := more.extend(axes); err != nil {
		return Space{}, err
	}
	if s.rules != nil {
		r, err := compileExclude(s.rules.sources, more.dims)
		if err != nil {
			return Space{}, err
		}
		more.rules = r
	}
	for k := range s.factors {
		if more.factors[k].count(more.dims) == s.factors[k].count(s.dims) {
			continue
		}
		if err := more.appendFiltered(addedProduct(&s, &more, k)); err != nil {
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
func (s *Space) extend(axes []Axis) error {
	seen := map[string]bool{}
	for _, a := range axes {
		a = a.unzipped()
		for _, key := range a.keys() {
			switch {
			case s.dim(key) < 0:
				return problem.Errorf(s.axesHint(), "the sweep has no axis %s", key)
			case seen[key]:
				return problem.Errorf("Put all its values in one place.", "the axis %s is given twice", key)
			}
			seen[key] = true
		}
		if f := s.extendAxis(a); f != nil {
			return f
		}
	}
	return nil
}

func (s *Space) extendAxis(a Axis) *problem.Error {
	if len(a.keys()) == 0 {
		return a.check()
	}
	at := s.dim(a.keys()[0])
	k := slices.IndexFunc(s.factors, func(w *factor) bool { return at < w.at+w.n })
	w := s.factors[k]
	switch {
	case w.isZip() && !slices.Equal(a.keys(), s.Keys()[w.at:w.at+w.n]):
		return problem.Errorf("Add values of all of them, in this order: zip={…: […], …: […]}.",
			"%s go together in this sweep", namesOf(w.axes[0]))
	case !w.isZip() && a.Zip != nil:
		return problem.Errorf("Add values to each on its own.", "%s don't go together in this sweep", namesOf(a))
	case !w.isZip():
		fresh, f := s.dims[at].missing(a)
		if f == nil && fresh != nil {
			s.dims[at], f = s.dims[at].append(fresh)
		}
		return f
	}
	e, dims, f := newFactor(a, 0)
	if f != nil {
		return f
	}
	sum, all, more, f := w.append(s.dims, e, dims, false)
	if f != nil || more == 0 {
		return f
	}
	s.factors[k] = sum
	copy(s.dims[w.at:], all)
	return s.checkCells()
}

func (s *Space) axesHint() string {
	if len(s.dims) == 0 {
		return "It has no axes at all, so start a new sweep."
	}
	hint := "Its axes are "
	for k, d := range s.dims {
		if k > 0 {
			hint += ", "
		}
		hint += d.key
	}
	return hint + ". For another one start a new sweep."
}

// addedProduct returns the product of the new values of factor k.
func addedProduct(old, all *Space, k int) *product {
	b := &product{}
	for j := range all.factors {
		before, after := old.factors[j].count(old.dims), all.factors[j].count(all.dims)
		lo, hi := int64(0), after
		switch {
		case j < k:
			hi = before
		case j == k:
			lo = before
		}
		b.lo, b.hi = append(b.lo, lo), append(b.hi, hi)
	}
	return b
}
