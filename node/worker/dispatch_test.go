package worker

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/executor"
	"mlfnode/node/worker/allocator"
)

// gate is a program that reports each start, and ends when the test says so or when it is stopped.
type gate struct {
	began chan string // the name of the sweep
	open  chan struct{}
}

func newGate() *gate { return &gate{began: make(chan string, 1000), open: make(chan struct{})} }

func (g *gate) run(ctx context.Context, a *executor.Attempt) executor.Outcome {
	g.began <- a.Argv[0]
	o := succeeded()
	select {
	case <-g.open:
	case <-ctx.Done():
		o.Class = grid.ClassHalt
		if context.Cause(ctx) == executor.ErrCancelled {
			o.Class = grid.ClassCancel
		}
	}
	return o
}

// newGatedSweep runs a worker that has one lease of n trials with cpus processors each, and returns
// when the first has started.
func newGatedSweep(t *testing.T, n int, cpus float64) (*gate, *harness, *grid.Sweep) {
	t.Helper()
	g := newGate()
	s := newHarness(t, g.run)
	r := s.sweep("t-1", n, cpus, nil)
	s.lease(r, 0, int64(n))
	s.run()
	receive(t, "the first trial", g.began)
	return g, s, r
}

func TestUrgentSweepsGoFirst(t *testing.T) {
	g := newGate()
	s := newHarness(t, g.run)
	s.lease(s.sweep("first-1", 1, 4, nil), 0, 1)
	s.run()
	receive(t, "a trial that has the whole node", g.began)
	low := s.sweep("low-1", 8, 2, nil)
	high := s.sweep("high-1", 8, 2, func(r *grid.Sweep) { r.Priority = 3 })
	for i := range int64(4) {
		s.lease(low, i, i+1)
	}
	for i := range int64(4) {
		s.lease(high, i, i+1)
	}
	s.awaitKnown(low.ID, grid.SweepRunning)
	s.awaitKnown(high.ID, grid.SweepRunning)
	close(g.open)
	s.released("low-1", 4)
	var order []string
	for range 8 {
		order = append(order, receive(t, "a start", g.began))
	}
	// Two run at a time, so the last urgent one and the first of the others may start together.
	if last := slices.Index(order, "low-1"); last < 3 {
		t.Errorf("order of starts: got %v, want the urgent sweep first", order)
	}
}

// TestPauseLetsTrialsEnd pauses a sweep in the middle of a lease: the running trial ends, and the
// next ones do not start.
func TestPauseLetsTrialsEnd(t *testing.T) {
	g, s, r := newGatedSweep(t, 10, 4)
	s.setState(r, grid.SweepPaused)
	s.awaitKnown(r.ID, grid.SweepPaused)
	close(g.open)
	all := only(s.released(r.ID, 1), grid.Finished)
	if len(all) != 1 || all[0].Index != 0 || all[0].Result.Class != grid.ClassNone {
		t.Errorf("results: got %+v, want only trial 0, succeeded", all)
	}
}

func TestCancelStopsTrials(t *testing.T) {
	g, s, r := newGatedSweep(t, 10, 2)
	receive(t, "a second trial of the same lease", g.began)
	s.setState(r, grid.SweepCancelled)
	all := only(s.released(r.ID, 1), grid.Finished)
	if len(all) != 2 || all[0].Result.Class != grid.ClassCancel || all[1].Result.Class != grid.ClassCancel {
		t.Errorf("results: got %+v, want the two running trials, cancelled", all)
	}
}

// TestStopGivesLeasesBack ends the worker in the middle of a lease.
func TestStopGivesLeasesBack(t *testing.T) {
	_, s, r := newGatedSweep(t, 10, 4)
	s.stop()
	all := only(s.released(r.ID, 1), grid.Finished)
	if len(all) != 1 || all[0].Result.Class != grid.ClassHalt {
		t.Errorf("results: got %+v, want the running trial, halted", all)
	}
	if left, err := s.store.Queue.List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("queue: got %d leases, %v; want none", len(left), err)
	}
}

