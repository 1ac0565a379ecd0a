package worker

import (
	"context"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/worker/allocator"
)

func testLane(cpus float64, memory int64, priority int) lane {
	s := grid.Sweep{
		Priority: priority, Task: grid.Task{Resources: grid.Resources{CPUs: grid.MilliOf(cpus), Memory: memory}},
	}
	return lane{name: s.Lane(), resources: s.Task.Resources, priority: priority}
}

// simulatedNode simulates a node: lanes with endless work, and trials that take as long as their
// lane specifies.
type simulatedNode struct {
	fairness *fairShare
	books    *allocator.Allocator
	now      time.Time
	length   func(lane) time.Duration // of the next trial of a lane; 0 if nothing is queued
	work     map[grid.Lane]time.Duration
	keeps    bool // waiting lanes keep room
	ends     []trialEnd
	had      map[grid.Lane]time.Duration // machine time used
	begun    map[grid.Lane]int
	last     map[grid.Lane]time.Time     // when the last trial of the lane started
	longest  map[grid.Lane]time.Duration // between two starts
	busy     time.Duration               // device time
}

type trialEnd struct {
	lane       lane
	allocation *allocator.Allocation
	began, at  time.Time
}

func newSimulatedNode(devices ...allocator.Device) *simulatedNode {
	cpus := 4 * grid.One
	if len(devices) > 0 {
		cpus = 64 * grid.One
	}
	books := allocator.New(allocator.Options{}, cpus, 8<<30, devices)
	n := &simulatedNode{
		fairness: newFairShare(machineTotals(books)), books: books, now: time.UnixMicro(1_700_000_000_000_000),
		keeps: true,
		work:  map[grid.Lane]time.Duration{}, had: map[grid.Lane]time.Duration{}, begun: map[grid.Lane]int{},
		last: map[grid.Lane]time.Time{}, longest: map[grid.Lane]time.Duration{},
	}
	n.length = func(l lane) time.Duration { return n.work[l.name] }
	return n
}

// run serves the lanes for some time, as dispatch does.
func (n *simulatedNode) run(lanes []lane, d time.Duration) {
	for end := n.now.Add(d); n.now.Before(end); {
		n.books.BeginPass()
		for _, l := range n.fairness.order(n.assess(lanes), n.now) {
			if l.slots > 0 && n.fill(l) && n.keeps {
				n.books.HoldFor(allocator.WaitingLane{Lane: l.name, Resources: l.resources})
				n.fairness.hold(l, n.now)
			}
		}
		n.advanceToNextEnd(end)
	}
}

// assess determines the lanes whose trials the node may run, as Worker.assess does.
func (n *simulatedNode) assess(lanes []lane) []lane {
	lanes = slices.Clone(lanes)
	for i := range lanes {
		lanes[i].slots = n.books.Slots(lanes[i].resources)
	}
	return lanes
}

func (n *simulatedNode) fill(l lane) bool {
	for {
		al, _ := n.books.Reserve(l.name, l.resources)
		if al == nil {
			return n.fairness.lanes[l.name] != nil && n.fairness.lanes[l.name].waiting
		}
		took := n.length(l)
		if took == 0 {
			n.books.Release(al, false)
			n.fairness.queueEmpty(l, n.now)
			return false
		}
		n.fairness.runStarted(l, n.now)
		n.ends = append(n.ends, trialEnd{l, al, n.now, n.now.Add(took)})
		n.had[l.name] += time.Duration(float64(took) * n.fairness.total.weight(&l.resources))
		n.begun[l.name]++
		if last := n.last[l.name]; !last.IsZero() {
			n.longest[l.name] = max(n.longest[l.name], n.now.Sub(last))
		}
		n.last[l.name] = n.now
		for _, s := range al.Shares {
			n.busy += time.Duration(float64(took) * s.Milli.Float())
		}
	}
}

// advanceToNextEnd advances the time to the end of the trial that ends first.
func (n *simulatedNode) advanceToNextEnd(end time.Time) {
	if len(n.ends) == 0 {
		n.now = end
		return
	}
	slices.SortStableFunc(n.ends, func(a, b trialEnd) int { return a.at.Compare(b.at) })
	e := n.ends[0]
	n.ends = n.ends[1:]
	n.now = e.at
	n.books.Release(e.allocation, true)
	n.fairness.runEnded(e.lane, e.began, n.now)
}

