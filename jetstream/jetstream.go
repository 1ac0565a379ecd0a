// Package jetstream is everything that is kept in NATS: sweep records, the lease queue, events,
// output, bundles and artifacts.
//
// A Server, which natsd runs, owns a folder and JetStream in it. A Store is the master's client of
// the Server: it creates the streams and gives each kind of content its own type. Nodes do not
// touch the store. They call the master, which checks what they ask for: over a network connection,
// or directly in the master's own process. In both cases the node has a MasterClient, and Calls
// answers.
//
// What is acknowledged is on disk. The server runs with SyncAlways, so a publish to any stream
// returns after the flush; the lease queue alone opts out, because the reconciler makes up for a
// lost lease. A flush costs about a millisecond, so callers batch; nothing here trades the flush
// for speed. PersistMode async is not an option for output either: nats-server then keeps
// acknowledged messages in process memory until a flush loop gets to them, so a kill of the process
// loses them.
//
// While the disk can't be written, everything that waits for the server fails with ErrDisk
// immediately.
package jetstream

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"

	"mlfnode/jetstream/natsd"
)

// Limits bound what is kept, in bytes.
type Limits struct {
	LogBytes      int64 // of output; when it is reached, the oldest output is removed
	EventBytes    int64 // of events; when it is reached, nothing more is accepted
	ArtifactBytes int64 // when it is reached, nothing more is accepted
	BundleBytes   int64 // when it is reached, nothing more is accepted
}

// DefaultLimits returns limits that fit a workstation: about as much as the package caches of a
// developer's machine.
func DefaultLimits() Limits {
	return Limits{LogBytes: 10 << 30, EventBytes: 20 << 30, ArtifactBytes: 50 << 30, BundleBytes: 10 << 30}
}

func (l Limits) withDefaults() Limits {
	d := DefaultLimits()
	return Limits{
		LogBytes:      cmp.Or(max(l.LogBytes, 0), d.LogBytes),
		EventBytes:    cmp.Or(max(l.EventBytes, 0), d.EventBytes),
		ArtifactBytes: cmp.Or(max(l.ArtifactBytes, 0), d.ArtifactBytes),
		BundleBytes:   cmp.Or(max(l.BundleBytes, 0), d.BundleBytes),
	}
}

// Errors that callers branch on.
var (
	// ErrNotFound is returned for a record or object that does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExists is returned by Records.Create if the sweep already has a record.
	ErrExists = errors.New("a sweep with this name already exists")
	// ErrConflict is returned by Records.Update if the record has changed in the meantime.
	ErrConflict = errors.New("the sweep was changed in the meantime; try again")
	// ErrFull is returned when a limit of Limits is reached. The error's text says which one and
	// what to do.
	ErrFull = errors.New("the store is full")
	// ErrDisk is returned while the folder can't be written, for example because the disk is full.
	ErrDisk = natsd.ErrDisk
	// ErrTooLarge is returned for content that does not fit one message.
	ErrTooLarge = errors.New("too large for the store")
	// ErrName is returned for a name that is too long to be stored.
	ErrName = errors.New("the name is too long")
	// ErrClosed is returned by operations of a closed Store or Server.
	ErrClosed = natsd.ErrClosed
)

// fullError says which limit was reached and what to do about it.
type fullError struct {
	what, setting string
	limit         int64
}

func (e *fullError) Error() string {
	return fmt.Sprintf("the store for %s is full (%s). Remove sweeps with `mlfnode remove SWEEP` or "+
		"`mlfnode remove --older 30d`, or raise retention.%s in node.yaml",
		e.what, humanize.IBytes(uint64(e.limit)), e.setting)
}

func (e *fullError) Is(target error) bool { return target == ErrFull }
