package history

import (
	"database/sql/driver"
	"fmt"
	"slices"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// bitmapBits says how many neighbouring trials share a row of the table known: 2^bitmapBits. The
// row has a bit for each of them, set where the trial has a row; no bits at all mean that all have
// rows. So what a fold writes depends on the trials in it, and not on how many are known and in how
// many places these lie.
const bitmapBits = 12

const (
	bitmapTrials = 1 << bitmapBits
	bitmapBytes  = bitmapTrials / 8
)

const knownTable = `
CREATE TABLE known (id INTEGER PRIMARY KEY, bits BLOB NOT NULL);
`

// markBitmap marks the bitmap of a trial as changed.
func (g *sweepFold) markBitmap(index int64) {
	chunk := index >> bitmapBits
	if n := len(g.dirtyBitmaps); n == 0 || g.dirtyBitmaps[n-1] != chunk {
		g.dirtyBitmaps = append(g.dirtyBitmaps, chunk)
	}
}

// storeKnown stores which trials in these bitmaps have rows.
func (w *writer) storeKnown(s *sweepSummary, chunks []int64) error {
	slices.Sort(chunks)
	for _, chunk := range slices.Compact(chunks) {
		lo, bits := chunk<<bitmapBits, []byte{}
		s.known.Gaps(lo, lo+bitmapTrials, func(gap ranges.Range) {
			if len(bits) == 0 {
				bits = slices.Repeat([]byte{0xff}, bitmapBytes)
			}
			for i := gap.Lo - lo; i < gap.Hi-lo; i++ {
				bits[i>>3] &^= 1 << (i & 7)
			}
		})
		if err := w.run(putKnown, rowID(s.Number, lo)>>bitmapBits, bits); err != nil {
			return fmt.Errorf("store known trials of %s: %w", s.ID, err)
		}
	}
	return nil
}

// addBitmap adds the trials in a row of the table known to the set. Rows come by id.
func addBitmap(set *ranges.Set, id int64, bits []byte) error {
	first := id << bitmapBits & maxIndex
	switch len(bits) {
	case 0:
		set.Add(first, first+bitmapTrials)
		return nil
	case bitmapBytes:
	default:
		return fmt.Errorf("known trials from %d on: %w", first, errDamaged)
	}
	lo := int64(-1)
	for i := range int64(bitmapTrials + 1) {
		switch known := i < bitmapTrials && bits[i>>3]&(1<<(i&7)) != 0; {
		case known && lo < 0:
			lo = i
		case !known && lo >= 0:
			set.Add(first+lo, first+i)
			lo = -1
		}
	}
	return nil
}

// loadKnown loads which trials have rows.
func loadKnown(w *writer, sweeps map[grid.SweepID]*sweepSummary) error {
	numbered := byNumber(sweeps)
	return w.each("SELECT id, bits FROM known ORDER BY id", func(v []driver.Value) error {
		id, ok1 := v[0].(int64)
		bits, ok2 := v[1].([]byte)
		if !ok1 || !ok2 {
			return errDamaged
		}
		s := numbered[id>>(indexBits-bitmapBits)]
		if s == nil {
			return nil // it is being removed
		}
		return addBitmap(&s.known, id, bits)
	})
}
