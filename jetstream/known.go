package jetstream

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"mlfnode/grid"
)

// knownSweeps are sweeps that have a record. The zero value is empty.
type knownSweeps struct {
	mu       sync.Mutex
	ids      map[grid.SweepID]bool
	removals int // number of removals
}

// has reports whether a sweep is in the set, and how many sweeps were removed from it so far.
func (k *knownSweeps) has(id grid.SweepID) (known bool, removals int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ids[id], k.removals
}

// add adds a sweep, unless one may have been removed since has has returned removals.
func (k *knownSweeps) add(id grid.SweepID, removals int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.removals != removals {
		return
	}
	if k.ids == nil {
		k.ids = map[grid.SweepID]bool{}
	}
	k.ids[id] = true
}

func (k *knownSweeps) remove(id grid.SweepID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.ids, id)
	k.removals++
}

// known reports whether there is a record with this ID. It costs nothing for one that was seen
// before.
func (r *Records) known(ctx context.Context, id grid.SweepID) (bool, error) {
	there, removals := r.seen.has(id)
	if there {
		return true, nil
	}
	there, err := r.exists(ctx, id)
	if there {
		r.seen.add(id, removals)
	}
	return there, err
}

// exists reports whether there is a record with this ID, even one that this program can't read.
func (r *Records) exists(ctx context.Context, id grid.SweepID) (bool, error) {
	msg, err := r.store.lastMessage(ctx, recordStream, recordSubject(id))
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrName):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for sweep %s: %w", id, err)
	}
	return msg.Header.Get(removedHeader) == "", nil
}
