package node

import (
	"context"
	"errors"
	"path/filepath"

	"mlfnode/node/doctor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/worker"
)

// settings are what the executor of containers needs to know.
func (c *Engine) settings() docker.Settings {
	return docker.Settings{Socket: c.Socket, Patience: c.Patience, Network: c.Network}
}

// containers are the settings of what runs attempts in containers.
func (c *Config) containers(token string) docker.Options {
	return docker.Options{Settings: c.Engine.settings(), Token: token, Dir: containersDir(c.StateDir)}
}

func containersDir(state string) string { return filepath.Join(state, "containers") }

// openImages gives the worker what it needs for tasks with an image. No engine is asked before there is such a task.
func (n *Node) openImages() {
	images := docker.NewImages(n.cfg.Engine.settings(), func() {
		if w := n.working(); w != nil {
			w.ImagesChanged()
		}
	})
	n.onClose(images.Close)
	n.containers = &worker.Containers{Images: images, Network: n.cfg.Engine.Network, Mounts: n.cfg.Engine.Mounts}
}

// runsContainers says why this machine runs no containers.
func (c *Engine) runsContainers(ctx context.Context) error {
	if f := docker.Examine(ctx, c.settings(), nil); f.Problem != "" {
		return errors.New(f.Problem)
	}
	return nil
}

// ContainerFacts asks this machine's container engine what it is, and whether it can give these GPUs to containers.
func ContainerFacts(ctx context.Context, c Config, gpus []string) doctor.Containers {
	return doctor.Containers(docker.Examine(ctx, c.Engine.settings(), gpus))
}
