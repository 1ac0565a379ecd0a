package history

import (
	"cmp"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"

	"mlfnode/grid"
)

// Charts read one value of all trials, so values are stored by column as well: a chunk, a row of
// the table piece, holds one column of one block of trials. Chunks are derived from the rows of
// trials. The blocks that change are kept in memory and written when they are evicted; the table
// stale names these blocks, in the same transaction as their rows, so that after a crash they are
// rebuilt from the rows.

// Column identifies a value of trials that charts read.
type Column int

// The columns. The metrics follow, in the order of their names.
const (
	columnSmall     Column = iota // state, attempts, class, cause and node, see smallBlock
	ColumnStarted                 // seconds since Columns.Base
	ColumnWall                    // seconds
	ColumnCPU                     // seconds
	ColumnMemory                  // bytes
	ColumnObjective               //
	columnMetrics
)

// maxMetricColumns bounds the metrics that are kept by column: the first ones of a sweep.
const maxMetricColumns = 32

// ColumnEnded is when trials ended, in seconds since Columns.Base.
const ColumnEnded = columnMetrics + maxMetricColumns

// ColumnMetric returns the column of the metric with that place among the names of a sweep.
func ColumnMetric(place int) Column { return columnMetrics + Column(place) }

const (
	blockTrials    = 1 << blockBits
	chunkIDBits    = 54 // a chunk's id is its column above the number of its block
	smallBytes     = 6 * blockTrials
	floatBytes     = 4 * blockTrials // and one more where all values are exact
	maxCachedBytes = 2 << 20         // of blocks in memory
	maxAttempts    = math.MaxUint8
	maxClasses     = math.MaxUint8 - 1
	floatColumns   = int(ColumnEnded-ColumnStarted) + 1
)

func chunkID(c Column, block int64) int64 { return int64(c)<<chunkIDBits | block }

// smallBlock holds the columns of a block whose values are small: state (its code + 1), attempts,
// class (its place in sweepSummary.Classes + 1) and cause take a byte of each trial, the number of
// the node two. 0 means no row, or none.
type smallBlock [smallBytes]byte

func (s *smallBlock) state(i int64) *byte    { return &s[i] }
func (s *smallBlock) attempts(i int64) *byte { return &s[blockTrials+i] }
func (s *smallBlock) class(i int64) *byte    { return &s[2*blockTrials+i] }
func (s *smallBlock) cause(i int64) *byte    { return &s[3*blockTrials+i] }
func (s *smallBlock) node(i int64) []byte    { return s[4*blockTrials+2*i : 4*blockTrials+2*i+2] }

// trialBlock holds all columns of one block of trials.
type trialBlock struct {
	id       int64
	small    smallBlock
	floats   [floatColumns][]float32 // nil for a column without values
	lossy    [floatColumns]bool      // some value has more digits than its 32 bits hold
	lastUsed uint64                  // blockCache.useCount when it was last changed
}

func (b *trialBlock) size() int {
	n := smallBytes
	for _, f := range b.floats {
		n += 4 * len(f)
	}
	return n
}

// setValue sets a value; NaN is none.
func (b *trialBlock) setValue(c Column, i int64, v float64) {
	f := b.floats[c-ColumnStarted]
	if f == nil {
		if math.IsNaN(v) {
			return
		}
		f = make([]float32, blockTrials)
		for i := range f {
			f[i] = float32(math.NaN())
		}
		b.floats[c-ColumnStarted] = f
	}
	f[i] = float32(v)
	if v == v && float64(f[i]) != v {
		b.lossy[c-ColumnStarted] = true
	}
}

// blockCache holds the blocks whose chunks in the file are out of date. Only the fold changes them.
type blockCache struct {
	w            *writer
	mu           sync.Mutex
	cached       map[int64]*trialBlock
	flushed      map[int64]*trialBlock // written in the current transaction, so not yet readable in the file
	bytes        int                   // of cached blocks
	flushedBytes int                   // of flushed blocks
	limit        int                   // of cached and of flushed blocks each
	useCount     uint64
	changes      blockChanges
}

