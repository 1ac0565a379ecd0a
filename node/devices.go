package node

import (
	"context"

	"mlfnode/cluster"
	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node/config"
	"mlfnode/node/worker"
	"mlfnode/node/worker/allocator"
)

// machineChanged gives the worker, once there is one, the devices of the machine, and publishes
// them.
func (n *Node) machineChanged(m inventory.Machine) {
	if w := n.working(); w != nil {
		w.Devices.SetMachine(m)
	}
	n.publishDevices()
	n.looked.set()
}

// publishDevices publishes the devices of this node and their states by gossip. On a node that
// stands alone it wakes the master.
func (n *Node) publishDevices() {
	if n.membership == nil { // it stands alone
		n.master.Kick() // trials may begin now
		return
	}
	m := n.machine.Latest()
	if w := n.working(); w != nil {
		m = w.Devices.Annotate(m)
	}
	n.membership.Gossip.Update(func(s *cluster.Self) { s.Inventory, s.GPUs = &m, len(m.GPUs) })
}

// devices completes the settings of a worker by those of devices.
func (n *Node) devices(c worker.Config) worker.Config {
	n.mu.Lock()
	defer n.mu.Unlock()
	c.GPUs = worker.GPUs{Usage: n.machine, Policy: n.policy, OnChanged: n.publishDevices}
	c.Machine, c.Labels = n.limits, n.cfg.Labels
	return c
}

// Never returns why a node with these settings, which does not run yet, could never run an attempt
// with these resources on this machine, and what is wrong with its GPUs, if anything is. It asks
// the GPU driver only if a GPU is needed.
func Never(ctx context.Context, c *config.Config, r grid.Resources) (refusal grid.Refusal, problem string) {
	m := c.Machine
	if !r.Nodes.Has(c.Node, c.Labels) {
		return grid.Refusal{Code: grid.RefusedNodes, What: string(r.Nodes)}, ""
	}
	if r.NeedsGPU() {
		if source := gpuSource(c); source != nil {
			source.Read(ctx, &m)
			source.Close()
		} else if read, err := inventory.Read(ctx); err == nil {
			m.GPUs, m.GPUProblem = read.GPUs, read.GPUProblem
		}
	}
	has := allocator.Node{CPUs: grid.MilliOf(m.CPUs), Memory: m.Memory, Devices: worker.DevicesOf(&m, c.Devices),
		Options: allocator.Options{Share: c.Devices.Share}}
	return has.NeverFits(r), m.GPUProblem
}
