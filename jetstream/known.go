package jetstream

import (
	"context"
	"errors"
	"fmt"

	"mlfnode/grid"
)

// known reports whether there is a record with this ID. It costs nothing for one that was seen
// before.
func (r *Records) known(ctx context.Context, id grid.SweepID) (bool, error) {
	r.mu.Lock()
	there := r.exist[id]
	r.mu.Unlock()
	if there {
		return true, nil
	}
	removals := r.removals()
	there, err := r.exists(ctx, id)
	if there {
		r.markKnown(id, removals)
	}
	return there, err
}

// markKnown records that there is a record, unless one may have been removed since removals was
// read.
func (r *Records) markKnown(id grid.SweepID, removals int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.removed != removals {
		return
	}
	if r.exist == nil {
		r.exist = map[grid.SweepID]bool{}
	}
	r.exist[id] = true
}

func (r *Records) removals() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.removed
}

// exists reports whether there is a record with this ID, even one that this program can't read.
func (r *Records) exists(ctx context.Context, id grid.SweepID) (bool, error) {
	msg, err := r.lastMessage(ctx, recordSubject(id))
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrName):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("look for sweep %s: %w", id, err)
	}
	return msg.Header.Get(removedHeader) == "", nil
}
