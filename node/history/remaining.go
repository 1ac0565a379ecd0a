package history

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// Remaining is what is left to do of a sweep, as of one moment.
type Remaining struct {
	Applied  uint64       // the last event that it includes
	Terminal ranges.Set   // trials that have ended
	Reopened []Reopened   // trials that a user has reopened, and of which nothing has run since
	Open     []grid.Trial // other trials with rows that are not terminal, by index
}

// Reopened are trials that are reopened, and whose next attempts have the same number.
type Reopened struct {
	ranges.Range
	Attempts int // so far
}

// Remaining returns what is left to do of a sweep. Its cost does not depend on how many trials are
// terminal, and the size of the result not on how many are reopened.
func (d *reader) Remaining(ctx context.Context, id grid.SweepID) (*Remaining, error) {
	left, err := d.readRemaining(ctx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return &Remaining{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load remaining trials of %s: %w", id, d.markDamage(err))
	}
	return left, nil
}

// readRemaining reads it in one transaction.
func (d *reader) readRemaining(ctx context.Context, id grid.SweepID) (*Remaining, error) {
	tx, err := d.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback()
	var number int64
	left := &Remaining{}
	row := tx.QueryRowContext(ctx, "SELECT number, (SELECT applied FROM meta) FROM sweep WHERE id = ?", string(id))
	if err := row.Scan(&number, &left.Applied); err != nil {
		return nil, err
	}
	if err := left.readKnown(ctx, tx, number); err != nil {
		return nil, err
	}
	// By state, so that the index of states returns them in order of index without sorting.
	for _, state := range []grid.State{grid.Running, grid.Pending} {
		if err := left.readState(ctx, tx, &d.catalog, number, state); err != nil {
			return nil, err
		}
	}
	if err := left.readOverlay(ctx, tx, number); err != nil {
		return nil, err
	}
	slices.SortFunc(left.Open, func(a, b grid.Trial) int { return cmp.Compare(a.Index, b.Index) })
	return left, nil
}

// readKnown sets all trials with rows as terminal; readState removes those that are not.
func (l *Remaining) readKnown(ctx context.Context, tx *sql.Tx, number int64) error {
	rows, err := tx.QueryContext(ctx, "SELECT id, bits FROM known WHERE id BETWEEN ? AND ? ORDER BY id",
		rowID(number, 0)>>bitmapBits, rowID(number, maxIndex)>>bitmapBits)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var bits []byte
		if err := rows.Scan(&id, &bits); err != nil {
			return err
		}
		if err := addBitmap(&l.Terminal, id, bits); err != nil {
			return err
		}
	}
	return rows.Err()
}

// readState adds the trials in a state that is not terminal.
func (l *Remaining) readState(ctx context.Context, tx *sql.Tx, d *catalog, number int64, state grid.State) error {
	text := fmt.Sprintf("SELECT %s FROM trial WHERE state = %d%s AND id BETWEEN %d AND %d ORDER BY id",
		readColumns, stateCode(state), openSQL, rowID(number, 0), rowID(number, maxIndex))
	return eachSelected(ctx, tx, func(v []driver.Value) error {
		id, ok := v[0].(int64)
		if !ok {
			return errDamaged
		}
		i := id & maxIndex
		l.Terminal.Remove(i, i+1)
		if attempts, ok := reopenedAttempts(v); ok {
			l.addReopened(ranges.Range{Lo: i, Hi: i + 1}, attempts)
			return nil
		}
		t, err := d.decodeTrial(v, &overlay{}) // which covers only rows with other states
		if err != nil {
			return err
		}
		l.Open = append(l.Open, t)
		return nil
	}, text)
}

// reopenedAttempts reports whether a row is of a trial of which nothing has run since it was
// reopened, and returns the number of its attempts.
func reopenedAttempts(v []driver.Value) (attempts int, ok bool) {
	detail, isDetail := v[10].([]byte)
	n, isNumber := v[2].(int64)
	t := grid.Trial{Attempts: int(n)}
	if !isDetail || !isNumber || v[1] != stateCode(grid.Pending) {
		return 0, false
	}
	if _, err := unpackDetail(detail, &t); err != nil {
		return 0, false
	}
	reopened, _ := v[11].(int64)
	setReopened(&t, reopened)
	return int(n), t.Retried != 0 && int(n) == t.Floor && len(t.Failures) == 0 && len(t.Away) == 0
}

// readOverlay adds the trials whose rows an overlay covers.
func (l *Remaining) readOverlay(ctx context.Context, tx *sql.Tx, number int64) error {
	query := func(text string, fn func([]driver.Value) error, args ...driver.Value) error {
		values := make([]any, len(args))
		for i, v := range args {
			values[i] = v
		}
		return eachSelected(ctx, tx, fn, text, values...)
	}
	return eachCovered(query, rowID(number, 0), rowID(number, maxIndex),
		func(_ int64, r overlayRange, covered []ranges.Range) {
			for _, c := range covered {
				l.Terminal.Remove(c.Lo, c.Hi)
				l.addReopened(c, r.attempts)
			}
		})
}

func (l *Remaining) addReopened(trials ranges.Range, attempts int) {
	if n := len(l.Reopened); n > 0 && l.Reopened[n-1].Hi == trials.Lo && l.Reopened[n-1].Attempts == attempts {
		l.Reopened[n-1].Hi = trials.Hi
		return
	}
	l.Reopened = append(l.Reopened, Reopened{trials, attempts})
}
