package history

import (
	"database/sql/driver"
	"fmt"

	"mlfnode/grid"
)

// reopenedColumn holds grid.Trial.Retried. Where it differs from the one in the detail, reopenRange
// has set it, together with the state: the other columns, and the detail, are those of before.
const reopenedColumn = `
ALTER TABLE trial ADD COLUMN reopened INTEGER NOT NULL DEFAULT 0;
`

// reopenable selects the trials of a range that a reopening at a time applies to. The plus sign
// keeps SQLite from finding rows through the index of states.
var reopenable = fmt.Sprintf("id BETWEEN ? AND ? AND +state IN (%d, %d) AND reopened <> ?", stateCode(grid.Failed), stateCode(grid.Cancelled))

// reopenRange folds a ReopenedRange. It changes the rows where they are, without reading them
// whole: a user may retry millions of trials.
func (f *fold) reopenRange(g *sweepFold, e *grid.Event) error {
	lo, hi := max(e.Index, 0), min(e.End, maxIndex+1)
	if g.policy.Count > 0 {
		hi = min(hi, g.policy.Count)
	}
	if lo >= hi || e.Time <= 0 {
		return nil
	}
	if err := f.storeTrials(g); err != nil {
		return err
	}
	clear(g.trials) // from here on the rows are newer
	first, last := rowID(g.sweep.Number, lo), rowID(g.sweep.Number, hi-1)
	rows, err := f.d.w.query(findReopenable, first, last, e.Time)
	var found []Transition
	if err == nil {
		err = eachRow(rows, func(v []driver.Value) error {
			t, err := decodeReopenable(v)
			if err != nil {
				return err
			}
			g.sweep.Counts.add(&t, -1)
			g.sweep.Counts.Retrying++
			found = addReopened(found, g.sweep.ID, &t)
			return nil
		})
	}
	if err != nil {
		return fmt.Errorf("find trials %d to %d to reopen: %w", lo, hi-1, err)
	}
	if len(found) == 0 {
		return nil
	}
	if err := f.d.w.run(reopenTrials, e.Time, first, last, e.Time); err != nil {
		return fmt.Errorf("reopen trials %d to %d: %w", lo, hi-1, err)
	}
	g.changed = true
	f.changed = append(f.changed, found...)
	for _, t := range found {
		if err := f.reopenBlocks(g, t.Index, t.End); err != nil {
			return err
		}
	}
	return nil
}

// decodeReopenable returns what a row of findReopenable has of a trial that is counted.
func decodeReopenable(v []driver.Value) (grid.Trial, error) {
	var n [5]int64
	for i := range n {
		var ok bool
		if n[i], ok = v[i].(int64); !ok {
			return grid.Trial{}, errDamaged
		}
	}
	t := grid.Trial{Index: n[0] & maxIndex, State: grid.States[n[1]], Attempts: int(n[2])}
	if detail, ok := v[5].([]byte); ok {
		if _, err := unpackDetail(detail, &t); err != nil {
			return t, fmt.Errorf("trial %d: %w", t.Index, err)
		}
	}
	t.Result.Usage.CPU, t.Result.Usage.Wall = n[3], n[4]
	return t, nil
}

// addReopened adds a trial to the last transition, if that reopens the trials before it alike, or
// adds another.
func addReopened(changed []Transition, id grid.SweepID, t *grid.Trial) []Transition {
	if n := len(changed); n > 0 {
		last := &changed[n-1]
		if last.Change == grid.Reopen && last.Sweep == id && last.End == t.Index && last.Attempts == t.Attempts {
			last.End++
			return changed
		}
	}
	return append(changed, Transition{
		Sweep: id, Index: t.Index, End: t.Index + 1, Change: grid.Reopen, State: grid.Pending, Attempts: t.Attempts,
	})
}

// reopenBlocks enters the state of the trials [lo,hi) into their blocks, and widens the bounds.
func (f *fold) reopenBlocks(g *sweepFold, lo, hi int64) error {
	pending := float64(stateCode(grid.Pending))
	for lo < hi {
		block := rowID(g.sweep.Number, lo) >> blockBits
		end := min(hi, (lo|(blockTrials-1))+1)
		if err := f.d.blocks.setPending(block, lo&(blockTrials-1), end-lo); err != nil {
			return err
		}
		if err := f.d.w.run(putBounds, block, int64(stateBounds), pending, pending); err != nil {
			return err
		}
		lo = end
	}
	return nil
}
