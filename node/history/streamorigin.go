package history

import (
	"context"
	"database/sql/driver"
	"fmt"
)

// streamColumns record of which stream a history is, and what was left out of it.
const streamColumns = `
ALTER TABLE meta ADD COLUMN stream TEXT NOT NULL DEFAULT '';
ALTER TABLE meta ADD COLUMN unread INTEGER NOT NULL DEFAULT 0;
`

// Origin is what a history was folded from.
type Origin struct {
	// Stream identifies the event stream whose sequences Applied counts; empty where it was not
	// recorded.
	Stream string
	// Unread is the version of records that the program read which left out events of sweeps whose
	// records it could not read; 0 for a complete history. A program that reads newer records can
	// complete it by a fold from the start.
	Unread int
}

// SetOrigin stores what the history is folded from.
func (d *DB) SetOrigin(ctx context.Context, o Origin) error {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if o == d.Origin() {
		return nil
	}
	err := d.w.transaction(func() error {
		return d.w.each("UPDATE meta SET stream = ?, unread = ?", func([]driver.Value) error { return nil }, o.Stream,
			int64(o.Unread))
	})
	if err != nil {
		return fmt.Errorf("store stream origin: %w", d.markDamage(err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.origin = o
	return nil
}

func (w *writer) origin() (o Origin, err error) {
	err = w.each("SELECT stream, unread FROM meta", func(v []driver.Value) error {
		stream, ok := v[0].(string)
		unread, ok2 := v[1].(int64)
		if !ok || !ok2 {
			return errDamaged
		}
		o = Origin{stream, int(unread)}
		return nil
	})
	return o, err
}
