package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/process"
	"mlfnode/node/processid"
)

// The folder of a run:
//
//	order.json         what it is, for a process that adopts it
//	io/stdout, stderr  named pipes, which the program has open and which we carry into the attempt's files
//	io/begun           made by the wrapper when it begins
//	io/refused127      made by the wrapper when the image has no such program; 126: when it can't be run
//
// io is in the container under its own path: the rest is not, for the program can change what it sees.
const (
	orderFile   = "order.json"
	pipesDir    = "io"
	stdoutPipe  = "stdout"
	stderrPipe  = "stderr"
	refusedFile = "refused"
	begunFile   = "begun"
)

// orderVersion is the version of order.json. Fields are added, never renamed.
const orderVersion = 1

// order is a run as its folder keeps it.
type order struct {
	V       int           `json:"v"`
	Owner   processid.ID  `json:"owner"` // the process that follows it
	Spec    executor.Spec `json:"spec"`
	Program string        `json:"program"` // first word of the command
	Shared  bool          `json:"shared,omitempty"`

	ID      string       `json:"id,omitempty"`     // the engine's, once it is made
	Began   int64        `json:"began,omitempty"`  // nanoseconds since 1970
	Process processid.ID `json:"process,omitzero"` // the container's first process, as this machine numbers it
}

// label names the run in the labels of its container.
func (o *order) label() string { return o.Spec.Name }

// run is one container, from before it is made until it is removed.
type run struct {
	x         *Executor
	engine    *Engine
	log       *slog.Logger
	attempt   *executor.Attempt
	container string // its name
	dir       string
	order     order
	first     atomic.Pointer[processid.ID] // see process
	out       *output
	meter     *process.Meter
	evidence  evidence // guarded by x
	away      bool     // the engine was given up: what it has of the container is removed later
}

// newRun makes the folder of a run.
func (x *Executor) newRun(e *Engine, a *executor.Attempt) (r *run, err error) {
	spec := a.Spec
	name := spec.Name
	if name == "" { // nobody can ask for it later
		name = "unnamed-" + x.birth + "-" + strconv.FormatInt(x.count.Add(1), 36)
	}
	o := order{
		V: orderVersion, Owner: x.owner, Spec: spec, Program: a.Argv[0], Shared: a.Stderr == a.Stdout, Began: time.Now().UnixNano(),
	}
	r = x.runOf(e, a, x.o.containerName(name), o)
	if err := errors.Join(os.MkdirAll(x.o.Dir, 0o700), os.Mkdir(r.dir, 0o700), os.Mkdir(r.pipes(), 0o700)); err != nil {
		return nil, fmt.Errorf("make the folder of a container: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(r.dir))
		}
	}()
	if err := r.save(); err != nil {
		return nil, err
	}
	if r.out, err = newOutput(r.pipes(), a, [2]int64{}, r.log); err != nil {
		return nil, err
	}
	x.enter(r)
	return r, nil
}

func (x *Executor) runOf(e *Engine, a *executor.Attempt, name string, o order) *run {
	r := &run{
		x: x, engine: e, log: x.log.With("container", name), attempt: a, container: name, dir: filepath.Join(x.o.Dir, name),
		order: o, evidence: evidence{died: make(chan struct{})},
	}
	if o.Process.PID > 0 {
		r.first.Store(&o.Process)
	}
	return r
}

func (r *run) pipes() string { return filepath.Join(r.dir, pipesDir) }

// enter has the events of the container heard.
func (x *Executor) enter(r *run) {
	x.mu.Lock()
	defer x.mu.Unlock()
	r.evidence.breaks = x.breaks
	x.runs[r.container] = r
}

// leave ends that.
func (x *Executor) leave(r *run) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.runs, r.container)
}

// save writes the order down, whole or not at all.
func (r *run) save() error {
	r.order.Process = r.process()
	b, err := json.Marshal(&r.order)
	if err != nil {
		return fmt.Errorf("encode the order of a container: %w", err)
	}
	file := filepath.Join(r.dir, orderFile)
	if err := os.WriteFile(file+".new", append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the order of a container: %w", err)
	}
	return os.Rename(file+".new", file)
}

// launch makes the container and starts it. Its errors are Faults, or the end of ctx, which keeps it from being started.
func (r *run) launch(ctx context.Context) error {
	if err := r.create(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := r.start(context.WithoutCancel(ctx)); err != nil { // a program that may run is stopped in good order
		return err
	}
	if lost := newGPUAccess(r.engine.info(), r.engine.podman()).missing(r.process().PID, r.attempt.Devices); len(lost) > 0 && r.attempt.Container.GPUs != GPUsNone {
		return &Fault{Class: grid.ClassEngine, Reason: fmt.Sprintf("the engine started the container without the GPU %s that was asked for", lost[0])}
	}
	if r.attempt.Started != nil {
		r.attempt.Started(executor.Program{PID: r.process().PID, Container: r.order.ID})
	}
	return nil
}

// start starts the container once: when the answer is lost, it is looked at before it is started again.
func (r *run) start(ctx context.Context) error {
	r.order.Began = time.Now().UnixNano()
	again := false
	err := r.x.patiently(ctx, func(ctx context.Context) error {
		if again {
			state, err := r.inspect(ctx)
			if err != nil || state.Status != container.StateCreated {
				return err
			}
		}
		again = true
		return r.engine.client.ContainerStart(ctx, r.container, container.StartOptions{})
	})
	if err != nil {
		r.killAway(r.x.ctx)
		return launchFault("start", err)
	}
	bounded, stop := call(ctx)
	defer stop()
	if state, err := r.inspect(bounded); err == nil { // else await asks again
		r.learn(state)
	}
	if pid := r.process().PID; pid > 0 {
		r.meter = process.OpenMeter(pid)
	}
	return r.save()
}

// killAway kills without the engine, which may be away for long, all that runs in the container, and returns when nothing does.
func (r *run) killAway(ctx context.Context) {
	for pause := firstLook; r.killMembers(); pause = min(2*pause, lastLook) {
		if !sleep(ctx, pause) {
			return
		}
	}
}

// killMembers kills the container's first process and what else the container runs, and reports whether there was anything. So what runs
// there is found too when the engine went away before it said which process that is.
func (r *run) killMembers() (found bool) {
	first := r.process()
	_ = first.Signal(killSignal)
	found = first.Alive() // even one that can't be killed
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		if p, ok := processid.Of(pid); ok && r.owns(pid) && p.Signal(killSignal) == nil { // what can't be killed is not ours
			found = true
		}
	}
	return found
}

