package worker

import (
	"mlfnode/node/poll"
	"mlfnode/node/worker/allocator"
)

// capacity is what the node has for trials, and how lanes share it.
type capacity struct {
	allocator *allocator.Allocator
	fairShare *fairShare
	wake      poll.Signal // for the dispatcher: there may be something to do
}

// resized says that the allocator has more or less than before.
func (c *capacity) resized() {
	c.fairShare.resize(machineTotals(c.allocator))
	c.wake.Set()
}

// machineTotals returns what the allocator has of the machine.
func machineTotals(resources *allocator.Allocator) machineSize {
	b := resources.Usage()
	s := machineSize{cpus: b.CPUs, memory: b.Memory}
	for i := range b.Devices {
		if d := &b.Devices[i]; !d.Absent && !d.Split {
			s.devices++
			s.bytes += d.Memory
		}
	}
	return s
}
