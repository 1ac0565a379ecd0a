package grid

import (
	"math"
	"slices"
	"sort"
	"time"

	"mlfnode/grid/ranges"
)

// MaxUpdates bounds the updates of one sweep, and MaxUpdateRanges the ranges of trials in each, so
// that a record stays small.
const (
	MaxUpdates      = 100
	MaxUpdateRanges = 10_000
)

// Update gives some trials of a sweep newer files than those of its submission, beginning with
// their next attempts.
type Update struct {
	Bundle string     `json:"bundle"` // SHA-256 of the files, in hex
	At     time.Time  `json:"at"`     // by the master's clock, which also timestamps the reopening of the trials
	Trials [][2]int64 `json:"trials"` // ranges [lo,hi), ascending
}

// NewUpdate returns an update of trials.
func NewUpdate(bundle string, at time.Time, trials *ranges.Set) Update {
	u := Update{Bundle: bundle, At: at}
	for r := range trials.All() {
		u.Trials = append(u.Trials, [2]int64{r.Lo, r.Hi})
	}
	return u
}

// BundleOf returns the bundle for the trial's next attempt: that of its last update, or else that
// of the submission.
func (s *Sweep) BundleOf(index int64) string {
	return s.BundleAt(index, math.MaxInt64)
}

// BundleAt returns the bundle of an attempt of the trial that began at the given time, in
// microseconds since 1970.
func (s *Sweep) BundleAt(index, began int64) string {
	for k := len(s.Updates) - 1; k >= 0; k-- {
		u := &s.Updates[k]
		if u.At.UnixMicro() > began {
			continue
		}
		at := sort.Search(len(u.Trials), func(i int) bool { return u.Trials[i][1] > index })
		if at < len(u.Trials) && u.Trials[at][0] <= index {
			return u.Bundle
		}
	}
	return s.Bundle
}

// Bundles returns all bundles that the sweep needs, that of the submission first.
func (s *Sweep) Bundles() []string {
	var all []string
	if s.Bundle != "" {
		all = append(all, s.Bundle)
	}
	for i := range s.Updates {
		if b := s.Updates[i].Bundle; !slices.Contains(all, b) {
			all = append(all, b)
		}
	}
	return all
}
