package master

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// The number of events in the first batch of a retry, which is small so that the sweep continues
// soon, and the maximum for later ones, each of which is twice as long as the one before.
const (
	firstReopened = 500
	maxReopened   = 4000
)

// reopening is a retry that publishes its events batch by batch. The sweep continues as soon as
// history holds the first one, unless whole is set.
type reopening struct {
	m     *Master
	sweep grid.SweepID
	at    int64 // microseconds since 1970

	revive bool // the sweep was cancelled when the retry started
	whole  bool // the sweep continues only when all are reopened: the others would count as failures for its StopAfter

	batch   grid.Batch
	count   int64  // of trials
	last    uint64 // sequence of the last event
	resumed bool
}

// reopen returns when history holds all events. A cancel in the meantime ends it.
func (o *reopening) reopen(ctx context.Context, trials iter.Seq2[int64, error]) error {
	err := o.publishAll(ctx, trials)
	if err != nil && o.last > 0 { // what is reopened runs, even if the client is gone
		_, failed := o.resumeSweep(context.WithoutCancel(ctx))
		err = errors.Join(err, failed)
	}
	return err
}

func (o *reopening) publishAll(ctx context.Context, trials iter.Seq2[int64, error]) error {
	o.batch = grid.Batch{V: grid.EventVersion, Sweep: o.sweep}
	size := firstReopened
	for i, err := range trials {
		if err != nil {
			return err
		}
		o.batch.Events = append(o.batch.Events, grid.Event{Kind: grid.Reopened, Index: i, Time: o.at})
		if len(o.batch.Events) == size {
			if err := o.publishBatch(ctx); err != nil {
				return err
			}
			size = min(2*size, maxReopened)
		}
	}
	if len(o.batch.Events) > 0 {
		if err := o.publishBatch(ctx); err != nil {
			return err
		}
	}
	return o.m.waitApplied(ctx, o.last)
}

// publishBatch stores a batch. It waits until history holds the one before, so that the results of
// trials that run already are folded in between.
func (o *reopening) publishBatch(ctx context.Context) error {
	if r, ok := o.m.Sweep(o.sweep); ok && r.Sweep.State == grid.SweepCancelled && (o.resumed || !o.revive) {
		return conflict(fmt.Sprintf("%s was cancelled while its trials were reopened", o.sweep), fmt.Sprintf("run them with: mlfnode retry %s", o.sweep))
	}
	if err := o.m.uncancelReopened(ctx, o.sweep, o.batch.Events); err != nil {
		return err
	}
	seq, err := o.m.cfg.Store.Events.Publish(ctx, &o.batch)
	if err != nil {
		return fmt.Errorf("reopen trials of %s: %w", o.sweep, err)
	}
	before := o.last
	o.count, o.last, o.batch.Events = o.count+int64(len(o.batch.Events)), seq, o.batch.Events[:0]
	if o.resumed || o.whole {
		return o.m.waitApplied(ctx, before)
	}
	if err := o.m.waitApplied(ctx, seq); err != nil {
		return err
	}
	_, err = o.resumeSweep(ctx)
	return err
}

// resumeSweep makes the sweep run again unless its user has paused it, or has cancelled it in the
// meantime. Once it has done so, later calls keep the state and only record the last event.
func (o *reopening) resumeSweep(ctx context.Context) (jetstream.Record, error) {
	left, err := o.m.cfg.History.Counts(ctx, o.sweep)
	if err != nil {
		return jetstream.Record{}, fmt.Errorf("count trials of %s: %w", o.sweep, err)
	}
	r, err := o.m.editSweep(ctx, o.sweep, func(s *grid.Sweep) error {
		s.Reopened = max(s.Reopened, o.last)
		own := s.State == grid.SweepPaused && s.Problem != "" // a retry ends a pause by the master
		if !o.resumed && (s.State != grid.SweepPaused || own) && (s.State != grid.SweepCancelled || o.revive) {
			s.State, s.Ended, s.Save, s.Paused, s.Problem = grid.SweepRunning, time.Time{}, false, time.Time{}, ""
			s.Accepted = left.Failed
		}
		return nil
	})
	o.resumed = o.resumed || err == nil
	return r, err
}
