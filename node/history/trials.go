package history

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"

	"mlfnode/grid"
)

// Sort is what trials are ordered by: one of the constants, or the name of a metric. Trials without
// the value come last, and equal ones in order of index.
type Sort string

// The orders besides metrics. The empty Sort is SortIndex.
const (
	SortIndex     Sort = "index"
	SortStarted   Sort = "started"
	SortEnded     Sort = "ended"
	SortWall      Sort = "wall"
	SortCPU       Sort = "cpu"
	SortMemory    Sort = "memory"
	SortObjective Sort = "objective"
	SortState     Sort = "state"
	SortAttempts  Sort = "attempts"
)

// Query selects and orders trials. The zero Query is every trial by index.
type Query struct {
	States []grid.State // none is all
	Sort   Sort
	Desc   bool
	Limit  int64 // 0 means no limit
	Offset int64
	From   int64   // the smallest index
	After  *Cursor // only what comes after it in this order; Offset is ignored then
}

// pageRows is how many trials are read at a time. Between pages no connection and no snapshot is
// held, so that a slow caller neither blocks anyone nor makes the file's log grow.
const pageRows = 512

// Trial returns one trial; false when it has had no event.
func (d *reader) Trial(ctx context.Context, id grid.TrialID) (grid.Trial, bool, error) {
	s := d.sweep(id.Sweep)
	if s == nil || id.Index < 0 || id.Index > maxIndex {
		return grid.Trial{}, false, nil
	}
	found, err := d.readTrials(ctx, s, nil, "id = ?", rowID(s.Number, id.Index))
	if err != nil {
		return grid.Trial{}, false, fmt.Errorf("load trial %s: %w", id, d.markDamage(err))
	}
	if len(found) == 0 {
		return grid.Trial{}, false, nil
	}
	return found[0], true, nil
}

// TrialsAt returns those of some trials that have had an event, by index.
func (d *reader) TrialsAt(ctx context.Context, id grid.SweepID, indexes []int64) (map[int64]*grid.Trial, error) {
	s := d.sweep(id)
	if s == nil {
		return nil, nil
	}
	ids := make([]int64, 0, len(indexes))
	for _, i := range indexes {
		if i >= 0 && i <= maxIndex {
			ids = append(ids, rowID(s.Number, i))
		}
	}
	all, err := d.trialsAt(ctx, s, ids)
	if err != nil {
		return nil, fmt.Errorf("load trials of %s: %w", id, d.markDamage(err))
	}
	return all, nil
}

func (d *reader) trialsAt(ctx context.Context, s *sweepSummary, ids []int64) (map[int64]*grid.Trial, error) {
	found, err := d.readTrials(ctx, s, make([]grid.Trial, 0, len(ids)), "id IN ("+joinIDs(ids)+")")
	if err != nil {
		return nil, err
	}
	byIndex := make(map[int64]*grid.Trial, len(found))
	for i := range found {
		byIndex[found[i].Index] = &found[i]
	}
	return byIndex, nil
}

// Trials yields the trials that have rows and that the query selects. It yields an error once and
// ends with it. The trials of a long listing may come from different moments.
func (d *reader) Trials(ctx context.Context, id grid.SweepID, q Query) iter.Seq2[grid.Trial, error] {
	return func(yield func(grid.Trial, error) bool) {
		s := d.sweep(id)
		if s == nil {
			return
		}
		l := &listing{selection{q, s}, d}
		var err error
		switch indexed := !s.overlay.changes(q.States) && (l.isOpen() || s.known.Count() < d.minColumnRows); {
		case q.Sort != SortIndex && q.Sort != "":
			err = l.sorted(ctx, yield)
		case len(q.States) == 0 || indexed:
			err = l.byIndex(ctx, yield)
		default:
			err = l.byState(ctx, yield)
		}
		if err != nil {
			yield(grid.Trial{}, fmt.Errorf("list trials of %s: %w", id, d.markDamage(err)))
		}
	}
}

// listing is one running Trials.
type listing struct {
	selection
	d *reader
}

// selection is the rows of a sweep that a query selects, and their order, in SQL and in memory.
type selection struct {
	q     Query
	sweep *sweepSummary
}

// condition returns the condition for rows with ids in [lo,hi].
func (sel *selection) condition(lo, hi int64) string {
	b := fmt.Sprintf("id BETWEEN %d AND %d", lo, hi)
	if len(sel.q.States) == 0 {
		return b
	}
	state := sel.sweep.overlay.stateSQL()
	if !sel.sweep.overlay.changes(sel.q.States) {
		if state = "state"; sel.isOpen() {
			b += openSQL
		}
	}
	return b + " AND " + state + " IN (" + sel.stateCodes() + ")"
}

// openSQL lets SQLite use the index of trials that have not ended, which files of before version 13
// have with those that have failed.
const openSQL = " AND state < 2 AND state <> 2"

// isOpen reports whether only trials are selected that have not ended.
func (sel *selection) isOpen() bool {
	return len(sel.q.States) > 0 && !slices.ContainsFunc(sel.q.States, grid.State.Terminal)
}

func (sel *selection) stateCodes() string {
	codes := make([]int64, len(sel.q.States))
	for i, s := range sel.q.States {
		codes[i] = stateCode(s)
	}
	return joinIDs(codes)
}

func (sel *selection) idRange() (lo, hi int64) {
	return rowID(sel.sweep.Number, min(max(sel.q.From, 0), maxIndex)), rowID(sel.sweep.Number, maxIndex)
}

