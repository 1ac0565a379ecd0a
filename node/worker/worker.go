// Package worker runs trials on one node. It reserves resources first, takes exactly the leases
// that fit, runs their trials one after the other, and reports what happened in small batches:
// output first, events second, acknowledgement last.
//
// Every attempt owns a spool, a folder that holds what the attempt writes and a manifest that names
// it, until its output and its result are stored. So whatever moment the agent dies, the next start
// finds the spool and reports what happened.
//
// The parts, from the master's queue to the report:
//
//	dispatcher      decides which lane is next, reserves resources, takes leases
//	trialRunner     runs the trials of a lease on a runner
//	attemptRunner   prepares an attempt, runs its program, and passes it to the finisher
//	finisher        gathers output, metrics and artifacts, and reports the result
//	outbox          stores reports in rounds
//	heartbeatLoop   tells the master what is held, and applies its directives
//	recovery        takes over what earlier agents left
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
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/checkpoint"
	"mlfnode/node/executor"
	"mlfnode/node/poll"
	"mlfnode/node/worker/allocator"
	"mlfnode/node/worker/devices"
	"mlfnode/projects"
)

// Config holds the collaborators and settings of a Worker.
type Config struct {
	Node              grid.NodeID
	Labels            []string // by which tasks may name this node
	Dir               string   // the worker's part of the state folder: spools, bundles, caches
	Master            *jetstream.MasterClient
	Files             FileStore
	Machine           inventory.Machine // what trials may use
	ProjectCacheLimit int64             // bytes of unpacked projects and setups that are kept; 0 is a tenth of the disk
	Logger            *slog.Logger

	Programs
	GPUs
	Snapshots
	Reports
}

// Programs says how the programs of trials run.
type Programs struct {
	Executor   executor.Executor
	Adopt      Adopter       // what outlived the last agent; nil when nothing can
	Outlive    time.Duration // how long attempts run on without an agent; 0 when they end with it
	Containers *Containers   // for tasks with an image; nil when the node has none
}

// GPUs says what trials may have of the node's devices.
type GPUs struct {
	Usage     devices.Source // reports the use of the devices; nil when they are not watched
	Policy    Policy
	OnChanged func() // called when the state of a device has changed; must not block; may be nil
}

// Snapshots says where snapshots of checkpoints are stored.
type Snapshots struct {
	Remote checkpoint.Remote // nil keeps what trials save on this node
	Rate   int64             // bytes of snapshots that are sent and fetched per second; 0 means no limit
}

// Reports says what the master and the worker tell each other beside the results. Its funcs must
// not block, and may be nil.
type Reports struct {
	// Heartbeats is set on a node of a cluster: the master is told what this worker holds, and may
	// take it back.
	Heartbeats bool
	// KeyringFingerprint identifies the gossip keyring that this node has.
	KeyringFingerprint func() uint64
	// Sample returns what the machine is doing, a new pointer for each new sample; nil while that
	// is not known.
	Sample func() *jetstream.Sample
	// OnDirectives receives the master's answer to each heartbeat.
	OnDirectives func(*jetstream.Directives)
	// Curves returns for which trials curves are reported, on a node that sends no heartbeats.
	Curves func() grid.CurveShare
}

const (
	// stopTimeout bounds the last reports of a worker that stops.
	stopTimeout = 20 * time.Second
	// refusedTimeout is how long a worker that stops waits for a store that refuses its reports.
	// Nothing is lost by giving up: the spools keep them for the next start, and the person who
	// stopped the node waits for its end.
	refusedTimeout = 5 * time.Second
	// StopLimit bounds how long a worker takes to stop: its programs have their grace, what they
	// saved is stored, and everything is reported.
	StopLimit = grid.MaxCheckpointGrace + shutdownSnapshotTimeout + stopTimeout
)

