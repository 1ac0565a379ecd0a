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
	Node              grid.NodeID
	Dir               string // the worker's part of the state folder: spools, bundles, caches
	Master            *jetstream.MasterClient
	Files             FileStore
	Executor          executor.Executor
	Machine           inventory.Machine // what trials may use
	Devices           allocator.Options // how they share its devices, which Meet tells
	GPUs              devices.Source    // what the devices are used for; nil when nobody looks
	Policy            Policy            // what trials may have of them
	Containers        *Containers       // for tasks with an image; nil when the node has none
	Adopt             Adopter           // what outlived the last agent; nil when nothing can
	Logger            *slog.Logger
	ProjectCacheLimit int64 // bytes of unpacked projects and setups that are kept; 0 is a tenth of the disk

	Snapshots    checkpoint.Remote // where what trials save is stored; nil keeps it on this node
	SnapshotRate int64             // bytes of it that are sent and fetched each second, at most; 0 is no limit

	// Beats is set on a node of a cluster: the master is told what this worker holds, and may take it back.
	Heartbeats bool
	// Outlive is how long attempts go on without an agent; 0 when they end with it.
	Outlive time.Duration
	// Labels are those by which tasks name this node.
	Labels []string
	// Keys names the gossip keyring that this node has; may be nil.
	KeyringFingerprint func() uint64
	// DevicesChanged is called when a device has changed its state; may be nil. It must be quick.
	OnDevicesChanged func()
	// Sample gives what the machine is doing, another one when it was looked at again; nil while that is not known. It must be quick, and
	// may be nil itself.
	Sample func() *jetstream.Sample
	// Curves says of which trials curves are reported, on a node that sends no beats; may be nil.
	Curves func() grid.CurveShare
	// Orders is told what the master answers to each beat; may be nil. It must be quick.
	OnDirectives func(*jetstream.Directives)
}

const (
	// stopTime bounds the last reports of a worker that stops.
	stopTimeout = 20 * time.Second
	// refusedTime is how long a worker that stops waits for a store that refuses its reports. Nothing is lost by giving up: the
	// spools keep them for the next start, and the person who stopped the node waits for its end.
	refusedTimeout = 5 * time.Second
	// StopLimit is how long a worker takes to stop at most: its programs have their grace, what they saved is stored, and all is reported.
	StopLimit = grid.MaxCheckpointGrace + shutdownSnapshotTimeout + stopTimeout
)

// Worker runs trials. Make one with New.
type Worker struct {
	cfg       Config
	log       *slog.Logger
	runNames  runNames
	spools    *spoolPool
	outbox    *outbox
	bundles   *bundles
	allocator *allocator.Allocator
	gpus      *devices.Watch // nil when nobody looks
	hasGPUs   atomic.Bool    // the machine has GPUs, whether trials may use them or not
	policy    atomic.Pointer[Policy]
	fairShare *fairShare
	sweeps    *sweepSet

	checkpoints *checkpoints
	transfers   chan struct{} // holds a token for each snapshot that is sent or fetched
	pacer       *rate.Limiter // of these
	synced      atomic.Bool   // all records are known
	tending     chan struct{} // holds a token when checkpoints may go
	ending      chan struct{} // closed when Run stops what runs

	preemptAfter, shutdownTimeout time.Duration
	preempting                    bool              // somebody looks for what may be stopped; owned by dispatch
	victimsFound                  chan foundVictims // has room for one
	found                         *foundVictims     // that no lane has acted on yet; owned by dispatch

	wake           chan struct{}
	stopTimeout    time.Duration
	uploads        artifactUploads // artifacts on their way to the store
	hurried        chan struct{}   // closed by Hurry
	hurry          func()
	beatNow        chan struct{}
	draining       atomic.Bool   // no more leases are taken
	mark           atomic.Uint64 // of the newest orders
	curves         atomic.Int64  // the grid.CurveShare of the newest orders
	diskFull       atomic.Bool   // the disk is full
	diskCheckedAt  atomic.Int64  // when the disk was last looked at, in nanoseconds since 1970
	diskUnreadable atomic.Bool   // the disk does not say how much room it has
	rules          *failureRules // of failure classes
	yieldedLanes   yieldedLanes
	avoidedDevices avoidedDevices
	without        atomic.Pointer[map[grid.Scope]string] // parts of this node that get no trials, with the reasons
	backoff        backoff                               // what keeps the node from running trials
	handover       atomic.Bool                           // this agent ends and another one goes on

	imageMissing atomic.Pointer[string] // for which image trials wait, and why; empty for none

	boot string // names this start of the machine, "" where it has no name

	mu          sync.Mutex
	leases      map[*leaseHandle]struct{}
	idleRunners []*runner
	running     sync.WaitGroup

	tailMu   sync.Mutex
	tailing  map[*attempt]struct{}
	tailIdle bool // tail looks seldom or not at all, and wants to be woken by the next attempt

	tailWake chan struct{}

	adoptions []*adoption // found by Recover, for Run
}

