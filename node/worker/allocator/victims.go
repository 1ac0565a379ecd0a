package allocator

import (
	"slices"

	"mlfnode/grid"
)

// Victims picks, from allocations in the order in which they are to be given up, those without
// which a trial of the lane would fit. It returns none when all of them are not enough. Nothing is
// changed.
func (a *Allocator) Victims(lane grid.Lane, r grid.Resources, some []*Allocation) []*Allocation {
	a.mu.Lock()
	defer a.mu.Unlock()
	fits := func() bool {
		return a.hasRoom(lane, amount{r.CPUs, r.Memory}, true) &&
			(!r.NeedsGPU() || a.devices.choose(lane, &r) != nil)
	}
	var gone []*Allocation
	for _, al := range some {
		if _, ok := a.allocations[al]; ok && !fits() {
			a.unbook(al)
			gone = append(gone, al)
		}
	}
	var needed []*Allocation
	if fits() {
		for i := range slices.Backward(gone) { // an early one may turn out to be unnecessary
			if a.book(gone[i]); !fits() {
				a.unbook(gone[i])
				needed = append(needed, gone[i])
			}
		}
	}
	for _, al := range gone {
		if _, ok := a.allocations[al]; !ok {
			a.book(al)
		}
	}
	return needed
}
