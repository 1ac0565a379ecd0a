package node

import (
	"context"
	"fmt"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node/worker"
	"mlfnode/node/worker/allocator"
)

// watchDevices has a node that stands alone look for its devices from now on.
func (n *Node) watchDevices() {
	n.start("inventory", inventory.NewWatcher(n.cfg.Machine, n.cfg.gpuSource(), func(m inventory.Machine) {
		n.sawDevices(m)
		n.master.Kick()
	}).Run)
}

// sawDevices has the worker, once there is one, give trials the devices that the machine has.
func (n *Node) sawDevices(m inventory.Machine) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.devices = worker.DevicesOf(&m, n.cfg.Devices)
	if n.worker != nil {
		n.worker.SetDevices(n.devices)
	}
	n.onceLooked.Do(func() { close(n.looked) })
}

// awaitDevices waits until this machine's devices were looked at, which takes seconds where a driver has to wake up.
func (n *Node) awaitDevices(ctx context.Context) {
	if !n.cfg.Cluster.Worker && n.fleet != nil {
		return // trials have none of them
	}
	select {
	case <-n.looked:
	case <-ctx.Done():
	}
}

// Never says why a node with these settings, which does not run yet, could never run an attempt with these resources on this machine,
// and what is wrong with the machine's GPUs, if anything is. It asks the GPU driver only for a request that needs a GPU.
func (c *Config) Never(ctx context.Context, r grid.Resources) (refusal grid.Refusal, problem string) {
	m := c.Machine
	if r.NeedsGPU() {
		if source := c.gpuSource(); source != nil {
			source.Read(ctx, &m)
			source.Close()
		} else if read, err := inventory.Read(ctx); err == nil {
			m.GPUs, m.GPUProblem = read.GPUs, read.GPUProblem
		}
	}
	has := allocator.Node{CPUs: grid.MilliOf(m.CPUs), Memory: m.Memory, Devices: worker.DevicesOf(&m, c.Devices), Options: allocator.Options{Share: c.Devices.Share}}
	return has.Never(r), m.GPUProblem
}

// workerNever says why a node that stands alone could never run an attempt with these resources.
func (n *Node) workerNever(r grid.Resources) string {
	if never := n.worker.Never(r); never.Code != "" {
		return fmt.Sprintf("this machine %s", never)
	}
	return ""
}
