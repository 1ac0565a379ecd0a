package worker

import (
	"math"
	"sync"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
)

// capacity accounts for what running attempts have reserved of the machine.
type capacity struct {
	total inventory.Machine

	mu     sync.Mutex
	cpus   grid.Milli
	memory int64
}

func newCapacity(m inventory.Machine) *capacity {
	return &capacity{total: m, cpus: grid.MilliOf(m.CPUs), memory: m.Memory}
}

// reserve takes resources if they are free.
func (c *capacity) reserve(r grid.Resources) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.CPUs > c.cpus || r.Memory > c.memory || r.GPUs > 0 {
		return false
	}
	c.cpus -= r.CPUs
	c.memory -= r.Memory
	return true
}

func (c *capacity) release(r grid.Resources) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cpus += r.CPUs
	c.memory += r.Memory
}

// slots says how often the resources fit into the empty machine.
func (c *capacity) slots(r grid.Resources) int {
	if r.GPUs > 0 || r.CPUs < 0 || r.Memory < 0 { // less than nothing is in no record that was checked
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := math.Inf(1)
	if r.CPUs > 0 {
		n = math.Floor(float64(grid.MilliOf(c.total.CPUs) / r.CPUs))
	}
	if r.Memory > 0 {
		n = min(n, math.Floor(float64(c.total.Memory)/float64(r.Memory)))
	}
	return int(min(n, maxSlots))
}

// maxSlots bounds how many attempts run at one time on a node, whatever they ask for.
const maxSlots = 4096

// resize changes what there is. Attempts that run keep what they have reserved: free may be less than nothing for a while.
func (c *capacity) resize(m inventory.Machine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cpus += grid.MilliOf(m.CPUs) - grid.MilliOf(c.total.CPUs)
	c.memory += m.Memory - c.total.Memory
	c.total.CPUs, c.total.Memory = m.CPUs, m.Memory
}

// Resize changes what trials may use of the machine.
func (w *Worker) Resize(m inventory.Machine) {
	w.capacity.resize(m)
	w.shares.resize(m)
	w.nudge()
}