// byIndex reads page by page, each from where the last one ended.
func (l *listing) byIndex(ctx context.Context, yield func(grid.Trial, error) bool) error {
	lo, hi := l.idRange()
	left, skip := l.q.Limit, max(l.q.Offset, 0)
	if a := l.q.After; a != nil && l.q.Desc {
		hi, skip = min(hi, rowID(l.sweep.Number, a.Index)-1), 0
	} else if a != nil {
		lo, skip = max(lo, rowID(l.sweep.Number, a.Index)+1), 0
	}
	order := " ORDER BY id"
	if l.q.Desc {
		order += " DESC"
	}
	page := make([]grid.Trial, 0, 16)
	for lo <= hi {
		n := int64(pageRows)
		if l.q.Limit > 0 {
			n = min(n, left)
		}
		var err error
		page, err = l.d.readTrials(ctx, l.sweep, page[:0],
			l.condition(lo, hi)+order+fmt.Sprintf(" LIMIT %d OFFSET %d", n, skip))
		if err != nil {
			return err
		}
		for i := range page {
			if len(l.q.States) > 0 && !slices.Contains(l.q.States, page[i].State) {
				continue // it was reopened after the listing began
			}
			left--
			if !yield(page[i], nil) {
				return nil
			}
		}
		if int64(len(page)) < n || (l.q.Limit > 0 && left == 0) {
			return nil
		}
		skip = 0
		if last := rowID(l.sweep.Number, page[len(page)-1].Index); l.q.Desc {
			hi = last - 1
		} else {
			lo = last + 1
		}
	}
	return nil
}

// byState finds the trials by index in the columns: rows that an overlay covers have other states
// there, and no index has those that have ended.
func (l *listing) byState(ctx context.Context, yield func(grid.Trial, error) bool) error {
	c, err := l.d.Columns(ctx, l.sweep.ID, 0)
	if err != nil {
		return err
	}
	lo, hi := l.q.From, int64(maxIndex)
	left, skip := cmp.Or(max(l.q.Limit, 0), math.MaxInt64), max(l.q.Offset, 0)
	if a := l.q.After; a != nil {
		skip = 0
		if l.q.Desc {
			hi = a.Index - 1
		} else {
			lo = max(lo, a.Index+1)
		}
	}
	isWanted := func(t *grid.Trial) bool { return slices.Contains(l.q.States, t.State) }
	page := make([]int64, 0, pageRows)
	for n := range c.State {
		row := n
		if l.q.Desc {
			row = len(c.State) - 1 - n
		}
		i := c.Index(row)
		if s := c.State[row]; s > 0 && i >= lo && i <= hi && slices.Contains(l.q.States, grid.States[s-1]) {
			if skip > 0 {
				skip--
				continue
			}
			page = append(page, rowID(l.sweep.Number, i))
		}
		if len(page) == 0 || n < len(c.State)-1 && int64(len(page)) < min(pageRows, left) {
			continue
		}
		byIndex, err := l.d.trialsAt(ctx, l.sweep, page)
		if err != nil {
			return err
		}
		for _, id := range page {
			if t := byIndex[id&maxIndex]; t != nil && isWanted(t) { // it may have changed
				if left--; !yield(*t, nil) || left == 0 {
					return nil
				}
			}
		}
		page = page[:0]
	}
	return nil
}

// sorted finds the ids in order first, and then reads the rows.
func (l *listing) sorted(ctx context.Context, yield func(grid.Trial, error) bool) error {
	ids, err := l.orderedIDs(ctx)
	if err != nil {
		return err
	}
	for page := range slices.Chunk(ids, pageRows) {
		byIndex, err := l.d.trialsAt(ctx, l.sweep, page)
		if err != nil {
			return err
		}
		for _, id := range page {
			if t := byIndex[id&maxIndex]; t != nil && !yield(*t, nil) {
				return nil
			}
		}
	}
	return nil
}

func joinIDs(ids []int64) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = fmt.Sprint(id)
	}
	return strings.Join(texts, ", ")
}

// readTrials reads whole trials of a sweep.
func (d *reader) readTrials(
	ctx context.Context, s *sweepSummary, dest []grid.Trial, where string, args ...any,
) ([]grid.Trial, error) {
	o := d.overlayOf(s)
	scan := func(rows *sql.Rows) (grid.Trial, error) {
		v, err := scanValues(rows)
		if err != nil {
			return grid.Trial{}, err
		}
		return d.decodeTrial(v, o)
	}
	return queryAll(ctx, d.read, dest, scan, "SELECT "+readColumns+" FROM trial WHERE "+where, args...)
}

// scanValues returns up to readColumnCount columns of a row.
func scanValues(rows *sql.Rows) ([]driver.Value, error) {
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var v, p [readColumnCount]any
	for i := range v {
		p[i] = &v[i]
	}
	if err := rows.Scan(p[:len(columns)]...); err != nil {
		return nil, err
	}
	values := make([]driver.Value, len(columns))
	for i := range values {
		values[i] = v[i]
	}
	return values, nil
}

// eachSelected calls fn with up to readColumnCount columns of each row of a query.
func eachSelected(ctx context.Context, q querier, fn func([]driver.Value) error, text string, args ...any) error {
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		v, err := scanValues(rows)
		if err == nil {
			err = fn(v)
		}
		if err != nil {
			return err
		}
	}
	return rows.Err()
}

// querier is a connection or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// queryAll appends what scan makes of each row.
func queryAll[T any](
	ctx context.Context, q querier, dest []T, scan func(*sql.Rows) (T, error), text string, args ...any,
) ([]T, error) {
	rows, err := q.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		dest = append(dest, v)
	}
	return dest, rows.Err()
}
