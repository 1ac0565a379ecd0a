package worker

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
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
	params grid.Params
	spool  *spool
	image  *docker.Image // nil for a process

	allocation *allocator.Allocation // what it has of the node, which may be more than the task says; nil is not known

	from     origin
	saved    *saved           // nil for a task without a checkpoint
	watched  bool             // somebody looks at what it does on the devices
	evidence devices.Evidence // what they said at its end

	started time.Time
	ref     grid.LogRef // owned by the outbox

	mu        sync.Mutex
	sources   []*source
	cut       *cutOutput // nil when nothing was cut
	announced bool
	ended     bool      // nothing may be read from the spool any more
	untouched bool      // the attempt left nothing in the spool
	reported  time.Time // when metrics were last read
	metrics   grid.Metric
	changed   time.Time // when metrics became what they are
	sent      time.Time // when they were last told
}

// attempt runs one trial, from now on, and reports how it ended. Its spool stays until the report is stored. It
// returns whether the attempt has failed.
func (w *Worker) attempt(s *sweep, slot executor.Slot, t turn, found foundImage, index int64, number int, now time.Time) (failed bool) {
	h := t.holding
	a := &attempt{
		id: grid.TrialID{Sweep: s.record.ID, Index: index}, number: number, run: w.runs.name(),
		task: &s.record.Task, started: now, allocation: t.allocation, image: found.image,
		from: origin{h.held.Snapshot, h.held.Bad},
	}
	h.began(a)
	defer h.ended(a)
	var result *grid.Result
	var reuse bool
	switch params, err := s.record.Space.At(index); {
	case err != nil:
		result = a.failed(grid.ClassStart, "the trial's parameters can't be computed: "+err.Error())
	case found.failed != nil:
		result = a.failed(found.failed.Class, found.failed.Reason)
	case len(a.task.Command) == 0 && a.task.Shell == "":
		result = a.failed(grid.ClassStart, "the task has no command")
	default:
		a.params = params
		result, reuse = w.execute(s, slot, a, t.manifest)
		w.judge(a, result)
	}
	if result == nil {
		h.leftOn()
		return false
	}
	result.Devices = a.allocation.UUIDs()
	w.storeAtEnd(s.ctx, a, result, snapshotTime)
	a.saved.release()
	spool := a.spool
	if result.Class == grid.ClassLost && !a.told() {
		// Nobody knows that it ran, and the trial is another node's: to tell of it now would have it run once more.
		if spool != nil {
			w.spools.put(spool, reuse)
		}
		return true
	}
	if spool != nil && reuse && a.untouched {
		// Nothing is left to store but the result: the next attempt can have the spool at once.
		w.spools.putUntouched(spool)
		spool = nil
	}
	e := grid.Event{Kind: grid.Finished, Index: index, Attempt: number, Run: a.run, Time: time.Now().UnixMicro(), Result: result, Image: a.pin()}
	w.outbox.event(a.id.Sweep, report{event: e, ref: &a.ref, stored: func() {
		if spool != nil {
			w.spools.put(spool, reuse)
		}
		w.discardSaved(a, result)
	}})
	return result.Class != grid.ClassNone
}

// execute prepares, runs and collects. The second value reports whether the spool may be used again. Without a result the
// program goes on under the next agent.
func (w *Worker) execute(s *sweep, slot executor.Slot, a *attempt, template *manifestTemplate) (*grid.Result, bool) {
	spool, err := w.spools.take(s.ctx)
	if err != nil {
		if result := stopped(s.ctx, a); result != nil {
			return result, false
		}
		return a.failed(grid.ClassNode, "the attempt's folder could not be made: "+err.Error()), false
	}
	a.spool = spool
	m, err := template.claim(spool, a)
	if err != nil {
		return a.failed(grid.ClassNode, "the attempt's folder could not be written: "+err.Error()), true
	}
	err = w.prepare(s, slot, a)
	if err == nil {
		err = w.checkpointed(s.ctx, a)
	}
	if err != nil {
		if result := stopped(s.ctx, a); result != nil {
			return result, true
		}
		return a.unprepared(err), true
	}
	return w.process(s, slot, a, m)
}

// announceTime bounds the wait for the word that an attempt begins.
const announceTime = time.Second

// announce tells that the attempt begins, before it does. An attempt that comes after another may be of a trial that takes its
// node down, so fast that nobody would ever hear what it was.
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

