package history

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"

	"mlfnode/grid"
	"mlfnode/node/parallel"
)

const (
	// minColumnRows is the number of a sweep's rows from which listings try its columns first.
	minColumnRows = 20_000
	// maxTies bounds the rows that are read for a page, including those whose 32-bit values equal
	// one at its ends.
	maxTies = 100_000
)

// pageByColumn finds a page of rows in the order of a value. The column shows which rows the page
// can have: rounding to 32 bits keeps the order, except among rows that then look alike. Rows of
// blocks whose values are inexact are read as well. So some hundred rows are read instead of a
// million. It is not ok where there is no column, where texts stand between numbers and missing
// values, or where too many rows look alike.
func (l *listing) pageByColumn(ctx context.Context) (ids []int64, ok bool, err error) {
	column, known := l.sweep.column(l.q.Sort)
	if !known || l.q.Limit <= 0 || l.sweep.known.Count() < l.d.minColumnRows {
		return nil, false, nil
	}
	if texts, err := l.hasTexts(ctx); texts || err != nil {
		return nil, false, err
	}
	if l.q.After != nil {
		if _, text := l.q.After.Value.(string); text {
			return nil, false, nil
		}
	}
	wanted := []Column{column}
	if column == columnSmall {
		wanted = nil
	}
	c, err := l.d.Columns(ctx, l.sweep.ID, 0, wanted...)
	if err != nil {
		return nil, false, err
	}
	p := &columnPage{l: l, c: c, column: column}
	key := fmt.Sprint(l.q.Sort, " ", l.q.Desc, l.q.States, l.q.From)
	if p.order = l.d.columns.order(c, key); p.order == nil {
		p.sortRows()
		l.d.columns.addOrder(c, key, p.order)
	}
	return p.ids(ctx)
}

// hasTexts reports whether some trial has a text where the listing looks for a number.
func (l *listing) hasTexts(ctx context.Context) (bool, error) {
	value, known := l.sweep.boundsNumber(l.q.Sort)
	if !known || value < int64(len(boundedColumns)) {
		return false, nil
	}
	lo, hi := rowID(l.sweep.Number, 0)>>blockBits, rowID(l.sweep.Number, maxIndex)>>blockBits
	found, err := queryAll(ctx, l.d.read, nil, scanInt,
		fmt.Sprintf("SELECT id FROM block WHERE id BETWEEN %d AND %d AND value = %d AND typeof(hi) = 'blob' LIMIT 1",
			lo, hi, value))
	return len(found) > 0, err
}

// column returns the column of what a listing sorts by.
func (s *sweepSummary) column(by Sort) (Column, bool) {
	switch by {
	case SortStarted:
		return ColumnStarted, true
	case SortEnded:
		return ColumnEnded, true
	case SortWall:
		return ColumnWall, true
	case SortCPU:
		return ColumnCPU, true
	case SortMemory:
		return ColumnMemory, true
	case SortObjective:
		return ColumnObjective, true
	case SortAttempts, SortState:
		return columnSmall, true
	}
	n, ok := s.nameIndex[string(by)]
	return ColumnMetric(n), ok && n < maxMetricColumns
}

// columnPage is a page of a sorted listing that is looked for in a column.
type columnPage struct {
	l      *listing
	c      *Columns
	column Column
	order  *columnOrder
}

// columnOrder holds the rows that a listing selects, in the order of a column.
type columnOrder struct {
	rows    []int32 // rows with a value, those that look alike by index
	missing []int32 // rows without a value, by index
}

// minPartRows is the least number of rows in a part of a loop over columns that is divided.
const minPartRows = 1 << 16

// sortRows sorts the rows by the column.
func (p *columnPage) sortRows() {
	var wanted [math.MaxUint8 + 1]bool
	for i, s := range grid.States {
		wanted[i+1] = len(p.l.q.States) == 0 || slices.Contains(p.l.q.States, s)
	}
	spans := parallel.Split(len(p.c.State), minPartRows)
	counts, missing := make([]int, len(spans)), make([][]int32, len(spans))
	keys, rows := make([]uint32, len(p.c.State)), make([]int32, len(p.c.State))
	parallel.Each(len(spans), func(part int) {
		lo, hi := spans[part].Lo, spans[part].Hi
		counts[part], missing[part] = p.collectKeys(spans[part], &wanted, keys[lo:hi], rows[lo:hi])
	})
	n := 0
	for i, span := range spans {
		copy(keys[n:], keys[span.Lo:span.Lo+counts[i]])
		n += copy(rows[n:], rows[span.Lo:span.Lo+counts[i]])
	}
	if rows = parallel.Sort(keys[:n], rows[:n], minPartRows); n < len(p.c.State)/2 {
		rows = slices.Clone(rows) // the order is cached
	}
	p.order = &columnOrder{rows, slices.Concat(missing...)}
}

