package history

import (
	"database/sql/driver"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
)

// addEndedColumn fills the column of end times from the rows, in a file of a version without it.
func (x *index) addEndedColumn() error {
	sweeps, err := x.w.sweeps()
	if err != nil {
		return err
	}
	bases := make(map[int64]int64, len(sweeps))
	for _, s := range sweeps {
		bases[s.Number] = s.Base
	}
	data, block := make([]byte, floatBytes), int64(-1)
	put := func() error {
		if block < 0 {
			return nil
		}
		return x.w.run(putChunk, chunkID(ColumnEnded, block), data)
	}
	err = x.w.each("SELECT id, ended FROM trial WHERE ended > 0 ORDER BY id", func(v []driver.Value) error {
		id, ok1 := v[0].(int64)
		ended, ok2 := v[1].(int64)
		if !ok1 || !ok2 {
			return errDamaged
		}
		base, known := bases[id>>indexBits]
		if !known {
			return nil // it is being removed
		}
		if id>>blockBits != block {
			if err := put(); err != nil {
				return err
			}
			block = id >> blockBits
			for i := range blockTrials {
				binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(float32(math.NaN())))
			}
		}
		at := 4 * (id & (blockTrials - 1))
		binary.LittleEndian.PutUint32(data[at:], math.Float32bits(float32(float64(ended-base)/1e6)))
		return nil
	})
	if err != nil {
		return err
	}
	return put()
}

// moveKnownTrials fills the table known in a file of a version that had the ranges in the
// summaries.
func moveKnownTrials(w *writer) error {
	var older []*sweepSummary
	err := w.each("SELECT number, id, summary FROM sweep WHERE id IS NOT NULL", func(v []driver.Value) error {
		s, err := decodeSummary(v)
		if err != nil {
			return err
		}
		var ranges struct {
			Known [][2]int64 `json:"known"`
		}
		if err := json.Unmarshal([]byte(v[2].(string)), &ranges); err != nil {
			return fmt.Errorf("summary of %s: %w: %w", s.ID, errDamaged, err)
		}
		for _, r := range ranges.Known {
			s.known.Add(r[0], r[1])
		}
		older = append(older, s)
		return nil
	})
	if err != nil {
		return err
	}
	for _, s := range older {
		var chunks []int64
		for r := range s.known.All() {
			for chunk := r.Lo >> bitmapBits; chunk <= (r.Hi-1)>>bitmapBits; chunk++ {
				chunks = append(chunks, chunk)
			}
		}
		if err := w.storeKnown(s, chunks); err != nil {
			return err
		}
		if err := w.storeSummary(s); err != nil {
			return err
		}
	}
	return nil
}
