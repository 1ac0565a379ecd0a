package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"mlfnode/grid"
)

// Ranges gives the indexes of all terminal trials, as sorted disjoint ranges, and the trials with rows that are not terminal.
// Both are from one moment. Its cost does not depend on how many trials are terminal.
func (d *DB) Ranges(ctx context.Context, id grid.SweepID) (terminal []grid.Range, open []grid.Trial, err error) {
	s, open, err := d.snapshot(ctx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("load ranges of %s: %w", id, d.check(err))
	}
	next := 0
	for r := range s.known.All() {
		for ; next < len(open) && open[next].Index < r.Hi; next++ {
			if at := open[next].Index; at > r.Lo {
				terminal = append(terminal, grid.Range{Lo: r.Lo, Hi: at})
			}
			r.Lo = open[next].Index + 1
		}
		if r.Lo < r.Hi {
			terminal = append(terminal, r)
		}
	}
	return terminal, open, nil
}

// snapshot reads a sweep's summary and its open trials, by index, in one transaction.
func (d *DB) snapshot(ctx context.Context, id grid.SweepID) (*sweep, []grid.Trial, error) {
	tx, err := d.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	defer tx.Rollback()
	var number int64
	var text string
	row := tx.QueryRowContext(ctx, "SELECT number, summary FROM sweep WHERE id = ?", string(id))
	if err := row.Scan(&number, &text); err != nil {
		return nil, nil, err
	}
	s, err := summary(number, id, text)
	if err != nil {
		return nil, nil, err
	}
	open, err := collect(ctx, tx, nil, d.trialOf, fmt.Sprintf("SELECT %s FROM trial WHERE state <> 2 AND state IN (0, 1)"+
		" AND id BETWEEN %d AND %d ORDER BY id", columns, rowID(number, 0), rowID(number, maxIndex)))
	return s, open, err
}
