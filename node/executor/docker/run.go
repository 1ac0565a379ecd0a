package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"mlfnode/grid"
	"mlfnode/node/durable"
	"mlfnode/node/executor"
	"mlfnode/node/executor/process"
)

// ioDir is the ioFolder in the folder of a run, beside the run's record.
const ioDir = "io"

// run is one container, from before it is created until after it is removed.
type run struct {
	handle
	x         *Executor
	log       *slog.Logger
	attempt   *executor.Attempt
	dir       string
	io        ioFolder
	record    runRecord
	processes containerProcesses
	out       *outputPipes
	meter     *process.Meter
	events    *containerEvents
	away      bool // the engine was given up, so the container is removed later
}

// newRun makes the folder of a run and starts to read its output and events.
func (x *Executor) newRun(e *Engine, a *executor.Attempt) (r *run, err error) {
	name := a.Name
	if name == "" { // nobody can ask for it later
		name = "unnamed-" + x.birth + "-" + strconv.FormatInt(x.count.Add(1), 36)
	}
	r = x.openRun(e, a, x.o.containerName(name), runRecord{
		V: recordVersion, Owner: x.owner, Spec: a.Spec, Program: a.Argv[0], Shared: a.Stderr == a.Stdout,
		Began: time.Now().UnixNano(),
	})
	if err := errors.Join(os.MkdirAll(x.o.Dir, 0o700), os.Mkdir(r.dir, 0o700),
		os.Mkdir(string(r.io), 0o700)); err != nil {
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
	if r.out, err = newOutputPipes(string(r.io), a, [2]int64{}, r.log); err != nil {
		return nil, err
	}
	r.events = x.events.add(r.name)
	return r, nil
}

// openRun returns the run of a record, with nothing started. The engine is nil where it is not
// known yet.
func (x *Executor) openRun(e *Engine, a *executor.Attempt, name string, record runRecord) *run {
	dir := filepath.Join(x.o.Dir, name)
	r := &run{
		handle: handle{engine: e, name: name}, x: x, log: x.log.With("container", name), attempt: a,
		dir: dir, io: ioFolder(filepath.Join(dir, ioDir)), record: record,
		processes: containerProcesses{container: name, id: record.ID},
	}
	if record.Process.PID > 0 {
		r.processes.init.Store(&record.Process)
	}
	return r
}

// save writes the run's record. It is not synced: no container survives a power cut.
func (r *run) save() error {
	r.record.Process = r.processes.first()
	b, err := json.Marshal(&r.record)
	if err != nil {
		return fmt.Errorf("encode the record of a container: %w", err)
	}
	if err := durable.ReplaceFile(filepath.Join(r.dir, recordFile), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the record of a container: %w", err)
	}
	return nil
}

// launch creates the container and starts it. Its errors are EngineErrors, or the cause of ctx's
// end before the start.
func (r *run) launch(ctx context.Context) error {
	if err := r.create(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := r.start(context.WithoutCancel(ctx)); err != nil { // follow stops a program that may run
		return err
	}
	first := r.processes.first().PID
	missing := newGPUAccess(r.engine.info(), r.engine.podman()).missingFrom(first, r.attempt.Devices)
	if len(missing) > 0 && r.attempt.Container.GPUs != GPUsNone {
		return &EngineError{Class: grid.ClassEngine,
			Reason: fmt.Sprintf("the engine started the container without the GPU %s that was asked for", missing[0])}
	}
	if r.attempt.Started != nil {
		r.attempt.Started(executor.Program{PID: first, Container: r.record.ID})
	}
	return nil
}

// start starts the container exactly once: after a lost answer it is inspected before it is started
// again.
func (r *run) start(ctx context.Context) error {
	r.record.Began = time.Now().UnixNano()
	again := false
	err := r.x.retryWhileUnavailable(ctx, func(ctx context.Context) error {
		if again {
			state, err := r.inspect(ctx)
			if err != nil || state.Status != container.StateCreated {
				return err
			}
		}
		again = true
		return r.engine.client.ContainerStart(ctx, r.name, container.StartOptions{})
	})
	if err != nil {
		r.processes.killAll(r.x.ctx)
		return launchError("start", err)
	}
	bounded, stop := withCallTimeout(ctx)
	defer stop()
	if state, err := r.inspect(bounded); err == nil { // else await asks again
		r.processes.learn(state)
	}
	if pid := r.processes.first().PID; pid > 0 {
		r.meter = process.OpenMeter(pid)
	}
	return r.save()
}

// containerEnd is how a container has ended.
type containerEnd struct {
	state *container.State // nil if it can't be known
	away  bool             // the engine was unavailable for too long
}

// await returns when the container has ended. It waits for an engine that is unavailable; after the
// OutageTimeout it kills what still runs in the container without the engine. An engine that hangs
// does no harm while the container runs, so the timeout then starts with the container's end.
func (r *run) await(ctx context.Context) containerEnd {
	var away time.Time
	hanging := false
	for pause := retryPauses(); ctx.Err() == nil; pause.Sleep(ctx) {
		bounded, stop := context.WithTimeout(ctx, min(callTimeout, max(r.x.o.OutageTimeout, pingTimeout)))
		state, err := r.inspect(bounded)
		stop()
		switch {
		case errdefs.IsNotFound(err):
			return containerEnd{}
		case err == nil && hasEnded(state):
			return containerEnd{state: state}
		case err == nil:
			away, hanging = time.Time{}, false
			pause.Reset()
			r.processes.learn(state)
			if err := r.wait(ctx, r.processes.first()); err != nil {
				r.log.Debug("the wait for a container broke off", "err", err)
			}
		case errors.Is(err, context.DeadlineExceeded) && r.processes.first().Alive():
			if away = (time.Time{}); !hanging {
				hanging = true
				r.log.Warn("the container engine hangs; the container runs on", "err", err)
			}
		case away.IsZero():
			away = time.Now()
			r.log.Warn("the container engine does not answer", "err", err)
		case time.Since(away) > r.x.o.OutageTimeout:
			r.processes.killAll(ctx)
			return containerEnd{away: true}
		}
	}
	return containerEnd{}
}

// finish removes all traces of the run. What the engine can't remove now is removed later.
func (r *run) finish() {
	if r.meter != nil {
		r.meter.Close()
	}
	r.out.close()
	r.x.events.remove(r.name)
	// the container is removed after the attempt's context has ended, too
	ctx, stop := withCallTimeout(context.Background())
	defer stop()
	if !r.away {
		err := r.remove(ctx)
		if err == nil {
			r.removeFolder()
			return
		}
		r.log.Warn("the container could not be removed yet", "err", err)
	}
	r.x.work.Go(func() { // if the executor is closed before this succeeds, the next start finds the folder
		for pause := retryPauses(); pause.Sleep(r.x.ctx); {
			ctx, stop := withCallTimeout(r.x.ctx)
			err := r.remove(ctx)
			stop()
			if err == nil {
				r.removeFolder()
				return
			}
		}
	})
}

func (r *run) removeFolder() {
	if err := os.RemoveAll(r.dir); err != nil {
		r.log.Warn("the folder of a container could not be removed", "err", err)
	}
}
