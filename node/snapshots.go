package node

import (
	"path/filepath"

	"mlfnode/node/checkpoint"
)

// openSnapshots opens the store of what trials have saved, on a node that keeps sweeps.
func (n *Node) openSnapshots() (err error) {
	n.snapshots, err = checkpoint.OpenStore(filepath.Join(n.cfg.StateDir, "snapshots"), n.cfg.Retention.Checkpoints, n.cfg.Logger)
	return err
}

// checkpoints is where this node's worker stores and loads what trials have saved: here, or on the master.
func (n *Node) checkpoints() checkpoint.Remote {
	if n.snapshots != nil {
		return n.snapshots
	}
	return n.remote
}

// checkpointRate is how fast they travel; within this machine there is no limit.
func (n *Node) checkpointRate() int64 {
	if n.snapshots != nil {
		return 0
	}
	return n.cfg.CheckpointRate
}
