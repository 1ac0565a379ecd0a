package worker

import (
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

// attempt is one run of a trial in this worker.
type attempt struct {
	id     grid.TrialID
	number int
	run    string
	task   *grid.Task
	params space.Params
	spool  *spool
	image  *docker.Image // nil for a process

	allocation *allocator.Allocation // what it has of the node, which may be more than the task says; nil is not known
	environ    *leaseEnviron         // nil for one that an earlier agent began

	adopted  bool // an earlier agent began it
	foreign  bool // processes of other users, which it has left, go on in its folders
	from     origin
	uses     []string         // folders of the project that it sees in place
	given    map[string]bool  // names of what its folder held when it began; nil where that is not known
	saved    *saved           // nil for a task without a checkpoint
	watched  bool             // somebody looks at what it does on the devices
	evidence devices.Evidence // what they said at its end

	started time.Time
	ref     grid.LogRef // owned by the outbox

	mu           sync.Mutex
	sources      []*source
	cut          *cutOutput // nil when nothing was cut
	announced    bool
	ended        bool                    // nothing may be read from the spool any more
	untouched    bool                    // the attempt left nothing in the spool
	reported     time.Time               // when metrics were last read
	stopEarly    context.CancelCauseFunc // of its program; nil while none runs
	metrics      grid.Metric
	metricReader *metricReader // nil before metrics were first read
	changed      time.Time     // when metrics became what they are
	sent         time.Time     // when they were last told
}

// attempt runs one trial, from now on, and reports how it ended. Its spool stays until the report is stored. It
// returns whether the attempt has failed.
func (w *Worker) attempt(s *sweep, slot executor.Slot, t turn, found foundImage, index int64, number int, now time.Time) (failed bool) {
	h := t.holding
	a := &attempt{
		id: grid.TrialID{Sweep: s.record.ID, Index: index}, number: number, run: w.runs.name(),
		task: &s.record.Task, started: now, allocation: t.allocation, environ: t.environ, image: found.image,
		from: origin{h.held.Snapshot, h.held.Bad},
	}
	h.began(a)
	var result *grid.Result
	end := ending{limit: snapshotTime}
	switch params, err := s.record.Space.At(index); {
	case err != nil:
		result = a.failed(grid.ClassStart, "the trial's parameters can't be computed: "+err.Error())
	case found.failed != nil:
		result = a.failed(found.failed.Class, found.failed.Reason)
	case len(a.task.Command) == 0 && a.task.Shell == "":
		result = a.failed(grid.ClassStart, "the task has no command")
	default:
		a.params = params
		quiet := h.held.Quiet && furtherDeliveries(h.held) == 0
		result = w.execute(s, slot, a, t.manifest, quiet, &end)
	}
	end.saving = errors.Is(context.Cause(s.ctx), executor.ErrCancelledSaving)
	if result == nil || !w.conclude(context.Background(), a, result, end) { // what an ended attempt leaves is stored even while the node stops
		w.trouble.giveUp()
		h.leftOn()
		return false
	}
	h.ended(a)
	return result.Class != grid.ClassNone
}

// execute prepares and runs. Without a result the program goes on under the next agent.
func (w *Worker) execute(s *sweep, slot executor.Slot, a *attempt, template *manifestTemplate, quiet bool, end *ending) *grid.Result {
	spool, err := w.spools.take(s.ctx)
	if err != nil {
		if result := stopped(s.ctx, a); result != nil {
			return result
		}
		return a.failed(grid.ClassNode, "the attempt's folder could not be made: "+err.Error())
	}
	a.spool, end.reuse = spool, true
	if err := template.claim(spool, a); err != nil {
		return a.failed(grid.ClassNode, "the attempt's folder could not be written: "+err.Error())
	}
	err = w.prepare(s, slot, a)
	if err == nil {
		err = w.checkpointed(s.ctx, a)
	}
	if err != nil {
		if result := stopped(s.ctx, a); result != nil {
			return result
		}
		return a.unprepared(err)
	}
	a.sources = []*source{
		{file: a.spool.stdout, stream: streamOut}, {file: a.spool.stderr, stream: streamErr},
	}
	if a.number > 1 && !quiet {
		w.announce(s.ctx, a)
	}
	command, err := w.command(s, a)
	if err != nil {
		return a.uncontained(err)
	}
	w.beginUse(a)
	out := w.supervise(s.ctx, a, func(ctx context.Context) executor.Outcome { return slot.Run(ctx, command) })
	if out.Left {
		return nil
	}
	end.manifest, end.reuse = func() *manifest { return template.of(a) }, out.Leftovers == 0 && out.Foreign == ""
	return w.result(s.record, a, out)
}

// announceTime bounds the wait for the word that an attempt begins.
const announceTime = time.Second

// announce tells that the attempt begins, before it does. An attempt that comes after another may be of a trial that takes its
// node down, so fast that nobody would ever hear what it was; the master says of others that they are not.
func (w *Worker) announce(ctx context.Context, a *attempt) {
	ctx, stop := context.WithTimeout(ctx, announceTime)
	defer stop()
	told := make(chan struct{})
	a.mu.Lock()
	a.announced, a.reported = true, a.started
	a.mu.Unlock()
	w.outbox.event(a.id.Sweep, report{event: a.began(), stored: func() { close(told) }})
	select {
	case <-told:
	case <-ctx.Done(): // the store is away; the trial need not wait for it
	}
}

// told reports whether anybody has heard of the attempt.
func (a *attempt) told() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.announced
}

