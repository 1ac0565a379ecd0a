package history

import (
	"context"
	"errors"
	"fmt"

	"mlfnode/grid"
)

// removeRows and removePages bound one transaction of Remove, so that folding continues in between.
const (
	removeRows  = 10_000
	removePages = 2_000
)

// Remove removes a sweep. It is invisible immediately; its rows are deleted in small transactions.
// The next Remove deletes what a crash leaves.
func (d *DB) Remove(ctx context.Context, id grid.SweepID) error {
	if err := d.hideSweep(id); err != nil {
		return fmt.Errorf("remove sweep %s: %w", id, d.markDamage(err))
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		more, err := d.removeBatch()
		if err != nil {
			return fmt.Errorf("remove sweep %s: %w", id, d.markDamage(err))
		}
		if !more {
			return nil
		}
	}
}

// hideSweep removes the sweep's name. The row stays, so that its number is not given to another
// sweep.
func (d *DB) hideSweep(id grid.SweepID) error {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	s := d.sweep(id)
	if s == nil {
		return nil
	}
	err := d.w.transaction(func() error {
		lo, hi := rowID(s.Number, 0)>>blockBits, rowID(s.Number, maxIndex)>>blockBits
		return d.w.script(fmt.Sprintf("UPDATE sweep SET id = NULL, summary = '' WHERE number = %d;"+
			"DELETE FROM stale WHERE block BETWEEN %d AND %d; DELETE FROM cause WHERE id >> 8 = %d", s.Number, lo, hi,
			s.Number))
	})
	if err != nil {
		d.stale = true
		return err
	}
	d.orders.clear() // another sweep may get the number
	d.columns.clear()
	d.blocks.changes.forget()
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sweeps, id)
	for _, b := range d.blocks.cached {
		if b.id>>(indexBits-blockBits) == s.Number {
			d.blocks.evict(b)
		}
	}
	return nil
}

// removeBatch deletes a part of what is hidden and reports whether there is more to do.
func (d *DB) removeBatch() (more bool, err error) {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	number, err := d.w.integer("SELECT coalesce(min(number), 0) FROM sweep WHERE id IS NULL")
	if err != nil {
		return false, err
	}
	if number == 0 {
		return d.vacuum()
	}
	lo, hi := rowID(number, 0), rowID(number, maxIndex)
	err = d.w.transaction(func() error {
		for _, table := range []struct {
			name, key string
			bits      int
		}{{"trial", "id", 0}, {"attempt", "trial", 0}, {"curve", "trial", 0}, {"overlay", "first", 0}, {"block", "id",
			blockBits}, {"known", "id", bitmapBits}} {
			n, err := d.w.remove(table.name, table.key, lo>>table.bits, hi>>table.bits)
			if err != nil || n > 0 {
				return err
			}
		}
		for c := range int64(floatColumns) + 1 {
			n, err := d.w.remove("piece", "id", c<<chunkIDBits|lo>>blockBits, c<<chunkIDBits|hi>>blockBits)
			if err != nil || n > 0 {
				return err
			}
		}
		return d.w.script(fmt.Sprintf("DELETE FROM sweep WHERE number = %d", number))
	})
	return true, err
}

// remove deletes up to removeRows rows and returns whether there were any, as a number.
func (w *writer) remove(table, key string, lo, hi int64) (int64, error) {
	last, err := w.integer(fmt.Sprintf(
		"SELECT coalesce(max(%s), -1) FROM (SELECT %s FROM %s WHERE %s BETWEEN %d AND %d ORDER BY %s LIMIT %d)",
		key, key, table, key, lo, hi, key, removeRows))
	if err != nil || last < 0 {
		return 0, err
	}
	return 1, w.script(fmt.Sprintf("DELETE FROM %s WHERE %s BETWEEN %d AND %d", table, key, lo, last))
}

// vacuum returns free pages to the file system.
func (d *DB) vacuum() (more bool, err error) {
	free, err := d.w.integer("PRAGMA freelist_count")
	if err != nil || free == 0 {
		return false, err
	}
	if err := d.w.script(fmt.Sprintf("PRAGMA incremental_vacuum(%d)", removePages)); err != nil {
		return false, err
	}
	left, err := d.w.integer("PRAGMA freelist_count")
	if err == nil && left >= free {
		return false, nil
	}
	return left > 0, errors.Join(err)
}