// New makes a Worker and gives it a new incarnation, so that its runs are unlike those of any worker before it.
func New(cfg Config) (*Worker, error) {
	log := cfg.Logger.With("component", "worker")
	runs, err := newRunNames(cfg.Node, filepath.Join(cfg.Dir, "incarnation"))
	if err != nil {
		return nil, err
	}
	cfg.Devices.Watched = cfg.GPUs != nil
	books := allocator.New(cfg.Devices, grid.MilliOf(cfg.Machine.CPUs), cfg.Machine.Memory, nil)
	spools, err := newSpoolPool(filepath.Join(cfg.Dir, "spool"), books.Slots(grid.Resources{CPUs: grid.One}))
	if err != nil {
		return nil, err
	}
	rules, err := newFailureRules(cfg.Dir)
	if err != nil {
		return nil, err
	}
	boot, _ := os.ReadFile(bootIDFile) // without one, bundles and results are kept
	if err := removeUnsynced(cfg.Dir, string(boot)); err != nil {
		return nil, fmt.Errorf("remove bundles of the time before the machine's start: %w", err)
	}
	cache, err := projects.NewCache(filepath.Join(cfg.Dir, "bundles"))
	if err != nil {
		return nil, fmt.Errorf("open bundle cache: %w", err)
	}
	w := &Worker{
		cfg: cfg, log: log, runNames: runs, spools: spools, boot: strings.TrimSpace(string(boot)),
		outbox:    newOutbox(cfg.Node, cfg.Master, log),
		allocator: books,
		fairShare: newFairShare(machineTotals(books)),
		sweeps:    newSweepSet(), checkpoints: newCheckpoints(cfg.Dir),
		rules: rules,
		wake:  make(chan struct{}, 1), stopTimeout: stopTimeout, uploads: newArtifactUploads(), leases: map[*leaseHandle]struct{}{},
		tailing: map[*attempt]struct{}{}, tailWake: make(chan struct{}, 1), beatNow: make(chan struct{}, 1),
	}
	w.transfers, w.pacer, w.tending = make(chan struct{}, maxTransfers), checkpoint.NewLimiter(cfg.SnapshotRate), make(chan struct{}, 1)
	w.ending, w.preemptAfter, w.shutdownTimeout, w.victimsFound = make(chan struct{}), preemptAfter, shutdownSnapshotTimeout, make(chan foundVictims, 1)
	w.hurried = make(chan struct{})
	w.hurry = sync.OnceFunc(func() { close(w.hurried) })
	w.bundles = newBundles(cfg.Dir, cache, cfg.Files.Bundle, cfg.ProjectCacheLimit)
	w.newDeviceWatch()
	w.bundles.isActive = func(id grid.SweepID) bool { _, ok := w.sweeps.active(id); return ok }
	return w, nil
}

// Hurry cuts the grace short that attempts have once Run's context has ended: their programs are killed.
func (w *Worker) SkipGrace() {
	w.hurry()
	w.sweeps.endGraceAll()
}

