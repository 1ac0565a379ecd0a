package history

import (
	"database/sql/driver"
	"encoding/json"
	"math"
	"slices"
	"strconv"

	"mlfnode/grid"
)

// blockBits says how many neighbouring trials form a block: 2^blockBits. For each value that trials
// can be sorted by, the table block holds bounds of the values in a block. They show which blocks
// can hold the first trials of a listing, so that it reads some ten thousand rows of a million. An
// index for each value would show that too, but inserting in random places makes the fold several
// times slower.
//
// Bounds only widen. When a trial runs again they may be wider than its values, which costs a
// listing time, not correctness.
const blockBits = 9

// boundedColumns are the columns with bounds. A column's number is its place; the numbers of the
// metrics follow, in the order of sweepSummary.Names.
var boundedColumns = [...]Sort{SortStarted, SortEnded, SortWall, SortCPU, SortMemory, SortObjective,
	SortState, SortAttempts}

// stateBounds is the place of SortState.
const stateBounds = 6

// boundsNumber returns the number of what a listing sorts by; false when the blocks have no bounds
// for it. A metric that no trial has gets -1, which is in no block.
func (s *sweepSummary) boundsNumber(by Sort) (int64, bool) {
	if n := slices.Index(boundedColumns[:], by); n >= 0 {
		return int64(n), true
	}
	if n, ok := s.nameIndex[string(by)]; ok {
		return int64(len(boundedColumns) + n), true
	}
	return -1, len(s.Names) < MaxNames
}

// valueBounds is what one fold learns of one value in one block. Values that float64 can't
// distinguish count as equal.
type valueBounds struct {
	lo, hi    float64
	hasNumber bool
	hasText   bool
}

func (b *valueBounds) include(v float64) {
	if !b.hasNumber {
		b.lo, b.hi, b.hasNumber = v, v, true
	}
	b.lo, b.hi = min(b.lo, v), max(b.hi, v)
}

// metricNumber reads JSON as SQLite's json_extract does: booleans are numbers, arrays and objects
// are text. It returns NaN for what is not a number.
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
	v, _ = strconv.ParseFloat(string(raw), 64) // SQLite, too, reads a number that is too large as infinite
	return v, false
}

// sqlValues returns the bounds for SQLite, which orders numbers before texts before blobs. All
// texts lie between an empty text and an empty blob.
func (b *valueBounds) sqlValues() (lo, hi driver.Value) {
	lo, hi = b.lo, b.hi
	if !b.hasNumber {
		lo = ""
	}
	if b.hasText {
		hi = []byte{}
	}
	return lo, hi
}

// updateBlocks enters the trials that have changed into their blocks, and stores the bounds.
func (g *sweepFold) updateBlocks() error {
	bounds := make([]valueBounds, len(boundedColumns)+len(g.sweep.Names))
	for rest := g.dirty; len(rest) > 0; {
		block := rowID(g.sweep.Number, rest[0].trial.Index) >> blockBits
		piece, err := g.f.d.blocks.blockToChange(block)
		if err != nil {
			return err
		}
		g.f.d.blocks.mu.Lock()
		g.f.d.blocks.bytes -= piece.size()
		n := 0
		for ; n < len(rest) && rowID(g.sweep.Number, rest[n].trial.Index)>>blockBits == block; n++ {
			t := &rest[n].trial
			piece.setTrial(g.sweep, t, g.f.d.numbers[t.Node], g.sweep.causes.idFor(t))
			includeTrial(bounds, piece, g.sweep, g.policy.Metric, t)
		}
		g.f.d.blocks.bytes += piece.size()
		g.f.d.blocks.mu.Unlock()
		if err := g.f.d.blocks.flush(g.f.d.blocks.limit); err != nil {
			return err
		}
		rest = rest[n:]
		for i := range bounds {
			if b := &bounds[i]; b.hasNumber || b.hasText {
				lo, hi := b.sqlValues()
				if err := g.f.d.w.run(putBounds, block, int64(i), lo, hi); err != nil {
					return err
				}
			}
		}
		clear(bounds)
	}
	return nil
}

// includeTrial widens the bounds, in the order of boundedColumns, by one trial, and enters its
// metrics into the columns.
func includeTrial(bounds []valueBounds, piece *trialBlock, s *sweepSummary, metric string, t *grid.Trial) {
	u, at := &t.Result.Usage, t.Index&(blockTrials-1)
	for i, v := range [...]int64{t.Result.Started, t.Ended, u.Wall, u.CPU, u.Memory} {
		if v != 0 { // else it is missing
			bounds[i].include(float64(v))
		}
	}
	if v, ok := objective(t.Result.Metrics, metric).(float64); ok {
		bounds[5].include(v)
		piece.setValue(ColumnObjective, at, v)
	}
	bounds[stateBounds].include(float64(stateCode(t.State)))
	bounds[7].include(float64(t.Attempts))
	for name, raw := range t.Result.Metrics {
		n, ok := s.nameIndex[name]
		if !ok {
			continue
		}
		v, text := metricNumber(raw)
		if b := &bounds[len(boundedColumns)+n]; text {
			b.hasText = true
		} else if !math.IsNaN(v) {
			b.include(v)
		}
		if n < maxMetricColumns {
			piece.setValue(ColumnMetric(n), at, v)
		}
	}
}
