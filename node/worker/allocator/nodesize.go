package allocator

import (
	"cmp"

	"mlfnode/grid"
)

// Node is what a node offers to trials, as other nodes know it. Its zero value offers nothing.
type Node struct {
	CPUs    grid.Milli
	Memory  int64
	Devices []Device
	Options Options
}

// Slots returns how many trials with these resources the node can run at a time when nothing else
// runs.
func (n *Node) Slots(r grid.Resources) int { return n.books(&r).slots(&r, inService) }

// NeverFits returns why trials with these resources could never run on the node; the zero value
// when they could.
func (n *Node) NeverFits(r grid.Resources) grid.Refusal { return n.books(&r).neverFits(&r) }

// books returns the books of the node for one question.
func (n *Node) books(r *grid.Resources) *books {
	b := &books{cpus: n.CPUs, memory: n.Memory, devices: deviceList{share: cmp.Or(n.Options.Share, DefaultShare)}}
	if r.NeedsGPU() {
		b.devices.update(n.Devices)
	}
	return b
}
