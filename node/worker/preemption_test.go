package worker

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
)

// TestPreemption fills the node with trials of low priority while an urgent one waits; in one case
// both sides agree to preemption, in the others one does not.
func TestPreemption(t *testing.T) {
	for name, c := range map[string]struct {
		preempt, saves bool
		priority       int
		want           int // trials that make room
	}{
		"both agree": {true, true, 5, 2}, "the urgent one does not want it": {false, true, 5, 0},
		"the others can't save": {true, false, 5, 0}, "it is not more urgent": {true, true, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			running, open := 0, make(chan struct{})
			urgent := make(chan struct{})
			s := newHarness(t, func(ctx context.Context, a *executor.Attempt) executor.Outcome {
				if a.Argv[0] == "urgent-1" {
					close(urgent)
					return succeeded()
				}
				if dir := valueOf(a.Env, "MLF_CHECKPOINT"); dir != "" {
					if err := os.WriteFile(filepath.Join(dir, "state"), nil, 0o600); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				running++
				mu.Unlock()
				select {
				case <-ctx.Done():
					return ended(grid.ClassHalt, 0)
				case <-open:
					return ended(grid.ClassNone, 0)
				}
			})
			s.dispatcher.preemption.after = time.Millisecond
			low := s.sweep("low-1", 4, 1, func(r *grid.Sweep) {
				if c.saves {
					d := grid.DefaultCheckpoint()
					r.Task.Checkpoint = &d
				}
			})
			high := s.sweep(
				"urgent-1", 1, 2, func(r *grid.Sweep) { r.Task.Preempt, r.Priority = c.preempt, c.priority },
			)
			s.run()
			for i := range int64(4) {
				s.lease(low, i, i+1)
			}
			eventually(t, "the node is full", func() bool { mu.Lock(); defer mu.Unlock(); return running == 4 })
			s.lease(high, 0, 1)
			if c.want == 0 {
				eventually(t, "the urgent trial waits", func() bool {
					f := s.dispatcher.fairShare
					f.mu.Lock()
					defer f.mu.Unlock()
					h := f.lanes[high.Lane()]
					return h != nil && !h.holdingSince.IsZero()
				})
				wait := time.NewTimer(3 * dispatchInterval / 2)
				<-wait.C
				close(open)
				receive(t, "the urgent trial", urgent)
			} else {
				receive(t, "the urgent trial", urgent)
				close(open)
			}
			classes := map[grid.Class]int{}
			for _, e := range s.finished("low-1", 4) {
				if classes[e.Result.Class]++; !grid.FailureOf(e.Result.Class).Always &&
					e.Result.Class != grid.ClassNone {
					t.Errorf("a trial that made room counts as %q", e.Result.Class)
				}
			}
			if classes[grid.ClassHalt] != c.want || classes[grid.ClassNone] != 4-c.want {
				t.Errorf("got %v, want %d trials that make room", classes, c.want)
			}
		})
	}
}

// TestPreemptionSparesTheResumed spares a trial that has just resumed from its checkpoint, and
// preempts the one that loses the least.
func TestPreemptionSparesTheResumed(t *testing.T) {
	now := time.Now()
	s, held := newBusyHarness(t, now)
	l := lane{name: "p5_x", resources: grid.Resources{CPUs: grid.One}, priority: 5, preempt: true}
	s.dispatcher.fairShare.lanes[l.name] = &laneShare{holdingSince: now.Add(-2 * time.Minute)}
	pass := func() {
		s.dispatcher.preemption.preemptFor(l, now)
		s.dispatcher.runners.running.Wait()
		s.dispatcher.preemption.receiveVictims()
		s.dispatcher.preemption.preemptFor(l, now)
	}
	pass()
	var got []int
	for i, h := range held {
		if h.isPreempted() {
			got = append(got, i)
		}
	}
	if !slices.Equal(got, []int{1}) {
		t.Errorf("got %v stopped, want 1: 0 has just resumed, and 1 began last of the others", got)
	}
	pass()
	if held[2].isPreempted() || held[3].isPreempted() {
		t.Error("more were stopped while the first was on its way")
	}
}

// newBusyHarness returns a worker that runs four trials that can save their state. The first has
// just resumed; the others started an hour apart.
func newBusyHarness(t *testing.T, now time.Time) (*harness, []*leaseHandle) {
	t.Helper()
	s := newHarness(t, nil)
	low := s.sweep("low-1", 4, 1, func(r *grid.Sweep) { c := grid.DefaultCheckpoint(); r.Task.Checkpoint = &c })
	s.sweeps.known["low-1"] = updatedSweep(nil, &jetstream.Record{Sweep: low})
	var held []*leaseHandle
	for i := range int64(4) {
		al, _ := s.dispatcher.allocator.Reserve(low.Lane(), low.Task.Resources)
		a := &attempt{
			attemptSpec: attemptSpec{
				id: grid.TrialID{Sweep: "low-1", Index: i}, number: 1, task: &low.Task, allocation: al,
				started: now.Add(-time.Duration(i+1) * time.Hour),
			},
		}
		if i == 0 {
			a.number, a.started = 2, now.Add(-time.Minute)
		}
		var err error
		if a.checkpoint, err = s.trials.attempts.checkpoints.acquire(t.Context(), a.id); err != nil {
			t.Fatal(err)
		}
		h := &leaseHandle{lease: &jetstream.GrantedLease{Lease: jetstream.Lease{Sweep: "low-1"}}, runners: 1}
		h.addAttempt(a)
		s.dispatcher.leases.handles[h] = struct{}{}
		held = append(held, h)
	}
	return s, held
}

// TestTwoLanesPreempt adds a lane that preempts while the worker searches for victims for a lower
// lane: the result is not lost, pass by pass.
func TestTwoLanesPreempt(t *testing.T) {
	now := time.Now()
	s, held := newBusyHarness(t, now)
	first := lane{name: "p5_x", resources: grid.Resources{CPUs: grid.One}, priority: 5, preempt: true}
	second := first
	second.name = "p5_y"
	for _, l := range []lane{first, second} {
		s.dispatcher.fairShare.lanes[l.name] = &laneShare{holdingSince: now.Add(-2 * time.Minute)}
	}
	s.dispatcher.preemption.preemptFor(second, now)
	for range 4 {
		s.dispatcher.runners.running.Wait()
		s.dispatcher.preemption.receiveVictims()
		s.dispatcher.preemption.preemptFor(first, now)
		s.dispatcher.preemption.preemptFor(second, now)
	}
	s.dispatcher.runners.running.Wait()
	if !slices.ContainsFunc(held, (*leaseHandle).isPreempted) {
		t.Error("nothing was stopped for either lane")
	}
}