// process runs the program and collects what it left.
func (w *Worker) process(s *sweep, slot executor.Slot, a *attempt, m *manifest) (*grid.Result, bool) {
	a.sources = []*source{
		{file: a.spool.stdout, stream: streamOut}, {file: a.spool.stderr, stream: streamErr},
	}
	if a.number > 1 {
		w.announce(s.ctx, a)
	}
	command, err := w.command(s, a)
	if err != nil {
		return a.uncontained(err), true
	}
	w.watch(a)
	endStoring := w.storing(s.ctx, a)
	w.beginUse(a)
	out := slot.Run(s.ctx, command)
	endStoring()
	w.unwatch(a)
	if out.Left {
		w.leaveOn(a)
		return nil, false
	}
	result := a.result(out)
	w.endUse(a, result)
	w.blameDisk(a, result)
	if result.Class == grid.ClassImage {
		w.lookAgain(s.record) // somebody has removed it
	}
	if a.spool.untouched(a.started) {
		a.mu.Lock()
		a.ended, a.untouched = true, true
		a.mu.Unlock()
		w.classify(a, result)
		if len(a.task.Metrics) > 0 {
			a.addMetrics(result)
		}
		return result, out.Leftovers == 0
	}
	// The program has ended: the next start can tell so even if this one gets no further.
	if err := a.note(m, result); err != nil {
		w.log.Warn("result could not be noted in the spool", "trial", a.id, "err", err)
	}
	// What an ended attempt leaves is stored even while the node stops.
	if !w.collect(context.Background(), a, result) {
		a.spool.close()
		return nil, false
	}
	return result, out.Leftovers == 0
}

// collect ships the rest of the output and gathers metrics and artifacts. It is also what a start after a crash does. It reports
// false when the spool, which then keeps them for the next start, is all that has the artifacts: the attempt is not to be
// reported yet.
func (w *Worker) collect(ctx context.Context, a *attempt, result *grid.Result) bool {
	w.drain(a)
	line := w.classify(a, result)
	result.Reason = a.explain(result, line)
	a.addMetrics(result)
	files, err := w.storeArtifacts(ctx, a)
	if errors.Is(err, errUploadLeft) {
		w.log.Warn("artifacts can't be stored while the node stops; the next start stores them", "trial", a.id)
		return false
	}
	if err != nil {
		w.log.Warn("artifacts could not be stored", "trial", a.id, "err", err)
		result.Reason = joinReason(result.Reason, "artifacts could not be stored: "+err.Error())
	}
	result.Files = files
	return true
}

// addMetrics reads the metrics. A metric that a successful trial should have left and did not is not a failure, but it is noted.
func (a *attempt) addMetrics(r *grid.Result) {
	var notes []string
	r.Metrics, notes = a.gatherMetrics()
	if r.Class == grid.ClassNone {
		for _, note := range notes {
			r.Reason = joinReason(r.Reason, note)
		}
	}
}

func joinReason(a, b string) string {
	if a == "" {
		return b
	}
	return a + "\n" + b
}

// command is what the executor runs.
func (w *Worker) command(s *sweep, a *attempt) (*executor.Attempt, error) {
	t := a.task
	container, err := w.container(s, a, false, [2]string{a.spool.stdout.Name(), a.spool.stderr.Name()})
	e := &executor.Attempt{
		Spec: executor.Spec{
			Name: a.run, Record: a.spool.record(), Dir: a.spool.work(), OutputLimit: a.outputLimit(),
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

// result turns what the executor saw into the attempt's result.
func (a *attempt) result(out executor.Outcome) *grid.Result {
	a.cutOff(&out)
	r := &grid.Result{Class: out.Class, ExitCode: out.ExitCode, Reason: out.Reason, Started: out.Start.UnixMicro(), Usage: out.Usage}
	if out.Start.IsZero() {
		r.Started = a.started.UnixMicro()
	}
	a.reread(r)
	return r
}

// stopped gives the result of an attempt that did not end by itself, nil when nobody stopped it.
func stopped(ctx context.Context, a *attempt) *grid.Result {
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return nil
	case errors.Is(cause, executor.ErrCancelled):
		return a.failed(grid.ClassCancel, "cancelled")
	default:
		return a.failed(grid.ClassHalt, "stopped before its end: "+cause.Error())
	}
}

func (a *attempt) failed(c grid.Class, reason string) *grid.Result {
	return &grid.Result{Class: c, ExitCode: grid.NoExit, Reason: reason, Started: a.started.UnixMicro()}
}

// reasonLines and reasonBytes bound the output that goes into a failure's reason.
const (
	reasonLines = 5
	reasonBytes = 2048
)

// explain adds to the reason of a failure the line that tells it, if any, and the last lines of output.
func (a *attempt) explain(r *grid.Result, line string) string {
	if r.Class == grid.ClassNone || r.Class == grid.ClassCancel || r.Class == grid.ClassHalt || r.Class == grid.ClassPreempt || a.spool == nil {
		return r.Reason
	}
	for _, f := range []*os.File{a.spool.stderr, a.spool.stdout} {
		if lines := lastLines(f, reasonLines, reasonBytes); lines != "" {
			if line != "" && !strings.Contains(lines, line) {
				lines = line + "\n" + lines
			}
			return joinReason(r.Reason, lines)
		}
	}
	return r.Reason
}
