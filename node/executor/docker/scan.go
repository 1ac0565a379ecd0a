package docker

import (
	"context"
	"encoding/json"
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

// Left is a run that a process which is dead has left behind.
type Left struct {
	Name      string // Spec.Name of the attempt; empty for one that nobody may adopt
	Record    string // its Spec.Record
	PID       int
	container string
}

// FindLeft lists what dead processes have left in the folder of runs. It asks no engine.
func FindLeft(dir string) ([]Left, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers of earlier processes: %w", err)
	}
	var all []Left
	for _, e := range entries {
		o, err := readOrder(filepath.Join(dir, e.Name()))
		if err == nil && o.Owner.Alive() {
			continue
		}
		l := Left{container: e.Name()} // of a folder that can't be read, at least the container is removed
		if err == nil {
			l.Name, l.Record, l.PID = o.Spec.Name, o.Spec.Record, o.Process.PID
		}
		all = append(all, l)
	}
	return all, nil
}

// Left lists what dead processes have left here. It asks no engine.
func (x *Executor) Left() ([]Left, error) { return FindLeft(x.o.Dir) }

func readOrder(dir string) (order, error) {
	var o order
	b, err := os.ReadFile(filepath.Join(dir, orderFile))
	if err == nil {
		err = json.Unmarshal(b, &o)
	}
	if err != nil {
		return o, fmt.Errorf("read the order of a container: %w", err)
	}
	return o, nil
}

// Adopted is a run that this process has taken over from one that is dead. Run is to be called once.
type Adopted struct {
	run   *run
	files [2]*os.File
	err   error // why its outcome can't be known
}

// Adopt takes a run over that a dead process has left. It asks no engine: from here on the run is this process's, and what its program
// prints is read.
func (x *Executor) Adopt(l Left) *Adopted {
	ad := &Adopted{}
	o, err := readOrder(filepath.Join(x.o.Dir, l.container))
	if err == nil {
		ad.files, err = openFiles(&o)
	}
	a := &executor.Attempt{Spec: o.Spec, Argv: []string{o.Program}, Stdout: ad.files[0], Stderr: ad.files[1]}
	o.Owner = x.owner
	r := x.runOf(nil, a, l.container, o)
	ad.run, ad.err = r, err
	if err != nil {
		x.log.Warn("a container of an earlier process can't be adopted", "container", l.container, "err", err)
		return ad
	}
	if err := r.save(); err != nil {
		x.log.Warn("a container of an earlier process can't be noted as ours", "container", l.container, "err", err)
	}
	if r.out, ad.err = newOutput(r.pipes(), a, sizes(ad.files), r.log); ad.err != nil {
		return ad
	}
	x.enter(r)
	if o.Process.PID > 0 && o.Process.Alive() {
		r.meter = process.OpenMeter(o.Process.PID)
	}
	return ad
}

// Run follows the run as Slot.Run does, and returns once nothing of it is left. It always ends in an outcome: the container's own, or one
// that says why nobody knows it.
func (ad *Adopted) Run(ctx context.Context, hard <-chan struct{}) executor.Outcome {
	r := ad.run
	defer closeFiles(ad.files)
	host := ""
	if c := r.attempt.Container; c != nil && slices.Contains(r.x.o.hosts(), c.Engine) { // else the engine may be the same at a new address
		host = c.Engine
	}
	engine, err := r.x.patientlyConnected(ctx, host)
	if err != nil {
		r.out.close()
		r.x.leave(r)
		return r.abandoned(err)
	}
	r.engine = engine
	defer r.finish()
	if ad.err != nil {
		return r.lost(ad.err.Error())
	}
	var state *container.State
	err = r.x.patiently(context.WithoutCancel(ctx), func(ctx context.Context) (err error) { // what is to be stopped must be found, too
		state, err = r.inspect(ctx)
		return err
	})
	switch {
	case errdefs.IsNotFound(err):
		r.killAway(r.x.ctx) // with an engine that this node does not use any more it may run on
		return r.lost("its container is gone")
	case err != nil:
		return r.lost(err.Error())
	case state.Status == container.StateCreated:
		return r.lost("the process that followed it died before its container was started")
	}
	if hasEnded(state) && state.ExitCode == foundDead { // nobody has heard what the engine said of it
		r.x.mu.Lock()
		r.evidence.breaks = -1
		r.x.mu.Unlock()
	}
	return r.follow(ctx, hard)
}

// lost is the outcome of a run whose end nobody knows.
func (r *run) lost(why string) executor.Outcome {
	now, began := time.Now(), r.began()
	if r.order.Began == 0 {
		began = now
	}
	return executor.Outcome{
		Class: grid.ClassLost, ExitCode: grid.NoExit, Reason: why, Start: began, End: now,
		Usage: grid.Usage{Wall: max(now.Sub(began).Microseconds(), 1)},
	}
}

// patientlyConnected waits for the engine.
func (x *Executor) patientlyConnected(ctx context.Context, host string) (e *Engine, err error) {
	limit := time.Now().Add(x.o.Patience)
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		if e, err = x.connected(context.WithoutCancel(ctx), host); err == nil || time.Now().After(limit) || !sleep(ctx, pause) {
			return e, err
		}
	}
}

// abandoned ends a run without the engine. What is left of its container goes with the next start that finds one.
func (r *run) abandoned(why error) executor.Outcome {
	r.killAway(r.x.ctx)
	o := r.lost(why.Error())
	o.Class = grid.ClassEngine
	return o
}

// openFiles opens the files that an attempt's output goes on in.
func openFiles(o *order) (files [2]*os.File, err error) {
	if o.Spec.Container == nil {
		return files, errors.New("no container is described")
	}
	for i, path := range o.Spec.Container.Output {
		if path == "" {
			continue
		}
		if i == 1 && o.Shared {
			files[1] = files[0]
			break
		}
		if files[i], err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0); err != nil {
			return files, err
		}
	}
	return files, nil
}

// sizes is how much the files hold.
func sizes(files [2]*os.File) (n [2]int64) {
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

// removeStrays removes containers of this state folder that no run stands for.
func (x *Executor) removeStrays(ctx context.Context, e *Engine) {
	ctx, stop := call(ctx)
	defer stop()
	all, err := e.client.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelToken+"="+x.o.Token))})
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
		x.log.Info("a container that no run stands for is removed", "container", name)
		err := e.client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
		if err != nil && !errdefs.IsNotFound(err) {
			x.log.Warn("a container could not be removed", "container", name, "err", err)
		}
	}
}

// Reap ends and removes what dead processes have left, and returns when nothing of it runs any more. It looks for an engine only
// where there is something to remove.
func Reap(ctx context.Context, o Options, log *slog.Logger) (n int, err error) {
	o.Patience = pingTime // what waits for this is the start of a node
	x := New(o, log)
	defer x.Close()
	left, err := x.Left()
	if err != nil || len(left) == 0 {
		return 0, err
	}
	killed, stop := context.WithCancelCause(ctx)
	stop(fmt.Errorf("%w: %w", executor.ErrLost, executor.ErrKill))
	for _, l := range left {
		x.Adopt(l).Run(killed, nil)
	}
	return len(left), nil
}
