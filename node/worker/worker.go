// Package worker runs trials on one node. It reserves resources first, takes exactly the leases that fit, runs their trials
// one after the other, and reports what happened in small batches: output first, events second, acknowledgement last.
//
// Every attempt owns a spool, a folder that holds what the attempt writes and a manifest that names it, until what it wrote
// and how it ended are stored. So whatever moment the agent dies, the next start finds the spool and tells the truth.
package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/checkpoint"
	"mlfnode/node/executor"
	"mlfnode/node/worker/allocator"
	"mlfnode/node/worker/devices"
	"mlfnode/projects"
)

// Config holds the collaborators and settings of a Worker.
type Config struct {
	Node       grid.NodeID
	Dir        string // the worker's part of the state folder: spools, bundles, caches
	Master     *jetstream.MasterClient
	Files      Files
	Executor   executor.Executor
	Machine    inventory.Machine // what trials may use
	Devices    allocator.Options // how they share its devices, which Meet tells
	GPUs       devices.Source    // what the devices are used for; nil when nobody looks
	Policy     Policy            // what trials may have of them
	Containers *Containers       // for tasks with an image; nil when the node has none
	Adopt      Adopter           // what outlived the last agent; nil when nothing can
	Logger     *slog.Logger
	Projects   int64 // bytes of unpacked projects and setups that are kept; 0 is a tenth of the disk

	Snapshots    checkpoint.Remote // where what trials save is stored; nil keeps it on this node
	SnapshotRate int64             // bytes of it that are sent and fetched each second, at most; 0 is no limit

	// Beats is set on a node of a cluster: the master is told what this worker holds, and may take it back.
	Beats bool
	// Outlive is how long attempts go on without an agent; 0 when they end with it.
	Outlive time.Duration
	// Labels are those by which tasks name this node.
	Labels []string
	// Keys names the gossip keyring that this node has; may be nil.
	Keys func() uint64
	// DevicesChanged is called when a device has changed its state; may be nil. It must be quick.
	DevicesChanged func()
	// Sample gives what the machine is doing, another one when it was looked at again; nil while that is not known. It must be quick, and
	// may be nil itself.
	Sample func() *jetstream.Sample
	// Curves says of which trials curves are reported, on a node that sends no beats; may be nil.
	Curves func() grid.CurveShare
	// Orders is told what the master answers to each beat; may be nil. It must be quick.
	Orders func(*jetstream.Directives)
}

const (
	// stopTime bounds the last reports of a worker that stops.
	stopTime = 20 * time.Second
	// refusedTime is how long a worker that stops waits for a store that refuses its reports. Nothing is lost by giving up: the
	// spools keep them for the next start, and the person who stopped the node waits for its end.
	refusedTime = 5 * time.Second
	// StopLimit is how long a worker takes to stop at most: its programs have their grace, what they saved is stored, and all is reported.
	StopLimit = grid.MaxCheckpointGrace + partingTime + stopTime
)

