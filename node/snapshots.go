package node

import (
	"path/filepath"

	"mlfnode/node/checkpoint"
)

// openSnapshots opens the store of checkpoints on a node that keeps sweeps.
func (n *Node) openSnapshots() (err error) {
	n.snapshots, err = checkpoint.OpenStore(filepath.Join(n.cfg.StateDir, "snapshots"), n.cfg.Retention.Checkpoints, n.cfg.Logger)
	return err
}

// checkpoints returns where the worker of this node stores and loads checkpoints: here, or on the
// master.
func (n *Node) checkpoints() checkpoint.Remote {
	if n.snapshots != nil {
		return n.snapshots
	}
	return n.remote
}

// checkpointRate returns how fast checkpoints travel; within this machine there is no limit.
func (n *Node) checkpointRate() int64 {
	if n.snapshots != nil {
		return 0
	}
	return n.cfg.CheckpointRate
}
