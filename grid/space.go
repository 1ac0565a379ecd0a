package grid

// Space is the parameter space of a sweep (being written: see Count, At, Index).
type Space struct{}

// Count is the number of points.
func (s Space) Count() int64 { return 0 }

// At gives the point with index i.
func (s Space) At(i int64) Params { return nil }

// Index is the inverse of At.
func (s Space) Index(p Params) (int64, bool) { return 0, false }
