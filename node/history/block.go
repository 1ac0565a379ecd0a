package history

import (
	"database/sql/driver"
	"encoding/json"
	"math"
	"slices"
	"strconv"

	"mlfnode/grid"
)

// blockBits says how many neighbouring trials form a block: 2^blockBits. For each value that trials can be sorted by, the
// table block holds bounds of what the trials of a block have. They tell which blocks can hold the first trials of a
// listing, so that it reads some ten thousand rows of a million. An index for each value would tell as well, but inserting in
// random places makes the fold several times slower.
//
// Bounds only widen. When a trial runs again they may say more than is true, which costs a listing time, not truth.
const blockBits = 9

// bounded are the columns with bounds. A column's number is its place; the metrics' numbers follow, in the order of
// sweep.Names.
var bounded = [...]Sort{SortStarted, SortEnded, SortWall, SortCPU, SortMemory, SortObjective, SortState, SortAttempts}

// value gives the number of what a listing sorts by; false when the blocks have no bounds for it. A metric that no trial has
// gets -1, which is in no block.
func (s *sweep) value(by Sort) (int64, bool) {
	if n := slices.Index(bounded[:], by); n >= 0 {
		return int64(n), true
	}
	if n, ok := s.named[string(by)]; ok {
		return int64(len(bounded) + n), true
	}
	return -1, len(s.Names) < MaxNames
}

// bound is what one fold learns of one value in one block. Values that differ less than float64 can tell count as equal.
type bound struct {
	lo, hi  float64
	numbers bool
	texts   bool
}

func (b *bound) add(v float64) {
	if !b.numbers {
		b.lo, b.hi, b.numbers = v, v, true
	}
	b.lo, b.hi = min(b.lo, v), max(b.hi, v)
}

// addPositive leaves out 0, which stands for a missing value.
func (b *bound) addPositive(v int64) {
	if v != 0 {
		b.add(float64(v))
	}
}

// metricNumber understands JSON as SQLite's json_extract does: truth is a number, and what has parts is text. It gives NaN for what is
// not a number.
func metricNumber(raw json.RawMessage) (v float64, text bool) {
	if len(raw) == 0 {
		return math.NaN(), false
	}
	switch raw[0] {
	case 'n':
		return math.NaN(), false
	case 't':
		return 1, false
	case 'f':
		return 0, false
	case '"':
		var word string
		if json.Unmarshal(raw, &word) == nil {
			if v, special := grid.Special(word); special {
				return v, false
			}
		}
		return math.NaN(), true
	case '[', '{':
		return math.NaN(), true
	}
	v, _ = strconv.ParseFloat(string(raw), 64) // too great a number is infinite in SQLite, too
	return v, false
}

// values gives the bounds for SQLite, which orders numbers before texts before blobs. All texts lie between an empty text
// and an empty blob.
func (b *bound) values() (lo, hi driver.Value) {
	lo, hi = b.lo, b.hi
	if !b.numbers {
		lo = ""
	}
	if b.texts {
		hi = []byte{}
	}
	return lo, hi
}

// bound stores the bounds of the trials that have changed.
func (f *fold) bound(g *folding) error {
	bounds := make([]bound, len(bounded)+len(g.sweep.Names))
	for rest := g.dirty; len(rest) > 0; {
		block := rowID(g.sweep.Number, rest[0].trial.Index) >> blockBits
		piece, err := f.d.heat(block)
		if err != nil {
			return err
		}
		f.d.blocks.mu.Lock()
		f.d.blocks.bytes -= piece.bytes()
		n := 0
		for ; n < len(rest) && rowID(g.sweep.Number, rest[n].trial.Index)>>blockBits == block; n++ {
			t := &rest[n].trial
			piece.patch(g.sweep, t, f.d.numbers[t.Node], g.sweep.causes.find(t))
			g.widen(bounds, piece, t)
		}
		f.d.blocks.bytes += piece.bytes()
		f.d.blocks.mu.Unlock()
		if err := f.d.cool(f.d.blocks.limit); err != nil {
			return err
		}
		rest = rest[n:]
		for i := range bounds {
			if b := &bounds[i]; b.numbers || b.texts {
				lo, hi := b.values()
				if err := f.d.w.exec(f.d.w.bound, block, int64(i), lo, hi); err != nil {
					return err
				}
			}
		}
		clear(bounds)
	}
	return nil
}

// widen adds what one trial has, columns in the order of bounded, and enters its metrics in the columns.
func (g *folding) widen(bounds []bound, piece *block, t *grid.Trial) {
	u, at := &t.Result.Usage, t.Index&(blockTrials-1)
	for i, v := range [...]int64{t.Result.Started, t.Ended, u.Wall, u.CPU, u.Memory} {
		bounds[i].addPositive(v)
	}
	if v, ok := objective(t.Result.Metrics, g.policy.Metric).(float64); ok {
		bounds[5].add(v)
		piece.set(ColumnObjective, at, v)
	}
	bounds[6].add(float64(stateCode(t.State)))
	bounds[7].add(float64(t.Attempts))
	for name, raw := range t.Result.Metrics {
		n, ok := g.sweep.named[name]
		if !ok {
			continue
		}
		v, text := metricNumber(raw)
		if b := &bounds[len(bounded)+n]; text {
			b.texts = true
		} else if !math.IsNaN(v) {
			b.add(v)
		}
		if n < maxMetricColumns {
			piece.set(ColumnMetric(n), at, v)
		}
	}
}
