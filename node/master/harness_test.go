package master

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/checkpoint"
	"mlfnode/node/history"
)

// newSweep returns a running sweep with a space of n points.
func newSweep(t testing.TB, id grid.SweepID, n int) *grid.Sweep {
	t.Helper()
	return &grid.Sweep{
		V: grid.RecordVersion, ID: id, Project: "t", State: grid.SweepRunning, Space: spaceOf(t, n),
		Task: grid.Task{Name: "test", Resources: grid.Resources{CPUs: grid.One}, Retries: grid.DefaultRetries()},
	}
}

func spaceOf(t testing.TB, n int) space.Space {
	t.Helper()
	axis, err := space.ParseSet(fmt.Sprintf("i=0:%d", n))
	if err != nil {
		t.Fatal(err)
	}
	s, err := space.New([]space.Axis{axis}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// testMaster is a master over a real store and history. The test acts as its workers.
type testMaster struct {
	*Master
	t          *testing.T
	store      *jetstream.Store
	run        func()
	runCount   int
	marks      map[grid.NodeID]uint64 // of the newest directives to each node
	stopMaster func()
}

// startMaster runs a master that believes in so many CPUs.
func startMaster(t *testing.T, cpus float64) *testMaster {
	t.Helper()
	return restartMaster(t, t.TempDir(), cpus)
}

func restartMaster(t *testing.T, dir string, cpus float64) *testMaster {
	t.Helper()
	return startWithNodes(t, dir, cpus, nil)
}

// startWithNodes is restartMaster with the nodes of a cluster.
func startWithNodes(t *testing.T, dir string, cpus float64, nodes *Nodes) *testMaster {
	t.Helper()
	return startWithSnapshots(t, dir, cpus, nodes, nil)
}

// startWithSnapshots is startWithNodes with a store of snapshots.
func startWithSnapshots(t *testing.T, dir string, cpus float64, nodes *Nodes, snapshots *checkpoint.Store) *testMaster {
	t.Helper()
	s := newTestMaster(t, dir, cpus, nodes, snapshots)
	s.run()
	return s
}

// newTestMaster returns a master that runs once run is called.
func newTestMaster(t *testing.T, dir string, cpus float64, nodes *Nodes, snapshots *checkpoint.Store) *testMaster {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	server, err := jetstream.Start(jetstream.Config{Dir: filepath.Join(dir, "jetstream"), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	store, err := server.OpenStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	db, err := history.Open(filepath.Join(dir, "history.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	m := New(Config{
		Store: store, History: db, Logger: log, LeaseTrials: true,
		Capacity: Capacity{Slots: func(r grid.Resources) int { return int(grid.MilliOf(cpus) / r.CPUs) }},
		Nodes:    nodes, Snapshots: snapshots,
	})
	ctx, stop := context.WithCancel(context.Background()) // ends with the test
	ended := make(chan error, 1)
	s := &testMaster{Master: m, t: t, store: store}
	running := false
	s.run = func() {
		running = true
		go func() { ended <- m.Run(ctx) }()
		<-m.Ready()
	}
	s.stopMaster = sync.OnceFunc(func() {
		stop()
		if running {
			if err := <-ended; err != nil {
				t.Errorf("master ended with: %v", err)
			}
		}
		db.Close()
		store.Close()
		server.Close()
	})
	t.Cleanup(s.stopMaster)
	return s
}

// submit stores a sweep of n points; edit may change the submission.
func (c *testMaster) submit(n int, edit func(*api.Submit)) grid.SweepID {
	c.t.Helper()
	s := api.Submit{Project: "t", Space: spaceOf(c.t, n), Task: newSweep(c.t, "", 1).Task}
	if edit != nil {
		edit(&s)
	}
	r, err := c.Submit(c.t.Context(), &s)
	if err != nil {
		c.t.Fatal(err)
	}
	return r.Sweep.ID
}

// inLoop runs fn on the scheduler's goroutine.
func (c *testMaster) inLoop(fn func(*scheduler)) {
	c.t.Helper()
	if err := c.call(context.Background(), fn); err != nil {
		c.t.Fatal(err)
	}
}

// waitFor checks the scheduler after each of its steps until ok returns true.
func (c *testMaster) waitFor(what string, ok func(*scheduler) bool) {
	c.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		found := false
		c.inLoop(func(s *scheduler) { found = ok(s) })
		if found {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			c.t.Fatalf("after a minute still not: %s", what)
		}
	}
}

// waitForLeases waits until the sweep has so many leases.
func (c *testMaster) waitForLeases(id grid.SweepID, want int) {
	c.t.Helper()
	c.waitFor(fmt.Sprintf("%d leases of %s", want, id), func(s *scheduler) bool {
		f := s.feeds[id]
		return f != nil && len(f.leases) == want
	})
}

// leaseClient is the client with which tests take leases.
func (c *testMaster) leaseClient() *jetstream.MasterClient { return c.store.Calls.LocalClient("n") }

// takeLease takes one lease of the sweep's lane, which must be there.
func (c *testMaster) takeLease(id grid.SweepID) *jetstream.GrantedLease {
	c.t.Helper()
	r, ok := c.Sweep(id)
	if !ok {
		c.t.Fatalf("no sweep %s", id)
	}
	return c.takeLeaseIn(r.Sweep.Lane())
}

// takeLeaseIn takes one lease of a lane, which must be there. nats-server now and then answers a
// request that nothing is there just after it has stored a lease (1 of 1,500 here, more when all
// processors are busy); workers ask again, and so does this.
func (c *testMaster) takeLeaseIn(lane grid.Lane) *jetstream.GrantedLease {
	c.t.Helper()
	var held []jetstream.GrantedLease
	var err error
	for limit := time.Now().Add(10 * time.Second); len(held) == 0 && err == nil && time.Now().Before(limit); {
		held, err = c.leaseClient().TakeLeases(c.t.Context(), string(lane), 1)
	}
	if err != nil || len(held) != 1 {
		c.t.Fatalf("pull from lane %s: got %d leases, %v; want one", lane, len(held), err)
	}
	return &held[0]
}

// finishLease reports that all trials of a lease ended alike after they ran for so long, and closes
// the lease.
func (c *testMaster) finishLease(h *jetstream.GrantedLease, class grid.Class, took time.Duration) {
	c.t.Helper()
	b := &grid.Batch{V: grid.EventVersion, Sweep: h.Sweep, Node: "n"}
	now := time.Now()
	for i := h.Lo; i < h.Hi; i++ {
		c.runCount++
		b.Events = append(b.Events, grid.Event{
			Kind: grid.Finished, Index: i, Attempt: h.Attempt, Run: fmt.Sprint("n.1.", c.runCount),
			Time: now.UnixMicro(),
			Result: &grid.Result{Class: class, Started: now.Add(-took).UnixMicro(),
				Usage: grid.Usage{Wall: took.Microseconds()}},
		})
	}
	c.closeLease(h, b)
}

// releaseLease closes a lease of which nothing has run.
func (c *testMaster) releaseLease(h *jetstream.GrantedLease) {
	c.t.Helper()
	c.closeLease(h, &grid.Batch{V: grid.EventVersion, Sweep: h.Sweep, Node: "n"})
}

// closeLease stores the events with the one that closes the lease, acknowledges it, and waits until
// the master has applied them.
func (c *testMaster) closeLease(h *jetstream.GrantedLease, b *grid.Batch) {
	c.t.Helper()
	b.Events = append(b.Events,
		grid.Event{Kind: grid.Released, Lease: h.Seq, LeaseID: h.ID, Time: time.Now().UnixMicro()})
	seq, err := c.store.Events.Publish(c.t.Context(), b)
	if err = errors.Join(err, c.leaseClient().ReturnLease(c.t.Context(), h)); err != nil {
		c.t.Fatal(err)
	}
	c.waitFor("the events are followed and the queue is fed", func(s *scheduler) bool { return s.applied >= seq })
}

// counts returns what history says of the sweep.
func (c *testMaster) counts(id grid.SweepID) history.Counts {
	c.t.Helper()
	n, err := c.cfg.History.Counts(c.t.Context(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}
