package docker

import "mlfnode/node/executor/docker/dockertest"

// Shared is the engine of the tests that leave it as it was.
var Shared dockertest.Shared