// setTrial enters a trial's row, without its metrics.
func (b *trialBlock) setTrial(s *sweepSummary, t *grid.Trial, node int64, cause uint8) {
	i := t.Index & (blockTrials - 1)
	*b.small.state(i) = byte(stateCode(t.State) + 1)
	*b.small.attempts(i) = byte(min(t.Attempts, maxAttempts))
	*b.small.class(i) = s.classNumber(t.Result.Class)
	*b.small.cause(i) = cause
	binary.LittleEndian.PutUint16(b.small.node(i), uint16(min(node, math.MaxUint16)))
	started, ended, wall, cpu, memory := math.NaN(), math.NaN(), math.NaN(), math.NaN(), math.NaN()
	if t.Result.Started > 0 {
		started = float64(t.Result.Started-s.Base) / 1e6
	}
	if t.Ended > 0 {
		ended = float64(t.Ended-s.Base) / 1e6
	}
	if t.Ended > 0 && t.Result.Started > 0 {
		wall, cpu = float64(t.Result.Usage.Wall)/1e6, float64(t.Result.Usage.CPU)/1e6
	}
	if t.Result.Usage.Memory > 0 {
		memory = float64(t.Result.Usage.Memory)
	}
	b.setValue(ColumnStarted, i, started)
	b.setValue(ColumnEnded, i, ended)
	b.setValue(ColumnWall, i, wall)
	b.setValue(ColumnCPU, i, cpu)
	b.setValue(ColumnMemory, i, memory)
	for c := ColumnObjective; c < ColumnEnded; c++ { // values that the trial no longer has
		b.setValue(c, i, math.NaN())
	}
}

// blockToChange returns a block to change.
func (c *blockCache) blockToChange(id int64) (*trialBlock, error) {
	c.useCount++
	c.changes.add(id)
	if b := c.cached[id]; b != nil {
		b.lastUsed = c.useCount
		return b, nil
	}
	b := &trialBlock{id: id, lastUsed: c.useCount}
	if err := c.w.run(markStale, id); err != nil {
		return nil, err
	}
	if err := c.readBlock(b); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cached[id] = b
	c.bytes += b.size()
	return b, nil
}

// setPending sets the state of n trials of a block, which all have rows, from place i on.
func (c *blockCache) setPending(id, i, n int64) error {
	c.changes.add(id)
	b := c.cached[id]
	if b == nil {
		b = &trialBlock{id: id}
		rows, err := c.w.query(readChunk, chunkID(columnSmall, id))
		if err != nil {
			return err
		}
		found := false
		err = eachRow(rows, func(v []driver.Value) error {
			data, _ := v[0].([]byte)
			found = len(data) == copy(b.small[:], data) && len(data) == smallBytes
			return nil
		})
		if err != nil || !found {
			return cmp.Or(err, fmt.Errorf("piece of block %d: %w", id, errDamaged))
		}
	}
	c.mu.Lock()
	for ; n > 0; i, n = i+1, n-1 {
		*b.small.state(i) = byte(stateCode(grid.Pending) + 1)
	}
	c.mu.Unlock()
	if c.cached[id] != nil {
		return nil
	}
	return c.w.run(putChunk, chunkID(columnSmall, id), b.small[:])
}

// readBlock reads a block's chunks from the file.
func (c *blockCache) readBlock(b *trialBlock) error {
	for col := columnSmall; int(col) <= floatColumns; col++ {
		rows, err := c.w.query(readChunk, chunkID(col, b.id))
		if err != nil {
			return err
		}
		found := false
		err = eachRow(rows, func(v []driver.Value) error {
			data, ok := v[0].([]byte)
			if ok && col == columnSmall && len(data) == smallBytes {
				found = true
				copy(b.small[:], data)
				return nil
			}
			whole, fits := floatChunk(data)
			if !ok || col == columnSmall || !fits {
				return fmt.Errorf("piece of block %d: %w", b.id, errDamaged)
			}
			b.floats[col-ColumnStarted], b.lossy[col-ColumnStarted] =
				unpackFloats(make([]float32, 0, blockTrials), data), !whole
			return nil
		})
		if err != nil || col == columnSmall && !found {
			return err // without the first there are no others
		}
	}
	return nil
}

// floatChunk reports whether a chunk holds floats, and whether all of them are exact.
func floatChunk(data []byte) (whole, ok bool) {
	return len(data) == floatBytes+1, len(data) == floatBytes || len(data) == floatBytes+1
}

func unpackFloats(dest []float32, data []byte) []float32 {
	for ; len(data) >= 4; data = data[4:] {
		dest = append(dest, math.Float32frombits(binary.LittleEndian.Uint32(data)))
	}
	return dest
}

// flush writes the least recently changed blocks, until the cached ones take no more than
// limit.
func (c *blockCache) flush(limit int) error {
	for c.bytes > limit {
		var oldest *trialBlock
		for _, b := range c.cached {
			if oldest == nil || b.lastUsed < oldest.lastUsed {
				oldest = b
			}
		}
		if oldest == nil {
			return errors.New("blocks in memory are miscounted")
		}
		if err := c.writeBlock(oldest); err != nil {
			return err
		}
		c.evict(oldest)
	}
	return nil
}

