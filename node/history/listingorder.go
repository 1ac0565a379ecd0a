package history

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"

	"mlfnode/grid"
)

// maxBlockPage bounds how far into an order the blocks are used. Beyond that most of them would be
// read anyway.
const maxBlockPage = 2000

// fastBlockPage is how far into an order the blocks take less time than a column. In the order of
// time, they always do.
const fastBlockPage = 128

// orderedIDs returns the ids of the selected rows in the order that was asked for.
func (l *listing) orderedIDs(ctx context.Context) ([]int64, error) {
	value, ok := l.sweep.boundsNumber(l.q.Sort)
	offset := max(l.q.Offset, 0)
	ok = ok && l.q.After == nil && l.q.Limit > 0 && l.q.Limit <= maxBlockPage &&
		offset <= maxBlockPage && !l.selectsFew()
	if ok && (value < int64(len(boundedColumns)) && l.q.Limit+offset <= fastBlockPage || l.q.Sort == SortStarted ||
		l.q.Sort == SortEnded) {
		return l.firstByBlocks(ctx, value)
	}
	if l.d.sortLimit != nil && l.q.After == nil { // many rows may look alike in the column
		if ids, found := l.d.orders.find(l.orderKey(), l.sweep); found {
			return l.pageOf(ids), nil
		}
	}
	if ids, found, err := l.pageByColumn(ctx); found || err != nil {
		return ids, err
	}
	switch {
	case l.q.After != nil:
		return l.sortedAfter(ctx)
	case ok:
		return l.firstByBlocks(ctx, value)
	}
	return l.sortedIDs(ctx)
}

// selectsFew reports whether so few rows are selected that most blocks have none of them, and that
// sorting them all is cheap.
func (sel *selection) selectsFew() bool {
	if len(sel.q.States) == 0 || slices.Contains(sel.q.States, grid.Succeeded) {
		return false
	}
	c := &sel.sweep.Counts
	n := map[grid.State]int64{grid.Pending: c.Retrying, grid.Running: c.Running, grid.Failed: c.Failed,
		grid.Cancelled: c.Cancelled}
	wanted := int64(0)
	for _, s := range sel.q.States {
		wanted += n[s]
	}
	return wanted*10 < c.Done()+c.Running+c.Retrying
}

// minBlocks and minTimeBlocks are how many blocks are read at a time at least: in the order of a
// metric, each row of a page is in another block, and in the order of time, few blocks have all
// rows of a page.
const (
	minBlocks     = 16
	minTimeBlocks = 3
)

// candidate is a row with the value that it is sorted by, or a block with its best possible value:
// an int64, a float64, a string, or a []byte after all of them.
type candidate struct {
	id    int64
	value any
}

// firstByBlocks reads the blocks in the order of their best possible value, until no other can hold
// anything better than what was found. Rows without the value come last, by index.
func (l *listing) firstByBlocks(ctx context.Context, value int64) ([]int64, error) {
	offset := max(l.q.Offset, 0)
	n := int(l.q.Limit + offset)
	blocks, err := l.blocks(ctx, value)
	if err != nil {
		return nil, err
	}
	least, share := minBlocks, 4
	if l.q.Sort == SortStarted || l.q.Sort == SortEnded {
		least, share = minTimeBlocks+n/blockTrials, 2
	}
	var found []candidate
	for read := 0; ; {
		part := blocks[:min(len(blocks), max(least, read/share))]
		more, err := l.rowsOfBlocks(ctx, part, n)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
		slices.SortFunc(found, l.compare)
		found = found[:min(len(found), n)]
		blocks, read = blocks[len(part):], read+len(part)
		if len(blocks) == 0 || len(found) == n && !l.mayPrecede(blocks[0], found[n-1]) {
			break
		}
	}
	ids := make([]int64, 0, l.q.Limit)
	for _, c := range found[min(offset, int64(len(found))):] {
		ids = append(ids, c.id)
	}
	if len(found) == n {
		return ids, nil
	}
	expr, args := l.expression()
	rest, err := l.ids(ctx, l.condition(l.idRange())+" AND "+expr+" IS NULL", "id",
		l.q.Limit-int64(len(ids)), offset-int64(len(found)), args...)
	return append(ids, rest...), err
}

// blocks returns the blocks that have the value, the most promising first.
func (l *listing) blocks(ctx context.Context, value int64) ([]candidate, error) {
	lo, hi := l.idRange()
	side := "lo"
	if l.q.Desc {
		side = "hi"
	}
	return queryAll(ctx, l.d.read, nil, scanCandidate,
		fmt.Sprintf("SELECT id, %s FROM block WHERE id BETWEEN %d AND %d AND value = %d ORDER BY %s%s, id",
			side, lo>>blockBits, hi>>blockBits, value, side, l.direction()))
}