// Worker runs trials. Make one with New.
type Worker struct {
	cfg      Config
	log      *slog.Logger
	runs     runs
	spools   *spools
	outbox   *outbox
	bundles  *bundles
	books    *allocator.Allocator
	gpus     *devices.Watch // nil when nobody looks
	hasGPUs  atomic.Bool    // the machine has GPUs, whether trials may use them or not
	policy   atomic.Pointer[Policy]
	fairness *fairness
	sweeps   *sweeps

	checkpoints *checkpoints
	transfers   chan struct{} // holds a token for each snapshot that is sent or fetched
	pacer       *rate.Limiter // of these
	synced      atomic.Bool   // all records are known
	tending     chan struct{} // holds a token when checkpoints may go
	ending      chan struct{} // closed when Run stops what runs

	preemptAfter, partingTime time.Duration
	preempting                bool              // somebody looks for what may be stopped; owned by dispatch
	victimsFound              chan foundVictims // has room for one
	found                     *foundVictims     // that no lane has acted on yet; owned by dispatch

	wake     chan struct{}
	stopTime time.Duration
	uploads  uploads       // artifacts on their way to the store
	hurried  chan struct{} // closed by Hurry
	hurry    func()
	beatNow  chan struct{}
	draining atomic.Bool   // no more leases are taken
	mark     atomic.Uint64 // of the newest orders
	curves   atomic.Int64  // the grid.CurveShare of the newest orders
	crammed  atomic.Bool   // the disk is full
	roomSeen atomic.Int64  // when the disk was last looked at, in nanoseconds since 1970
	unread   atomic.Bool   // the disk does not say how much room it has
	rules    *rules        // of failure classes
	declined declined
	avoids   avoidedDevices
	without  atomic.Pointer[map[grid.Scope]string] // parts of this node that get no trials, with the reasons
	trouble  trouble                               // what keeps the node from running trials
	handover atomic.Bool                           // this agent ends and another one goes on

	imageMissing atomic.Pointer[string] // for which image trials wait, and why; empty for none

	boot string // names this start of the machine, "" where it has no name

	mu       sync.Mutex
	holdings map[*holding]struct{}
	idle     []*runner
	running  sync.WaitGroup

	tailMu  sync.Mutex
	tailing map[*attempt]struct{}
	drowsy  bool // tail looks seldom or not at all, and wants to be woken by the next attempt

	tailWake chan struct{}

	adoptions []*adoption // found by Recover, for Run
}

// New makes a Worker and gives it a new incarnation, so that its runs are unlike those of any worker before it.
func New(cfg Config) (*Worker, error) {
	log := cfg.Logger.With("component", "worker")
	runs, err := newRuns(cfg.Node, filepath.Join(cfg.Dir, "incarnation"))
	if err != nil {
		return nil, err
	}
	cfg.Devices.Watched = cfg.GPUs != nil
	books := allocator.New(cfg.Devices, grid.MilliOf(cfg.Machine.CPUs), cfg.Machine.Memory, nil)
	spools, err := newSpools(filepath.Join(cfg.Dir, "spool"), books.Slots(grid.Resources{CPUs: grid.One}))
	if err != nil {
		return nil, err
	}
	rules, err := newRules(cfg.Dir)
	if err != nil {
		return nil, err
	}
	boot, _ := os.ReadFile(bootID) // without one, bundles and results are kept
	if err := removeUnsynced(cfg.Dir, string(boot)); err != nil {
		return nil, fmt.Errorf("remove bundles of the time before the machine's start: %w", err)
	}
	cache, err := projects.NewCache(filepath.Join(cfg.Dir, "bundles"))
	if err != nil {
		return nil, fmt.Errorf("open bundle cache: %w", err)
	}
	w := &Worker{
		cfg: cfg, log: log, runs: runs, spools: spools, boot: strings.TrimSpace(string(boot)),
		outbox:   newOutbox(cfg.Node, cfg.Master, log),
		books:    books,
		fairness: newFairness(totals(books)),
		sweeps:   newSweeps(), checkpoints: newCheckpoints(cfg.Dir),
		rules: rules,
		wake:  make(chan struct{}, 1), stopTime: stopTime, uploads: newUploads(), holdings: map[*holding]struct{}{},
		tailing: map[*attempt]struct{}{}, tailWake: make(chan struct{}, 1), beatNow: make(chan struct{}, 1),
	}
	w.transfers, w.pacer, w.tending = make(chan struct{}, maxSnapshots), checkpoint.Limit(cfg.SnapshotRate), make(chan struct{}, 1)
	w.ending, w.preemptAfter, w.partingTime, w.victimsFound = make(chan struct{}), preemptAfter, partingTime, make(chan foundVictims, 1)
	w.hurried = make(chan struct{})
	w.hurry = sync.OnceFunc(func() { close(w.hurried) })
	w.bundles = newBundles(cfg.Dir, cache, cfg.Files.Bundle, cfg.Projects)
	w.watchDevices()
	w.bundles.active = func(id grid.SweepID) bool { _, ok := w.sweeps.active(id); return ok }
	return w, nil
}

// Hurry cuts the grace short that attempts have once Run's context has ended: their programs are killed.
func (w *Worker) Hurry() {
	w.hurry()
	w.sweeps.hurryAll()
}

