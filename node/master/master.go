// Package master decides what runs next and keeps the truth about what ran. It tops up the shallow
// lease queue from the active sweeps, folds the event stream into history, and requeues what is
// lost.
//
// The master is level-triggered: for each active sweep it compares what is wanted (every index)
// with what it has (terminal trials, leases in the queue, trials that wait for a retry) and leases
// the difference. Everything that it keeps can be rebuilt from the records, the event stream and
// the queue, so it may stop or crash between any two steps.
package master

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/checkpoint"
	"mlfnode/node/history"
	"mlfnode/node/poll"
)

// Config holds the collaborators and settings of a Master.
type Config struct {
	Store   *jetstream.Store
	History *history.DB
	Logger  *slog.Logger

	// Slots returns how many attempts with these resources the cluster can run at a time.
	Slots func(grid.Resources) int
	// NeverFits says, in words, why no known node could ever run an attempt with these resources,
	// whatever ends there. It returns "" when a node could, or when no node is known. Nil refuses
	// nothing.
	NeverFits func(grid.Resources) string
	// LocalRefusals returns the reasons why trials wait on this machine, for a master without
	// Nodes; may be nil.
	LocalRefusals func() map[grid.Lane]grid.Refusal
	// AwaitDevices waits until the GPUs of this machine have been detected; nil where there is
	// nothing to wait for.
	AwaitDevices func(context.Context)
	// LeaseTrials is false for a master that only keeps history and records, and lets nothing run.
	LeaseTrials bool
	Retention   Retention
	// CheckContainers returns why this node can't run containers; nil where other nodes may.
	CheckContainers func(context.Context) error
	// ClusterProblem says what keeps trials from running anywhere, "" when nothing does. It may be
	// nil.
	ClusterProblem func() string
	// Snapshots stores what trials have saved; nil where nothing is stored.
	Snapshots *checkpoint.Store
	// Nodes are the other nodes of a cluster; nil for a node that stands alone, whose leases end
	// with it.
	Nodes *Nodes
}

// Retention bounds which ended sweeps are kept.
type Retention struct {
	Sweeps int           // how many of the newest ended sweeps are kept; 0 keeps all
	Age    time.Duration // ended sweeps older than this are removed; 0 keeps them
}

// Master runs the sweeps of a cluster. Make one with New.
type Master struct {
	cfg   Config
	log   *slog.Logger
	ready chan struct{} // closed when history has caught up and the records are known

	*inbox
	*sweepTable
	*sweepActions
	*submissions
	*inspector
	*problems
	*liveSettings
	*sampleStore
	*nodeWatcher
	*collector
	leases    *leaseTable
	snapshots *trialSnapshots
	loaded    uint64 // the newest revision of the records that catchUp has loaded
}

// New makes a Master; Run runs it.
func New(cfg Config) *Master {
	m := &Master{
		cfg: cfg, log: cfg.Logger.With("component", "master"), ready: make(chan struct{}),
		inbox: &inbox{
			wake: poll.NewSignal(), room: make(chan struct{}, maxSent), closed: make(chan struct{}),
		},
		liveSettings: &liveSettings{values: settings{retention: cfg.Retention}}, leases: newLeaseTable(),
		sampleStore: &sampleStore{db: cfg.History, byNode: map[grid.NodeID]*nodeSamples{}},
	}
	m.sweepTable = &sweepTable{
		records: cfg.Store.Records, sweeps: map[grid.SweepID]jetstream.Record{}, reopens: map[grid.SweepID]int{},
		changed: make(chan struct{}), released: m.Kick,
	}
	m.sweepActions = &sweepActions{table: m.sweepTable, history: cfg.History, events: cfg.Store.Events, inbox: m.inbox}
	m.submissions = &submissions{m: m, lock: make(chan struct{}, 1), uncertain: map[string]grid.SweepID{}}
	m.inspector = &inspector{m}
	m.problems = &problems{log: m.log, changed: m.signalChange}
	m.nodeWatcher = &nodeWatcher{m: m, nodes: &nodeTable{
		byID: map[grid.NodeID]*nodeState{}, marks: uint64(time.Now().UnixNano()),
	}}
	m.collector = &collector{m: m, runNow: poll.NewSignal()}
	if cfg.Nodes != nil {
		m.values.crashLimit, m.values.outage = cfg.Nodes.CrashLimit, cfg.Nodes.Outage
	}
	m.snapshots = &trialSnapshots{store: cfg.Snapshots, sweeps: m.sweepTable, history: cfg.History, log: m.log}
	if cfg.Snapshots != nil {
		cfg.Snapshots.OnFull(func(need int64) { m.snapshots.clean(false, need) })
	}
	return m
}

// Run folds events and feeds the queue until ctx ends. It returns early only when the store or
// history fails for good.
func (m *Master) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer close(m.closed)
	if err := m.catchUp(ctx); err != nil {
		return err
	}
	samples, err := m.cfg.History.Samples()
	if err != nil {
		return err
	}
	m.sampleStore.restore(samples) // before nodes report
	caughtUp := m.Applied()        // before more is folded
	ready := time.Now()
	close(m.ready)
	var wg sync.WaitGroup
	start := func(what string, run func(context.Context) error) {
		wg.Go(func() {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				cancel(fmt.Errorf("%s: %w", what, err))
			}
		})
	}
	start("watch sweep records", func(ctx context.Context) error {
		// From where catchUp has loaded them: nobody changes records in between.
		return m.cfg.Store.Records.Watch(ctx, m.loaded, func(c jetstream.Change) {
			m.storeRecord(c)
			_ = m.send(ctx, func(s *scheduler) { s.applyError = s.applyRecord(ctx, c) }) // fails only when ctx ends
		})
	})
	start("fold events", func(ctx context.Context) error {
		return m.foldEvents(ctx, func(f folded) error {
			return m.send(ctx, func(s *scheduler) { s.applyFold(ctx, f) })
		})
	})
	start("fold live metrics", m.foldProgress)
	start("top up the lease queue", func(ctx context.Context) error { return newScheduler(m).run(ctx, caughtUp) })
	start("watch nodes", m.watch)
	if m.cfg.Nodes != nil { // else no node reports samples
		start("save samples", m.sampleStore.saveRegularly)
	}
	start("remove old sweeps", func(ctx context.Context) error { return m.collector.run(ctx, ready) })
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Ready returns a channel that is closed once the master knows all that is stored.
func (m *Master) Ready() <-chan struct{} { return m.ready }

