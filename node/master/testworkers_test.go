package master

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
)

// testWorkers are the workers of a testMaster. The test acts as them.
type testWorkers struct {
	t        *testing.T
	master   *testMaster
	runCount int
	marks    map[grid.NodeID]uint64 // of the newest directives to each node
}

func withWorkers(c *testMaster) *testMaster {
	c.workers = &testWorkers{t: c.t, master: c, marks: map[grid.NodeID]uint64{}}
	return c
}

// client returns the client with which they take leases.
func (w *testWorkers) client() *jetstream.MasterClient { return w.master.store.Calls.LocalClient("n") }

// waitForLease waits for a lease of the sweep and takes it.
func (w *testWorkers) waitForLease(id grid.SweepID) *jetstream.GrantedLease {
	w.t.Helper()
	var h *jetstream.GrantedLease
	w.master.waitFor("a lease of "+string(id), func(*scheduler) bool {
		r, _ := w.master.Sweep(id)
		held, err := w.client().TakeLeases(w.t.Context(), string(r.Sweep.Lane()), 1)
		if err == nil && len(held) == 1 {
			h = &held[0]
		}
		return h != nil
	})
	return h
}

// waitAndTakeLease waits until the sweep has a lease and takes one.
func (w *testWorkers) waitAndTakeLease(id grid.SweepID) *jetstream.GrantedLease {
	w.t.Helper()
	w.master.waitFor("a lease of "+string(id), func(s *scheduler) bool {
		return s.feeds[id] != nil && len(s.feeds[id].leases) > 0
	})
	return w.takeLease(id)
}

// takeLease takes one lease of the sweep's lane, which must be there.
func (w *testWorkers) takeLease(id grid.SweepID) *jetstream.GrantedLease {
	w.t.Helper()
	r, ok := w.master.Sweep(id)
	if !ok {
		w.t.Fatalf("no sweep %s", id)
	}
	return w.takeLeaseIn(r.Sweep.Lane())
}

// takeLeaseIn takes one lease of a lane, which must be there. nats-server now and then answers a
// request that nothing is there just after it has stored a lease (1 of 1,500 here, more when all
// processors are busy); workers ask again, and so does this.
func (w *testWorkers) takeLeaseIn(lane grid.Lane) *jetstream.GrantedLease {
	w.t.Helper()
	var held []jetstream.GrantedLease
	var err error
	for limit := time.Now().Add(10 * time.Second); len(held) == 0 && err == nil && time.Now().Before(limit); {
		held, err = w.client().TakeLeases(w.t.Context(), string(lane), 1)
	}
	if err != nil || len(held) != 1 {
		w.t.Fatalf("pull from lane %s: got %d leases, %v; want one", lane, len(held), err)
	}
	return &held[0]
}

// takeLeaseOf takes a lease of a sweep's lane, for which it waits.
func (w *testWorkers) takeLeaseOf(id grid.SweepID, need grid.Resources) *jetstream.GrantedLease {
	w.t.Helper()
	r, _ := w.master.Sweep(id)
	lane := grid.LaneOf(r.Sweep.Priority, need, r.Sweep.Task.Image)
	w.master.waitFor("a lease is in the lane", func(s *scheduler) bool {
		return s.feeds[id] != nil && s.feeds[id].leasesInLane[lane] > 0
	})
	r, _ = w.master.Sweep(id)
	if got, ok := r.AllLanes()[lane]; !ok || got != need {
		w.t.Fatalf("the record's lanes: got %v, want %s in it", r.AllLanes(), lane)
	}
	return w.takeLeaseIn(lane)
}

// finishLease reports that all trials of a lease ended alike after they ran for so long, and closes
// the lease.
func (w *testWorkers) finishLease(h *jetstream.GrantedLease, class grid.Class, took time.Duration) {
	w.t.Helper()
	b := &grid.Batch{V: grid.EventVersion, Sweep: h.Sweep, Node: "n"}
	now := time.Now()
	for i := h.Lo; i < h.Hi; i++ {
		w.runCount++
		b.Events = append(b.Events, grid.Event{
			Kind: grid.Finished, Index: i, Attempt: h.Attempt, Run: fmt.Sprint("n.1.", w.runCount),
			Time: now.UnixMicro(),
			Result: &grid.Result{Class: class, Started: now.Add(-took).UnixMicro(),
				Usage: grid.Usage{Wall: took.Microseconds()}},
		})
	}
	w.closeLease(h, b)
}

// finishOn reports that the first trial of a lease has ended on a node, and closes the lease.
func (w *testWorkers) finishOn(node grid.NodeID, h *jetstream.GrantedLease, class grid.Class) {
	w.t.Helper()
	w.runCount++
	now := time.Now().UnixMicro()
	w.closeLease(h, &grid.Batch{V: grid.EventVersion, Sweep: h.Sweep, Node: node, Events: []grid.Event{{
		Kind: grid.Finished, Index: h.Lo, Attempt: h.Attempt, Run: fmt.Sprintf("%s.1.%d", node, w.runCount), Time: now,
		Result: &grid.Result{Class: class, Rule: "told", Started: now - 10, Usage: grid.Usage{Wall: 10}},
	}}})
}

