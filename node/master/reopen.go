package master

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/ranges"
	"mlfnode/jetstream"
)

// The weight of the first batch of a retry, which is small so that the sweep continues soon, and
// the maximum for later ones, each of which is twice as heavy as the one before. A trial that is
// reopened by itself weighs 1, and so do rangeWeight trials of a range, which cost history that
// much less.
const (
	firstReopened = 500
	maxReopened   = 16_000
	rangeWeight   = 16
)

// minReopenedRange is the number of neighbours that are reopened by a grid.ReopenedRange. Fewer are
// reopened one by one, which masters of earlier versions understand as well.
const minReopenedRange = 16

// reopening is a retry that publishes its events batch by batch. The sweep continues as soon as
// history holds the first one, unless whole is set.
type reopening struct {
	m     *Master
	sweep grid.SweepID
	at    int64 // microseconds since 1970

	revive bool // the sweep was cancelled when the retry started
	whole  bool // the sweep continues only when all are reopened: the others would count as failures for its StopAfter

	batch   ranges.Set // trials that are not published yet
	count   int64      // of trials
	last    uint64     // sequence of the last event
	resumed bool
}

// reopen returns when history holds all events. A cancel in the meantime ends it.
func (o *reopening) reopen(ctx context.Context, trials *ranges.Set) error {
	err := o.publishAll(ctx, trials)
	if err != nil && o.last > 0 { // what is reopened runs, even if the client is gone
		_, failed := o.resumeSweep(context.WithoutCancel(ctx))
		err = errors.Join(err, failed)
	}
	return err
}

func (o *reopening) publishAll(ctx context.Context, trials *ranges.Set) error {
	limit, weight := int64(firstReopened), int64(0)
	for r := range trials.All() {
		each := int64(rangeWeight)
		if r.Hi-r.Lo < minReopenedRange {
			each = 1
		}
		for r.Lo < r.Hi {
			hi := min(r.Hi, r.Lo+(limit-weight)*each)
			o.batch.Add(r.Lo, hi)
			weight += (hi - r.Lo + each - 1) / each
			r.Lo = hi
			if weight < limit {
				continue
			}
			if err := o.publishBatch(ctx); err != nil {
				return err
			}
			limit, weight = min(2*limit, maxReopened), 0
		}
	}
	if o.batch.Count() > 0 {
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
		return conflict(fmt.Sprintf("%s was cancelled while its trials were reopened", o.sweep),
			fmt.Sprintf("run them with: mlfnode retry %s", o.sweep))
	}
	if err := o.m.uncancelReopened(ctx, o.sweep, &o.batch); err != nil {
		return err
	}
	seq, err := o.m.cfg.Store.Events.Publish(ctx, o.events())
	if err != nil {
		return fmt.Errorf("reopen trials of %s: %w", o.sweep, err)
	}
	before := o.last
	o.count, o.last, o.batch = o.count+o.batch.Count(), seq, ranges.Set{}
	if o.resumed || o.whole {
		return o.m.waitApplied(ctx, before)
	}
	if err := o.m.waitApplied(ctx, seq); err != nil {
		return err
	}
	_, err = o.resumeSweep(ctx)
	return err
}

// events returns the events of the batch, first the ranges, which the fold takes apart.
func (o *reopening) events() *grid.Batch {
	b := &grid.Batch{V: grid.EventVersion, Sweep: o.sweep}
	for r := range o.batch.All() {
		if r.Hi-r.Lo >= minReopenedRange {
			b.V = grid.RangeVersion
			b.Events = append(b.Events, grid.Event{Kind: grid.ReopenedRange, Index: r.Lo, End: r.Hi, Time: o.at})
		}
	}
	for r := range o.batch.All() {
		for i := r.Lo; i < r.Hi && r.Hi-r.Lo < minReopenedRange; i++ {
			b.Events = append(b.Events, grid.Event{Kind: grid.Reopened, Index: i, Time: o.at})
		}
	}
	return b
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