// Worker runs trials. Make one with New.
type Worker struct {
	// Devices are the GPUs of this node and what trials may have of them.
	Devices *DeviceTracker

	cfg        Config
	sweeps     *sweepSet
	outbox     *outbox
	tail       *outputTail
	heartbeats *heartbeatLoop
	trials     *trialRunner
	dispatcher *dispatcher
	recovery   *recovery
	snapshots  *snapshotUploads

	stopTimeout time.Duration // bounds the last reports
}

// New makes a Worker and gives it a new incarnation, so that its runs differ from those of any
// worker before it.
func New(cfg Config) (*Worker, error) {
	cfg.Logger = cfg.Logger.With("component", "worker")
	runNames, err := newRunNames(cfg.Node, filepath.Join(cfg.Dir, "incarnation"))
	if err != nil {
		return nil, err
	}
	options := allocator.Options{Share: cfg.Policy.Share, Watched: cfg.GPUs.Usage != nil}
	resources := allocator.New(options, grid.MilliOf(cfg.Machine.CPUs), cfg.Machine.Memory, nil)
	spools, err := newSpoolPool(filepath.Join(cfg.Dir, "spool"), resources.Slots(grid.Resources{CPUs: grid.One}))
	if err != nil {
		return nil, err
	}
	rules, err := newFailureRules(cfg.Dir)
	if err != nil {
		return nil, err
	}
	bootID, _ := os.ReadFile(bootIDFile) // without one, bundles and results are kept
	if err := removeUnsynced(cfg.Dir, string(bootID)); err != nil {
		return nil, fmt.Errorf("remove bundles from before the machine's start: %w", err)
	}
	boot := strings.TrimSpace(string(bootID))
	cache, err := projects.NewCache(filepath.Join(cfg.Dir, "bundles"))
	if err != nil {
		return nil, fmt.Errorf("open bundle cache: %w", err)
	}

	w := &Worker{cfg: cfg, sweeps: newSweepSet(), stopTimeout: stopTimeout}
	c := &w.cfg
	capacity := &capacity{allocator: resources, fairShare: newFairShare(machineTotals(resources)),
		wake: poll.NewSignal()}
	bundles := newBundles(cfg.Dir, cache, cfg.Files.Bundle, cfg.ProjectCacheLimit)
	bundles.isActive = func(id grid.SweepID) bool { _, ok := w.sweeps.active(id); return ok }
	w.outbox = newOutbox(c)
	w.tail = &outputTail{
		cfg: c, outbox: w.outbox, sweeps: w.sweeps, wake: poll.NewSignal(), attempts: map[*attempt]struct{}{},
	}
	w.Devices = newDeviceTracker(c, capacity, bundles.cacheDir, boot)
	leases := &leaseTable{outbox: w.outbox, handles: map[*leaseHandle]struct{}{}}
	w.heartbeats = &heartbeatLoop{
		capacity: capacity, cfg: c, runNames: runNames, leases: leases, outbox: w.outbox, sweeps: w.sweeps,
		tail: w.tail, devices: w.Devices, soon: poll.NewSignal(),
	}
	disk := &diskMonitor{dir: cfg.Dir, log: cfg.Logger}
	containers := &taskContainers{cfg: c, bundles: bundles}
	backoff := &nodeBackoff{
		cfg: c, heartbeats: w.heartbeats, wake: capacity.wake, tail: w.tail, disk: disk, containers: containers,
		devices: w.Devices,
	}
	runners := &runnerPool{}
	w.dispatcher = &dispatcher{
		capacity: capacity, cfg: c, sweeps: w.sweeps, leases: leases, disk: disk, containers: containers,
		runners: runners, backoff: backoff, heartbeats: w.heartbeats,
		preemption: &preemption{
			capacity: capacity, cfg: c, leases: leases, sweeps: w.sweeps, runners: runners, after: preemptAfter,
			victimsFound: make(chan foundVictims, 1),
		},
	}
	environs := &environs{containers: containers, bundles: bundles, devices: w.Devices}
	w.snapshots = newSnapshotUploads(c)
	checkpoints := newCheckpoints(c, w.sweeps, w.snapshots)
	programs := &programRunner{
		cfg: c, sweeps: w.sweeps, tail: w.tail, snapshots: w.snapshots, devices: w.Devices, disk: disk,
		containers: containers,
	}
	finisher := &finisher{
		cfg: c, sweeps: w.sweeps, tail: w.tail, uploads: newArtifactUploads(c), checkpoints: checkpoints,
		snapshots: w.snapshots, backoff: backoff, bundles: bundles, spools: spools, heartbeats: w.heartbeats,
		outbox: w.outbox,
		classifier: &classifier{
			rules: rules, cfg: c, devices: w.Devices, avoidedDevices: &w.dispatcher.avoidedDevices,
		},
	}
	w.trials = &trialRunner{
		capacity: capacity, cfg: c, boot: boot, sweeps: w.sweeps, leases: leases, runners: runners,
		heartbeats: w.heartbeats, devices: w.Devices, disk: disk, backoff: backoff, environs: environs,
		attempts: &attemptRunner{
			runNames: runNames, spools: spools, checkpoints: checkpoints, snapshots: w.snapshots, environs: environs,
			outbox: w.outbox, programs: programs, devices: w.Devices, backoff: backoff, finisher: finisher,
			preparer: &preparer{bundles: bundles, containers: containers, environs: environs, tail: w.tail, disk: disk},
		},
	}
	runners.work = w.trials.runRunner
	w.recovery = &recovery{
		capacity: capacity, cfg: c, boot: boot, sweeps: w.sweeps, leases: leases, devices: w.Devices, runners: runners,
		programs: programs, finisher: finisher,
	}
	return w, nil
}