// Concluding reports whether an attempt runs, or what one has left is still being stored.
func (w *Worker) Concluding() bool {
	return slices.ContainsFunc(w.held(), func(h *holding) bool { return len(h.running()) > 0 })
}

// Run works until ctx ends; then it stops running attempts, reports them and returns.
func (w *Worker) Run(ctx context.Context) error {
	defer w.cfg.Master.NotifyReady(func(name string) {
		w.fairness.wake(grid.Lane(name), time.Now())
		w.nudge()
	})()
	// Reports must still go out when ctx has ended.
	reports, stopReports := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReports()
	var loops, reporting sync.WaitGroup
	reporting.Go(func() { w.outbox.run(reports) })
	var watchErr error
	loops.Go(func() { watchErr = w.cfg.Master.WatchRecords(ctx, w.follow) })
	loops.Go(func() { w.tendCheckpoints(ctx) })
	loops.Go(func() { w.tail(reports) })
	if w.gpus != nil {
		loops.Go(func() { w.gpus.Run(reports) }) // returns nil
	}
	var beating sync.WaitGroup
	if w.cfg.Beats {
		beating.Go(func() { w.beat(reports) })
	}
	w.warm()
	w.goOn()
	loops.Go(func() { w.tidyBundles(ctx) })
	w.dispatch(ctx)
	close(w.ending)
	w.sweeps.stopAll(w.parting())
	w.finish(reports)
	stopReports()
	loops.Wait()
	reporting.Wait()
	beating.Wait()
	w.closeRunners()
	w.spools.close()
	if ctx.Err() == nil {
		return fmt.Errorf("watch sweep records: %w", watchErr)
	}
	return nil
}

// finish waits until running attempts have ended, and for a bounded time until their reports are stored. While the store
// refuses reports, attempts that have ended can't hand theirs over either: then they leave them to the next start.
func (w *Worker) finish(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		w.running.Wait()
		close(ended)
	}()
	tick := time.NewTicker(min(w.stopTime, refusedTime))
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-ended:
			waiting = false
		case <-tick.C:
			w.outbox.giveUp()
			w.uploads.giveUp()
		}
	}
	hurry := time.AfterFunc(min(w.stopTime, refusedTime), w.outbox.giveUp)
	defer hurry.Stop()
	ctx, cancel := context.WithTimeout(ctx, w.stopTime)
	defer cancel()
	if err := w.outbox.drain(ctx); err != nil && !errors.Is(err, errClosed) {
		w.log.Warn("last reports could not be stored; the next start makes up for them", "err", err)
	}
}

// follow keeps up with the records: what is active, what is to be stopped.
func (w *Worker) follow(c jetstream.Change) {
	w.sweeps.follow(c)
	if c.Synced {
		w.synced.Store(true)
	}
	if c.Synced || c.Deleted || !c.Record.Sweep.Active() {
		w.tendSoon()
	}
	if !c.Synced && !c.Deleted && c.Record.Sweep.Active() {
		w.bundles.retry(c.Record.Sweep, w.setupImage(c.Record.Sweep, nil))
		w.lookAgain(c.Record.Sweep)
	}
	if !c.Synced && !c.Deleted {
		w.cancelTrials(c.Record.Sweep)
	}
	w.nudge()
}

// nudge makes the dispatcher look for work.
func (w *Worker) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Slots says how many attempts with these resources this worker can run at a time.
func (w *Worker) Slots(r grid.Resources) int {
	if w.elsewhere(r).Code != "" {
		return 0
	}
	return w.books.Slots(r)
}

// elsewhere refuses trials for which the task names other nodes.
func (w *Worker) elsewhere(r grid.Resources) grid.Refusal {
	if r.Nodes.Has(w.cfg.Node, w.cfg.Labels) {
		return grid.Refusal{}
	}
	return grid.Refusal{Code: grid.RefusedNodes, What: string(r.Nodes)}
}

// Never says why this worker could never run an attempt with these resources.
func (w *Worker) Never(r grid.Resources) grid.Refusal {
	return cmp.Or(w.elsewhere(r), w.books.Never(r))
}
