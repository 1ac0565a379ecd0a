package node

import (
	"context"
	"path/filepath"

	"mlfnode/node/config"
	"mlfnode/node/doctor"
	"mlfnode/node/executor/docker"
)

// dockerSettings returns the settings of the container engine as the executor takes them.
func dockerSettings(c *config.Engine) docker.Settings {
	return docker.Settings{Socket: c.Socket, OutageTimeout: c.Patience, Network: c.Network}
}

// dockerOptions returns the options of the executor that runs attempts in containers.
func dockerOptions(c *config.Config, token string) docker.Options {
	return docker.Options{Settings: dockerSettings(&c.Engine), Token: token, Dir: containersDir(c.StateDir)}
}

func containersDir(state string) string { return filepath.Join(state, "containers") }

// ContainerFacts asks the container engine of this machine for its version, and whether it can give
// these GPUs to containers.
func ContainerFacts(ctx context.Context, c config.Config, gpus []string) doctor.Containers {
	return doctor.Containers(docker.Probe(ctx, dockerSettings(&c.Engine), gpus))
}
