package history

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"

	"mlfnode/grid"
	"mlfnode/node/parallel"
)

// Columns holds values of a sweep's trials by column. Its rows are those of whole blocks of
// BlockTrials neighbouring trials, some of which may have no row in history: their state is empty,
// and their values are NaN.
type Columns struct {
	Version int64   // of the sweep, before the values were read
	Blocks  []int64 // the first index of each block, ascending
	Stride  int     // one of so many blocks was read: the sweep has more than was asked for

	smallColumns
	Values map[Column][]float32
	exact  map[Column][]bool // by block: each value is exactly that of the trial

	Base    int64 // ColumnStarted and ColumnEnded count from it, microseconds since 1970
	Names   []string
	Classes []grid.Class
	Nodes   []grid.NodeID // by number, from 1
	Causes  []Cause
}

// Index returns the index of the trial in a row.
func (c *Columns) Index(row int) int64 { return c.Blocks[row/blockTrials] + int64(row%blockTrials) }

// ClassOf returns the failure class of the trial in a row, ClassNone if it has none. It returns
// false for a class that a fold is just adding: Classes may not have its name yet.
func (c *Columns) ClassOf(row int) (grid.Class, bool) {
	number := int(c.Class[row])
	switch {
	case number == 0:
		return grid.ClassNone, true
	case number > len(c.Classes):
		return grid.ClassNone, false
	}
	return c.Classes[number-1], true
}

// BlockTrials is how many neighbouring trials a block has.
const BlockTrials = blockTrials

// Columns returns the columns of a sweep, which must not be changed; those of some blocks, spread
// evenly, when the sweep has more than limit trials. Values of blocks that change in the meantime
// may come from different moments. A sweep without events has none.
func (d *reader) Columns(ctx context.Context, id grid.SweepID, limit int64, wanted ...Column) (*Columns, error) {
	s := d.sweep(id)
	if s == nil {
		return &Columns{Stride: 1, Values: map[Column][]float32{}}, nil
	}
	c := &Columns{
		Version: s.Version, Base: s.Base, Names: s.Names, Classes: s.Classes, Causes: slices.Clone(s.causes.list),
		Values: make(map[Column][]float32, len(wanted)), exact: make(map[Column][]bool, len(wanted)), Stride: 1,
	}
	d.mu.Lock()
	c.Nodes = slices.Clone(d.nodes)
	d.mu.Unlock()
	c.chooseBlocks(s, limit)
	missing, earlier, mark := d.columns.fill(s, c, wanted)
	if len(missing) == 0 {
		return c, nil
	}
	mark = min(mark, d.blocks.changes.mark())
	if err := d.readColumns(ctx, c, s, missing, earlier); err != nil {
		return nil, fmt.Errorf("read columns of %s: %w", id, d.markDamage(err))
	}
	d.columns.add(s, c, mark, d.sweep(id) != s)
	return c, nil
}

// readColumns reads some columns, which c does not have yet. From columns of an earlier moment, if
// there are any, it copies the blocks that have not changed.
func (d *reader) readColumns(
	ctx context.Context, c *Columns, s *sweepSummary, missing []Column, earlier *columnSet,
) error {
	n := len(c.Blocks) * blockTrials
	for _, w := range missing {
		if w == columnSmall {
			c.smallColumns = newSmallColumns(n)
			continue
		}
		c.Values[w], c.exact[w] = make([]float32, n), make([]bool, len(c.Blocks))
	}
	kept := earlier.unchanged(c.Blocks, &d.blocks.changes)
	// What is in memory is newer than what is in the file, so it is copied first and kept.
	hot := d.blocks.copyTo(c, s, missing)
	errs := make([]error, len(missing))
	parallel.Each(len(missing), func(i int) {
		w, places := missing[i], []int{} // of the blocks to read
		for at := range c.Blocks {
			switch {
			case hot[at]:
			case kept != nil && kept[at] >= 0 && c.copyBlock(at, earlier.all, kept[at], w):
			default:
				places = append(places, at)
				if w != columnSmall {
					clearValues(c.Values[w][at*blockTrials : (at+1)*blockTrials])
				}
			}
		}
		errs[i] = d.readChunks(ctx, c, s, w, places)
	})
	return cmp.Or(errs...)
}