// rowsOfBlocks returns the first n rows of some blocks. The plus signs keep SQLite from finding
// rows through another index.
func (l *listing) rowsOfBlocks(ctx context.Context, blocks []candidate, n int) ([]candidate, error) {
	first := make([]int64, len(blocks))
	for i, b := range blocks {
		first[i] = b.id << blockBits
	}
	slices.Sort(first)
	list, err := json.Marshal(first)
	if err != nil {
		return nil, err
	}
	lo, _ := l.idRange()
	expr, args := l.expression()
	text := fmt.Sprintf("SELECT trial.id, %s AS v FROM json_each(?) AS b CROSS JOIN trial ON trial.id BETWEEN b.value AND b.value + %d WHERE +trial.id >= %d",
		expr, 1<<blockBits-1, lo)
	if len(l.q.States) > 0 {
		text += " AND +(" + l.sweep.overlay.stateSQL() + ") IN (" + l.stateCodes() + ")"
	}
	found, err := queryAll(ctx, l.d.read, nil, scanCandidate,
		text+fmt.Sprintf(" ORDER BY %s, trial.id LIMIT %d", l.orderBy("v"), n),
		append(args, string(list))...)
	missing := slices.IndexFunc(found, func(c candidate) bool { return c.value == nil })
	if missing >= 0 {
		found = found[:missing]
	}
	return found, err
}

// mayPrecede reports whether a block may hold a row that precedes the given one.
func (sel *selection) mayPrecede(block, row candidate) bool {
	c := compare(block.value, row.value)
	if sel.q.Desc {
		c = -c
		if _, text := row.value.(string); text {
			c = -1 // texts come after numbers, and the bound of a block with texts says nothing about them
		}
	}
	return c < 0 || (c == 0 && block.id < row.id>>blockBits)
}

// compare orders rows as orderBy does, and equal ones by index.
func (sel *selection) compare(a, b candidate) int {
	c := compare(a.value, b.value)
	_, aText := a.value.(string)
	_, bText := b.value.(string)
	if sel.q.Desc && aText == bText {
		c = -c
	}
	return cmp.Or(c, cmp.Compare(a.id, b.id))
}

// compare orders values as SQLite does.
func compare(a, b any) int {
	if m, ok := a.(int64); ok {
		if n, ok := b.(int64); ok {
			return cmp.Compare(m, n) // float64 would make large ones equal
		}
	}
	rank := func(v any) (class int, number float64, text string) {
		switch v := v.(type) {
		case int64:
			return 0, float64(v), ""
		case float64:
			return 0, v, ""
		case string:
			return 1, 0, v
		}
		return 2, 0, ""
	}
	ac, an, at := rank(a)
	bc, bn, bt := rank(b)
	return cmp.Or(cmp.Compare(ac, bc), cmp.Compare(an, bn), cmp.Compare(at, bt))
}

func scanCandidate(rows *sql.Rows) (c candidate, err error) {
	err = rows.Scan(&c.id, &c.value)
	return c, err
}

// orderBy orders by an expression: numbers first, then texts, then missing values, in both
// directions. A value that is not a number has no place in an order of numbers.
func (sel *selection) orderBy(expr string) string {
	return fmt.Sprintf("CASE typeof(%s) WHEN 'null' THEN 2 WHEN 'text' THEN 1 ELSE 0 END, %s%s", expr,
		expr, sel.direction())
}

func (sel *selection) direction() string {
	if sel.q.Desc {
		return " DESC"
	}
	return ""
}

// expression returns what to sort by in SQL, with its arguments. A value of 0 counts as missing
// where nothing measures 0.
func (sel *selection) expression() (string, []any) {
	switch sel.q.Sort {
	case SortStarted, SortEnded, SortMemory:
		return fmt.Sprintf("nullif(%s, 0)", sel.q.Sort), nil
	case SortWall, SortCPU: // a running attempt has used nothing yet
		return fmt.Sprintf("CASE WHEN ended > 0 AND started > 0 THEN nullif(%s, 0) END", sel.q.Sort), nil
	case SortState:
		return "(" + sel.sweep.overlay.stateSQL() + ")", nil
	case SortObjective, SortAttempts:
		return string(sel.q.Sort), nil
	}
	if strings.ContainsFunc(string(sel.q.Sort), func(r rune) bool {
		return r < ' ' || r == '"' || r == '\\' || r > '~'
	}) {
		return fmt.Sprintf(specialNumberSQL, "atom", "json_each(metrics) WHERE key = ?"), []any{string(sel.q.Sort)}
	}
	return fmt.Sprintf(specialNumberSQL, "v", "(SELECT json_extract(metrics, ?) AS v)"),
		[]any{`$."` + string(sel.q.Sort) + `"`}
}

// specialNumberSQL reads the words of grid.Special: infinity is a number, and NaN counts as
// missing.
const specialNumberSQL = `(SELECT CASE WHEN typeof(%[1]s) <> 'text' THEN %[1]s
	WHEN lower(ltrim(%[1]s, '+-')) IN ('nan', 'nan(ind)', 'nan(snan)') THEN NULL
	WHEN lower(%[1]s) IN ('inf', '+inf', 'infinity', '+infinity') THEN 9e999
	WHEN lower(%[1]s) IN ('-inf', '-infinity') THEN -9e999 ELSE %[1]s END FROM %[2]s)`

func (l *listing) ids(ctx context.Context, where, order string, limit, offset int64, args ...any) ([]int64, error) {
	if limit <= 0 {
		limit = math.MaxInt64
	}
	text := fmt.Sprintf("SELECT id FROM trial WHERE %s ORDER BY %s LIMIT %d OFFSET %d", where, order,
		limit, max(offset, 0))
	return queryAll(ctx, l.d.read, nil, scanInt, text, args...)
}

func scanInt(rows *sql.Rows) (n int64, err error) {
	err = rows.Scan(&n)
	return n, err
}