// Concluding reports whether an attempt runs, or what one has left is still being stored.
func (w *Worker) Busy() bool {
	return slices.ContainsFunc(w.leaseHandles(), func(h *leaseHandle) bool { return len(h.runningAttempts()) > 0 })
}

// Run works until ctx ends; then it stops running attempts, reports them and returns.
func (w *Worker) Run(ctx context.Context) error {
	defer w.cfg.Master.NotifyReady(func(name string) {
		w.fairShare.leaseArrived(grid.Lane(name), time.Now())
		w.wakeDispatcher()
	})()
	// Reports must still go out when ctx has ended.
	reports, stopReports := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReports()
	var loops, reporting sync.WaitGroup
	reporting.Go(func() { w.outbox.run(reports) })
	var watchErr error
	loops.Go(func() { watchErr = w.cfg.Master.WatchRecords(ctx, w.applyRecord) })
	loops.Go(func() { w.cleanCheckpoints(ctx) })
	loops.Go(func() { w.runTail(reports) })
	if w.gpus != nil {
		loops.Go(func() { w.gpus.Run(reports) }) // returns nil
	}
	var beating sync.WaitGroup
	if w.cfg.Heartbeats {
		beating.Go(func() { w.runHeartbeats(reports) })
	}
	w.prestartRunner()
	w.runAdopted()
	loops.Go(func() { w.evictBundles(ctx) })
	w.dispatch(ctx)
	close(w.ending)
	w.sweeps.stopAll(w.stopCause())
	w.drainReports(reports)
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
func (w *Worker) drainReports(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		w.running.Wait()
		close(ended)
	}()
	tick := time.NewTicker(min(w.stopTimeout, refusedTimeout))
	defer tick.Stop()
	for waiting := true; waiting; {
		select {
		case <-ended:
			waiting = false
		case <-tick.C:
			w.outbox.closeIfRefused()
			w.uploads.giveUp()
		}
	}
	hurry := time.AfterFunc(min(w.stopTimeout, refusedTimeout), w.outbox.closeIfRefused)
	defer hurry.Stop()
	ctx, cancel := context.WithTimeout(ctx, w.stopTimeout)
	defer cancel()
	if err := w.outbox.drain(ctx); err != nil && !errors.Is(err, errClosed) {
		w.log.Warn("last reports could not be stored; the next start makes up for them", "err", err)
	}
}

// follow keeps up with the records: what is active, what is to be stopped.
func (w *Worker) applyRecord(c jetstream.Change) {
	w.sweeps.update(c)
	if c.Synced {
		w.synced.Store(true)
	}
	if c.Synced || c.Deleted || !c.Record.Sweep.Active() {
		w.requestCheckpointCleanup()
	}
	if !c.Synced && !c.Deleted && c.Record.Sweep.Active() {
		w.bundles.allowRetry(c.Record.Sweep, w.setupImage(c.Record.Sweep, nil))
		w.recheckImage(c.Record.Sweep)
	}
	if !c.Synced && !c.Deleted {
		w.cancelTrials(c.Record.Sweep)
	}
	w.wakeDispatcher()
}

// nudge makes the dispatcher look for work.
func (w *Worker) wakeDispatcher() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Slots says how many attempts with these resources this worker can run at a time.
func (w *Worker) Slots(r grid.Resources) int {
	if w.refuseNode(r).Code != "" {
		return 0
	}
	return w.allocator.Slots(r)
}

// elsewhere refuses trials for which the task names other nodes.
func (w *Worker) refuseNode(r grid.Resources) grid.Refusal {
	if r.Nodes.Has(w.cfg.Node, w.cfg.Labels) {
		return grid.Refusal{}
	}
	return grid.Refusal{Code: grid.RefusedNodes, What: string(r.Nodes)}
}

// Never says why this worker could never run an attempt with these resources.
func (w *Worker) NeverFits(r grid.Resources) grid.Refusal {
	return cmp.Or(w.refuseNode(r), w.allocator.NeverFits(r))
}
