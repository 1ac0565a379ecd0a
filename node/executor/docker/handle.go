package docker

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"mlfnode/node/processid"
)

// handle is a container by its name at an engine.
type handle struct {
	engine *Engine
	name   string
}

// inspect returns the state of the container.
func (h handle) inspect(ctx context.Context) (*container.State, error) {
	c, err := h.engine.client.ContainerInspect(ctx, h.name)
	if err != nil {
		return nil, err
	}
	if c.ContainerJSONBase == nil || c.State == nil {
		return nil, errors.New("the engine does not report the state of the container")
	}
	return c.State, nil
}

// wait returns when the engine reports that the container has ended, when the request breaks off,
// which is the error, or when the container's first process is gone.
func (h handle) wait(ctx context.Context, first processid.ID) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended, errs := h.engine.client.ContainerWait(ctx, h.name, container.WaitConditionNotRunning)
	tick := time.NewTicker(maxSampleInterval)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return nil
		case err := <-errs:
			return err
		case <-tick.C:
			if first.PID > 0 && !first.Alive() {
				return nil
			}
		}
	}
}

// remove removes the container, whether it runs or was never created.
func (h handle) remove(ctx context.Context) error {
	err := h.engine.client.ContainerRemove(ctx, h.name, container.RemoveOptions{Force: true, RemoveVolumes: true})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// hasEnded reports whether the container will not run any more.
func hasEnded(s *container.State) bool {
	return s.Status == container.StateExited || s.Status == container.StateDead || s.Status == container.StateRemoving
}
