package master

import (
	"context"
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

// testMaster is a master over a real store and history.
type testMaster struct {
	*Master
	t          *testing.T
	store      *jetstream.Store
	workers    *testWorkers
	run        func()
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
	s := withWorkers(&testMaster{Master: m, t: t, store: store})
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

// counts returns what history says of the sweep.
func (c *testMaster) counts(id grid.SweepID) history.Counts {
	c.t.Helper()
	n, err := c.cfg.History.Counts(c.t.Context(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}