// process is the container's first process, none while it is not known and when it had ended before it was.
func (r *run) process() processid.ID {
	if p := r.first.Load(); p != nil {
		return *p
	}
	return processid.ID{}
}

// learn notes which process it is. An engine of another machine has processes of its own, so what it says is believed only of a process
// that is seen to be the container's.
func (r *run) learn(state *container.State) {
	if p, ok := processid.Of(state.Pid); state.Pid > 0 && ok && r.owns(state.Pid) {
		r.first.Store(&p)
	}
}

// owns reports whether a process is the container's: by its cgroup, or by what the container's processes have in their environment.
func (r *run) owns(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid)
	cgroups, _ := os.ReadFile(dir + "/cgroup") // what can't be read is not ours
	environ, _ := os.ReadFile(dir + "/environ")
	return r.order.ID != "" && bytes.Contains(cgroups, []byte(r.order.ID)) ||
		slices.Contains(strings.Split(string(environ), "\x00"), runVar+r.container)
}

// inspect asks for the state of the container.
func (r *run) inspect(ctx context.Context) (*container.State, error) {
	c, err := r.engine.client.ContainerInspect(ctx, r.container)
	if err != nil {
		return nil, err
	}
	if c.ContainerJSONBase == nil || c.State == nil {
		return nil, errors.New("the engine does not say how the container is")
	}
	return c.State, nil
}

// ending is how a container has ended.
type ending struct {
	state *container.State // nil when nobody can know it
	away  bool             // the engine has been away for too long
}

// await returns when the container has ended. An engine that goes away is waited for; when that takes too long, what is still there of its
// container is killed without it. One that hangs does no harm while the container runs, and is waited for as long when that has ended.
func (r *run) await(ctx context.Context) ending {
	var away time.Time
	hanging := false
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, longestPause) {
		bounded, stop := context.WithTimeout(ctx, min(callTime, max(r.x.o.Patience, pingTime)))
		state, err := r.inspect(bounded)
		stop()
		switch {
		case errdefs.IsNotFound(err):
			return ending{}
		case err == nil && hasEnded(state):
			return ending{state: state}
		case err == nil:
			away, hanging, pause = time.Time{}, false, firstPause
			r.learn(state)
			r.awaitEnd(ctx)
		case errors.Is(err, context.DeadlineExceeded) && r.process().Alive():
			if away = (time.Time{}); !hanging {
				hanging = true
				r.log.Warn("the container engine hangs; the container runs on", "err", err)
			}
		case away.IsZero():
			away = time.Now()
			r.log.Warn("the container engine does not answer", "err", err)
		case time.Since(away) > r.x.o.Patience:
			r.killAway(ctx)
			return ending{away: true}
		}
		sleep(ctx, pause)
	}
	return ending{}
}

// awaitEnd returns when the engine says that the container has ended, or breaks off, or when its first process is seen to be gone.
func (r *run) awaitEnd(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended, errs := r.engine.client.ContainerWait(ctx, r.container, container.WaitConditionNotRunning)
	look := time.NewTicker(lastLook)
	defer look.Stop()
	for init := r.process(); ; {
		select {
		case <-ended:
			return
		case err := <-errs:
			r.log.Debug("the wait for a container broke off", "err", err)
			return
		case <-look.C:
			if init.PID > 0 && !init.Alive() {
				return
			}
		}
	}
}

// hasEnded reports whether the container will not run any more.
func hasEnded(s *container.State) bool {
	return s.Status == container.StateExited || s.Status == container.StateDead || s.Status == container.StateRemoving
}

// finish leaves nothing of the run. What the engine can't remove now is removed later.
func (r *run) finish() {
	if r.meter != nil {
		r.meter.Close()
	}
	r.out.close()
	r.x.leave(r)
	ctx, stop := call(context.Background()) // the end of the attempt's context must not leave the container behind
	defer stop()
	if !r.away {
		err := r.remove(ctx)
		if err == nil {
			r.discard()
			return
		}
		r.log.Warn("a container could not be removed yet", "err", err)
	}
	r.x.work.Go(r.removeLater)
}

func (r *run) discard() {
	if err := os.RemoveAll(r.dir); err != nil {
		r.log.Warn("the folder of a container could not be removed", "err", err)
	}
}

// remove removes the container, whether it runs or was never made.
func (r *run) remove(ctx context.Context) error {
	err := r.engine.client.ContainerRemove(ctx, r.container, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// removeLater tries until it succeeds or the executor is closed; then the next start finds the folder.
func (r *run) removeLater() {
	for pause := firstPause; sleep(r.x.ctx, pause); pause = min(2*pause, longestPause) {
		ctx, stop := call(r.x.ctx)
		err := r.remove(ctx)
		stop()
		if err == nil {
			r.discard()
			return
		}
	}
}
