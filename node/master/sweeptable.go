package master

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/history"
)

// sweepTable holds the newest record of each sweep and how far history has been folded, and
// signals changes of both.
type sweepTable struct {
	records *jetstream.Records

	mu       sync.Mutex
	sweeps   map[grid.SweepID]jetstream.Record
	reopens  map[grid.SweepID]int // retries that are still reopening trials
	applied  uint64
	changed  chan struct{} // closed and replaced when applied or sweeps change
	released func()        // called when a sweep that was held open may be finished
}

// load loads all records, and returns the newest revision of them.
func (t *sweepTable) load(ctx context.Context) (revision uint64, err error) {
	records, err := t.records.All(ctx)
	if err != nil {
		return 0, fmt.Errorf("load sweep records: %w", err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range records {
		t.sweeps[r.Sweep.ID] = r
		revision = max(revision, r.Rev)
	}
	return revision, nil
}

// signalChange wakes those who wait for a change.
func (t *sweepTable) signalChange() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.signalChangeLocked()
}

// setApplied records how far history has been folded.
func (t *sweepTable) setApplied(seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.applied = seq
	t.signalChangeLocked()
}

// storeRecord keeps the newest revision of each record.
func (t *sweepTable) storeRecord(c jetstream.Change) {
	if old, ok := t.Sweep(c.ID); ok && c.Record.Sweep != nil && c.Record.Sweep != old.Sweep {
		c.Record.Sweep.Space = space.Reuse(c.Record.Sweep.Space, old.Sweep.Space) // nobody else has the new record yet
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case c.Synced:
		return
	case c.Deleted:
		delete(t.sweeps, c.ID)
	case c.Record.Rev > t.sweeps[c.ID].Rev:
		t.sweeps[c.ID] = c.Record
	}
	t.signalChangeLocked()
}

func (t *sweepTable) signalChangeLocked() {
	close(t.changed)
	t.changed = make(chan struct{})
}

// Changed returns a channel that is closed when a record or the state of a trial changes.
func (t *sweepTable) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// Sweeps returns the record of every sweep, in no order.
func (t *sweepTable) Sweeps() []jetstream.Record {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.AppendSeq(make([]jetstream.Record, 0, len(t.sweeps)), maps.Values(t.sweeps))
}

// Sweep returns one record.
func (t *sweepTable) Sweep(id grid.SweepID) (jetstream.Record, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.sweeps[id]
	return r, ok
}

// Applied returns the sequence of the last event that history holds.
func (t *sweepTable) Applied() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.applied
}

// waitApplied blocks until history holds the event with this sequence.
func (t *sweepTable) waitApplied(ctx context.Context, seq uint64) error {
	for {
		t.mu.Lock()
		applied, moved := t.applied, t.changed
		t.mu.Unlock()
		if applied >= seq {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (t *sweepTable) policy(id grid.SweepID) (history.Policy, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.sweeps[id]
	if !ok {
		return history.Policy{}, false
	}
	p := history.Policy{Retries: r.Sweep.Task.Policy(), Count: r.Sweep.Space.Count()}
	if o := r.Sweep.Task.Objective; o != nil {
		p.Metric, p.Goal = o.Metric, o.Goal
	}
	if s := r.Sweep.Task.Stop; s != nil {
		p.Stop = s.Metric
	}
	return p, true
}

// hasLong reports whether there is a record of a long sweep.
func (t *sweepTable) hasLong() bool {
	return slices.ContainsFunc(t.Sweeps(), func(r jetstream.Record) bool { return r.Sweep.Long })
}

// holdOpen keeps the sweep from being finished until free is called, because trials of it are still
// to be reopened.
func (t *sweepTable) holdOpen(id grid.SweepID) (free func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reopens[id]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.reopens[id]--; t.reopens[id] == 0 {
			delete(t.reopens, id)
			t.released() // the scheduler may have found it complete in the meantime
		}
	}
}

func (t *sweepTable) isHeldOpen(id grid.SweepID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reopens[id] > 0
}

// editSweep updates a record by compare-and-swap: edit sees a fresh copy on each try until no other
// writer was in between. When it returns, the new record is on disk.
func (t *sweepTable) editSweep(
	ctx context.Context, id grid.SweepID, edit func(*grid.Sweep) error,
) (jetstream.Record, error) {
	return t.editRecord(ctx, id, func(r *jetstream.Record) (bool, error) {
		before := *r.Sweep
		err := edit(r.Sweep)
		a, b := &before, r.Sweep // everything that an edit can change without an error
		same := a.State == b.State && a.Pinned == b.Pinned && a.Halt == b.Halt && a.Priority == b.Priority &&
			a.Reopened == b.Reopened && a.Removing == b.Removing && len(a.Updates) == len(b.Updates) &&
			a.Space.Count() == b.Space.Count()
		return !same, err
	})
}

// editRecord is editSweep for the whole record; edit reports whether it has changed anything.
func (t *sweepTable) editRecord(
	ctx context.Context, id grid.SweepID, edit func(*jetstream.Record) (bool, error),
) (jetstream.Record, error) {
	for {
		r, err := t.records.Load(ctx, id)
		if errors.Is(err, jetstream.ErrNotFound) {
			return r, notFound(id)
		}
		if err != nil {
			return r, fmt.Errorf("load sweep %s: %w", id, err)
		}
		if r.Sweep.Removing {
			return r, conflict(fmt.Sprintf("%s is being removed", id), "")
		}
		if changed, err := edit(&r); err != nil || !changed || isDryRun(ctx) {
			return r, err
		}
		r.Rev, err = t.records.Update(ctx, &r)
		if errors.Is(err, jetstream.ErrConflict) {
			continue
		}
		if err != nil {
			return r, fmt.Errorf("store sweep %s: %w", id, err)
		}
		t.storeRecord(jetstream.Change{ID: id, Record: r})
		return r, nil
	}
}
