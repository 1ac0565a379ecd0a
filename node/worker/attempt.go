package worker

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/worker/allocator"
	"mlfnode/node/worker/devices"
)

// attemptSpec says what an attempt is, and does not change while it runs.
type attemptSpec struct {
	id      grid.TrialID
	number  int
	run     string
	task    *grid.Task
	params  space.Params
	started time.Time

	image *docker.Image // nil for a process
	// what it holds of the node, which may be more than the task requests; nil if not known
	allocation  *allocator.Allocation
	environ     *leaseEnviron // nil for an attempt that an earlier agent started
	adopted     bool          // an earlier agent started it
	resumePoint resumePoint
}

// imagePin returns the pinned reference of the attempt's image; "" for a process.
func (a *attemptSpec) imagePin() string {
	if a.image == nil {
		return ""
	}
	return a.image.Pin
}

// shares returns what the attempt holds of devices.
func (a *attemptSpec) shares() []allocator.Share {
	if a.allocation == nil {
		return nil
	}
	return a.allocation.Shares
}

// logLimit returns how many bytes of output are stored.
func (a *attemptSpec) logLimit() int64 {
	return cmp.Or(a.task.LogLimit, grid.DefaultLogLimit)
}

// startedEvent returns the event that reports the attempt's start.
func (a *attemptSpec) startedEvent() grid.Event {
	return grid.Event{
		Kind: grid.Started, Index: a.id.Index, Attempt: a.number, Run: a.run, Time: a.started.UnixMicro(),
		Devices: a.allocation.UUIDs(), Image: a.imagePin(),
	}
}

// failedResult returns the result of an attempt whose program has not run.
func (a *attemptSpec) failedResult(c grid.Class, reason string) *grid.Result {
	return &grid.Result{Class: c, ExitCode: grid.NoExit, Reason: reason, Started: a.started.UnixMicro()}
}

// attempt is one run of a trial in this worker.
type attempt struct {
	attemptSpec
	spool            *spool
	project          attemptProject
	checkpoint       *checkpointFolder // nil for a task without a checkpoint
	devices          attemptDevices
	foreignProcesses bool // it left processes of other users that still run in its folders

	mu            sync.Mutex
	cancelProgram context.CancelCauseFunc // nil while no program runs
	announced     bool                    // a Started event has been sent for it
	untouched     bool                    // it left nothing in the spool
	output        attemptOutput
	report        metricReport
}

// attemptProject is what an attempt has of its project.
type attemptProject struct {
	folders []string        // those that it sees in place
	names   map[string]bool // what its folder held at the start; nil where that is not known
}

// attemptDevices is what was observed of an attempt on the node's devices.
type attemptDevices struct {
	watched  bool             // a devices.Watch observes it
	evidence devices.Evidence // what was observed at its end
}

// attemptRunner runs attempts: it prepares their folders, starts their programs, and finishes them.
type attemptRunner struct {
	runNames    runNames
	spools      *spoolPool
	preparer    *preparer
	checkpoints *checkpoints
	snapshots   *snapshotUploads
	environs    *environs
	outbox      *outbox
	programs    *programRunner
	devices     *DeviceTracker
	backoff     *nodeBackoff
	finisher    *finisher
}

// run runs one attempt of a trial and reports how it ended. Its spool stays until the report is
// stored. run returns whether the attempt has failed.
func (at *attemptRunner) run(
	s *sweep, slot executor.Slot, t assignment, found imageLookup, index int64, number int, now time.Time,
) (failed bool) {
	h := t.handle
	a := &attempt{attemptSpec: attemptSpec{
		id: grid.TrialID{Sweep: s.record.ID, Index: index}, number: number, run: at.runNames.next(),
		task: &s.record.Task, started: now, allocation: t.allocation, environ: t.environ, image: found.image,
		resumePoint: resumePoint{h.lease.Snapshot, h.lease.Bad},
	}}
	h.addAttempt(a)
	var result *grid.Result
	end := finishOptions{snapshotTimeout: snapshotTimeout}
	switch params, err := s.record.Space.At(index); {
	case err != nil:
		result = a.failedResult(grid.ClassStart, "the trial's parameters can't be computed: "+err.Error())
	case found.failure != nil:
		result = a.failedResult(found.failure.Class, found.failure.Reason)
	case len(a.task.Command) == 0 && a.task.Shell == "":
		result = a.failedResult(grid.ClassStart, "the task has no command")
	default:
		a.params = params
		quiet := h.lease.Quiet && redeliveries(h.lease) == 0
		result = at.execute(s, slot, a, t.manifest, quiet, &end)
	}
	end.saving = errors.Is(context.Cause(s.ctx), executor.ErrCancelledSaving)
	if result == nil || !at.finisher.finish(context.Background(), a, result, end) {
		// what an ended attempt leaves is stored even while the node stops
		at.backoff.cancelProbe()
		h.handedOver.Store(true)
		return false
	}
	h.removeAttempt(a)
	return result.Class != grid.ClassNone
}

