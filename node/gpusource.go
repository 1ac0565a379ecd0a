//go:build !fakegpus

package node

import (
	"mlfnode/cluster/inventory"
	"mlfnode/node/config"
)

// gpuSource is where the node's GPUs come from.
func gpuSource(c *config.Config) inventory.Source { return c.GPUs }
