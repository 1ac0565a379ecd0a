package history

import "encoding/binary"

// smallColumns holds the columns whose values are small; columnSmall stands for all of them.
type smallColumns struct {
	State    []uint8 // a place in grid.States, from 1; 0 for a trial without a row
	Attempts []uint8 // at most 255
	Class    []uint8 // a place in Columns.Classes, from 1; 0 for none
	Cause    []uint8 // the ID of one of Columns.Causes, OtherCause, or 0
	Node     []uint16
}

func newSmallColumns(rows int) smallColumns {
	return smallColumns{
		State: make([]uint8, rows), Attempts: make([]uint8, rows), Class: make([]uint8, rows),
		Cause: make([]uint8, rows), Node: make([]uint16, rows),
	}
}

// setBlock sets the values of the block at a place from a smallBlock.
func (c *smallColumns) setBlock(at int, data []byte) {
	from := at * blockTrials
	copy(c.State[from:], data[:blockTrials])
	copy(c.Attempts[from:], data[blockTrials:2*blockTrials])
	copy(c.Class[from:], data[2*blockTrials:3*blockTrials])
	copy(c.Cause[from:], data[3*blockTrials:4*blockTrials])
	for i := range blockTrials {
		c.Node[from+i] = binary.LittleEndian.Uint16(data[4*blockTrials+2*i:])
	}
}

// copyBlock copies the values of a block from other columns, where it has another place.
func (c *smallColumns) copyBlock(at int, other *smallColumns, place int) {
	to, from := at*blockTrials, place*blockTrials
	copy(c.State[to:], other.State[from:from+blockTrials])
	copy(c.Attempts[to:], other.Attempts[from:from+blockTrials])
	copy(c.Class[to:], other.Class[from:from+blockTrials])
	copy(c.Cause[to:], other.Cause[from:from+blockTrials])
	copy(c.Node[to:], other.Node[from:from+blockTrials])
}