// collectKeys reads some rows into keys and rows, and returns how many it has written.
func (p *columnPage) collectKeys(
	span parallel.Span, wanted *[math.MaxUint8 + 1]bool, keys []uint32, rows []int32,
) (n int, missing []int32) {
	zero := p.column == ColumnWall || p.column == ColumnCPU // where 0 is none
	for i := span.Lo; i < span.Hi; i++ {
		s := p.c.State[i]
		if !wanted[s] || p.l.q.From > 0 && p.c.Index(i) < p.l.q.From {
			continue
		}
		f := p.columnValue(int32(i))
		if f != f || zero && f == 0 {
			missing = append(missing, int32(i))
			continue
		}
		keys[n], rows[n] = grid.SortKey(f, p.l.q.Desc), int32(i)
		n++
	}
	return n, missing
}

// columnValue returns the column's value of a row.
func (p *columnPage) columnValue(row int32) float32 {
	switch {
	case p.column != columnSmall:
		return p.c.Values[p.column][row]
	case p.l.q.Sort == SortState:
		return float32(p.c.State[row] - 1)
	}
	return float32(p.c.Attempts[row])
}

// key returns the sort key of the row at place n.
func (p *columnPage) key(n int) uint32 {
	return grid.SortKey(p.columnValue(p.order.rows[n]), p.l.q.Desc)
}

// between gives the places of the rows with keys from lo to hi.
func (p *columnPage) between(lo, hi uint32) parallel.Span {
	n := len(p.order.rows)
	return parallel.Span{
		Lo: sort.Search(n, func(i int) bool { return p.key(i) >= lo }),
		Hi: sort.Search(n, func(i int) bool { return p.key(i) > hi }),
	}
}

// ids returns the ids of the page.
func (p *columnPage) ids(ctx context.Context) (ids []int64, ok bool, err error) {
	q := &p.l.q
	n, from, limit := len(p.order.rows), int(min(max(q.Offset, 0), math.MaxInt32)), int(min(q.Limit, math.MaxInt32))
	last := from + limit // after the last row that may be on the page, in the order of keys
	missing := p.order.missing[min(max(0, from-n), len(p.order.missing)):]
	if a := q.After; a != nil && a.Value == nil {
		from, last = n, n
		at, _ := slices.BinarySearchFunc(p.order.missing, a.Index, func(r int32, index int64) int {
			return cmp.Compare(p.c.Index(int(r)), index+1)
		})
		missing = p.order.missing[at:]
	} else if a != nil {
		here := grid.SortKey(p.rounded(a.Value), q.Desc)
		same := p.between(here, here)
		from, last, missing = same.Lo, same.Hi+limit, p.order.missing
	}
	if from < n {
		ids, ok, err = p.rowsAmongTies(ctx, p.between(p.key(from), p.key(min(last, n)-1)), from, limit)
		if !ok || err != nil {
			return nil, false, err
		}
		if len(ids) < limit && last < n { // some rows have changed in the meantime
			return nil, false, nil
		}
	}
	for _, r := range missing[:min(limit-len(ids), len(missing))] {
		ids = append(ids, p.rowID(r))
	}
	return ids, true, nil
}

func (p *columnPage) rowID(row int32) int64 { return rowID(p.l.sweep.Number, p.c.Index(int(row))) }

// rounded returns a value as the column has it.
func (p *columnPage) rounded(value any) float32 {
	n, whole := value.(int64)
	f := float64(n)
	if !whole {
		f, _ = value.(float64)
	}
	switch p.column {
	case ColumnStarted, ColumnEnded:
		return float32((f - float64(p.c.Base)) / 1e6)
	case ColumnWall, ColumnCPU:
		return float32(f / 1e6)
	case columnSmall:
		return float32(min(f, maxAttempts))
	}
	return float32(f)
}

