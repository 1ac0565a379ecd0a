package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/process"
)

// Orphan is a run whose owning process is dead.
type Orphan struct {
	Name      string // Spec.Name of the attempt; empty for one that nobody may adopt
	Record    string // its Spec.Record
	PID       int
	container string
}

// FindOrphans lists the orphans in a folder of runs. It does not contact an engine.
func FindOrphans(dir string) ([]Orphan, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers of earlier processes: %w", err)
	}
	var all []Orphan
	for _, e := range entries {
		r, err := readRecord(filepath.Join(dir, e.Name()))
		if err == nil && r.Owner.Alive() {
			continue
		}
		o := Orphan{container: e.Name()} // without a readable record at least the container is removed
		if err == nil {
			o.Name, o.Record, o.PID = r.Spec.Name, r.Spec.Record, r.Process.PID
		}
		all = append(all, o)
	}
	return all, nil
}

// Orphans lists the orphans of this executor's folder. It does not contact an engine.
func (x *Executor) Orphans() ([]Orphan, error) { return FindOrphans(x.o.Dir) }

// Adopted is an orphan that this process owns now. Run must be called once.
type Adopted struct {
	run   *run
	files [2]*os.File
	err   error // why its outcome can't be known
}

// Adopt makes this process the owner of an orphan and starts to read its output. It does not
// contact an engine.
func (x *Executor) Adopt(o Orphan) *Adopted {
	ad := &Adopted{}
	record, err := readRecord(filepath.Join(x.o.Dir, o.container))
	if err == nil {
		ad.files, err = record.openOutput()
	}
	a := &executor.Attempt{Spec: record.Spec, Argv: []string{record.Program}, Stdout: ad.files[0], Stderr: ad.files[1]}
	record.Owner = x.owner
	r := x.openRun(nil, a, o.container, record)
	ad.run, ad.err = r, err
	if err != nil {
		x.log.Warn("a container of an earlier process can't be adopted", "container", o.container, "err", err)
		return ad
	}
	if err := r.save(); err != nil {
		x.log.Warn("the record of an adopted container can't be written", "container", o.container, "err", err)
	}
	if r.out, ad.err = newOutputPipes(string(r.io), a, fileSizes(ad.files), r.log); ad.err != nil {
		return ad
	}
	r.events = x.events.add(r.name)
	if record.Process.PID > 0 && record.Process.Alive() {
		r.meter = process.OpenMeter(record.Process.PID)
	}
	return ad
}

// Run follows the run as Slot.Run does, and returns once nothing of it is left. It always ends in
// an outcome: the container's own, or one that says why nobody knows it.
func (ad *Adopted) Run(ctx context.Context, kill <-chan struct{}) executor.Outcome {
	r := ad.run
	defer closeFiles(ad.files)
	host := ""
	c := r.attempt.Container
	if c != nil && slices.Contains(r.x.o.hosts(), c.Engine) { // else the engine may have a new address
		host = c.Engine
	}
	engine, err := r.x.awaitEngine(ctx, host)
	if err != nil { // the next start that finds an engine removes the container
		r.out.close()
		r.x.events.remove(r.name)
		r.processes.killAll(r.x.ctx)
		o := r.record.lost(err.Error())
		o.Class = grid.ClassEngine
		return o
	}
	r.engine = engine
	defer r.finish()
	if ad.err != nil {
		return r.record.lost(ad.err.Error())
	}
	var state *container.State
	// The container is found even when ctx has ended, for it must be stopped.
	err = r.x.retryWhileUnavailable(context.WithoutCancel(ctx), func(ctx context.Context) (err error) {
		state, err = r.inspect(ctx)
		return err
	})
	switch {
	case errdefs.IsNotFound(err):
		r.processes.killAll(r.x.ctx) // it may run on with an engine that this node no longer uses
		return r.record.lost("its container is gone")
	case err != nil:
		return r.record.lost(err.Error())
	case state.Status == container.StateCreated:
		return r.record.lost("the process that followed it died before its container was started")
	}
	if hasEnded(state) && state.ExitCode == exitFoundDead {
		r.x.events.assumeBreak(r.events)
	}
	return r.follow(ctx, kill)
}

// awaitEngine connects to the engine, and retries until the OutageTimeout.
func (x *Executor) awaitEngine(ctx context.Context, host string) (e *Engine, err error) {
	limit := time.Now().Add(x.o.OutageTimeout)
	for pause := retryPauses(); ; {
		e, err = x.connect(context.WithoutCancel(ctx), host)
		if err == nil || time.Now().After(limit) || !pause.Sleep(ctx) {
			return e, err
		}
	}
}

func fileSizes(files [2]*os.File) (n [2]int64) {
	for i, f := range files {
		if f == nil || i == 1 && f == files[0] {
			continue
		}
		if info, err := f.Stat(); err == nil {
			n[i] = info.Size()
		}
	}
	return n
}

func closeFiles(files [2]*os.File) {
	for i, f := range files {
		if f != nil && (i == 0 || f != files[0]) {
			f.Close()
		}
	}
}

// removeStrays removes the containers of this state folder for which there is no run.
func (x *Executor) removeStrays(ctx context.Context, e *Engine) {
	ctx, stop := withCallTimeout(ctx)
	defer stop()
	label := filters.NewArgs(filters.Arg("label", labelToken+"="+x.o.Token))
	all, err := e.client.ContainerList(ctx, container.ListOptions{All: true, Filters: label})
	if err != nil {
		x.log.Warn("containers could not be listed", "err", err)
		return
	}
	for _, c := range all {
		name := ""
		if len(c.Names) > 0 {
			name = filepath.Base(c.Names[0])
		}
		if _, err := os.Stat(filepath.Join(x.o.Dir, name)); name != "" && err == nil {
			continue
		}
		x.log.Info("remove a container that belongs to no run", "container", name)
		if err := (handle{engine: e, name: c.ID}).remove(ctx); err != nil {
			x.log.Warn("a container could not be removed", "container", name, "err", err)
		}
	}
}

// Reap kills and removes all orphans, and returns their number when nothing of them runs any more.
// It looks for an engine only if there are any.
func Reap(ctx context.Context, o Options, log *slog.Logger) (n int, err error) {
	o.OutageTimeout = pingTimeout // the start of a node waits for Reap
	x := New(o, log)
	defer x.Close()
	orphans, err := x.Orphans()
	if err != nil || len(orphans) == 0 {
		return 0, err
	}
	killed, stop := context.WithCancelCause(ctx)
	stop(fmt.Errorf("%w: %w", executor.ErrLost, executor.ErrKill))
	for _, o := range orphans {
		x.Adopt(o).Run(killed, nil)
	}
	return len(orphans), nil
}
