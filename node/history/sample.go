package history

import (
	"context"
	"database/sql/driver"
	"fmt"

	"mlfnode/grid"
)

// What machines were doing is no event. History keeps it only so that a restart of the master does not lose it, in the form that the
// master gives it.

const sampleTable = `
CREATE TABLE sample (node TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
`

// PutSamples keeps what the machines of nodes were doing, in place of what was kept before.
func (d *DB) PutSamples(ctx context.Context, byNode map[grid.NodeID][]byte) error {
	d.writing.Lock()
	defer d.writing.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	err := d.w.transaction(func() error {
		if err := d.w.script("DELETE FROM sample"); err != nil {
			return err
		}
		for node, data := range byNode {
			if err := d.w.exec(d.w.sample, string(node), data); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep samples: %w", d.check(err))
	}
	return nil
}

// Samples gives what PutSamples has kept.
func (d *DB) Samples() (map[grid.NodeID][]byte, error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	byNode := map[grid.NodeID][]byte{}
	err := d.w.each("SELECT node, data FROM sample", func(v []driver.Value) error {
		node, ok1 := v[0].(string)
		data, ok2 := v[1].([]byte)
		if !ok1 || !ok2 {
			return errDamaged
		}
		byNode[grid.NodeID(node)] = data
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load samples: %w", d.check(err))
	}
	return byNode, nil
}
