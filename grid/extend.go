package grid

import "slices"

// Extend adds values to axes of the space. The new points follow the old ones, whose indexes stay as they are. Values that an
// axis has already are skipped; it is an error when nothing new is left or when an axis is unknown. For each extended axis
// there is one new block: the old values of the axes before it, its new values, and all values of the axes behind it.
func (s Space) Extend(axes []Axis) (Space, error) {
	more := Space{dims: slices.Clone(s.dims), blocks: slices.Clone(s.blocks)}
	if len(more.blocks) == 0 {
		more.blocks = []*block{{kept: 1, tail: 1}}
	}
	if err := more.widen(axes); err != nil {
		return Space{}, err
	}
	if s.rules != nil {
		r, err := compile(s.rules.sources, more.dims)
		if err != nil {
			return Space{}, err
		}
		more.rules = r
	}
	for k := range s.dims {
		if more.dims[k] == s.dims[k] {
			continue
		}
		if err := more.add(added(s.dims, more.dims, k)); err != nil {
			return Space{}, err
		}
	}
	if more.Count() == s.Count() {
		return Space{}, flawf("Add a value that is new, or one that no exclude expression takes out again.", "there is nothing new to run")
	}
	return more, nil
}

// widen puts the new values behind the old ones of each axis.
func (s *Space) widen(axes []Axis) error {
	seen := map[string]bool{}
	for _, a := range axes {
		k := slices.IndexFunc(s.dims, func(d *dimension) bool { return d.key == a.Key })
		switch {
		case k < 0:
			return flawf(s.axesHint(), "the sweep has no axis %s", a.Key)
		case seen[a.Key]:
			return flawf("Put all its values in one place.", "the axis %s is given twice", a.Key)
		}
		seen[a.Key] = true
		fresh, f := s.dims[k].fresh(a)
		if f == nil && fresh != nil {
			s.dims[k], f = s.dims[k].plus(fresh)
		}
		if f != nil {
			return f
		}
	}
	return nil
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

// added is the block of the new values of axis k.
func added(old, all []*dimension, k int) *block {
	b := &block{}
	for j := range all {
		lo, hi := int64(0), all[j].count()
		switch {
		case j < k:
			hi = old[j].count()
		case j == k:
			lo = old[j].count()
		}
		b.lo, b.hi = append(b.lo, lo), append(b.hi, hi)
	}
	return b
}
