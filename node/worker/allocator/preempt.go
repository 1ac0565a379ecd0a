package allocator

import (
	"slices"

	"mlfnode/grid"
)

// ToFit picks, of allocations in the order in which they are to be given up, those without which a trial of the lane would fit. It gives
// none when all of them are not enough. Nothing is changed.
func (a *Allocator) ToFit(lane grid.Lane, r grid.Resources, some []*Allocation) []*Allocation {
	a.mu.Lock()
	defer a.mu.Unlock()
	fits := func() bool {
		return a.roomLocked(lane, use{r.CPUs, r.Memory}, true) && (!r.NeedsGPU() || a.chooseLocked(lane, &r) != nil)
	}
	var gone []*Allocation
	for _, al := range some {
		if _, ok := a.out[al]; ok && !fits() {
			a.dropLocked(al)
			gone = append(gone, al)
		}
	}
	var needed []*Allocation
	if fits() {
		for i := range slices.Backward(gone) { // what came early may turn out to be of no use
			if a.takeLocked(gone[i]); !fits() {
				a.dropLocked(gone[i])
				needed = append(needed, gone[i])
			}
		}
	}
	for _, al := range gone {
		if _, ok := a.out[al]; !ok {
			a.takeLocked(al)
		}
	}
	return needed
}
