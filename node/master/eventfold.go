package master

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/history"
	"mlfnode/node/poll"
)

// eventFold folds the event stream into history, and records in the table of sweeps how far it has
// come.
type eventFold struct {
	store     *jetstream.Store
	history   *history.DB
	sweeps    *sweepTable
	snapshots *trialSnapshots
	problems  *problems
	log       *slog.Logger
}

// catchUp folds the stored events before anything else happens. The records must be loaded.
func (e *eventFold) catchUp(ctx context.Context) error {
	first, last, err := e.store.Events.Bounds(ctx)
	if err != nil {
		return fmt.Errorf("read the bounds of the event stream: %w", err)
	}
	if err := e.checkHistory(ctx, first, last, grid.RecordVersion); err != nil {
		return err
	}
	applied := e.history.Applied()
	e.sweeps.setApplied(applied)
	if applied >= last {
		return nil
	}
	err = e.run(ctx, func(f folded) error {
		if f.last >= last {
			return errCaughtUp
		}
		return nil
	})
	if !errors.Is(err, errCaughtUp) {
		return fmt.Errorf("catch up with the event stream: %w", err)
	}
	return nil
}

// checkHistory resets a history that was not folded from this event stream, whose first and last
// sequence are given. It also resets one that lacks the events of sweeps whose records an earlier
// version of mlfnode could not read; this version reads records up to version. The earliest
// versions recorded neither that they left something out nor which stream they folded, and they
// could not read long records.
func (e *eventFold) checkHistory(ctx context.Context, first, last uint64, version int) error {
	db, life := e.history, e.store.Events.Epoch()
	at, origin := db.Applied(), db.Origin()
	another := at > last || (origin.Stream != "" && origin.Stream != life)
	newer := origin.Unread > 0 && origin.Unread < version
	skipped := origin.Stream == "" && at > 0 && e.sweeps.hasLong()
	if another || newer || skipped || (first > 1 && at == 0) {
		e.log.Warn("history does not match the event stream and is rebuilt",
			"applied", at, "first", first, "last", last, "another", another)
	}
	if another || newer || skipped {
		if err := db.Reset(ctx); err != nil {
			return fmt.Errorf("rebuild history: %w", err)
		}
		origin.Unread = 0
	}
	origin.Stream = life
	if e.store.Records.Unreadable() && (origin.Unread == 0 || origin.Unread > version) {
		origin.Unread = version
	}
	return db.SetOrigin(ctx, origin)
}

// errCaughtUp ends the reading in catchUp.
var errCaughtUp = errors.New("caught up")

// run folds events from where history stands and passes on what changed, until ctx ends or fn
// returns an error.
func (e *eventFold) run(ctx context.Context, fn func(folded) error) error {
	return e.store.Events.Read(ctx, e.history.Applied()+1, func(stored []jetstream.StoredBatch) error {
		batches := make([]history.Stored, len(stored))
		for i, s := range stored {
			batches[i] = history.Stored{Seq: s.Seq, Batch: s.Batch}
		}
		e.snapshots.rejectUnreadable(stored)
		changed, err := e.foldWithRetry(ctx, batches)
		if err != nil {
			return err
		}
		e.sweeps.setApplied(stored[len(stored)-1].Seq)
		f := folded{last: stored[len(stored)-1].Seq, changed: changed, images: imagesUsed(stored)}
		for _, s := range stored {
			for i := range s.Batch.Events {
				if event := &s.Batch.Events[i]; event.Kind == grid.Released {
					f.released = append(f.released, releasedLease{s.Batch.Sweep, event.LeaseID, s.Batch.Node})
				}
			}
		}
		return fn(f)
	})
}

// foldRetry is the time before events for which there was no room are folded again.
const foldRetry = 500 * time.Millisecond

// foldWithRetry folds batches, and retries while the disk is full: the events are safe in the
// stream, so a full disk must not end the node.
func (e *eventFold) foldWithRetry(ctx context.Context, batches []history.Stored) ([]history.Transition, error) {
	for {
		changed, err := e.history.Fold(ctx, batches, e.sweeps.policy)
		if !history.IsFull(err) {
			e.problems.setProblem(folding, "")
			return changed, err
		}
		if e.problems.setProblem(folding, err.Error()) {
			e.log.Warn("events can't be folded now; trying again", "err", err)
		}
		if !poll.Sleep(ctx, foldRetry) {
			return nil, context.Cause(ctx)
		}
	}
}

// folded is what one fold changed.
type folded struct {
	last     uint64 // sequence of the last event
	changed  []history.Transition
	released []releasedLease
	images   map[grid.SweepID]string // see imagesUsed
}

// releasedLease is a lease that its node has closed.
type releasedLease struct {
	sweep grid.SweepID
	lease grid.LeaseID
	node  grid.NodeID
}
