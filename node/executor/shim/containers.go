package shim

import (
	"context"
	"errors"
	"fmt"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/poll"
)

// adoptContainers takes over the containers of shims that died. They become runs like those that
// this shim has begun itself, and the agent is told of them when it introduces itself. It asks no
// engine unless there is a container to take over.
func (srv *server) adoptContainers(x *docker.Executor) error {
	left, err := x.Orphans()
	if err != nil {
		return err
	}
	for i, l := range left {
		ctx, stop := context.WithCancelCause(context.Background()) // ends with the run, by stop
		// No slot has number 0, so these ids are none of a slot's.
		r := &run{id: runID(0, uint64(i+1)), name: l.Name, record: l.Record, stop: stop, kill: make(chan struct{}),
			pid: l.PID, container: true}
		srv.mu.Lock()
		srv.runs[r.id] = r
		srv.mu.Unlock()
		if r.name == "" { // nobody can ask for it
			stop(fmt.Errorf("%w: %w", executor.ErrLost, executor.ErrKill))
		}
		srv.log.Info("took over a container of a dead shim", "run", l.Name)
		adopted := x.Adopt(l)
		srv.working.Go(func() {
			defer stop(nil)
			srv.endRun(nil, r, adopted.Run(ctx, r.kill))
		})
	}
	return nil
}

// adoptContainers starts a shim if dead shims have left containers, which only another shim can
// take over.
func (c *Client) adoptContainers(ctx context.Context) error {
	if c.o.Containers == nil {
		return nil
	}
	left, err := docker.FindOrphans(c.o.Containers.Dir)
	if err != nil || len(left) == 0 {
		return err
	}
	l, err := c.ensureShim(ctx)
	if err != nil {
		return err
	}
	c.adoptedRuns.add(l)
	return nil
}

// holdOutput keeps what a container prints while it has no shim, until the returned func is called.
func (o *Options) holdOutput(name string) (release func()) {
	if o.Containers == nil {
		return func() {}
	}
	return o.Containers.HoldPipes(name)
}

// rejoinPause is the pause before another attempt to start the shim that takes a container over.
const rejoinPause = time.Second

// rejoin waits for a run in a container whose shim died and which the next shim takes over. The
// container goes on while no shim can be started, and the end of this agent leaves it to the next
// agent.
func (c *Client) rejoin(ctx context.Context, name string, kill <-chan struct{}) executor.Outcome {
	l, err := c.ensureShim(context.Background()) // limited by launchTimeout
	for err != nil {
		c.log.Warn("no shim could take over a container", "run", name, "err", err)
		if !poll.Sleep(ctx, rejoinPause) || errors.Is(err, errClosed) {
			return executor.Outcome{Left: true}
		}
		l, err = c.ensureShim(context.Background())
	}
	k := l.runByName(name)
	if k == nil {
		return lostOutcome(grid.ClassNode, "its shim died before its container was made", time.Now())
	}
	o := k.resume(ctx, kill)
	if !o.Left {
		k.collect()
	}
	return o
}
