package docker

import "mlfnode/node/executor/docker/dockertest"

// Shared and SharedPodman are the engines of the tests that leave them as they were.
var (
	Shared       dockertest.Shared
	SharedPodman = dockertest.Shared{Kind: dockertest.Podman}
)