// finishWithGPUUse reports that a trial of a lease ended with such a use of its GPU.
func (w *testWorkers) finishWithGPUUse(
	h *jetstream.GrantedLease, class grid.Class, reason, model string, share, peak int64,
) {
	w.t.Helper()
	w.runCount++
	r := &grid.Result{Class: class, Reason: reason, Started: time.Now().Add(-time.Minute).UnixMicro(),
		Usage: grid.Usage{
			Wall: time.Minute.Microseconds(),
			GPU:  []grid.DeviceUse{{UUID: "GPU-1", Peak: peak, Model: model, Total: 80 * gib, Share: share}},
		}}
	w.closeLease(h, &grid.Batch{V: grid.EventVersion, Sweep: h.Sweep, Node: "n", Events: []grid.Event{
		{Kind: grid.Finished, Index: h.Lo, Attempt: h.Attempt, Run: fmt.Sprint("n.1.", w.runCount),
			Time: time.Now().UnixMicro(), Result: r},
	}})
}

// releaseLease closes a lease of which nothing has run.
func (w *testWorkers) releaseLease(h *jetstream.GrantedLease) {
	w.t.Helper()
	w.closeLease(h, &grid.Batch{V: grid.EventVersion, Sweep: h.Sweep, Node: "n"})
}

// closeLease stores the events with the one that closes the lease, acknowledges it, and waits until
// the master has applied them.
func (w *testWorkers) closeLease(h *jetstream.GrantedLease, b *grid.Batch) {
	w.t.Helper()
	b.Events = append(b.Events,
		grid.Event{Kind: grid.Released, Lease: h.Seq, LeaseID: h.ID, Time: time.Now().UnixMicro()})
	seq, err := w.master.store.Events.Publish(w.t.Context(), b)
	if err = errors.Join(err, w.client().ReturnLease(w.t.Context(), h)); err != nil {
		w.t.Fatal(err)
	}
	w.master.waitFor("the events are followed and the queue is fed", func(s *scheduler) bool {
		return s.applied >= seq
	})
}

// startTrial reports that a node has started the first trial of a lease, and returns the run's
// name.
func (w *testWorkers) startTrial(node grid.NodeID, h *jetstream.GrantedLease) string {
	w.t.Helper()
	w.runCount++
	run := fmt.Sprintf("%s.1.%d", node, w.runCount)
	w.publishEvent(node, h, grid.Event{Kind: grid.Started, Index: h.Lo,
		Attempt: h.Attempt + h.Deliveries - 1, Run: run})
	return run
}

// publishEvent publishes an event of a node and waits until it is applied.
func (w *testWorkers) publishEvent(node grid.NodeID, h *jetstream.GrantedLease, e grid.Event) {
	w.t.Helper()
	e.Time = time.Now().UnixMicro()
	b := &grid.Batch{V: grid.EventVersion, Sweep: h.Sweep, Node: node, Events: []grid.Event{e}}
	seq, err := w.master.store.Events.Publish(w.t.Context(), b)
	if err != nil {
		w.t.Fatal(err)
	}
	w.master.waitFor("the event is followed", func(s *scheduler) bool { return s.applied >= seq })
}

// heartbeat sends a heartbeat of a node with what it holds.
func (w *testWorkers) heartbeat(node grid.NodeID, start string, held ...*jetstream.GrantedLease) jetstream.Directives {
	b := &jetstream.Heartbeat{Start: start}
	for _, h := range held {
		b.Leases = append(b.Leases, jetstream.HeldLease{Seq: h.Seq, Deliveries: h.Deliveries, ID: h.ID})
	}
	b.Mark = w.marks[node]
	o := w.master.handleHeartbeat(node, b)
	w.recordMark(node, o)
	return o
}

// heartbeatRunning sends a heartbeat of a node that holds a lease, with a run of its first trial
// that is age old.
func (w *testWorkers) heartbeatRunning(
	node grid.NodeID, h *jetstream.GrantedLease, run string, age time.Duration,
) jetstream.Directives {
	o := w.master.handleHeartbeat(node,
		&jetstream.Heartbeat{Start: "1", Leases: []jetstream.HeldLease{heldLease(h, run, age)}, Mark: w.marks[node]})
	w.recordMark(node, o)
	return o
}

// recordMark makes the next heartbeats of a node count as current.
func (w *testWorkers) recordMark(node grid.NodeID, o jetstream.Directives) {
	w.marks[node] = o.Mark
}

func heldLease(h *jetstream.GrantedLease, run string, age time.Duration) jetstream.HeldLease {
	return jetstream.HeldLease{
		Seq: h.Seq, Deliveries: h.Deliveries, ID: h.ID, Sweep: h.Sweep,
		Attempts: []jetstream.RunningAttempt{{
			Index: h.Lo, Attempt: h.Attempt + h.Deliveries - 1, Run: run,
			Started: time.Now().Add(-age).UnixMicro(), Age: age,
		}},
	}
}
