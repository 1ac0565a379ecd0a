package monitor

import (
	"slices"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/node/api"
)

// listingPage cuts a page out of a listing: it passes over some trials, then emits some. A listing
// offers its trials in order, until none are left to emit.
type listingPage struct {
	sweep          *grid.Sweep
	q              api.TrialQuery
	left           int64 // how many more to emit
	skip           int64 // how many to pass over first
	emit           func(*grid.Trial) error
	last           *grid.Trial // that was emitted
	lastUnrecorded int64       // the index of the last trial without a row; -1 for none yet
}

func (p *listingPage) wantsState(s grid.State) bool {
	return len(p.q.States) == 0 || slices.Contains(p.q.States, s)
}

func (p *listingPage) wantsUnrecorded() bool { return p.wantsState(unrecordedState(p.sweep)) }

// keepClass leaves out trials whose last attempt did not fail in this class. Its trials
// are skipped and counted here, because history does not select by class.
func (p *listingPage) keepClass(class grid.Class) {
	emit, skip, left := p.emit, p.skip, p.left
	p.skip, p.left = 0, p.sweep.Space.Count()
	p.emit = func(t *grid.Trial) error {
		switch {
		case t.Result.Class != class:
			return nil
		case skip > 0:
			skip--
			return nil
		}
		if left--; left < 0 {
			return errEnough
		}
		return emit(t)
	}
}

func (p *listingPage) emitOrSkip(t *grid.Trial) error {
	if t.Index >= p.sweep.Space.Count() {
		return nil // an event that an earlier version has accepted, for a trial that this sweep does not have
	}
	if p.skip > 0 {
		p.skip--
		return nil
	}
	p.left--
	return p.emit(t)
}

// fillGaps emits the trials of [from,end) without a row.
func (p *listingPage) fillGaps(rows *ranges.Set, from, end int64) (err error) {
	for gap, ok := rows.Gap(from, end); ok && err == nil && p.left > 0; gap, ok = rows.Gap(gap.Hi, end) {
		hi := gap.Hi
		err = p.fill(&gap.Lo, hi)
		gap.Hi = hi
	}
	return err
}

// fill emits trials without a row from next up to end.
func (p *listingPage) fill(next *int64, end int64) error {
	if jump := min(p.skip, max(0, end-*next)); jump > 0 {
		*next += jump
		p.skip -= jump
	}
	for ; *next < end && p.left > 0; *next++ {
		if err := p.emitOrSkip(p.unrecorded(*next)); err != nil {
			return err
		}
	}
	return nil
}

// unrecorded returns a trial that has no row.
func (p *listingPage) unrecorded(index int64) *grid.Trial {
	p.lastUnrecorded = index
	return &grid.Trial{Index: index, State: unrecordedState(p.sweep)}
}

// fillDown emits trials without a row below next down to end.
func (p *listingPage) fillDown(next *int64, end int64) error {
	if jump := min(p.skip, max(0, *next-end)); jump > 0 {
		*next -= jump
		p.skip -= jump
	}
	for ; *next > end && p.left > 0; *next-- {
		if err := p.emitOrSkip(p.unrecorded(*next - 1)); err != nil {
			return err
		}
	}
	return nil
}

// unrecordedState returns the state of the trials of a sweep that have no row.
func unrecordedState(s *grid.Sweep) grid.State {
	if s.State == grid.SweepCancelled {
		return grid.Cancelled
	}
	return grid.Pending
}
