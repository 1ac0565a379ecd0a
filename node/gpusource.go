//go:build !fakegpus

package node

import "mlfnode/cluster/inventory"

// gpuSource is where the node's GPUs come from.
func (c *Config) gpuSource() inventory.Source { return c.GPUs }