// SkipGrace ends the grace that attempts have once Run's context has ended: their programs are
// killed.
func (w *Worker) SkipGrace() {
	w.snapshots.endGrace()
	w.sweeps.endGraceAll()
}

// Busy reports whether an attempt runs, or its results are still being stored.
func (w *Worker) Busy() bool {
	return slices.ContainsFunc(w.dispatcher.leases.all(), func(h *leaseHandle) bool {
		l, _ := h.held()
		return len(l.Attempts) > 0
	})
}

// Run works until ctx ends; then it stops running attempts, reports them and returns.
func (w *Worker) Run(ctx context.Context) error {
	defer w.cfg.Master.NotifyReady(func(name string) {
		w.dispatcher.fairShare.leaseArrived(grid.Lane(name), time.Now())
		w.dispatcher.wake.Set()
	})()
	// Reports must still go out when ctx has ended.
	reports, stopReports := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReports()
	var loops, reporting sync.WaitGroup
	reporting.Go(func() { w.outbox.run(reports) })
	var watchErr error
	loops.Go(func() { watchErr = w.cfg.Master.WatchRecords(ctx, w.applyRecord) })
	loops.Go(func() { w.trials.attempts.checkpoints.run(ctx) })
	loops.Go(func() { w.tail.run(reports) })
	if w.Devices.watch != nil {
		loops.Go(func() { w.Devices.watch.Run(reports) }) // returns nil
	}
	if w.cfg.Heartbeats {
		reporting.Go(func() { w.heartbeats.run(reports) })
	}
	w.dispatcher.runners.put(w.dispatcher.runners.get()) // so that the first trial does not wait for a slot
	w.recovery.runAdopted()
	loops.Go(func() { w.trials.environs.bundles.runEviction(ctx, w.cfg.Logger) })
	w.dispatcher.run(ctx)
	close(w.snapshots.stopping)
	if w.heartbeats.handover.Load() {
		w.sweeps.stopAll(errLeaving)
	} else {
		w.sweeps.stopAll(errStopping)
	}
	w.drainReports(reports)
	stopReports()
	loops.Wait()
	reporting.Wait()
	w.dispatcher.runners.close()
	w.trials.attempts.spools.close()
	if ctx.Err() == nil {
		return fmt.Errorf("watch sweep records: %w", watchErr)
	}
	return nil
}

