package history

import (
	"database/sql/driver"
	"fmt"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// reopenedColumn holds grid.Trial.Retried. Where it differs from the one in the detail, an earlier
// version has set it, together with the state, and the detail is that of before.
const reopenedColumn = `
ALTER TABLE trial ADD COLUMN reopened INTEGER NOT NULL DEFAULT 0;
`

// reopenRange folds a ReopenedRange. It leaves the rows as they are: a user may retry millions of
// trials.
func (g *sweepFold) reopenRange(e *grid.Event) error {
	lo, hi := max(e.Index, 0), min(e.End, maxIndex+1)
	if g.policy.Count > 0 {
		hi = min(hi, g.policy.Count)
	}
	if lo >= hi || e.Time <= 0 {
		return nil
	}
	if err := g.storeTrials(); err != nil {
		return err
	}
	clear(g.trials) // from here on the rows are newer
	for known := range g.sweep.known.All() {
		for r := (ranges.Range{Lo: max(lo, known.Lo), Hi: min(hi, known.Hi)}); r.Lo < r.Hi; {
			block := ranges.Range{Lo: r.Lo, Hi: min(r.Hi, r.Lo|(blockTrials-1)+1)}
			if err := g.reopenInBlock(block, e.Time); err != nil {
				return fmt.Errorf("reopen trials %d to %d: %w", block.Lo, block.Hi-1, err)
			}
			r.Lo = block.Hi
		}
	}
	return nil
}

// reopenInBlock reopens those trials of one block that a reopening at a time applies to.
func (g *sweepFold) reopenInBlock(trials ranges.Range, at int64) error {
	first, last := rowID(g.sweep.Number, trials.Lo), rowID(g.sweep.Number, trials.Hi-1)
	var sum [5]int64 // of those that have failed: how many, with the fewest and the most attempts, CPU and wall time
	rows, err := g.f.d.w.query(sumFailed, first, last, at)
	if err == nil {
		err = eachRow(rows, func(v []driver.Value) error {
			for i := range sum {
				sum[i], _ = v[i].(int64)
			}
			return nil
		})
	}
	if err != nil {
		return err
	}
	free, none := g.sweep.overlay.covered.Gap(trials.Lo, trials.Hi)
	alike := sum[0] == trials.Hi-trials.Lo && sum[1] == sum[2]
	if alike && none && free == trials {
		g.sweep.Counts.Failed -= sum[0]
		g.sweep.Counts.CPU -= sum[3]
		g.sweep.Counts.Wall -= sum[4]
		return g.cover(overlayRange{trials, at, int(sum[1])})
	}
	rows, err = g.f.d.w.query(findReopenable, first, last, at)
	if err != nil {
		return err
	}
	var found []overlayRange
	err = eachRow(rows, func(v []driver.Value) error {
		t, err := decodeReopenable(v)
		if err != nil || g.sweep.overlay.covered.Has(t.Index) {
			return err
		}
		g.sweep.Counts.add(&t, -1)
		if n := len(found); n > 0 && found[n-1].Hi == t.Index && found[n-1].attempts == t.Attempts {
			found[n-1].Hi++
		} else {
			found = append(found, overlayRange{ranges.Range{Lo: t.Index, Hi: t.Index + 1}, at, t.Attempts})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, r := range found {
		if err := g.cover(r); err != nil {
			return err
		}
	}
	return nil
}

// cover reopens trials of one block, which are no longer counted as ended.
func (g *sweepFold) cover(r overlayRange) error {
	g.sweep.Counts.Retrying += r.Hi - r.Lo
	g.f.changed = addReopened(g.f.changed, g.sweep.ID, r.Range, r.attempts)
	g.changed = true
	if err := g.sweep.overlay.add(g.f.d.w, g.sweep.Number, r); err != nil {
		return err
	}
	block, pending := rowID(g.sweep.Number, r.Lo)>>blockBits, float64(stateCode(grid.Pending))
	if err := g.f.d.blocks.setPending(block, r.Lo&(blockTrials-1), r.Hi-r.Lo); err != nil {
		return err
	}
	return g.f.d.w.run(putBounds, block, int64(stateBounds), pending, pending)
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

// addReopened adds trials to the last transition, if that reopens the trials before them alike, or
// adds another.
func addReopened(changed []Transition, id grid.SweepID, trials ranges.Range, attempts int) []Transition {
	if n := len(changed); n > 0 {
		last := &changed[n-1]
		if last.Change == grid.Reopen && last.Sweep == id && last.End == trials.Lo && last.Attempts == attempts {
			last.End = trials.Hi
			return changed
		}
	}
	return append(changed, Transition{
		Sweep: id, Index: trials.Lo, End: trials.Hi, Change: grid.Reopen, State: grid.Pending, Attempts: attempts,
	})
}
