package history

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"mlfnode/grid"
	"mlfnode/node/parallel"
)

const (
	// columnRows is how many rows a sweep has from which listings look at its columns first.
	columnRows = 20_000
	// maxTies bounds the rows that are read for a page, with those whose 32-bit values are equal to one at its ends.
	maxTies = 100_000
)

// byColumn finds a page of rows in the order of a value. The column tells which rows the page can have: rounding to 32 bits leaves the
// order as it is, but for rows that look alike then. Those of blocks whose values have lost digits are read as well. So some hundred rows are
// read instead of a million. It is not ok where there is no column, where texts stand between numbers and what is missing, or where too many
// look alike.
func (l *list) byColumn(ctx context.Context) (ids []int64, ok bool, err error) {
	column, known := l.sweep.column(l.q.Sort)
	if !known || l.q.Limit <= 0 || l.sweep.known.Count() < l.d.columnRows {
		return nil, false, nil
	}
	if texts, err := l.texts(ctx); texts || err != nil {
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
	p := &page{l: l, c: c, column: column}
	p.read()
	return p.find(ctx)
}

// texts reports whether some trial has a text where the listing looks for a number.
func (l *list) texts(ctx context.Context) (bool, error) {
	value, known := l.sweep.value(l.q.Sort)
	if !known || value < int64(len(bounded)) {
		return false, nil
	}
	lo, hi := rowID(l.sweep.Number, 0)>>blockBits, rowID(l.sweep.Number, maxIndex)>>blockBits
	found, err := collect(ctx, l.d.read, nil, number,
		fmt.Sprintf("SELECT id FROM block WHERE id BETWEEN %d AND %d AND value = %d AND typeof(hi) = 'blob' LIMIT 1", lo, hi, value))
	return len(found) > 0, err
}

// column gives the column of what a listing sorts by.
func (s *sweep) column(by Sort) (Column, bool) {
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
	n, ok := s.named[string(by)]
	return ColumnMetric(n), ok && n < maxMetricColumns
}

// page is a page of a sorted listing that is looked for in a column.
type page struct {
	l      *list
	c      *Columns
	column Column
	exact  []bool // by block: the column has all digits of what its trials have; nil where it never has

	keys    []uint32 // of the rows that the listing selects and that have a value
	rows    []int32  // theirs
	missing []int32  // rows that the listing selects without a value, by index
}

// leastRows is how many rows a part of a loop over columns has at least that is divided.
const leastRows = 1 << 16

// read looks at the column.
func (p *page) read() {
	if p.column >= ColumnMemory && p.column != ColumnEnded { // times are counted in other units here
		p.exact = p.c.whole[p.column]
	}
	var wanted [math.MaxUint8 + 1]bool
	for i, s := range grid.States {
		wanted[i+1] = len(p.l.q.States) == 0 || slices.Contains(p.l.q.States, s)
	}
	spans := parallel.Split(len(p.c.State), leastRows)
	counts, missing := make([]int, len(spans)), make([][]int32, len(spans))
	p.keys, p.rows = make([]uint32, len(p.c.State)), make([]int32, len(p.c.State))
	parallel.Each(len(spans), func(part int) {
		counts[part], missing[part] = p.readPart(spans[part], &wanted)
	})
	n := 0
	for i, span := range spans {
		copy(p.keys[n:], p.keys[span.Lo:span.Lo+counts[i]])
		n += copy(p.rows[n:], p.rows[span.Lo:span.Lo+counts[i]])
	}
	p.keys, p.rows, p.missing = p.keys[:n], p.rows[:n], slices.Concat(missing...)
}

// readPart reads some rows into their own part of keys and rows, and says how many it has written.
func (p *page) readPart(span parallel.Span, wanted *[math.MaxUint8 + 1]bool) (n int, missing []int32) {
	values, zero := p.c.Values[p.column], p.column == ColumnWall || p.column == ColumnCPU // where 0 is none
	keys, rows := p.keys[span.Lo:span.Hi], p.rows[span.Lo:span.Hi]
	for i := span.Lo; i < span.Hi; i++ {
		s := p.c.State[i]
		if !wanted[s] || p.l.q.From > 0 && p.c.index(i) < p.l.q.From {
			continue
		}
		var f float32
		switch {
		case p.column != columnSmall:
			f = values[i]
		case p.l.q.Sort == SortState:
			f = float32(s - 1)
		default:
			f = float32(p.c.Attempts[i])
		}
		if f != f || zero && f == 0 {
			missing = append(missing, int32(i))
			continue
		}
		keys[n], rows[n] = grid.SortKey(f, p.l.q.Desc), int32(i)
		n++
	}
	return n, missing
}

// between gives the places among all rows of those with keys from lo to hi, and how many have a lower one.
func (p *page) between(lo, hi uint32) (before int, among []int32) {
	spans := parallel.Split(len(p.keys), leastRows)
	counts, parts := make([]int, len(spans)), make([][]int32, len(spans))
	parallel.Each(len(spans), func(part int) {
		for i := spans[part].Lo; i < spans[part].Hi; i++ {
			if k := p.keys[i]; k < lo {
				counts[part]++
			} else if k <= hi {
				parts[part] = append(parts[part], int32(i))
			}
		}
	})
	for _, n := range counts {
		before += n
	}
	return before, slices.Concat(parts...)
}

// find gives the ids of the page.
func (p *page) find(ctx context.Context) (ids []int64, ok bool, err error) {
	q := &p.l.q
	n, from, limit := len(p.keys), int(min(max(q.Offset, 0), math.MaxInt32)), int(min(q.Limit, math.MaxInt32))
	last := from + limit // behind the last row that may be on the page, in the order of keys
	missing := p.missing[min(max(0, from-n), len(p.missing)):]
	if a := q.After; a != nil && a.Value == nil {
		from, last = n, n
		at, _ := slices.BinarySearchFunc(p.missing, a.Index, func(r int32, index int64) int { return cmp.Compare(p.c.index(int(r)), index+1) })
		missing = p.missing[at:]
	} else if a != nil {
		here := grid.SortKey(p.rounded(a.Value), q.Desc)
		below, same := p.between(here, here)
		from, last, missing = below, below+len(same)+limit, p.missing
	}
	if from < n {
		found, ok, err := p.near(ctx, nth(p.keys, from), nth(p.keys, min(last, n)-1), from, limit)
		if !ok || err != nil {
			return nil, false, err
		}
		for _, c := range found[:min(limit, len(found))] {
			ids = append(ids, c.id)
		}
		if len(ids) < limit && last < n { // some rows have changed meanwhile
			return nil, false, nil
		}
	}
	for _, r := range missing[:min(limit-len(ids), len(missing))] {
		ids = append(ids, p.id(r))
	}
	return ids, true, nil
}

func (p *page) id(row int32) int64 { return rowID(p.l.sweep.Number, p.c.index(int(row))) }

// rounded gives a value as the column has it.
func (p *page) rounded(value any) float32 {
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

// near gives the rows with keys from lo to hi in their order, without those before the page: before place from among all, or the cursor. At least
// limit of them are there, if there are so many.
func (p *page) near(ctx context.Context, lo, hi uint32, from, limit int) (found []candidate, ok bool, err error) {
	before, among := p.between(lo, hi)
	var unknown []int64
	for _, i := range among {
		if !p.whole(p.rows[i]) {
			unknown = append(unknown, p.id(p.rows[i]))
		}
	}
	if len(unknown) > maxTies {
		return nil, false, nil
	}
	after := p.l.q.After
	behind := p.behindTies(among, lo)
	least, first, most := 0, 0, 0 // how many are passed over or taken with each of the keys at the ends
	for _, i := range among {
		k := p.keys[i]
		if !p.whole(p.rows[i]) {
			continue
		}
		if len(unknown) == 0 { // then rows that look alike are alike, and stand by index
			switch {
			case k == lo && after == nil && least < from-before:
				least++
				continue
			case k == lo && after != nil && !behind(p.rows[i]):
				continue
			case k == lo:
				if first++; first > limit {
					continue
				}
			case k == hi:
				if most++; most > limit {
					continue
				}
			}
		}
		c := candidate{p.id(p.rows[i]), p.value(p.rows[i])}
		found = append(found, c)
	}
	if len(unknown) > 0 {
		rows, err := p.values(ctx, unknown)
		if err != nil {
			return nil, false, err
		}
		found = append(found, rows...)
	}
	slices.SortFunc(found, p.l.compare)
	switch {
	case len(unknown) == 0:
	case after != nil:
		found = slices.DeleteFunc(found, func(c candidate) bool { return !p.l.behind(c, after) })
	default:
		found = found[min(from-before, len(found)):]
	}
	return found, true, nil
}

// behindTies gives what tells of rows that have the same key, and all digits in the column, whether they stand behind the cursor. Their values are
// equal, so one of them is compared with it.
func (p *page) behindTies(among []int32, key uint32) func(row int32) bool {
	after := p.l.q.After
	at := slices.IndexFunc(among, func(i int32) bool { return p.keys[i] == key && p.whole(p.rows[i]) })
	if after == nil || at < 0 {
		return nil
	}
	last := candidate{rowID(p.l.sweep.Number, after.Index), after.Value}
	value := p.value(p.rows[among[at]])
	c := cmp.Or(compareKinds(value, after.Value), p.l.compare(candidate{last.id, value}, last))
	return func(row int32) bool { return c > 0 || c == 0 && p.id(row) > last.id }
}

// whole reports whether the column has all digits of what a trial has.
func (p *page) whole(row int32) bool {
	switch {
	case p.column == columnSmall && p.l.q.Sort == SortState:
		return true
	case p.column == columnSmall:
		return p.c.Attempts[row] < maxAttempts
	}
	return p.exact != nil && p.exact[row/blockTrials]
}

// value gives what a trial has, where whole is true.
func (p *page) value(row int32) any {
	switch {
	case p.column == columnSmall && p.l.q.Sort == SortState:
		return int64(p.c.State[row]) - 1
	case p.column == columnSmall:
		return int64(p.c.Attempts[row])
	}
	return float64(p.c.Values[p.column][row])
}

// values reads what the listing sorts by. Rows that have changed and are not written yet are waited for; those that are not there then, or have no
// number, are left out.
func (p *page) values(ctx context.Context, ids []int64) ([]candidate, error) {
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	expr, args := p.l.expression()
	text := fmt.Sprintf("SELECT trial.id, %s AS v FROM json_each(?) AS b CROSS JOIN trial ON trial.id = b.value", expr)
	for again := false; ; again = true {
		found, err := collect(ctx, p.l.d.read, nil, scanCandidate, text, append(args, string(list))...)
		if err != nil {
			return nil, err
		}
		found = slices.DeleteFunc(found, func(c candidate) bool { return compareKinds(c.value, 0) != 0 })
		if again || len(found) == len(ids) {
			return found, nil
		}
		p.l.d.writing.Lock() // the fold that goes on ends
		p.l.d.writing.Unlock()
	}
}

// index gives the index of a trial by its place in the columns.
func (c *Columns) index(row int) int64 {
	return c.Blocks[row/blockTrials] + int64(row%blockTrials)
}

// nth gives the key in place n of a sorted list of them, without sorting.
func nth(keys []uint32, n int) uint32 {
	const bits = 8 // looked at in one pass
	found := uint32(0)
	for shift := 32 - bits; shift >= 0; shift -= bits {
		spans := parallel.Split(len(keys), leastRows)
		parts := make([][1 << bits]int32, len(spans))
		parallel.Each(len(spans), func(part int) {
			for _, k := range keys[spans[part].Lo:spans[part].Hi] {
				parts[part][k>>shift&(1<<bits-1)]++
			}
		})
		digit, same := uint32(0), 0
		for ; ; digit++ {
			same = 0
			for part := range parts {
				same += int(parts[part][digit])
			}
			if n < same {
				break
			}
			n -= same
		}
		found |= digit << shift
		if same < len(keys) {
			some := make([]uint32, 0, same)
			for _, k := range keys {
				if k>>shift == found>>shift {
					some = append(some, k)
				}
			}
			keys = some
		}
	}
	return found
}
