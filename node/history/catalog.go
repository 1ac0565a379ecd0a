package history

import (
	"context"
	"slices"
	"sync"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
)

// catalog is what is kept in memory of all sweeps and nodes. Readers use it while a fold prepares
// the next state.
type catalog struct {
	mu      sync.Mutex
	applied uint64
	sweeps  map[grid.SweepID]*sweepSummary
	nodes   []grid.NodeID // by number, from 1
	numbers map[grid.NodeID]int64
	warned  map[grid.SweepID]bool // sweeps for which events of unknown trials were logged
	origin  Origin
}

// Applied returns the sequence of the last event batch that has been folded.
func (c *catalog) Applied() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.applied
}

// Counts returns the counts of one sweep; they are zero for one that history does not know.
func (c *catalog) Counts(_ context.Context, id grid.SweepID) (Counts, error) {
	if s := c.sweep(id); s != nil {
		return s.Counts, nil
	}
	return Counts{}, nil
}

// MetricNames returns the metrics of a sweep in the order in which they first appeared.
func (c *catalog) MetricNames(_ context.Context, id grid.SweepID) ([]string, error) {
	if s := c.sweep(id); s != nil {
		return slices.Clone(s.Names), nil
	}
	return nil, nil
}

// sweep returns the summary of a sweep, nil when it is not known. It is never changed.
func (c *catalog) sweep(id grid.SweepID) *sweepSummary {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sweeps[id]
}

// node returns the node with a number, "" for none.
func (c *catalog) node(number int64) grid.NodeID {
	c.mu.Lock()
	defer c.mu.Unlock()
	if number < 1 || number > int64(len(c.nodes)) {
		return ""
	}
	return c.nodes[number-1]
}

// isFirstStranger reports whether this is the first event, in this life of the program, about a
// trial that a sweep does not have: one line of log is enough for each sweep.
func (c *catalog) isFirstStranger(id grid.SweepID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.warned[id] || len(c.warned) >= maxWarned {
		return false
	}
	if c.warned == nil {
		c.warned = map[grid.SweepID]bool{}
	}
	c.warned[id] = true
	return true
}

// maxWarned bounds the sweeps that are remembered for isFirstStranger.
const maxWarned = 10_000

// Origin returns what SetOrigin has stored since the last Reset.
func (c *catalog) Origin() Origin {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.origin
}

// Version returns how often what is known of a sweep has changed; 0 for a sweep without events.
func (c *catalog) Version(id grid.SweepID) int64 {
	if s := c.sweep(id); s != nil {
		return s.Version
	}
	return 0
}

// Known returns the indexes of the trials that have rows, without reading any. The set must not be
// changed.
func (c *catalog) Known(id grid.SweepID) *ranges.Set {
	if s := c.sweep(id); s != nil {
		return &s.known
	}
	return &ranges.Set{}
}