func TestBigTrialsAreNotStarved(t *testing.T) {
	small, big := testLane(1, 0, 0), testLane(4, 0, 0)
	n := newSimulatedNode()
	n.work[small.name], n.work[big.name] = 70*time.Millisecond, 300*time.Millisecond
	n.run([]lane{small, big}, 10*time.Minute)
	total := n.had[small.name] + n.had[big.name]
	if share := float64(n.had[big.name]) / float64(total); share < 0.45 || share > 0.55 {
		t.Errorf("share of the big trials: got %.2f, want about half", share)
	}
	if total < 9*time.Minute {
		t.Errorf("time used of 10m: got %v, want little lost by changing over", total)
	}
}

// TestEqualLanesShare runs lanes that differ only in their names.
func TestEqualLanesShare(t *testing.T) {
	lanes := []lane{testLane(1, 0, 0), testLane(1, 1<<20, 0), testLane(1, 2<<20, 0)}
	n := newSimulatedNode()
	for _, l := range lanes {
		n.work[l.name] = 500 * time.Millisecond
	}
	n.run(lanes, 10*time.Minute)
	for _, l := range lanes {
		if had := n.had[l.name]; had < 190*time.Second || had > 210*time.Second {
			t.Errorf("%s: got %v of 10m, want a third", l.name, had)
		}
	}
}

func TestUrgentLaneKeepsRoom(t *testing.T) {
	low, urgent := testLane(1, 0, 0), testLane(4, 0, 7)
	n := newSimulatedNode()
	n.work[low.name] = 10 * time.Second
	n.run([]lane{low}, 25*time.Second)
	before := n.begun[low.name]
	n.work[urgent.name] = 30 * time.Second
	n.run([]lane{low, urgent}, 10*time.Minute)
	if n.begun[urgent.name] < 18 || n.begun[low.name] != before {
		t.Errorf("begun: got %d urgent ones and %d others, want about 20 and none while urgent ones wait",
			n.begun[urgent.name], n.begun[low.name]-before)
	}
}

// TestRoomThatNobodyElseCanUse checks that a small lane gets what a bigger, more urgent one can't
// use.
func TestRoomThatNobodyElseCanUse(t *testing.T) {
	low, urgent := testLane(1, 0, 0), testLane(3, 0, 7)
	n := newSimulatedNode()
	n.work[low.name], n.work[urgent.name] = 10*time.Second, 3*time.Second
	n.run([]lane{low, urgent}, 5*time.Minute)
	if n.begun[urgent.name] < 95 {
		t.Errorf("urgent trials: got %d, want about 100: the small ones must not be in their way", n.begun[urgent.name])
	}
	if n.begun[low.name] < 28 {
		t.Errorf("small trials: got %d, want about 30 on the one CPU that is left", n.begun[low.name])
	}
}

// TestNoRoomIsKeptForNothing runs an urgent lane with an empty queue.
func TestNoRoomIsKeptForNothing(t *testing.T) {
	low, urgent := testLane(1, 0, 0), testLane(4, 0, 7)
	n := newSimulatedNode()
	n.work[low.name] = time.Second
	n.run([]lane{low}, time.Second)
	n.run([]lane{low, urgent}, time.Minute)
	if n.had[low.name] < 58*time.Second {
		t.Errorf("got %v of 1m, want all but the time of one look into the urgent lane's queue", n.had[low.name])
	}
}

// TestNothingIsSavedUp runs one lane alone for an hour before the other, which is known all the
// time, has trials.
func TestNothingIsSavedUp(t *testing.T) {
	busy, late := testLane(1, 0, 0), testLane(1, 1<<20, 0)
	n := newSimulatedNode()
	n.work[busy.name] = time.Second
	n.run([]lane{busy, late}, time.Hour)
	n.work[late.name] = time.Second
	n.fairness.leaseArrived(late.name, n.now)
	before := n.had[busy.name]
	n.run([]lane{busy, late}, time.Minute)
	if got := n.had[busy.name] - before; got < 25*time.Second {
		t.Errorf("the lane that worked before: got %v of the first minute beside the other, want about half", got)
	}
}