// TestRestOfALongLeaseIsGivenBack runs a wide lease whose first trial takes long: the others are
// returned while it runs, and no longer start here.
func TestRestOfALongLeaseIsGivenBack(t *testing.T) {
	g := newGate()
	s := newHarness(t, g.run)
	s.cfg.Heartbeats = true
	r := s.sweep("t-1", 10, 4, nil)
	s.lease(r, 0, 10)
	s.run()
	receive(t, "the first trial", g.began)
	eventually(t, "the worker says that it keeps trial 0 alone", func() bool {
		held := s.Worker.heartbeats.message().Leases
		return len(held) == 1 && held[0].Sweep == r.ID && held[0].Hi == 1
	})
	close(g.open)
	if done := only(s.released(r.ID, 1), grid.Finished); len(done) != 1 || done[0].Index != 0 {
		t.Errorf("results: got %+v, want trial 0 alone", done)
	}
}

// TestDrainGivesTheRestBack drains a node while the first trial of a wide lease runs: the others
// are returned immediately, however new the lease is.
func TestDrainGivesTheRestBack(t *testing.T) {
	s := newHarness(t, nil)
	s.cfg.Heartbeats = true
	h := &leaseHandle{
		lease: &jetstream.GrantedLease{Lease: jetstream.Lease{ID: "1", Sweep: "t-1", Hi: 10}}, takenAt: time.Now(),
		nextIndex: 1, runners: 1,
	}
	s.dispatcher.leases.handles[h] = struct{}{}
	if s.dispatcher.returnUnstartedTrials(h.takenAt); keptEnd(h) != 0 || !s.dispatcher.leases.hasUnstartedTrials() {
		t.Fatalf("a new lease was given back from trial %d on", keptEnd(h))
	}
	s.heartbeats.draining.Store(true)
	if s.dispatcher.returnUnstartedTrials(h.takenAt); keptEnd(h) != 1 || s.dispatcher.leases.hasUnstartedTrials() {
		t.Errorf("a drained node keeps the trials up to %d, want the one that runs", keptEnd(h))
	}
}

// TestIdleSlotsJoinALease runs one wide lease on four slots: all slots are used and each trial runs
// once, unless the sweep has a limit.
func TestIdleSlotsJoinALease(t *testing.T) {
	for _, c := range []struct {
		name  string
		limit int
		want  int
	}{{"no limit", 0, 4}, {"max_parallel", 1, 1}} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			running, most := 0, 0
			g := newGate()
			s := newHarness(t, func(ctx context.Context, a *executor.Attempt) executor.Outcome {
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				o := g.run(ctx, a)
				mu.Lock()
				running--
				mu.Unlock()
				return o
			})
			r := s.sweep("t-1", 30, 1, func(r *grid.Sweep) { r.MaxParallel = c.limit })
			s.lease(r, 0, 30)
			s.run()
			for range c.want {
				receive(t, "a trial", g.began)
			}
			close(g.open)
			all := only(s.released(r.ID, 1), grid.Finished)
			seen := map[int64]bool{}
			for _, e := range all {
				seen[e.Index] = true
			}
			if len(all) != 30 || len(seen) != 30 || most != c.want {
				t.Errorf(
					"got %d results of %d trials, at most %d at a time; want 30 of 30, %d", len(all), len(seen), most,
					c.want,
				)
			}
		})
	}
}