// drainReports waits until running attempts have ended, and for a bounded time until their reports
// are stored. While the store refuses reports, attempts that have ended can't hand theirs over
// either: they leave them to the next start.
func (w *Worker) drainReports(ctx context.Context) {
	ended := make(chan struct{})
	go func() {
		w.dispatcher.runners.running.Wait()
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
			w.trials.attempts.finisher.uploads.abandon()
		}
	}
	hurry := time.AfterFunc(min(w.stopTimeout, refusedTimeout), w.outbox.closeIfRefused)
	defer hurry.Stop()
	ctx, cancel := context.WithTimeout(ctx, w.stopTimeout)
	defer cancel()
	if err := w.outbox.drain(ctx); err != nil && !errors.Is(err, errClosed) {
		w.cfg.Logger.Warn("last reports could not be stored; the next start makes up for them", "err", err)
	}
}

// applyRecord applies a change of the records: what is active, what is to be stopped.
func (w *Worker) applyRecord(c jetstream.Change) {
	w.sweeps.update(c)
	checkpoints, containers := w.trials.attempts.checkpoints, w.dispatcher.containers
	if c.Synced {
		checkpoints.synced.Store(true)
	}
	s := c.Record.Sweep
	if c.Synced || c.Deleted || !s.Active() {
		checkpoints.requestCleanup()
	} else {
		containers.bundles.allowRetry(s, containers.setupImage(s, nil))
		containers.recheckImage(s)
	}
	if !c.Synced && !c.Deleted {
		w.dispatcher.leases.cancelTrials(s)
	}
	w.dispatcher.wake.Set()
}

// SetHandover says what happens to running attempts when Run's context ends. With leave they are
// left to the next agent, as far as the executor can do that: what they have printed so far is
// stored, and their spools and leases stay. By default they are stopped.
func (w *Worker) SetHandover(leave bool) { w.heartbeats.handover.Store(leave) }

// Slots returns how many attempts with these resources this worker can run at a time.
func (w *Worker) Slots(r grid.Resources) int { return w.dispatcher.slots(r) }

// NeverFits returns why this worker could never run an attempt with these resources; the zero value
// when it could.
func (w *Worker) NeverFits(r grid.Resources) grid.Refusal {
	return cmp.Or(w.dispatcher.refuseNode(r), w.dispatcher.allocator.NeverFits(r))
}

// Running returns how many attempts run now.
func (w *Worker) Running() int { return w.tail.count() }

// DiskFull reports whether the worker takes no trials because its disk is full.
func (w *Worker) DiskFull() bool { return w.dispatcher.disk.full.Load() }

// UnavailableReason returns what keeps this node from running trials at the moment; "" when nothing
// does.
func (w *Worker) UnavailableReason() string { return w.trials.backoff.unavailableReason() }

// ImagesChanged makes the worker look up the state of its images now.
func (w *Worker) ImagesChanged() { w.dispatcher.wake.Set() }

// WaitingLanes returns the reasons why trials wait here, by lane.
func (w *Worker) WaitingLanes() map[grid.Lane]grid.Refusal {
	return w.dispatcher.fairShare.refusals(jetstream.MaxRefusals)
}

// Recover reports what an agent that died left behind. Each spool that still names an attempt
// yields the attempt's result if it had ended, else a report that the attempt was lost with its
// agent or its machine; its output is stored in both cases. An attempt that Config.Adopt knows to
// run is restored: Run goes on with it. The processes of all others must be gone. Call Recover
// before Run, and before the master looks for missing trials.
func (w *Worker) Recover(ctx context.Context) error { return w.recovery.run(ctx) }
