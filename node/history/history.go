// Package history is the searchable index of what ran: an SQLite database folded from the event
// stream, together with the last sequence applied, in one transaction. It can be discarded and
// rebuilt from the stream at any time.
package history

import (
	"database/sql"
	"errors"
	"log/slog"
	"sync"

	"mlfnode/grid"
)

// DB is the history of one cluster. One goroutine at a time folds; any number may read at the same
// time. The handle that Open returns is for the master; what people ask for is read through the
// handle of Listings, so that the master never waits for it.
type DB struct {
	reader
}

// reader reads over connections of its own.
type reader struct {
	*index
	read      *sql.DB
	sortLimit chan struct{} // held by a query that sorts all of a sweep; nil on the master's handle
}

// index is what all handles of one history share.
type index struct {
	path string
	log  *slog.Logger

	listings  *sql.DB       // connections for listings
	sortSlots chan struct{} // bounds the listings that sort at one time
	orders    orderCache
	columns   columnCache

	writeMu sync.Mutex // held by what changes the file
	w       *writer
	stale   bool // what is kept in memory for writing must be loaded again
	blocks  blockCache

	minColumnRows int64 // see the constant; tests set it

	maxCurveBytes int64 // see the constant; tests set it

	catalog
}

// Listings returns a handle to read for people: over connections of its own, with few sorts at one
// time, each of them bounded in time.
func (d *DB) Listings() *DB {
	return &DB{reader{index: d.index, read: d.listings, sortLimit: d.sortSlots}}
}

// Close closes the files. It is called on the handle that Open returned.
func (d *DB) Close() error {
	d.writeMu.Lock()
	defer d.writeMu.Unlock()
	d.orders.clear()
	d.columns.clear()
	if !d.stale { // else what is in memory is wrong, and is rebuilt from the rows at the next start
		_ = d.w.transaction(func() error { return d.blocks.flush(0) })
	}
	return errors.Join(d.read.Close(), d.listings.Close(), d.w.close())
}

// Policy is what the fold needs to know of a sweep.
type Policy struct {
	Count   int64 // how many trials the sweep has: events about others are skipped; 0 if not known
	Retries grid.Retries
	Metric  string // the objective's metric, empty for none
	Goal    string // maximize or minimize
	Stop    string // the metric whose curves decide which trials are stopped early, empty for none
}

// Stored is a batch of events with its sequence in the stream.
type Stored struct {
	Seq   uint64
	Batch *grid.Batch
}

// Transition is a change of a trial that matters for what is left to do.
type Transition struct {
	Sweep          grid.SweepID
	Index          int64
	End            int64       // with Reopen: the transition is that of all trials from Index up to End
	Change         grid.Change // Began, Done, Retry, Reopen or Reconnect
	State          grid.State
	Attempts       int
	Node           grid.NodeID        // this and what follows are not set with Reopen
	Class          grid.Class         // of the attempt behind the state
	Started, Ended int64              // microseconds since 1970
	Failures       map[grid.Class]int // of the trial so far, with Retry
	Snapshot       int                // the snapshot that was stored of what that attempt saved; 0 for none
	Curve          grid.Curve         // with Done, of Policy.Stop
	Measured       *grid.Result       // with Done and Retry, of an attempt whose use of a GPU was measured
}
