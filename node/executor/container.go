package executor

import "mlfnode/grid"

// Container describes the container that a program runs in. Paths are the same inside and outside,
// except for mounts that say otherwise.
type Container struct {
	Image  string `json:"image"`            // reference as in the project
	Digest string `json:"digest,omitempty"` // what the sweep has pinned: a repository digest or an image id
	// address of the engine that has the image; empty means that of the executor's settings
	Engine string `json:"engine,omitempty"`
	// Entrypoint is put before the command.
	Entrypoint []string `json:"entrypoint,omitempty"`

	Mounts []Mount `json:"mounts,omitempty"`
	// Output are the paths of the files behind Attempt.Stdout and Attempt.Stderr, to which an
	// executor that adopts the run goes on writing.
	Output [2]string `json:"output,omitzero"`

	Network string `json:"network,omitempty"` // host (also ""), none, bridge or the name of a network
	// bytes of /dev/shm; 0 means the memory limit, or half of the machine's
	Shm int64 `json:"shm,omitempty"`
	// weight of its CPU time, 1024 for each CPU; 0 means the engine's default
	Shares  int64    `json:"shares,omitempty"`
	Ulimits []Ulimit `json:"ulimits,omitempty"`
	// how devices are made available: auto (also ""), cdi, request or none
	GPUs   string            `json:"gpus,omitempty"`
	Labels map[string]string `json:"labels,omitempty"` // in addition to those of the executor
}

// Mount is a file or folder of the machine in a container.
type Mount = grid.Mount

// Ulimit is a resource limit of a container's processes.
type Ulimit = grid.Ulimit