// clearValues sets values to NaN, which is none.
func clearValues(values []float32) {
	for i := range values {
		values[i] = float32(math.NaN())
	}
}

// copyBlock copies a column of a block from other columns, and reports whether they have it.
func (c *Columns) copyBlock(at int, other *Columns, place int, w Column) bool {
	if w == columnSmall {
		c.smallColumns.copyBlock(at, &other.smallColumns, place)
		return true
	}
	to, from := at*blockTrials, place*blockTrials
	values, ok := other.Values[w]
	if ok {
		copy(c.Values[w][to:], values[from:from+blockTrials])
		c.exact[w][at] = other.exact[w][place]
	}
	return ok
}

// chooseBlocks sets the blocks that are read.
func (c *Columns) chooseBlocks(s *sweepSummary, limit int64) {
	for r := range s.known.All() {
		for b := r.Lo >> blockBits; b <= (r.Hi-1)>>blockBits; b++ {
			if n := len(c.Blocks); n == 0 || c.Blocks[n-1] != b<<blockBits {
				c.Blocks = append(c.Blocks, b<<blockBits)
			}
		}
	}
	if most := int(limit / blockTrials); limit > 0 && len(c.Blocks) > most {
		c.Stride = (len(c.Blocks) + most - 1) / max(most, 1)
		c.sampleBlocks(s.ID)
	}
}

// sampleBlocks keeps a random one of each Stride neighbouring blocks: at even distances, the blocks
// would have the same few values of an axis with that period. The choice is always the same for a
// sweep, so that a chart does not move when nothing has changed.
func (c *Columns) sampleBlocks(id grid.SweepID) {
	seed := fnv.New64a()
	seed.Write([]byte(id))
	random := rand.New(rand.NewPCG(seed.Sum64(), uint64(c.Stride)))
	kept := c.Blocks[:0]
	for lo := 0; lo < len(c.Blocks); lo += c.Stride {
		if at := lo + random.IntN(c.Stride); at < len(c.Blocks) || lo == 0 {
			kept = append(kept, c.Blocks[min(at, len(c.Blocks)-1)])
		}
	}
	c.Blocks = kept
}

// readChunks reads the chunks of one column of the blocks at some places.
func (d *reader) readChunks(ctx context.Context, c *Columns, s *sweepSummary, w Column, places []int) error {
	if len(places) == 0 {
		return nil
	}
	id := func(at int) int64 { return chunkID(w, rowID(s.Number, c.Blocks[at])>>blockBits) }
	first, last := id(places[0]), id(places[len(places)-1])
	text, args := fmt.Sprintf("SELECT id, data FROM piece WHERE id BETWEEN %d AND %d", first, last), []any(nil)
	if last-first >= int64(2*len(places)) {
		ids := make([]int64, len(places))
		for i, at := range places {
			ids[i] = id(at)
		}
		list, err := json.Marshal(ids)
		if err != nil {
			return err
		}
		text, args = "SELECT piece.id, data FROM json_each(?) AS b CROSS JOIN piece ON piece.id = b.value",
			[]any{string(list)}
	}
	rows, err := d.read.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	var found int64
	var data sql.RawBytes
	for rows.Next() {
		if err := rows.Scan(&found, &data); err != nil {
			return err
		}
		at, ok := slices.BinarySearch(c.Blocks, found<<blockBits&maxIndex)
		if _, wanted := slices.BinarySearch(places, at); !ok || !wanted {
			continue
		}
		whole, fits := floatChunk(data)
		switch {
		case w == columnSmall && len(data) == smallBytes:
			c.setBlock(at, data)
		case w != columnSmall && fits:
			from := at * blockTrials
			unpackFloats(c.Values[w][from:from:from+blockTrials], data)
			c.exact[w][at] = whole
		default:
			return fmt.Errorf("piece %d: %w", found, errDamaged)
		}
	}
	return rows.Err()
}