// began is the event that tells of the attempt's start.
func (a *attempt) began() grid.Event {
	return grid.Event{Kind: grid.Started, Index: a.id.Index, Attempt: a.number, Run: a.run, Time: a.started.UnixMicro(), Devices: a.allocation.UUIDs(), Image: a.pin()}
}

// pin names the image that the attempt runs in; "" for a process.
func (a *attempt) pin() string {
	if a.image == nil {
		return ""
	}
	return a.image.Pin
}

// command is what the executor runs.
func (w *Worker) command(s *sweep, a *attempt) (*executor.Attempt, error) {
	t := a.task
	container, err := w.container(s, a, false, [2]string{a.spool.stdout.Name(), a.spool.stderr.Name()})
	e := &executor.Attempt{
		Spec: executor.Spec{
			Name: a.run, Record: a.spool.record, Dir: a.spool.work, OutputLimit: a.outputLimit(),
			Memory: a.allocation.Memory, Timeout: t.Timeout, IdleTimeout: t.IdleTimeout, Grace: t.Grace, Container: container, Devices: a.allocation.UUIDs(),
		},
		Argv: t.Argv(a.params), Env: w.environ(s, a),
		Stdout: a.spool.stdout, Stderr: a.spool.stderr, Started: w.begun(a), Kill: w.hurried,
	}
	if c := t.Checkpoint; c != nil {
		e.Notice, e.NoticeGrace = unix.SignalNum("SIG"+c.Signal), t.CheckpointGrace()
		e.NoticeTimeout, e.Kill = c.OnTimeout == grid.TimeoutResumes, s.kill
	}
	return e, err
}

// stopped gives the result of an attempt that did not end by itself, nil when nobody stopped it.
func stopped(ctx context.Context, a *attempt) *grid.Result {
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return nil
	case errors.Is(cause, executor.ErrCancelled):
		return a.failed(grid.ClassCancel, "cancelled")
	case errors.Is(cause, executor.ErrLost):
		return a.failed(grid.ClassLost, "not started, because the trial may run on another node now")
	default:
		return a.failed(grid.ClassHalt, "stopped, to run again later: "+cause.Error())
	}
}

func (a *attempt) failed(c grid.Class, reason string) *grid.Result {
	return &grid.Result{Class: c, ExitCode: grid.NoExit, Reason: reason, Started: a.started.UnixMicro()}
}