// TestTrialIsLeftToOthersFirst takes a lease that this node should avoid. There is no other node,
// so after some time it runs here nevertheless, under the attempt number of the lease. A lease that
// names another node runs immediately.
func TestTrialIsLeftToOthersFirst(t *testing.T) {
	g := newGate()
	close(g.open)
	s := newHarness(t, g.run)
	r := s.sweep("t-1", 2, 1, nil)
	began := time.Now()
	for i, node := range []grid.NodeID{"n", "other"} {
		_, err := s.store.Queue.Publish(t.Context(), jetstream.Lease{
			Sweep: r.ID, Lo: int64(i), Hi: int64(i) + 1, Attempt: 2 + i, Shape: string(r.Lane()),
			Avoid: []grid.NodeID{node},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.run()
	all := only(s.released(r.ID, 2), grid.Finished)
	if len(all) != 2 || all[0].Index != 1 || all[0].Attempt != 3 || all[1].Attempt != 2 {
		t.Errorf(
			"got results %+v, want the trial that this node need not avoid first, both with the numbers of their leases",
			all,
		)
	}
	if took := time.Since(began); took < maxPostponed*postponeTime {
		t.Errorf("it was left to others for %v, want %v at least", took, maxPostponed*postponeTime)
	}
}

// TestTrialOfAnUnsureLeaseDoesNotRun postpones a lease without getting an answer from the master:
// another node may hold it.
func TestTrialOfAnUnsureLeaseDoesNotRun(t *testing.T) {
	s := newHarness(t, newGate().run)
	h := &jetstream.GrantedLease{
		Lease: jetstream.Lease{Sweep: "t-1", Hi: 1, Attempt: 2, ID: "gone", Avoid: []grid.NodeID{"n"}}, Deliveries: 1,
	}
	if err := s.cfg.Master.PostponeLease(t.Context(), h, 0); err == nil {
		t.Fatal("a lease that is not there is postponed")
	}
	if !s.dispatcher.postponeIfAvoided(h) {
		t.Error("its trial is to run here")
	}
}

// TestTrialGoesElsewhere takes leases that this node should avoid while, according to the master,
// another node could run them, and a trial that failed on a device: this node returns them, and
// runs them once the master says otherwise, or the device is a different one.
func TestTrialGoesElsewhere(t *testing.T) {
	g := newGate()
	close(g.open)
	s := newHarness(t, g.run)
	s.Devices.SetDevices(twoGPUs())
	r := s.sweep("t-1", 1, 1, nil)
	s.run()
	publish := func(r *grid.Sweep, avoid ...grid.NodeID) {
		t.Helper()
		_, err := s.store.Queue.Publish(t.Context(), jetstream.Lease{
			Sweep: r.ID, Lo: 0, Hi: 1, Attempt: 2, Shape: string(r.Lane()), Avoid: avoid, Elsewhere: avoid != nil,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	publish(r, "n")
	if all := s.released(r.ID, 1); len(all) != 1 {
		t.Errorf("got %v of a trial that another node can run, want its lease given back", kinds(all))
	}
	publish(r)
	if all := s.finished(r.ID, 1); all[0].Attempt != 2 {
		t.Errorf("got attempt %d, want 2", all[0].Attempt)
	}
	onGPU := s.sweep("gpu-1", 1, 1, func(r *grid.Sweep) { r.Task.Resources.GPUs = grid.One })
	s.dispatcher.avoidedDevices.add(grid.TrialID{Sweep: onGPU.ID}, "GPU-a", time.Now())
	var other *allocator.Allocation
	eventually(t, "another trial has the other device, which the dispatcher reserves while it looks for a lease",
		func() bool {
			got, refusal := s.dispatcher.allocator.Reserve("other", onGPU.Task.Resources)
			if refusal.Code != "" {
				return false
			}
			other, _ = s.dispatcher.allocator.ReplaceDevice(got, onGPU.Task.Resources, "GPU-a")
			if slices.Equal(other.UUIDs(), []string{"GPU-d"}) {
				return true
			}
			s.dispatcher.allocator.Release(other, false)
			return false
		})
	publish(onGPU)
	if all := s.released(onGPU.ID, 1); len(all) != 1 {
		t.Errorf("got %v of a trial whose other device is in use, want its lease given back", kinds(all))
	}
	s.dispatcher.allocator.Release(other, false)
	publish(onGPU)
	if all := s.finished(onGPU.ID, 1); !slices.Equal(all[0].Result.Devices, []string{"GPU-d"}) || all[0].Attempt != 2 {
		t.Errorf("got attempt %d on %v, want 2 on the other device", all[0].Attempt, all[0].Result.Devices)
	}
}

// TestOthersGoFirst declines several leases in a row: others go first until some time after the
// return of the last one.
func TestOthersGoFirst(t *testing.T) {
	var d yieldedLanes
	now := time.Now()
	for i := range 3 {
		d.add("x", now.Add(time.Duration(i)*time.Millisecond))
	}
	for after, want := range map[time.Duration]bool{
		0: true, postponeTime: true, postponeTime + othersLead: true,
		postponeTime + othersLead + 2*time.Millisecond: false,
	} {
		if got := d.isYielded("x", now.Add(after)); got != want {
			t.Errorf("after %v: others go first: %v, want %v", after, got, want)
		}
		if d.isYielded("y", now.Add(after)) {
			t.Errorf("after %v: others go first in another lane", after)
		}
	}
	if d.add("y", now.Add(time.Hour)); len(d.lanes) != 1 {
		t.Errorf("%d lanes are remembered, want the last one", len(d.lanes))
	}
}

// TestWithheldLanesWait withholds trials that need GPUs or containers: they wait, with the reason,
// and other trials run.
func TestWithheldLanesWait(t *testing.T) {
	var heartbeats heartbeatLoop
	gpu, image := lane{resources: grid.Resources{GPUs: grid.One}}, lane{images: []*grid.Sweep{{}}}
	both := lane{resources: gpu.resources, images: image.images}
	for _, c := range []struct {
		without map[grid.Scope]string
		lane    lane
		want    string
	}{
		{nil, both, ""},
		{map[grid.Scope]string{grid.ScopeGPUs: "driver"}, gpu, "driver"},
		{map[grid.Scope]string{grid.ScopeGPUs: "driver"}, image, ""},
		{map[grid.Scope]string{grid.ScopeGPUs: "driver"}, both, "driver"},
		{map[grid.Scope]string{grid.ScopeContainers: "engine"}, both, "engine"},
		{
			map[grid.Scope]string{grid.ScopeOfLane("p0_x"): "driver"}, lane{name: "p0_x", resources: gpu.resources},
			"driver",
		},
		{map[grid.Scope]string{grid.ScopeOfLane("p0_x"): "driver"}, lane{name: "p0_y", resources: gpu.resources}, ""},
		{map[grid.Scope]string{grid.ScopeContainers: "engine"}, gpu, ""},
		{map[grid.Scope]string{grid.ScopeContainers: "engine", grid.ScopeGPUs: "driver"}, lane{}, ""},
	} {
		heartbeats.withheld.Store(&c.without)
		if got := heartbeats.withheldReason(c.lane); got != c.want {
			t.Errorf("without %v: got %q for %+v, want %q", c.without, got, c.lane, c.want)
		}
	}
}

// TestTrialsOfAnotherNode leaves leases in the queue that this node can never run, and is not held
// up by them.
func TestTrialsOfAnotherNode(t *testing.T) {
	g := newGate()
	close(g.open)
	s := newHarness(t, g.run)
	wide := s.sweep("wide-1", 1, 64, func(r *grid.Sweep) { r.Priority = 9 })
	s.lease(wide, 0, 1)
	r := s.sweep("t-1", 10, 1, nil)
	s.lease(r, 0, 10)
	s.run()
	s.released(r.ID, 1)
	s.stop()
	if left, err := s.store.Queue.List(t.Context()); err != nil || len(left) != 1 {
		t.Errorf("queue: got %d leases, %v; want the one of the wide sweep", len(left), err)
	}
}

// awaitKnown waits until the worker has seen this state of the sweep.
func (s *harness) awaitKnown(id grid.SweepID, state grid.SweepState) {
	s.t.Helper()
	eventually(s.t, string(id)+" is known to be "+string(state), func() bool {
		s.sweeps.mu.Lock()
		defer s.sweeps.mu.Unlock()
		w := s.sweeps.known[id]
		return w != nil && w.record.State == state
	})
}

// TestHurry stops a worker whose program uses its whole grace period: the program is killed.
func TestHurry(t *testing.T) {
	began := make(chan struct{})
	s := newHarness(t, func(ctx context.Context, a *executor.Attempt) executor.Outcome {
		close(began)
		<-ctx.Done()
		<-a.Kill
		o := succeeded()
		o.Class = grid.ClassHalt
		return o
	})
	r := s.sweep("t-1", 1, 1, nil)
	s.lease(r, 0, 1)
	s.run()
	receive(t, "the trial", began)
	stopped := make(chan struct{})
	go func() {
		s.stop()
		close(stopped)
	}()
	select {
	case <-stopped:
		t.Fatal("the worker has not waited for its program")
	default:
	}
	s.SkipGrace()
	s.SkipGrace()
	receive(t, "the worker to stop", stopped)
}

// keptEnd returns the index behind the last trial of a lease that is kept; 0 for all of them.
func keptEnd(h *leaseHandle) int64 {
	l, _ := h.held()
	return l.Hi
}
