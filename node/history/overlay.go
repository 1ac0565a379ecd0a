package history

import (
	"cmp"
	"database/sql/driver"
	"fmt"
	"math"
	"slices"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// A retry may reopen millions of trials. Their rows stay as they are: the table overlay has ranges
// of trials with the time of their reopening, and a row of such a trial that has failed or was
// cancelled, and that has another time in its column reopened, counts as that of a pending trial.
// The next event of the trial stores its row with the new time, and the overlay no longer covers
// it. The ranges are disjoint, and are deleted when no row of the sweep is covered.
const overlayTable = `
CREATE TABLE overlay (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, time INTEGER NOT NULL, attempts INTEGER NOT NULL);
`

// overlay is what the table overlay has of one sweep.
type overlay struct {
	ranges  []overlayRange // by Lo
	owned   bool           // no other overlay shares ranges
	covered ranges.Set     // trials whose rows are covered
}

// overlayRange are trials that were reopened at the same time, after the same number of attempts.
type overlayRange struct {
	ranges.Range
	time     int64
	attempts int
}

func (o *overlay) clone() overlay {
	return overlay{ranges: o.ranges, covered: o.covered.Clone()}
}

// at returns the range with a trial, the zero range for none.
func (o *overlay) at(index int64) overlayRange {
	if n := o.after(index); n > 0 && index < o.ranges[n-1].Hi {
		return o.ranges[n-1]
	}
	return overlayRange{}
}

// after returns the place of the first range that begins after a trial.
func (o *overlay) after(index int64) int {
	n, _ := slices.BinarySearchFunc(o.ranges, index, func(r overlayRange, i int64) int {
		return cmp.Compare(r.Lo, i+1)
	})
	return n
}

// apply makes a trial as its row describes it pending, if the overlay covers the row.
func (o *overlay) apply(t *grid.Trial, reopened int64) {
	if len(o.ranges) == 0 || t.State != grid.Failed && t.State != grid.Cancelled {
		return
	}
	if at := o.at(t.Index).time; at != 0 && at != reopened {
		t.State = grid.Pending
		setReopened(t, at)
	}
}

// changes reports whether other trials may have some states than their rows say. No row of a trial
// that runs or has succeeded is covered.
func (o *overlay) changes(states []grid.State) bool {
	return len(o.ranges) > 0 &&
		slices.ContainsFunc(states, func(s grid.State) bool { return s != grid.Running && s != grid.Succeeded })
}

// add covers the rows of trials of a sweep.
func (o *overlay) add(w *writer, sweep int64, added overlayRange) error {
	if err := o.remove(w, sweep, added.Range); err != nil {
		return err
	}
	o.covered.Add(added.Lo, added.Hi)
	n := o.after(added.Lo)
	if n > 0 {
		if last := &o.ranges[n-1]; last.Hi == added.Lo && last.time == added.time && last.attempts == added.attempts {
			last.Hi = added.Hi
			return last.store(w, sweep)
		}
	}
	o.ranges = slices.Insert(o.ranges, n, added)
	return added.store(w, sweep)
}

// remove removes trials from the ranges: their rows have been stored since.
func (o *overlay) remove(w *writer, sweep int64, removed ranges.Range) error {
	if !o.owned {
		o.ranges, o.owned = slices.Clone(o.ranges), true
	}
	for n := max(o.after(removed.Lo)-1, 0); n < len(o.ranges) && o.ranges[n].Lo < removed.Hi; {
		old := o.ranges[n]
		if old.Hi <= removed.Lo {
			n++
			continue
		}
		var parts []overlayRange
		before, behind := old, old
		before.Hi, behind.Lo = removed.Lo, removed.Hi
		for _, part := range []overlayRange{before, behind} {
			if part.Lo < part.Hi {
				parts = append(parts, part)
			}
		}
		if err := w.run(dropOverlay, rowID(sweep, old.Lo), rowID(sweep, old.Lo)); err != nil {
			return err
		}
		for _, part := range parts {
			if err := part.store(w, sweep); err != nil {
				return err
			}
		}
		o.ranges = slices.Replace(o.ranges, n, n+1, parts...)
		n += len(parts)
	}
	return nil
}

func (r overlayRange) store(w *writer, sweep int64) error {
	return w.run(putOverlay, rowID(sweep, r.Lo), rowID(sweep, r.Hi-1), r.time, int64(r.attempts))
}

// dropUnused deletes the ranges when they cover no row.
func (o *overlay) dropUnused(w *writer, sweep int64) error {
	if len(o.ranges) == 0 || o.covered.Count() > 0 {
		return nil
	}
	o.ranges, o.owned = nil, true
	return w.run(dropOverlay, rowID(sweep, 0), rowID(sweep, maxIndex))
}

// coveredSQL selects the ids of a range of an overlay whose rows are covered. The plus sign keeps
// SQLite from finding rows through the index of states.
var coveredSQL = fmt.Sprintf("FROM trial WHERE id BETWEEN ? AND ? AND +state IN (%d, %d) AND reopened <> ?",
	stateCode(grid.Failed), stateCode(grid.Cancelled))

// eachQuery calls fn with every row of a query.
type eachQuery func(text string, fn func([]driver.Value) error, args ...driver.Value) error

// eachCovered calls fn with the ranges of overlays in [first,last], row ids, and with the trials of
// each whose rows are covered, by index.
func eachCovered(
	query eachQuery, first, last int64, fn func(sweep int64, r overlayRange, covered []ranges.Range),
) error {
	var all []overlayRange
	var numbers []int64
	err := query("SELECT first, last, time, attempts FROM overlay WHERE first BETWEEN ? AND ? ORDER BY first",
		func(v []driver.Value) error {
			var n [4]int64
			for i := range n {
				var ok bool
				if n[i], ok = v[i].(int64); !ok {
					return errDamaged
				}
			}
			r := ranges.Range{Lo: n[0] & maxIndex, Hi: n[1]&maxIndex + 1}
			all, numbers = append(all, overlayRange{r, n[2], int(n[3])}), append(numbers, n[0]>>indexBits)
			return nil
		}, first, last)
	if err != nil {
		return err
	}
	for i, r := range all {
		number := numbers[i]
		args := []driver.Value{rowID(number, r.Lo), rowID(number, r.Hi-1), r.time}
		var covered []ranges.Range
		add := func(lo, hi int64) {
			if n := len(covered); n > 0 && covered[n-1].Hi == lo {
				covered[n-1].Hi = hi
				return
			}
			covered = append(covered, ranges.Range{Lo: lo, Hi: hi})
		}
		count := int64(0)
		err := query("SELECT count(*) "+coveredSQL, func(v []driver.Value) error {
			count, _ = v[0].(int64)
			return nil
		}, args...)
		if err == nil && count == r.Hi-r.Lo {
			add(r.Lo, r.Hi)
		} else if err == nil && count > 0 {
			err = query("SELECT id "+coveredSQL+" ORDER BY id", func(v []driver.Value) error {
				id, ok := v[0].(int64)
				if !ok {
					return errDamaged
				}
				add(id&maxIndex, id&maxIndex+1)
				return nil
			}, args...)
		}
		if err != nil {
			return err
		}
		fn(number, r, covered)
	}
	return nil
}

// loadOverlays loads the overlays of sweeps.
func loadOverlays(w *writer, sweeps map[grid.SweepID]*sweepSummary) error {
	numbered := byNumber(sweeps)
	return eachCovered(w.each, 0, math.MaxInt64, func(sweep int64, r overlayRange, covered []ranges.Range) {
		s := numbered[sweep]
		if s == nil {
			return // it is being removed
		}
		s.overlay.ranges = append(s.overlay.ranges, r)
		for _, c := range covered {
			s.overlay.covered.Add(c.Lo, c.Hi)
		}
	})
}

// overlayOf returns the newest overlay of a sweep.
func (c *catalog) overlayOf(s *sweepSummary) *overlay {
	if newest := c.sweep(s.ID); newest != nil && newest.Number == s.Number {
		return &newest.overlay
	}
	return &s.overlay
}

// stateSQL is the state of a trial in SQL.
func (o *overlay) stateSQL() string {
	if len(o.ranges) == 0 {
		return "state"
	}
	return fmt.Sprintf(
		"CASE WHEN state IN (%d, %d) AND EXISTS (SELECT 1 FROM overlay WHERE time <> reopened AND last >= trial.id"+
			" AND first = (SELECT max(first) FROM overlay WHERE first <= trial.id)) THEN %d ELSE state END",
		stateCode(grid.Failed), stateCode(grid.Cancelled), stateCode(grid.Pending))
}
