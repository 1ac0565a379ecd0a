package master

import (
	"context"
	"fmt"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/jetstream"
)

// maxCancelling bounds the trials of a sweep that are being cancelled one by one.
const maxCancelling = 1000

// CancelTrial cancels one trial: it is stopped if it runs, and does not run again unless it is
// retried. Its node stops it when it sees the changed record. A trial that has ended, and one of a
// sweep that has, is refused.
func (a *sweepActions) CancelTrial(ctx context.Context, id grid.TrialID) (jetstream.Record, error) {
	t, _, err := a.history.Trial(ctx, id)
	if err != nil {
		return jetstream.Record{}, fmt.Errorf("load trial %s: %w", id, err)
	}
	if t.State.Terminal() {
		return jetstream.Record{}, conflict(fmt.Sprintf("%s has ended already: %s", id, t.State), "")
	}
	changed, err := a.table.editRecord(ctx, id.Sweep, func(r *jetstream.Record) (bool, error) {
		s := r.Sweep
		switch {
		case s.State != grid.SweepRunning && s.State != grid.SweepPaused:
			return false, conflict(fmt.Sprintf("%s is %s already", id.Sweep, s.State), "")
		case slices.Contains(s.Cancelling, id.Index):
			return false, nil
		case len(s.Cancelling) >= maxCancelling:
			return false, conflict(fmt.Sprintf("%d trials of %s are being cancelled", len(s.Cancelling), id.Sweep),
				"wait until they have ended, or: mlfnode cancel "+string(id.Sweep))
		}
		s.Cancelling = append(slices.Clip(s.Cancelling), id.Index)
		return true, nil
	})
	if err != nil || isDryRun(ctx) || changed.Sweep.State != grid.SweepPaused || t.State == grid.Running {
		return changed, err
	}
	atRest, err := ask(ctx, a.inbox, func(s *scheduler) bool { return s.feeds[id.Sweep] == nil })
	if err != nil || !atRest {
		return changed, err
	}
	events := []grid.Event{withdrawnEvent(id.Index, time.Now())}
	if _, err := a.events.Publish(ctx, &grid.Batch{V: grid.EventVersion, Sweep: id.Sweep, Events: events}); err != nil {
		return changed, fmt.Errorf("cancel trial %s: %w", id, err)
	}
	return changed, nil
}

// withdrawnEvent returns the event that ends a trial of which nothing runs.
func withdrawnEvent(index int64, now time.Time) grid.Event {
	at := now.UnixMicro()
	return grid.Event{Kind: grid.Withdrawn, Index: index, Time: at,
		Result: &grid.Result{Class: grid.ClassCancel, ExitCode: grid.NoExit, Reason: "cancelled", Started: at}}
}

// uncancelReopened removes trials that are about to run again from the list of those that are being
// cancelled.
func (a *sweepActions) uncancelReopened(ctx context.Context, id grid.SweepID, trials *ranges.Set) error {
	if r, ok := a.table.Sweep(id); !ok || len(r.Sweep.Cancelling) == 0 {
		return nil
	}
	return a.uncancel(ctx, id, trials.Has)
}

// uncancel removes trials from the list of those that are being cancelled.
func (a *sweepActions) uncancel(ctx context.Context, id grid.SweepID, which func(int64) bool) error {
	_, err := a.table.editRecord(ctx, id, func(r *jetstream.Record) (bool, error) {
		before := len(r.Sweep.Cancelling)
		r.Sweep.Cancelling = slices.DeleteFunc(slices.Clone(r.Sweep.Cancelling), which)
		return len(r.Sweep.Cancelling) != before, nil
	})
	if err != nil {
		return fmt.Errorf("update the cancelled trials of %s: %w", id, err)
	}
	return nil
}
