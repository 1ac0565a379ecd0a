package master

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/checkpoint"
	"mlfnode/node/history"
)

// startWithSnapshotStore starts a master with a store of snapshots.
func startWithSnapshotStore(t *testing.T, limit int64) (*testMaster, *checkpoint.Store) {
	t.Helper()
	store, err := checkpoint.OpenStore(t.TempDir(), limit, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return startWithSnapshots(t, t.TempDir(), 4, nil, store), store
}

func checkpointTask(s *api.Submit) {
	c := grid.DefaultCheckpoint()
	s.Task.Checkpoint = &c
	s.Task.Retries = grid.Retries{grid.ClassExit: 9, grid.ClassCheckpoint: 9}
}

// saveSnapshot stores a snapshot of an attempt of trial 0.
func saveSnapshot(t *testing.T, store *checkpoint.Store, id grid.SweepID, attempt, resumed int) {
	t.Helper()
	files := []checkpoint.File{{Path: fmt.Sprint(attempt), Mode: fs.ModeDir}}
	n, missing, err := store.Offer(t.Context(), grid.TrialID{Sweep: id},
		&checkpoint.Snapshot{Attempt: attempt, Resumed: resumed, Files: files})
	if n == 0 || len(missing) > 0 || err != nil {
		t.Fatalf("got %d, %v, %v", n, missing, err)
	}
}

// TestLeasesNameSnapshots follows a trial: each lease is of one trial and names the newest
// snapshot; when that can't be read, the one before, then none; what fails later than soon after
// its start has another reason; success frees all.
func TestLeasesNameSnapshots(t *testing.T) {
	t.Parallel()
	c, store := startWithSnapshotStore(t, 1<<30)
	id := c.submit(1, checkpointTask)
	resumed := 0
	attempt := func(wantSnapshot, wantBad int, class grid.Class, wall time.Duration, stores bool) {
		t.Helper()
		h := c.workers.waitAndTakeLease(id)
		if h.Lo != 0 || h.Hi != 1 || h.Snapshot != wantSnapshot || h.Bad != wantBad {
			t.Errorf("attempt %d: got the lease [%d,%d) with snapshot %d, bad %d; want %d, %d", h.Attempt, h.Lo, h.Hi,
				h.Snapshot, h.Bad, wantSnapshot, wantBad)
		}
		resumed = h.Snapshot
		if stores {
			saveSnapshot(t, store, id, h.Attempt, resumed)
		}
		c.workers.runCount++
		c.workers.closeLease(h, &grid.Batch{V: grid.EventVersion, Sweep: id, Node: "n", Events: []grid.Event{{
			Kind: grid.Finished, Attempt: h.Attempt, Run: "n.1." + time.Duration(c.workers.runCount).String(),
			Time:   time.Now().UnixMicro(),
			Result: &grid.Result{Class: class, Resumed: resumed, Usage: grid.Usage{Wall: wall.Microseconds()}},
		}}})
	}
	attempt(0, 0, grid.ClassPreempt, time.Hour, true)
	attempt(1, 0, grid.ClassExit, time.Hour, true)
	attempt(2, 0, grid.ClassCheckpoint, time.Hour, false) // it ran for an hour, so it could read what it had
	attempt(2, 0, grid.ClassCheckpoint, time.Second, false)
	attempt(1, 4, grid.ClassCheckpoint, time.Second, false)
	attempt(0, 5, grid.ClassHalt, time.Hour, true)
	attempt(3, 5, grid.ClassNone, time.Hour, false)
	if n, _ := store.Newest(grid.TrialID{Sweep: id}); n != 0 || len(store.Sweeps()) != 0 {
		t.Errorf("got snapshot %d of a trial that has succeeded", n)
	}
}

// TestCheckpointedTrialsAreLeasedAlone leases trials that may have a snapshot one at a time,
// however short they are.
func TestCheckpointedTrialsAreLeasedAlone(t *testing.T) {
	c, _ := startWithSnapshotStore(t, 1<<30)
	id := c.submit(500, checkpointTask)
	for range 20 {
		h := c.workers.waitAndTakeLease(id)
		if h.Hi-h.Lo != 1 {
			t.Fatalf("got a lease of %d trials", h.Hi-h.Lo)
		}
		c.workers.finishLease(h, grid.ClassNone, time.Microsecond)
	}
}

// TestHolder checks which node may access a trial's snapshots.
func TestHolder(t *testing.T) {
	c, _ := startWithSnapshotStore(t, 1<<30)
	id := c.submit(2, checkpointTask)
	h := c.workers.waitAndTakeLease(id)
	c.leases.recordHeld("a", []jetstream.HeldLease{{Seq: h.Seq, ID: h.ID, Sweep: id, Deliveries: 1}},
		&jetstream.Directives{}, time.Now())
	for _, q := range []struct {
		node grid.NodeID
		id   grid.TrialID
		want bool
	}{
		{"a", grid.TrialID{Sweep: id, Index: h.Lo}, true}, {"b", grid.TrialID{Sweep: id, Index: h.Lo}, false},
		{"", grid.TrialID{Sweep: id, Index: 1 - h.Lo}, false},
		{"a", grid.TrialID{Sweep: id, Index: 1 - h.Lo}, false}, {"a", grid.TrialID{Sweep: "t-99", Index: 0}, false},
		{"a", grid.TrialID{Sweep: id, Index: -1}, false},
	} {
		if got, err := c.HoldsTrial(t.Context(), q.node, q.id); got != q.want || err != nil {
			t.Errorf("%q holds %v: got %v, %v; want %v", q.node, q.id, got, err, q.want)
		}
	}
}

// TestRejectsOutliveTheMaster lets a program fail over what it saved while the scheduler does not
// follow: the master ends in between, or the sweep has ended. The snapshot is rejected all the
// same.
func TestRejectsOutliveTheMaster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := checkpoint.OpenStore(t.TempDir(), 1<<30, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c := startWithSnapshots(t, dir, 4, nil, store)
	ids := []grid.SweepID{c.submit(1, checkpointTask), c.submit(1, checkpointTask)}
	fails := func(id grid.SweepID) *grid.Batch {
		return &grid.Batch{V: grid.EventVersion, Sweep: id, Node: "n", Events: []grid.Event{{
			Kind: grid.Finished, Attempt: 2, Run: "n.1.x", Time: time.Now().UnixMicro(),
			Result: &grid.Result{Class: grid.ClassCheckpoint, Resumed: 1, Usage: grid.Usage{Wall: 1e6}},
		}}}
	}
	for _, id := range ids {
		saveSnapshot(t, store, id, 1, 0)
		c.waitForLeases(id, 1)
	}
	c.inLoop(func(s *scheduler) { s.closeFeed(ids[0]) }) // as after its end
	if _, err := c.store.Events.Publish(t.Context(), fails(ids[0])); err != nil {
		t.Fatal(err)
	}
	c.waitFor("the first is rejected", func(*scheduler) bool {
		n, _ := store.Newest(grid.TrialID{Sweep: ids[0]})
		return n == 0
	})
	if _, err := c.store.Events.Publish(t.Context(), fails("unknown-1")); err != nil {
		t.Fatal(err)
	}
	c.stopMaster()
	publishAlone(t, dir, fails(ids[1]))
	startWithSnapshots(t, dir, 4, nil, store)
	if n, bad := store.Newest(grid.TrialID{Sweep: ids[1]}); n != 0 || bad != 2 {
		t.Errorf("got snapshot %d, bad %d after a restart; want 0, 2", n, bad)
	}
}

// TestSuccessOutlivesTheMaster ends a master after a trial has succeeded and before its snapshots
// are removed: the next master removes them, and no others.
func TestSuccessOutlivesTheMaster(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store, err := checkpoint.OpenStore(t.TempDir(), 1<<30, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	c := startWithSnapshots(t, dir, 4, nil, store)
	id := c.submit(3, func(s *api.Submit) { checkpointTask(s); s.Task.Retries = nil })
	for _, class := range []grid.Class{grid.ClassNone, grid.ClassExit} {
		c.workers.finishLease(c.workers.waitAndTakeLease(id), class, time.Second)
	}
	c.stopMaster()
	files := []checkpoint.File{{Path: "a", Mode: fs.ModeDir}}
	for i := range int64(3) {
		if _, _, err := store.Offer(t.Context(), grid.TrialID{Sweep: id, Index: i},
			&checkpoint.Snapshot{Attempt: 1, Files: files}); err != nil {
			t.Fatal(err)
		}
	}
	startWithSnapshots(t, dir, 4, nil, store).waitForLeases(id, 1)
	if got := slices.Sorted(slices.Values(store.Trials(id))); !slices.Equal(got, []int64{1, 2}) {
		t.Errorf("got snapshots of %v, want those of the trials that have not succeeded", got)
	}
}

// TestRestartedMasterKnowsWhereTrialsGo loads what history says of trials whose next attempt waits,
// or is leased already.
func TestRestartedMasterKnowsWhereTrialsGo(t *testing.T) {
	sweep := newSweep(t, "t-1", 9)
	sweep.Task.Checkpoint = &grid.Checkpoint{}
	f := newFeed(sweep)
	f.restoreLease(&jetstream.QueuedLease{Lease: jetstream.Lease{ID: "l", Lo: 2, Hi: 4, Attempt: 2}, Seq: 1},
		time.Now())
	var open []grid.Trial
	for i, r := range []grid.Result{{Class: grid.ClassLost}, {Class: grid.ClassDisk}, {Class: grid.ClassLost},
		{Class: grid.ClassDisk}, {Class: grid.ClassLost, Snapshot: 1}} {
		open = append(open, grid.Trial{Index: int64(i), State: grid.Pending, Attempts: 1, Node: "b", Result: r})
	}
	open = append(open, grid.Trial{Index: 5, State: grid.Running, Attempts: 1, Node: "b"})
	f.loadHistory(&history.Remaining{Open: open}, time.Now())
	for i := range int64(6) {
		if owned, shunned := f.snapshotNodes[i] == "b", len(f.failedOn[i]) > 0; owned != (i == 0 || i == 2) ||
			shunned != (i == 1 || i == 3) {
			t.Errorf("trial %d: got owned %t, avoided %t by %+v", i, owned, shunned, open[i].Result)
		}
	}
}

// publishAlone stores events in a master's folder while no master runs.
func publishAlone(t *testing.T, dir string, b *grid.Batch) {
	t.Helper()
	server, err := jetstream.Start(jetstream.Config{Dir: filepath.Join(dir, "jetstream"),
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	store, err := server.OpenStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if _, err := store.Events.Publish(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

// TestSnapshotsOfEndedSweeps checks what is removed automatically: snapshots of unknown sweeps, of
// sweeps that were cancelled a day ago, and, for room, of ended ones. Those of trials that may run
// again stay.
func TestSnapshotsOfEndedSweeps(t *testing.T) {
	c, store := startWithSnapshotStore(t, 1<<30)
	long := time.Now().Add(-2 * keepCancelledFor)
	for name, s := range map[grid.SweepID]*grid.Sweep{
		"running-1": {State: grid.SweepRunning}, "paused-1": {State: grid.SweepPaused},
		"finished-1":  {State: grid.SweepFinished, Ended: long},
		"cancelled-1": {State: grid.SweepCancelled, Ended: long},
		"fresh-1":     {State: grid.SweepCancelled, Ended: time.Now()},
		"saved-1":     {State: grid.SweepCancelled, Ended: long, Save: true}, "unknown-1": nil,
	} {
		if s != nil {
			s.ID = name
			c.storeRecord(jetstream.Change{ID: name, Record: jetstream.Record{Sweep: s, Rev: 1}})
		}
		saveSnapshot(t, store, name, 1, 0)
	}
	left := func() map[grid.SweepID]bool {
		all := map[grid.SweepID]bool{}
		for _, id := range store.Sweeps() {
			all[id] = true
		}
		return all
	}
	c.snapshots.clean(true, 0)
	got := left()
	for _, id := range []grid.SweepID{"running-1", "paused-1", "finished-1", "fresh-1", "saved-1"} {
		if !got[id] {
			t.Errorf("the snapshots of %s are gone", id)
		}
	}
	if len(got) != 5 {
		t.Errorf("got %v left", got)
	}
	store.SetLimit(1000)
	store.OnFull(func(need int64) { c.snapshots.clean(false, need) })
	big := &checkpoint.Snapshot{Files: []checkpoint.File{{Path: "a", Size: 2000, Hash: strings.Repeat("a", 64)}}}
	if _, _, err := store.Offer(t.Context(), grid.TrialID{Sweep: "running-1", Index: 1}, big); !errors.Is(err,
		checkpoint.ErrFull) {
		t.Errorf("got %v of a snapshot that never fits", err)
	}
	if got := left(); len(got) != 2 || !got["running-1"] || !got["paused-1"] {
		t.Errorf("without room: got %v left, want what may run again", got)
	}
}

// TestTrialsGoWhereTheirStateIs makes leases ask all other nodes to wait for the one that alone has
// what a trial saved, as long as that one takes trials.
func TestTrialsGoWhereTheirStateIs(t *testing.T) {
	members := []cluster.Member{}
	for _, n := range []grid.NodeID{"a", "b", "c"} {
		members = append(members,
			cluster.Member{Node: n, State: cluster.Alive, Self: cluster.Self{Roles: []grid.NodeRole{grid.Worker}}})
	}
	s := newScheduler(&Master{cfg: Config{Nodes: &Nodes{Members: func() []cluster.Member { return members }}}})
	sweep := newSweep(t, "t-1", 9)
	sweep.Task.Checkpoint = &grid.Checkpoint{}
	f := newFeed(sweep)
	for name, c := range map[string]struct {
		class    grid.Class
		snapshot int
		want     string
	}{
		"not stored": {grid.ClassPreempt, 0, "[a c]"}, "its agent died": {grid.ClassLost, 0, "[a c]"},
		"stored":        {grid.ClassPreempt, 3, "[]"},
		"can't be read": {grid.ClassCheckpoint, 0, "[]"}, "its node died": {grid.ClassCrash, 0, "[]"},
		"it is to go elsewhere": {grid.ClassDisk, 0, "[]"},
	} {
		delete(f.snapshotNodes, 1)
		f.recordFailure(&history.Transition{Index: 1, Node: "b", Class: c.class, Snapshot: c.snapshot},
			f.sweep, time.Now())
		clear(f.failedOn) // only where the snapshot is counts here
		nodes, _ := s.feeder.avoidedNodes(f, 1, &laneFeeds{})
		if got := fmt.Sprint(nodes); got != c.want {
			t.Errorf("%s: got %s to wait, want %s", name, got, c.want)
		}
	}
	f.snapshotNodes[1] = "b"
	for _, change := range []func(*cluster.Member){
		func(m *cluster.Member) { m.Drained = true }, func(m *cluster.Member) { m.State = cluster.Dead },
		func(m *cluster.Member) { m.Quarantined = true },
	} {
		before := members[1]
		change(&members[1])
		if got, _ := s.feeder.avoidedNodes(f, 1, &laneFeeds{}); len(got) > 0 {
			t.Errorf("%+v: got %v to wait for a node that takes no trials", members[1], got)
		}
		members[1] = before
	}
}

// TestRemovedSweepsLeaveNoSnapshots removes a sweep whose trial has failed with something saved.
func TestRemovedSweepsLeaveNoSnapshots(t *testing.T) {
	c, store := startWithSnapshotStore(t, 1<<30)
	id := c.submit(1, func(s *api.Submit) { checkpointTask(s); s.Task.Retries = grid.Retries{} })
	h := c.workers.waitAndTakeLease(id)
	saveSnapshot(t, store, id, 1, 0)
	c.workers.finishLease(h, grid.ClassExit, time.Second)
	c.waitFor("the sweep has ended", func(*scheduler) bool {
		r, _ := c.Sweep(id)
		return r.Sweep.State == grid.SweepFinished
	})
	if n, _ := store.Newest(grid.TrialID{Sweep: id}); n != 1 {
		t.Errorf("got snapshot %d of a trial that failed, want it kept for a retry", n)
	}
	if err := c.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if all := store.Sweeps(); len(all) > 0 {
		t.Errorf("got snapshots of %v left", all)
	}
}