// TestUrgentLanesAreToldFirst lets more lanes wait than can be reported: the same ones are reported
// each time.
func TestUrgentLanesAreToldFirst(t *testing.T) {
	f := newFairShare(machineSize{cpus: grid.One})
	var lanes []lane
	for i := range 20 {
		l := testLane(float64(i+2), 0, i)
		l.refusal = grid.Refusal{Code: grid.RefusedNever}
		lanes = append(lanes, l)
	}
	f.order(slices.Clone(lanes), time.Now())
	for range 20 {
		waits := f.refusals(5)
		for _, l := range lanes[15:] {
			if _, ok := waits[l.name]; !ok || len(waits) != 5 {
				t.Fatalf("got %v, want the five most urgent lanes", waits)
			}
		}
	}
}

// TestLanesOfOtherNodes adds lanes that this node can't serve: one for GPUs that it does not have.
// They change neither the quantum nor the share with which a later lane begins.
func TestLanesOfOtherNodes(t *testing.T) {
	busy, late, gpu := testLane(1, 0, 0), testLane(1, 1<<20, 0), gpuLane(grid.One)
	lanes := []lane{busy, late, gpu}
	n := newSimulatedNode()
	n.work[busy.name] = 100 * time.Second
	n.run(lanes, time.Hour)
	if got := n.fairness.quantumLocked(lanes); got != defaultQuantum {
		t.Errorf("turn: got %v, want %v", got, defaultQuantum)
	}
	n.work[late.name] = time.Second
	n.fairness.leaseArrived(late.name, n.now)
	before := n.had[busy.name]
	n.run(lanes, 20*time.Minute)
	if got := n.had[busy.name] - before; got < 9*time.Minute {
		t.Errorf("the lane that worked before: got %v of 20m beside the other, want about half", got)
	}
}

// TestEveryLaneHasItsTurn tries arbitrary mixtures of trials: all lanes of the highest priority
// run, and use nearly the same amount.
func TestEveryLaneHasItsTurn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := newSimulatedNode()
		var lanes []lane
		for range rapid.IntRange(2, 4).Draw(t, "lanes") {
			l := testLane(
				rapid.SampledFrom([]float64{0.5, 1, 2, 3, 4}).Draw(t, "cpus"),
				rapid.Int64Range(0, 8).Draw(t, "GiB")<<30, 0,
			)
			if _, ok := n.work[l.name]; !ok {
				n.work[l.name] = time.Duration(rapid.IntRange(200, 5000).Draw(t, "ms")) * time.Millisecond
				lanes = append(lanes, l)
			}
		}
		n.run(lanes, 3*time.Minute)
		for _, l := range lanes {
			if had, least := n.had[l.name], 3*time.Minute/time.Duration(len(lanes))/4; had < least {
				t.Fatalf("%s had %v of 3m among %d lanes, want at least %v: %v", l.name, had, len(lanes), least, n.had)
			}
		}
	})
}

// TestStreamOfSmallTrials runs a real worker on which four small trials always run, and a thousand
// wait, when a big one arrives.
func TestStreamOfSmallTrials(t *testing.T) {
	running, big := make(chan struct{}), make(chan struct{})
	s := newHarness(t, func(ctx context.Context, a *executor.Attempt) executor.Outcome {
		if a.Argv[0] == "big-1" {
			close(big)
			return succeeded()
		}
		select {
		case running <- struct{}{}: // until the test lets it end
		case <-ctx.Done():
		}
		return succeeded()
	})
	s.dispatcher.fairShare.quantum = time.Millisecond
	small := s.sweep("small-1", 1000, 1, nil)
	for i := range int64(1000) {
		s.lease(small, i, i+1)
	}
	wide := s.sweep("big-1", 1, 4, nil)
	s.run()
	receive(t, "a small trial", running)
	s.lease(wide, 0, 1)
	for n := 1; ; n++ {
		select {
		case <-running:
			if n == 999 {
				t.Fatal("all small trials went before the big one")
			}
		case <-big:
			return
		case <-time.After(testTimeout):
			t.Fatal("neither small nor big trials run")
		}
	}
}