// rowsAmongTies returns the ids of up to limit of some rows in their order, without those before
// the page: before place from among all, or before the cursor.
func (p *columnPage) rowsAmongTies(
	ctx context.Context, span parallel.Span, from, limit int,
) (ids []int64, ok bool, err error) {
	after, among := p.l.q.After, p.order.rows[span.Lo:span.Hi]
	unknown := p.inexactRows(among)
	if len(unknown) > maxTies {
		return nil, false, nil
	}
	if len(unknown) == 0 { // rows that look alike are equal, and are ordered by index
		if after != nil {
			from = span.Lo + p.firstAfterCursor(among)
		}
		for _, r := range p.order.rows[from:min(from+limit, span.Hi)] {
			ids = append(ids, p.rowID(r))
		}
		return ids, true, nil
	}
	found, err := p.readValues(ctx, unknown)
	if err != nil {
		return nil, false, err
	}
	for _, r := range among {
		if p.isExact(r) {
			found = append(found, candidate{p.rowID(r), p.exactValue(r)})
		}
	}
	slices.SortFunc(found, p.l.compare)
	if after != nil {
		found = slices.DeleteFunc(found, func(c candidate) bool { return !p.l.isAfter(c, after) })
	} else {
		found = found[min(from-span.Lo, len(found)):]
	}
	for _, c := range found[:min(limit, len(found))] {
		ids = append(ids, c.id)
	}
	return ids, true, nil
}

// inexactRows returns the ids of those of some neighbouring rows for which the column is inexact,
// or some of them when they are too many.
func (p *columnPage) inexactRows(among []int32) (ids []int64) {
	if p.column == columnSmall && p.isExact(among[0]) && p.isExact(among[len(among)-1]) {
		return nil // as are those between
	}
	if p.column >= ColumnMemory && p.column != ColumnEnded && !slices.Contains(p.c.exact[p.column], false) {
		return nil
	}
	for _, r := range among {
		if len(ids) > maxTies {
			break
		}
		if !p.isExact(r) {
			ids = append(ids, p.rowID(r))
		}
	}
	return ids
}

// firstAfterCursor returns the place of the first of some rows, for which the column is exact, that
// comes after the cursor.
func (p *columnPage) firstAfterCursor(rows []int32) int {
	at, _ := slices.BinarySearchFunc(rows, p.l.q.After, func(r int32, after *Cursor) int {
		if p.l.isAfter(candidate{p.rowID(r), p.exactValue(r)}, after) {
			return 1
		}
		return -1
	})
	return at
}

// isExact reports whether the column has exactly the value of a trial.
func (p *columnPage) isExact(row int32) bool {
	switch {
	case p.column == columnSmall && p.l.q.Sort == SortState:
		return true
	case p.column == columnSmall:
		return p.c.Attempts[row] < maxAttempts
	}
	// Times are counted in other units in the columns.
	return p.column >= ColumnMemory && p.column != ColumnEnded && p.c.exact[p.column][row/blockTrials]
}

// exactValue returns the value of a trial, where isExact is true.
func (p *columnPage) exactValue(row int32) any {
	switch {
	case p.column == columnSmall && p.l.q.Sort == SortState:
		return int64(p.c.State[row]) - 1
	case p.column == columnSmall:
		return int64(p.c.Attempts[row])
	}
	return float64(p.c.Values[p.column][row])
}

// readValues reads what the listing sorts by. It waits for rows that have changed and are not
// written yet; it leaves out those that are not there then, or have no number.
func (p *columnPage) readValues(ctx context.Context, ids []int64) ([]candidate, error) {
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	expr, args := p.l.expression()
	text := fmt.Sprintf("SELECT trial.id, %s AS v FROM json_each(?) AS b CROSS JOIN trial ON trial.id = b.value", expr)
	for again := false; ; again = true {
		found, err := queryAll(ctx, p.l.d.read, nil, scanCandidate, text, append(args, string(list))...)
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(c candidate) bool { return compareKinds(c.value, 0) != 0 })
		if again || len(found) == len(ids) {
			return found, nil
		}
		p.l.d.writeMu.Lock() // wait for the current fold
		p.l.d.writeMu.Unlock()
	}
}
