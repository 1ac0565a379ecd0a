package worker

import (
	"context"
	"testing"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
)

// TestLostAttemptIsNotTold loses a lease as soon as its trial starts, or while the trial is being
// prepared: the attempt has not been announced, and is not reported.
func TestLostAttemptIsNotTold(t *testing.T) {
	for name, lease := range map[string]jetstream.Lease{
		"runs": {Hi: 1, Attempt: 1}, "is prepared": {Hi: 1, Attempt: 2, Snapshot: 1},
	} {
		t.Run(name, func(t *testing.T) {
			began := make(chan struct{}, 1)
			s := newHarness(t, func(ctx context.Context, a *executor.Attempt) executor.Outcome {
				if a.Argv[0] == "next-1" {
					return succeeded()
				}
				began <- struct{}{}
				<-ctx.Done()
				o := succeeded()
				o.Class = grid.ClassLost
				return o
			})
			s.cfg.Snapshots.Remote = unreachable{began: began}
			r := s.sweep("lost-1", 1, 1, func(r *grid.Sweep) { c := grid.DefaultCheckpoint(); r.Task.Checkpoint = &c })
			lease.Sweep, lease.Shape = r.ID, string(r.Lane())
			lease.ID = s.store.Queue.NewID()
			if _, err := s.store.Queue.Publish(t.Context(), lease); err != nil {
				t.Fatal(err)
			}
			s.run()
			receive(t, "the trial", began)
			s.heartbeats.apply(&jetstream.Directives{Stop: []grid.LeaseID{lease.ID}})
			eventually(t, "the lease is let go", func() bool { return len(s.Worker.dispatcher.leases.all()) == 0 })
			next := s.sweep("next-1", 1, 1, nil)
			s.lease(next, 0, 1)
			s.released("next-1", 1)
			s.stop()
			_, last, err := s.store.Events.Bounds(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			err = s.store.Events.Read(t.Context(), 1, func(stored []jetstream.StoredBatch) error {
				for _, b := range stored {
					if b.Batch.Sweep == r.ID {
						t.Errorf("got %s of the lost trial, want nothing", kinds(b.Batch.Events))
					}
				}
				if stored[len(stored)-1].Seq >= last {
					return errEnough
				}
				return nil
			})
			if err != errEnough {
				t.Error(err)
			}
		})
	}
}

// TestLossReachesTrialsOfEarlierRecords changes the record of a sweep, as a new priority does,
// between the starts of two trials under a lease, and loses the lease: both trials are stopped.
func TestLossReachesTrialsOfEarlierRecords(t *testing.T) {
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	before := &sweep{record: &grid.Sweep{ID: "a-1"}, ctx: ctx, stop: stop}
	changed := updatedSweep(before,
		&jetstream.Record{Sweep: &grid.Sweep{ID: "a-1", Priority: 1, State: grid.SweepRunning}})
	h := &leaseHandle{runners: 2}
	first, _ := h.scope(before)
	second, _ := h.scope(changed)
	h.markLost()
	for name, s := range map[string]*sweep{"before": first, "after": second} {
		if got := context.Cause(s.ctx); got != executor.ErrLost {
			t.Errorf("a trial that started %s the change: got cause %v, want %v", name, got, executor.ErrLost)
		}
	}
	if second.record.Priority != 1 || ctx.Err() != nil {
		t.Errorf("got the record %+v and %v of the sweep, want the new record, and a sweep that goes on", second.record,
			ctx.Err())
	}
}

// TestLossReachesTrialsDespiteAnEarlierRecord scopes a record from before a pause after one from
// after it, as a runner does that was late: the trial that runs is still stopped.
func TestLossReachesTrialsDespiteAnEarlierRecord(t *testing.T) {
	record := func(s grid.SweepState, halt bool) *jetstream.Record {
		return &jetstream.Record{Sweep: &grid.Sweep{ID: "a-1", State: s, Halt: halt}}
	}
	before := updatedSweep(nil, record(grid.SweepRunning, false))
	paused := updatedSweep(before, record(grid.SweepPaused, true))
	after := updatedSweep(paused, record(grid.SweepRunning, false))
	defer after.stop(nil)
	h := &leaseHandle{runners: 2}
	running, _ := h.scope(after)
	h.scope(before)
	h.markLost()
	if got := context.Cause(running.ctx); got != executor.ErrLost {
		t.Errorf("the trial after the pause: got cause %v, want %v", got, executor.ErrLost)
	}
}

// TestFurtherAttemptIsToldBeforeItRuns reads the events while the second attempt of a trial starts.
func TestFurtherAttemptIsToldBeforeItRuns(t *testing.T) {
	var s *harness
	s = newHarness(t, func(context.Context, *executor.Attempt) executor.Outcome {
		if _, last, err := s.store.Events.Bounds(t.Context()); err != nil || last != 1 {
			t.Errorf("events when the program starts: got %d, %v; want one", last, err)
		}
		return succeeded()
	})
	r := s.sweep("t-1", 1, 1, nil)
	_, err := s.store.Queue.Publish(
		t.Context(), jetstream.Lease{Sweep: r.ID, Lo: 0, Hi: 1, Attempt: 2, Shape: string(r.Lane())},
	)
	if err != nil {
		t.Fatal(err)
	}
	s.run()
	all := s.released(r.ID, 1)
	if len(only(all, grid.Started)) != 1 || len(only(all, grid.Finished)) != 1 {
		t.Errorf("got events %s, want one start and one end", kinds(all))
	}
}

// TestClosedLeaseIsNotLost reports a lease as lost that is already closed: the master learned that
// first.
func TestClosedLeaseIsNotLost(t *testing.T) {
	h := &leaseHandle{lease: &jetstream.GrantedLease{Lease: jetstream.Lease{Hi: 1}}, runners: 1}
	if h.removeRunner(); h.markLost() {
		t.Error("got that something runs, want nothing")
	}
	if h = (&leaseHandle{runners: 1}); !h.markLost() {
		t.Error("got that nothing runs, want something")
	}
}
