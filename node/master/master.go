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

	Capacity Capacity
	// LocalRefusals returns the reasons why trials wait on this machine, for a master without
	// Nodes; may be nil.
	LocalRefusals func() map[grid.Lane]grid.Refusal
	// LeaseTrials is false for a master that only keeps history and records, and lets nothing run.
	LeaseTrials bool
	Retention   Retention
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
	*nodeWatcher
	*collector
	leases *leaseTable
	fold   *eventFold
}

// New makes a Master; Run runs it.
func New(cfg Config) *Master {
	m := &Master{
		cfg: cfg, log: cfg.Logger.With("component", "master"), ready: make(chan struct{}),
		inbox: &inbox{
			wake: poll.NewSignal(), room: make(chan struct{}, maxSent), closed: make(chan struct{}),
		},
		liveSettings: &liveSettings{values: settings{retention: cfg.Retention}}, leases: newLeaseTable(),
	}
	m.sweepTable = &sweepTable{
		records: cfg.Store.Records, sweeps: map[grid.SweepID]jetstream.Record{}, reopens: map[grid.SweepID]int{},
		changed: make(chan struct{}), released: m.Kick,
	}
	m.sweepActions = &sweepActions{table: m.sweepTable, history: cfg.History, events: cfg.Store.Events, inbox: m.inbox}
	m.submissions = &submissions{m: m, lock: make(chan struct{}, 1), uncertain: map[string]grid.SweepID{}}
	m.inspector = &inspector{m}
	m.problems = &problems{log: m.log, changed: m.signalChange}
	m.nodeWatcher = &nodeWatcher{
		m: m, nodes: &nodeTable{byID: map[grid.NodeID]*nodeState{}, marks: uint64(time.Now().UnixNano())},
		sampleStore: &sampleStore{db: cfg.History, byNode: map[grid.NodeID]*nodeSamples{}},
	}
	m.collector = &collector{
		m: m, runNow: poll.NewSignal(),
		snapshots: &trialSnapshots{store: cfg.Snapshots, sweeps: m.sweepTable, history: cfg.History, log: m.log},
	}
	m.fold = &eventFold{
		store: cfg.Store, history: cfg.History, sweeps: m.sweepTable, snapshots: m.snapshots,
		problems: m.problems, log: m.log,
	}
	if cfg.Nodes != nil {
		m.values.crashLimit, m.values.outage = cfg.Nodes.CrashLimit, cfg.Nodes.Outage
	}
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
	revision, err := m.sweepTable.load(ctx)
	if err != nil {
		return err
	}
	if err := m.fold.catchUp(ctx); err != nil {
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
		// From the newest revision that was loaded: nobody changes records in between.
		return m.cfg.Store.Records.Watch(ctx, revision, func(c jetstream.Change) {
			m.storeRecord(c)
			_ = m.send(ctx, func(s *scheduler) { s.applyError = s.applyRecord(ctx, c) }) // fails only when ctx ends
		})
	})
	start("fold events", func(ctx context.Context) error {
		return m.fold.run(ctx, func(f folded) error {
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

// Problem says what hinders the master at the moment, in words for the user; empty when nothing
// does.
func (m *Master) Problem() string {
	problem := m.problems.current()
	if problem == "" && m.cfg.Capacity.Problem != nil {
		problem = m.cfg.Capacity.Problem()
	}
	return problem
}
