package allocator

import "mlfnode/grid"

// books is what a node has and what is allocated of it. Allocator guards it.
type books struct {
	cpus        grid.Milli
	memory      int64
	devices     deviceList
	used        amount
	lanes       map[grid.Lane]amount // what the trials of each lane use
	allocations map[*Allocation]struct{}
	// how many allocations have each slot number: one, or more for those of an earlier version
	slotUses []int
	waiting  []WaitingLane          // lanes that hold room in this pass, in order
	heldSets map[grid.Lane][]string // the devices that each lane held last, by UUID
}

// amount is an amount of processors and memory.
type amount struct {
	cpus   grid.Milli
	memory int64
}

func (u amount) add(v amount) amount { return amount{u.cpus + v.cpus, u.memory + v.memory} }
func (u amount) sub(v amount) amount { return amount{u.cpus - v.cpus, u.memory - v.memory} }

// book adds an allocation.
func (b *books) book(al *Allocation) {
	u := amount{al.CPUs, al.Memory}
	b.used = b.used.add(u)
	b.lanes[al.Lane] = b.lanes[al.Lane].add(u)
	for _, s := range al.Shares {
		p := b.devices.find(s.UUID)
		p.milli, p.memory = p.milli+s.Milli, p.memory+s.Memory
		p.shares = append(p.shares, portion{al.Lane, s.Milli, s.Memory})
	}
	b.allocations[al] = struct{}{}
	for al.Slot >= len(b.slotUses) {
		b.slotUses = append(b.slotUses, 0)
	}
	b.slotUses[al.Slot]++
}

// unbook undoes book.
func (b *books) unbook(al *Allocation) {
	delete(b.allocations, al)
	b.slotUses[al.Slot]--
	u := amount{al.CPUs, al.Memory}
	b.used = b.used.sub(u)
	if b.lanes[al.Lane] = b.lanes[al.Lane].sub(u); b.lanes[al.Lane] == (amount{}) {
		delete(b.lanes, al.Lane)
	}
	for _, s := range al.Shares {
		b.devices.find(s.UUID).remove(portion{al.Lane, s.Milli, s.Memory})
	}
}

// inService reports whether trials may get the device now or soon.
func inService(p *bookedDevice) bool { return p.State != Sick && p.State != Gone }

// slots returns how many trials with these resources the node can run at a time when nothing else
// runs, on the devices that count.
func (b *books) slots(r *grid.Resources, counts func(*bookedDevice) bool) int {
	if r.CPUs < 0 || r.Memory < 0 { // no valid record asks for less than nothing
		return 0
	}
	n := int64(MaxSlots)
	if r.CPUs > 0 {
		n = min(n, int64(b.cpus/r.CPUs))
	}
	if r.Memory > 0 {
		n = min(n, b.memory/r.Memory)
	}
	if !r.NeedsGPU() {
		return int(max(n, 0))
	}
	total, whole := int64(0), int64(max(r.WholeGPUs(), 1))
	for c := range b.devices.suiting(r) {
		if !counts(c.bookedDevice) || c.Exclusive && c.milli < grid.One {
			continue
		}
		fit := min(int64(grid.One/c.milli), int64(b.devices.share))
		if c.memory > 0 {
			fit = min(fit, c.Memory/c.memory)
		}
		total += fit
	}
	return int(max(min(n, total/whole), 0))
}