// execute prepares the attempt and runs its program. Without a result the program continues under
// the next agent.
func (at *attemptRunner) execute(
	s *sweep, slot executor.Slot, a *attempt, template *manifestTemplate, quiet bool, end *finishOptions,
) *grid.Result {
	spool, err := at.spools.acquire(s.ctx)
	if err != nil {
		if result := stoppedResult(s.ctx, a); result != nil {
			return result
		}
		return a.failedResult(grid.ClassNode, "the attempt's folder could not be created: "+err.Error())
	}
	a.spool, end.reuseSpool = spool, true
	if err := template.write(spool, a); err != nil {
		return a.failedResult(grid.ClassNode, "the attempt's folder could not be written: "+err.Error())
	}
	err = at.preparer.prepare(s, slot, a)
	if err == nil {
		err = at.checkpoints.acquireFor(s.ctx, a)
	}
	if err != nil {
		if result := stoppedResult(s.ctx, a); result != nil {
			return result
		}
		return a.prepareFailure(err)
	}
	a.output.sources = spool.outputSources()
	if a.number > 1 && !quiet {
		at.announceStart(s.ctx, a)
	}
	command, err := at.spec(s, a)
	if err != nil {
		return a.containerFailure(err)
	}
	at.devices.begin(a)
	out := at.programs.run(s.ctx, a, func(ctx context.Context) executor.Outcome { return slot.Run(ctx, command) })
	if out.Left {
		return nil
	}
	end.manifest = func() *manifest { return template.manifest(a) }
	end.reuseSpool = out.Leftovers == 0 && out.Foreign == ""
	return at.programs.result(s.record, a, out)
}

// announceTimeout bounds the wait until the start of an attempt is stored.
const announceTimeout = time.Second

// announceStart reports the start of the attempt before it happens. A trial that is attempted again
// may be one that takes its node down, so fast that nobody would ever learn which trial it was; the
// master says of other trials that they are not.
func (at *attemptRunner) announceStart(ctx context.Context, a *attempt) {
	ctx, stop := context.WithTimeout(ctx, announceTimeout)
	defer stop()
	stored := make(chan struct{})
	a.mu.Lock()
	a.announced, a.report.readAt = true, a.started
	a.mu.Unlock()
	at.outbox.addEvent(a.id.Sweep, report{event: a.startedEvent(), stored: func() { close(stored) }})
	select {
	case <-stored:
	case <-ctx.Done(): // the store is away; the trial does not wait for it
	}
}

// spec returns what the executor is to run.
func (at *attemptRunner) spec(s *sweep, a *attempt) (*executor.Attempt, error) {
	t := a.task
	container, err := at.environs.containers.spec(s, a, false, [2]string{a.spool.stdout.Name(), a.spool.stderr.Name()})
	e := &executor.Attempt{
		Spec: executor.Spec{
			Name: a.run, Record: a.spool.record, Dir: a.spool.work, OutputLimit: a.outputLimit(),
			Memory: a.allocation.Memory, Timeout: t.Timeout, IdleTimeout: t.IdleTimeout, Grace: t.Grace,
			Container: container, Devices: a.allocation.UUIDs(),
		},
		Argv: t.Template().Argv(a.params), Env: at.environs.forAttempt(s, a),
		Stdout: a.spool.stdout, Stderr: a.spool.stderr, Started: at.backoff.startedCallback(a),
		Kill: at.snapshots.graceEnded,
	}
	if c := t.Checkpoint; c != nil {
		e.Notice, e.NoticeGrace = unix.SignalNum("SIG"+c.Signal), t.CheckpointGrace()
		e.NoticeTimeout, e.Kill = c.OnTimeout == grid.TimeoutResumes, s.kill
	}
	return e, err
}

// stoppedResult returns the result of an attempt that was stopped, nil when nobody stopped it.
func stoppedResult(ctx context.Context, a *attempt) *grid.Result {
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return nil
	case errors.Is(cause, executor.ErrCancelled):
		return a.failedResult(grid.ClassCancel, "cancelled")
	case errors.Is(cause, executor.ErrLost):
		return a.failedResult(grid.ClassLost, "not started, because the trial may run on another node now")
	default:
		return a.failedResult(grid.ClassHalt, "stopped, to run again later: "+cause.Error())
	}
}
