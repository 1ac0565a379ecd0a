package master

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/history"
)

// maxCancelling bounds the trials of a sweep that are being cancelled one by one.
const maxCancelling = 1000

// CancelTrial cancels one trial: it is stopped if it runs, and does not run again unless it is
// retried. Its node stops it when it sees the changed record. A trial that has ended, and one of a
// sweep that has, is refused.
func (m *Master) CancelTrial(ctx context.Context, id grid.TrialID) (jetstream.Record, error) {
	t, _, err := m.cfg.History.Trial(ctx, id)
	if err != nil {
		return jetstream.Record{}, fmt.Errorf("load trial %s: %w", id, err)
	}
	if t.State.Terminal() {
		return jetstream.Record{}, conflict(fmt.Sprintf("%s has ended already: %s", id, t.State), "")
	}
	changed, err := m.editRecord(ctx, id.Sweep, func(r *jetstream.Record) (bool, error) {
		s := r.Sweep
		switch {
		case s.State != grid.SweepRunning && s.State != grid.SweepPaused:
			return false, conflict(fmt.Sprintf("%s is %s already", id.Sweep, s.State), "")
		case slices.Contains(s.Cancelling, id.Index):
			return false, nil
		case len(s.Cancelling) >= maxCancelling:
			return false, conflict(fmt.Sprintf("%d trials of %s are being cancelled", len(s.Cancelling), id.Sweep), "wait until they have ended, or: mlfnode cancel "+string(id.Sweep))
		}
		s.Cancelling = append(slices.Clip(s.Cancelling), id.Index)
		return true, nil
	})
	if err != nil || isDryRun(ctx) || changed.Sweep.State != grid.SweepPaused || t.State == grid.Running {
		return changed, err
	}
	atRest := false
	if err := m.call(ctx, func(s *scheduler) { atRest = s.feeds[id.Sweep] == nil }); err != nil || !atRest {
		return changed, err
	}
	_, err = m.cfg.Store.Events.Publish(ctx, &grid.Batch{V: grid.EventVersion, Sweep: id.Sweep, Events: []grid.Event{withdrawnEvent(id.Index, time.Now())}})
	if err != nil {
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
func (m *Master) uncancelReopened(ctx context.Context, id grid.SweepID, events []grid.Event) error {
	if r, ok := m.Sweep(id); !ok || len(r.Sweep.Cancelling) == 0 {
		return nil
	}
	again := make(map[int64]bool, len(events))
	for i := range events {
		again[events[i].Index] = true
	}
	return m.uncancel(ctx, id, func(i int64) bool { return again[i] })
}

// uncancel removes trials from the list of those that are being cancelled.
func (m *Master) uncancel(ctx context.Context, id grid.SweepID, which func(int64) bool) error {
	_, err := m.editRecord(ctx, id, func(r *jetstream.Record) (bool, error) {
		before := len(r.Sweep.Cancelling)
		r.Sweep.Cancelling = slices.DeleteFunc(slices.Clone(r.Sweep.Cancelling), which)
		return len(r.Sweep.Cancelling) != before, nil
	})
	if err != nil {
		return fmt.Errorf("update the cancelled trials of %s: %w", id, err)
	}
	return nil
}

// endCancelledTrials ends the trials that people have cancelled and of which nothing runs, and
// removes those that have ended from the list.
func (s *scheduler) endCancelledTrials(ctx context.Context) (failed error) {
	if s.applied < s.lastDecision {
		return nil // the last decision is not applied yet
	}
	for id, f := range s.feeds {
		r, ok := s.m.Sweep(id) // the newest record, which says what is to run again
		if !ok || len(r.Sweep.Cancelling) == 0 {
			continue
		}
		now := time.Now()
		batch := &grid.Batch{V: grid.EventVersion, Sweep: id}
		ended := 0
		for _, i := range r.Sweep.Cancelling {
			if f.isEnded(i) {
				ended++
			} else if !f.done.Has(i) && !s.isHeldByLiveNode(f, i) {
				batch.Events = append(batch.Events, withdrawnEvent(i, now))
			}
		}
		if len(batch.Events) > 0 {
			seq, err := s.m.cfg.Store.Events.Publish(ctx, batch)
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("cancel trials of %s: %w", id, err))
				continue
			}
			s.lastDecision = seq
		}
		if ended > 0 {
			failed = errors.Join(failed, s.m.uncancel(ctx, id, f.isEnded))
		}
	}
	return failed
}

// isHeldByLiveNode reports whether a node that is not lost has the trial: then that node stops it,
// or gives its lease back.
func (s *scheduler) isHeldByLiveNode(f *feed, index int64) bool {
	return slices.ContainsFunc(f.leasesOver(index, ""), func(id grid.LeaseID) bool {
		return s.m.cfg.Store.Queue.WasGranted(id) && !s.m.nodes.isLost(s.m.leases.holderOf(id))
	})
}

// isEnded reports whether a trial has ended and no lease is left under which a node could start it.
func (f *feed) isEnded(i int64) bool {
	return i < 0 || i >= f.count || f.done.Has(i) && len(f.leasesOver(i, "")) == 0
}

// revokeCancelled ends the leases of a cancelled trial that hold no other trial and under which
// nothing of it has run.
func (s *scheduler) revokeCancelled(f *feed, t *history.Transition) {
	if t.Class != grid.ClassCancel {
		return
	}
	for _, id := range f.leasesOver(t.Index, "") {
		if l := f.leases[id]; l.hi-l.lo == 1 && (t.Node == "" || !s.m.cfg.Store.Queue.WasGranted(id)) {
			s.revokeLease(f, id)
		}
	}
}