// catchUp loads the records and folds the stored events before anything else happens.
func (m *Master) catchUp(ctx context.Context) error {
	records, err := m.cfg.Store.Records.All(ctx)
	if err != nil {
		return fmt.Errorf("load sweep records: %w", err)
	}
	for _, r := range records {
		m.sweeps[r.Sweep.ID] = r
		m.loaded = max(m.loaded, r.Rev)
	}
	first, last, err := m.cfg.Store.Events.Bounds(ctx)
	if err != nil {
		return fmt.Errorf("read the bounds of the event stream: %w", err)
	}
	if err := m.checkHistory(ctx, first, last, grid.RecordVersion); err != nil {
		return err
	}
	m.applied = m.cfg.History.Applied()
	if m.applied >= last {
		return nil
	}
	err = m.foldEvents(ctx, func(folded) error {
		if m.applied >= last {
			return errCaughtUp
		}
		return nil
	})
	if !errors.Is(err, errCaughtUp) {
		return fmt.Errorf("catch up with the event stream: %w", err)
	}
	return nil
}

// checkHistory resets a history that was not folded from this event stream, whose first and last
// sequence are given. It also resets one that lacks the events of sweeps whose records an earlier
// version of mlfnode could not read; this version reads records up to version. The earliest
// versions recorded neither that they left something out nor which stream they folded, and they
// could not read long records.
func (m *Master) checkHistory(ctx context.Context, first, last uint64, version int) error {
	db, life := m.cfg.History, m.cfg.Store.Events.Epoch()
	at, origin := db.Applied(), db.Origin()
	another := at > last || (origin.Stream != "" && origin.Stream != life)
	newer := origin.Unread > 0 && origin.Unread < version
	skipped := origin.Stream == "" && at > 0 && m.hasLong()
	if another || newer || skipped || (first > 1 && at == 0) {
		m.log.Warn("history does not match the event stream and is rebuilt",
			"applied", at, "first", first, "last", last, "another", another)
	}
	if another || newer || skipped {
		if err := db.Reset(ctx); err != nil {
			return fmt.Errorf("rebuild history: %w", err)
		}
		origin.Unread = 0
	}
	origin.Stream = life
	if m.cfg.Store.Records.Unreadable() && (origin.Unread == 0 || origin.Unread > version) {
		origin.Unread = version
	}
	return db.SetOrigin(ctx, origin)
}

// errCaughtUp ends the reading in catchUp.
var errCaughtUp = errors.New("caught up")

// foldEvents folds events from where history stands and passes on what changed, until ctx ends or
// fn returns an error.
func (m *Master) foldEvents(ctx context.Context, fn func(folded) error) error {
	return m.cfg.Store.Events.Read(ctx, m.cfg.History.Applied()+1, func(stored []jetstream.StoredBatch) error {
		batches := make([]history.Stored, len(stored))
		for i, s := range stored {
			batches[i] = history.Stored{Seq: s.Seq, Batch: s.Batch}
		}
		m.snapshots.rejectUnreadable(stored)
		changed, err := m.foldWithRetry(ctx, batches)
		if err != nil {
			return err
		}
		m.setApplied(stored[len(stored)-1].Seq)
		f := folded{last: stored[len(stored)-1].Seq, changed: changed, images: imagesUsed(stored)}
		for _, s := range stored {
			for i := range s.Batch.Events {
				if e := &s.Batch.Events[i]; e.Kind == grid.Released {
					f.released = append(f.released, releasedLease{s.Batch.Sweep, e.LeaseID, s.Batch.Node})
				}
			}
		}
		return fn(f)
	})
}

// foldRetry is the time before events for which there was no room are folded again.
const foldRetry = 500 * time.Millisecond

// foldWithRetry folds batches, and retries while the disk is full: the events are safe in the
// stream, so a full disk must not end the node.
func (m *Master) foldWithRetry(ctx context.Context, batches []history.Stored) ([]history.Transition, error) {
	for {
		changed, err := m.cfg.History.Fold(ctx, batches, m.policy)
		if !history.IsFull(err) {
			m.setProblem(folding, "")
			return changed, err
		}
		if m.setProblem(folding, err.Error()) {
			m.log.Warn("events can't be folded now; trying again", "err", err)
		}
		if !poll.Sleep(ctx, foldRetry) {
			return nil, context.Cause(ctx)
		}
	}
}

// folded is what one fold changed.
type folded struct {
	last     uint64 // sequence of the last event
	changed  []history.Transition
	released []releasedLease
	images   map[grid.SweepID]string // see imagesUsed
}

// releasedLease is a lease that its node has closed.
type releasedLease struct {
	sweep grid.SweepID
	lease grid.LeaseID
	node  grid.NodeID
}

// Problem says what hinders the master at the moment, in words for the user; empty when nothing
// does.
func (m *Master) Problem() string {
	problem := m.problems.current()
	if problem == "" && m.cfg.ClusterProblem != nil {
		problem = m.cfg.ClusterProblem()
	}
	return problem
}
