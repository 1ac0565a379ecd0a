package history

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"mlfnode/grid"
)

// TestLargePages requests pages from columns with so many rows that the loops over them are
// divided, and compares the pages with a plain sort.
func TestLargePages(t *testing.T) {
	const rows = 4*minPartRows + 3*blockTrials
	random := rand.New(rand.NewPCG(1, 2))
	c := &Columns{Stride: 1, smallColumns: newSmallColumns(rows), Values: map[Column][]float32{},
		exact: map[Column][]bool{}}
	values := func() []float32 { return make([]float32, rows) }
	c.Values[ColumnMemory], c.Values[ColumnMetric(0)], c.Values[ColumnMetric(1)] = values(), values(), values()
	for w := range c.Values {
		c.exact[w] = slices.Repeat([]bool{true}, rows/blockTrials)
	}
	for r := range rows {
		if r%blockTrials == 0 {
			c.Blocks = append(c.Blocks, int64(2*r)) // every other block
		}
		c.State[r], c.Attempts[r] = uint8(random.IntN(6)), uint8(1+random.IntN(3))
		c.Values[ColumnMemory][r] = 1 << 20
		c.Values[ColumnMetric(0)][r] = float32(random.NormFloat64())
		c.Values[ColumnMetric(1)][r] = float32(random.IntN(5))
		if random.IntN(10) == 0 {
			c.Values[ColumnMetric(0)][r] = float32(math.NaN())
		}
	}
	s := &sweepSummary{Number: 3}
	for _, column := range []Column{ColumnMemory, ColumnMetric(0), ColumnMetric(1), columnSmall} {
		for _, q := range []Query{{}, {Desc: true}, {States: []grid.State{grid.Failed, grid.Running}},
			{From: rows / 3, Desc: true}} {
			q.Sort, q.Limit = SortAttempts, 50
			value := func(r int32) float64 {
				if column == columnSmall {
					return float64(c.Attempts[r])
				}
				return float64(c.Values[column][r])
			}
			var want []int32
			for r := range int32(rows) {
				known := c.State[r] > 0 && (len(q.States) == 0 || slices.Contains(q.States, grid.States[c.State[r]-1]))
				if known && c.Index(int(r)) >= q.From {
					want = append(want, r)
				}
			}
			slices.SortStableFunc(want, func(a, b int32) int {
				x, y := value(a), value(b)
				if math.IsNaN(x) || math.IsNaN(y) {
					return cmp.Compare(map[bool]int{true: 1}[math.IsNaN(x)], map[bool]int{true: 1}[math.IsNaN(y)])
				} else if q.Desc {
					x, y = y, x
				}
				return cmp.Compare(x, y)
			})
			for range 8 {
				at := random.IntN(len(want))
				q.Offset, q.After = int64(at), nil
				if random.IntN(2) == 0 && at > 0 { // after the one before
					r := want[at-1]
					q.After = &Cursor{Index: c.Index(int(r)), Value: value(r)}
					if math.IsNaN(value(r)) {
						q.After.Value = nil
					}
				}
				p := &columnPage{l: &listing{selection: selection{q, s}}, c: c, column: column}
				p.sortRows()
				ids, ok, err := p.ids(t.Context())
				if !ok || err != nil {
					t.Fatalf("column %d, %+v: got %v, %v", column, q, ok, err)
				}
				var page []int64
				for _, r := range want[at:min(at+50, len(want))] {
					page = append(page, rowID(s.Number, c.Index(int(r))))
				}
				if !slices.Equal(ids, page) {
					t.Fatalf("column %d, %+v, after %+v: got %v, want %v", column, q, q.After, ids, page)
				}
			}
		}
	}
}

// TestKeptColumns checks that columns are cached until the sweep has an event, and that others are
// added to them.
func TestKeptColumns(t *testing.T) {
	d := open(t)
	d.columns.ttl = time.Hour
	read := func(wanted ...Column) *Columns {
		c, err := d.Columns(t.Context(), "a-1", 0, wanted...)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	failed := finished(0, `{"loss": 1}`)
	failed.Result.Class = grid.ClassExit
	foldEvents(t, d, "a-1", failed, finished(1, `{"loss": 2}`))
	first := read(ColumnMetric(0))
	foldEvents(t, d, "b-1", finished(0, `{"loss": 3}`))
	both := read(ColumnMetric(0), ColumnWall, ColumnWall)
	if &both.State[0] != &first.State[0] || &both.Values[ColumnMetric(0)][0] != &first.Values[ColumnMetric(0)][0] {
		t.Error("columns of a sweep without events were read again")
	}
	if len(first.Values) != 1 || len(both.Values) != 2 ||
		both.Values[ColumnWall][1] != read(ColumnWall).Values[ColumnWall][1] {
		t.Errorf("columns: got %d and %d, want 1 and 2", len(first.Values), len(both.Values))
	}
	again := finished(0, `{"loss": 5}`)
	again.Attempt, again.Run = 2, "again"
	foldEvents(t, d, "a-1", grid.Event{Kind: grid.Reopened, Index: 0, Time: 1}, again, finished(2, `{"loss": 7}`))
	got := read(ColumnMetric(0)).Values[ColumnMetric(0)][:3]
	if want := []float32{5, 2, 7}; !slices.Equal(got, want) {
		t.Errorf("loss after more events: got %v, want %v", got, want)
	}
	if d.columns.addOrder(first, "old", &columnOrder{}); d.columns.order(first, "old") != nil {
		t.Error("an order of columns that have changed is kept")
	}
	now := read(ColumnMetric(0))
	d.columns.addOrder(now, "loss", &columnOrder{rows: []int32{1, 0, 2}})
	if o := d.columns.order(read(ColumnMetric(0), ColumnWall), "loss"); o == nil || len(o.rows) != 3 {
		t.Errorf("an order of columns that have not changed: got %v", o)
	}
	d.columns.addOrder(now, "large", &columnOrder{rows: make([]int32, maxColumnCacheBytes/4)})
	if n := len(d.columns.sets[len(d.columns.sets)-1].orders); n > 0 {
		t.Errorf("beyond the bound: %d orders are kept", n)
	}
	if err := d.Remove(t.Context(), "a-1"); err != nil {
		t.Fatal(err)
	}
	if c := read(ColumnMetric(0)); len(c.Blocks) != 0 {
		t.Errorf("blocks of a removed sweep: got %v, want none", c.Blocks)
	}
	foldEvents(t, d, "a-1", finished(0, `{"loss": 9}`))
	if got := read(ColumnMetric(0)).Values[ColumnMetric(0)][0]; got != 9 {
		t.Errorf("loss of the next sweep of that name: got %g, want 9", got)
	}
}