func (c *blockCache) evict(b *trialBlock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes -= b.size()
	delete(c.cached, b.id)
	if c.flushedBytes+b.size() <= c.limit {
		if c.flushed == nil {
			c.flushed = map[int64]*trialBlock{}
		}
		c.flushed[b.id] = b
		c.flushedBytes += b.size()
	}
}

// transactionEnded forgets the flushed blocks, and tells readers what has changed at the moment at
// which publish makes the result visible.
func (c *blockCache) transactionEnded(publish func()) {
	c.mu.Lock()
	c.flushed, c.flushedBytes = nil, 0
	c.mu.Unlock()
	c.changes.publish(publish)
}

func (c *blockCache) writeBlock(b *trialBlock) error {
	if err := c.w.run(putChunk, chunkID(columnSmall, b.id), b.small[:]); err != nil {
		return err
	}
	for i, f := range b.floats {
		if f == nil {
			continue
		}
		c.w.data = c.w.data[:0]
		for _, v := range f {
			c.w.data = binary.LittleEndian.AppendUint32(c.w.data, math.Float32bits(v))
		}
		if !b.lossy[i] {
			c.w.data = append(c.w.data, 1)
		}
		if err := c.w.run(putChunk, chunkID(ColumnStarted+Column(i), b.id), c.w.data); err != nil {
			return err
		}
	}
	return c.w.run(markFresh, b.id)
}

// copyTo copies columns of the blocks that are in memory, and returns their places.
func (k *blockCache) copyTo(c *Columns, s *sweepSummary, wanted []Column) map[int]bool {
	hot := map[int]bool{}
	k.mu.Lock()
	defer k.mu.Unlock()
	newest := maps.Clone(k.flushed)
	if newest == nil {
		newest = k.cached
	} else {
		maps.Copy(newest, k.cached)
	}
	for id, b := range newest {
		at, ok := slices.BinarySearch(c.Blocks, id<<blockBits&maxIndex)
		if !ok || id>>(indexBits-blockBits) != s.Number {
			continue
		}
		hot[at] = true
		for _, w := range wanted {
			if w == columnSmall {
				c.setBlock(at, b.small[:])
			} else if known := b.floats[w-ColumnStarted]; known != nil {
				copy(c.Values[w][at*blockTrials:], known)
				c.exact[w][at] = !b.lossy[w-ColumnStarted]
			} else {
				clearValues(c.Values[w][at*blockTrials : (at+1)*blockTrials])
			}
		}
	}
	return hot
}

// rebuildBlocks builds the blocks whose chunks are out of date from the rows of their trials.
func (x *index) rebuildBlocks(sweeps map[grid.SweepID]*sweepSummary) error {
	numbered := byNumber(sweeps)
	var ids []int64
	err := x.w.each("SELECT block FROM stale", func(v []driver.Value) error {
		id, ok := v[0].(int64)
		if !ok {
			return errDamaged
		}
		ids = append(ids, id)
		return nil
	})
	if err != nil {
		return err
	}
	hot, size := make(map[int64]*trialBlock, len(ids)), 0
	for _, id := range ids {
		s := numbered[id>>(indexBits-blockBits)]
		if s == nil {
			continue // it is being removed
		}
		b := &trialBlock{id: id}
		text := fmt.Sprintf("SELECT %s FROM trial WHERE id BETWEEN %d AND %d", readColumns, id<<blockBits,
			id<<blockBits+blockTrials-1)
		err := x.w.each(text, func(v []driver.Value) error {
			t, err := x.decodeTrial(v, &s.overlay)
			if err != nil {
				return err
			}
			b.setTrial(s, &t, x.numbers[t.Node], s.causes.idFor(&t))
			for name, raw := range t.Result.Metrics {
				if n, ok := s.nameIndex[name]; ok && n < maxMetricColumns {
					v, _ := metricNumber(raw)
					b.setValue(ColumnMetric(n), t.Index&(blockTrials-1), v)
				}
			}
			if v, ok := v[8].(float64); ok {
				b.setValue(ColumnObjective, t.Index&(blockTrials-1), v)
			}
			return nil
		})
		if err != nil {
			return err
		}
		hot[id], size = b, size+b.size()
	}
	x.blocks.mu.Lock()
	defer x.blocks.mu.Unlock()
	x.blocks.cached, x.blocks.bytes = hot, size
	x.blocks.changes.forget()
	return nil
}

// classNumber returns the number of a failure class in the chunks of a sweep, 0 for none.
func (s *sweepSummary) classNumber(c grid.Class) byte {
	return byte(slices.Index(s.Classes, c) + 1)
}

// addClass gives a class its number.
func (s *sweepSummary) addClass(c grid.Class) {
	if c != "" && len(s.Classes) < maxClasses && !slices.Contains(s.Classes, c) {
		s.Classes = append(s.Classes, c)
	}
}
