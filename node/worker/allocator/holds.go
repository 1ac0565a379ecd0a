package allocator

import (
	"cmp"
	"slices"

	"mlfnode/grid"
)

// WaitingLane is a lane that waits, with what one of its trials needs.
type WaitingLane struct {
	Lane      grid.Lane
	Resources grid.Resources
}

// BeginPass starts a pass over the lanes of the node: nothing is held until HoldFor says so.
func (a *Allocator) BeginPass() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = a.waiting[:0]
	for _, p := range a.devices.all {
		p.heldFor = ""
	}
}

// HoldFor holds what one trial of the lane needs against all lanes that ask later in the pass:
// processors, memory, and specific devices that no lane before it holds. The devices stay the same
// from pass to pass while the lane waits and they are available; to choose again each time could
// chase the emptiest device for ever. A lane for which there are not enough devices holds nothing.
//
// What the lane's own trials use counts as free in time, so that lanes behind it get what it can't
// use anyway.
func (a *Allocator) HoldFor(c WaitingLane) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.Resources.NeedsGPU() && !a.holdDevices(&c) {
		return
	}
	a.waiting = append(a.waiting, c)
}

// DropHold forgets the devices that a lane held, because it no longer waits.
func (a *Allocator) DropHold(lane grid.Lane) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.heldSets, lane)
}

// holdDevices holds devices for one trial: the same as last time, and in place of those that are
// gone the ones with the most free.
func (b *books) holdDevices(w *WaitingLane) bool {
	var all []candidate
	for c := range b.devices.suiting(&w.Resources) {
		if c.heldFor == "" && (c.State == Ready || c.State == Dirty) && (!c.Exclusive || c.milli == grid.One) {
			all = append(all, c)
		}
	}
	n := max(w.Resources.WholeGPUs(), 1)
	if len(all) < n {
		delete(b.heldSets, w.Lane)
		return false
	}
	before := b.heldSets[w.Lane]
	slices.SortStableFunc(all, func(x, y candidate) int {
		return cmp.Or(
			falseFirst(slices.Contains(before, y.UUID), slices.Contains(before, x.UUID)),
			falseFirst(x.State != Ready, y.State != Ready), cmp.Compare(x.bookedDevice.milli, y.bookedDevice.milli),
		)
	})
	set := make([]string, n)
	for i, c := range all[:n] {
		c.heldFor, c.heldMilli, c.heldMemory = w.Lane, c.milli, c.memory
		set[i] = c.UUID
	}
	b.heldSets[w.Lane] = set
	return true
}

// falseFirst orders false before true.
func falseFirst(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

// hasRoom reports whether processors and memory for one more trial of the lane are free and, with
// obey, not held by other lanes.
func (b *books) hasRoom(lane grid.Lane, need amount, obey bool) bool {
	if !b.used.add(need).within(b.cpus, b.memory) {
		return false
	}
	if !obey || len(b.waiting) == 0 {
		return true
	}
	total := need
	for name, u := range b.lanes {
		if !slices.ContainsFunc(b.waiting, func(c WaitingLane) bool { return c.Lane == name && name != lane }) {
			total = total.add(u)
		}
	}
	for _, c := range b.waiting {
		if c.Lane != lane {
			total = total.add(amount{c.Resources.CPUs, c.Resources.Memory})
		}
	}
	return total.within(b.cpus, b.memory)
}

// within reports whether the amount fits into the resources. A resource of which nothing is
// requested may be overbooked.
func (u amount) within(cpus grid.Milli, memory int64) bool {
	return u.cpus <= cpus && u.memory <= memory
}
