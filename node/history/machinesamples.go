package history

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"

	"mlfnode/grid"
)

// What machines were doing is not an event. History keeps it only so that a restart of the master
// does not lose it, in the form that the master gives it.

// How busy machines were is not an event. History keeps it only so that a restart of the master
// does not lose it, as the bytes that the master provides.
const sampleTable = `
CREATE TABLE sample (node TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID;
`

// StoreSamples stores how busy the machines of nodes were, replacing what was stored before, and
// forgets other nodes. nodes are sorted. pack returns the samples of one node, nil for none. Nodes
// are written one at a time, so that a fold waits for one of them at most.
func (d *DB) StoreSamples(ctx context.Context, nodes []grid.NodeID, pack func(grid.NodeID) ([]byte, error)) error {
	for _, node := range nodes {
		data, err := pack(node)
		if err != nil {
			return fmt.Errorf("pack samples of %s: %w", node, err)
		}
		if data == nil {
			continue
		}
		if err := d.inTransaction(ctx, func() error { return d.w.run(putSample, string(node), data) }); err != nil {
			return fmt.Errorf("store samples of %s: %w", node, d.markDamage(err))
		}
	}
	err := d.inTransaction(ctx, func() error {
		var gone []string
		err := d.w.each("SELECT node FROM sample", func(v []driver.Value) error {
			node, _ := v[0].(string)
			if _, wanted := slices.BinarySearch(nodes, grid.NodeID(node)); !wanted {
				gone = append(gone, node)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, node := range gone {
			if err := d.w.run(deleteSample, node); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("delete samples: %w", d.markDamage(err))
	}
	return nil
}

// inTransaction changes the file in a transaction of its own.
func (d *DB) inTransaction(ctx context.Context, change func() error) error {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	return d.w.transaction(change)
}

// Samples returns what StoreSamples has stored.
func (d *DB) Samples() (map[grid.NodeID][]byte, error) {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
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
		return nil, fmt.Errorf("load samples: %w", d.markDamage(err))
	}
	return byNode, nil
}
