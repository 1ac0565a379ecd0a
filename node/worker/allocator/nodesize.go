package allocator

import "mlfnode/grid"

// Node is what a node offers to trials, as other nodes know it. Its zero value offers nothing.
type Node struct {
	CPUs    grid.Milli
	Memory  int64
	Devices []Device
	Options Options
}

// Slots returns how many trials with these resources the node can run at a time when nothing else
// runs.
func (n *Node) Slots(r grid.Resources) int { return n.allocator(&r).Slots(r) }

// NeverFits returns why trials with these resources could never run on the node; the zero value
// when they could.
func (n *Node) NeverFits(r grid.Resources) grid.Refusal { return n.allocator(&r).NeverFits(r) }

// allocator returns an allocator for one question.
func (n *Node) allocator(r *grid.Resources) *Allocator {
	a := &Allocator{cpus: n.CPUs, memory: n.Memory, opts: n.Options}
	if a.opts.Share == 0 {
		a.opts.Share = DefaultShare
	}
	if r.NeedsGPU() {
		a.updateLocked(n.Devices)
	}
	return a
}
