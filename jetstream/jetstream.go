// Package jetstream is the embedded NATS server and everything that is kept in it: sweep records, the lease queue, events,
// output, bundles and artifacts.
//
// A Server owns a folder and, in it, JetStream. A Store is the master's client of it: it makes the streams and gives each kind of
// content its own small type. Nodes do not touch the store. They call the master, who checks what they ask: over a Link, or, in the
// master's own process, through a Local. Calls has what both come to.
//
// What is acknowledged is on disk. The server runs with SyncAlways, so a publish to any stream returns after the flush; the
// lease queue alone opts out, because the reconciler makes a lost lease good. A flush costs about a millisecond, so callers
// batch; nothing here trades the flush for speed. PersistMode async is no option for output either: nats-server then keeps
// acknowledged messages in process memory until a flush loop gets to them, so a kill of the process loses them.
//
// A write error (a full disk, mostly) closes a stream of nats-server for good. The Server notices, fails what waits with
// ErrDisk at once, and opens JetStream again as soon as the folder can be written.
package jetstream

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/dustin/go-humanize"

	"mlfnode/grid"
)

// Config says where and how a Server keeps its folder.
type Config struct {
	Dir    string // made with mode 0700 when missing; held by one Server at a time
	Node   grid.NodeID
	Logger *slog.Logger
	Limits Limits  // zero fields get their default
	Listen *Listen // for the other nodes of a cluster; nil keeps everything in this process

	// Unsynced leaves it to the caller to bring the folder onto the disk, after Close: of a restore all counts, or nothing.
	Unsynced bool
}

// Limits bound what is kept, in bytes.
type Limits struct {
	LogBytes      int64 // output; when it is full the oldest goes
	EventBytes    int64 // events; when they are full nothing more is accepted
	ArtifactBytes int64 // when full nothing more is accepted
	BundleBytes   int64 // when full nothing more is accepted
}

// DefaultLimits fit a workstation: about as much as the package caches of a developer's machine.
func DefaultLimits() Limits {
	return Limits{LogBytes: 10 << 30, EventBytes: 20 << 30, ArtifactBytes: 50 << 30, BundleBytes: 10 << 30}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	orDefault := func(v, def int64) int64 {
		if v > 0 {
			return v
		}
		return def
	}
	return Limits{
		LogBytes: orDefault(l.LogBytes, d.LogBytes), EventBytes: orDefault(l.EventBytes, d.EventBytes),
		ArtifactBytes: orDefault(l.ArtifactBytes, d.ArtifactBytes), BundleBytes: orDefault(l.BundleBytes, d.BundleBytes),
	}
}

// Errors that callers branch on.
var (
	// ErrInUse is returned by Start when a living process holds the folder.
	ErrInUse = errors.New("the store's folder is in use by another process; stop that one first")
	// ErrNotFound is returned for a record or object that does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExists is returned by Records.Create when the sweep has a record already.
	ErrExists = errors.New("there is a sweep of this name already")
	// ErrConflict is returned by Records.Update when somebody else changed the record in between.
	ErrConflict = errors.New("the sweep was changed by somebody else in between; try again")
	// ErrFull is returned when a limit of Limits is reached. The error's text says which one and what to do.
	ErrFull = errors.New("the store is full")
	// ErrDisk is returned while the folder can't be written, for example because the disk is full.
	ErrDisk = errors.New("the disk that holds the store can't be written")
	// ErrTooLarge is returned for content that does not fit one message.
	ErrTooLarge = errors.New("too large for the store")
	// ErrName is returned for a name that is too long for anything that is stored.
	ErrName = errors.New("the name is too long")
	// ErrClosed is returned by operations of a closed Store or Server.
	ErrClosed = errors.New("the store is closed")
)

// fullError tells which limit was reached and what to do about it.
type fullError struct {
	what, setting string
	limit         int64
}

func (e *fullError) Error() string {
	return fmt.Sprintf("the store for %s is full (%s). Remove sweeps with `mlfnode remove SWEEP` or `mlfnode remove --older 30d`, or raise retention.%s in node.yaml",
		e.what, humanize.IBytes(uint64(e.limit)), e.setting)
}

func (e *fullError) Is(target error) bool { return target == ErrFull }

// diskError carries the system's reason.
type diskError struct{ reason string }

func (e *diskError) Error() string {
	return fmt.Sprintf("%v (%s). Make room or fix the disk; the store goes on by itself then", ErrDisk, e.reason)
}

func (e *diskError) Is(target error) bool { return target == ErrDisk }
