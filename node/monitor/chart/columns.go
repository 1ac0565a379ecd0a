package chart

import (
	"slices"

	"mlfnode/grid"
)

// BlockTrials is the number of consecutive trials in a block of Columns.
const BlockTrials = 512

// Columns holds what is known of each trial. Each column has BlockTrials entries for each block.
type Columns struct {
	Blocks []int64 // the first index of each block, ascending

	State   []uint8 // an index in grid.States, from 1; 0 for a trial of which nothing is known
	Class   []uint8 // an index in Data.Classes, from 1; 0 for none
	Cause   []uint8 // the ID of one of Data.Causes, or 0
	Node    []uint16
	Started []float32 // seconds since Data.Base; NaN for none
	Ended   []float32 // seconds since Data.Base; NaN while the trial has not ended
	Wall    []float32 // seconds, as reported by the node; NaN while the trial has not ended
	Value   []float32 // that the charts show; NaN for none
	Metrics map[string][]float32
}

func (c *Columns) index(row int32) int64 {
	return c.Blocks[row/BlockTrials] + int64(row%BlockTrials)
}

// row finds the row of a trial; false if the columns do not include it.
func (c *Columns) row(index int64) (int32, bool) {
	at, ok := slices.BinarySearch(c.Blocks, index&^(BlockTrials-1))
	row := int32(at*BlockTrials) + int32(index&(BlockTrials-1))
	return row, ok && c.State[row] != 0
}

// The codes of states in Columns.State.
var (
	running   = code(grid.Running)
	succeeded = code(grid.Succeeded)
	failed    = code(grid.Failed)
	cancelled = code(grid.Cancelled)
)

func code(s grid.State) uint8 { return uint8(slices.Index(grid.States[:], s) + 1) }

func ended(state uint8) bool { return state > running }
