package history

import (
	"context"
	"encoding/json"
	"fmt"
	"math"

	"mlfnode/grid"
)

const (
	// columnRows is how many rows a sweep has from which listings look at its columns first.
	columnRows = 20_000
	// maxTies bounds the rows of a page, with those whose 32-bit values are equal to one at its ends.
	maxTies = 20_000
)

// byColumn finds a page of rows in the order of a metric. The column tells which rows the page can have: rounding to 32 bits leaves the
// order as it is, but for rows that look alike then, which are read as well. So some hundred rows are read instead of a million. It is
// not ok where there is no column, where the page has rows without a number, or where too many look alike.
func (l *list) byColumn(ctx context.Context) (ids []int64, ok bool, err error) {
	column, known := l.sweep.column(l.q.Sort)
	if !known || l.q.Limit <= 0 || l.sweep.known.Count() < l.d.columnRows {
		return nil, false, nil
	}
	c, err := l.d.Columns(ctx, l.sweep.ID, 0, column)
	if err != nil {
		return nil, false, err
	}
	var wanted [math.MaxUint8 + 1]bool
	for i, s := range grid.States {
		wanted[i+1] = len(l.q.States) == 0
		for _, w := range l.q.States {
			wanted[i+1] = wanted[i+1] || w == s
		}
	}
	keys, rows := make([]uint32, 0, len(c.State)), make([]int32, 0, len(c.State))
	for i, f := range c.Values[column] {
		if f == f && wanted[c.State[i]] && c.index(i) >= l.q.From {
			keys, rows = append(keys, grid.SortKey(f, l.q.Desc)), append(rows, int32(i))
		}
	}
	from := int(max(l.q.Offset, 0))
	if len(keys)-from < int(l.q.Limit) {
		return nil, false, nil
	}
	lo, hi := nth(keys, from), nth(keys, from+int(l.q.Limit)-1)
	var near []int64
	for i, k := range keys {
		if k < lo {
			from--
		}
		if k >= lo && k <= hi {
			near = append(near, rowID(l.sweep.Number, c.index(int(rows[i]))))
		}
	}
	if len(near) > maxTies {
		return nil, false, nil
	}
	list, err := json.Marshal(near)
	if err != nil {
		return nil, false, err
	}
	expr, args := l.expression()
	text := fmt.Sprintf("SELECT trial.id, %s AS v FROM json_each(?) AS b CROSS JOIN trial ON trial.id = b.value ORDER BY %s, trial.id", expr, l.orderBy("v"))
	found, err := collect(ctx, l.d.read, nil, scanCandidate, text, append(args, string(list))...)
	if err != nil || len(found) != len(near) { // a row may be in memory already, and not yet in the file
		return nil, false, err
	}
	for _, f := range found[from : from+int(l.q.Limit)] {
		ids = append(ids, f.id)
	}
	return ids, true, nil
}

// column gives the column of what a listing sorts by.
func (s *sweep) column(by Sort) (Column, bool) {
	if by == SortObjective {
		return ColumnObjective, true
	}
	n, ok := s.named[string(by)]
	return ColumnMetric(n), ok && n < maxMetricColumns
}

// index gives the index of a trial by its place in the columns.
func (c *Columns) index(row int) int64 {
	return c.Blocks[row/blockTrials] + int64(row%blockTrials)
}

// nth gives the key in place n of a sorted list of them, without sorting.
func nth(keys []uint32, n int) uint32 {
	pick := func(part func(uint32) (digit uint32, ok bool)) uint32 {
		counts := make([]int32, 1<<16)
		for _, k := range keys {
			if digit, ok := part(k); ok {
				counts[digit]++
			}
		}
		digit := uint32(0)
		for ; n >= int(counts[digit]); digit++ {
			n -= int(counts[digit])
		}
		return digit
	}
	high := pick(func(k uint32) (uint32, bool) { return k >> 16, true })
	return high<<16 | pick(func(k uint32) (uint32, bool) { return k & 0xffff, k>>16 == high })
}
