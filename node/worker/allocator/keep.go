package allocator

import (
	"cmp"
	"slices"

	"mlfnode/grid"
)

// Claim is a lane that waits, with what one of its trials needs.
type Claim struct {
	Lane      grid.Lane
	Resources grid.Resources
}

// Begin starts a pass over the lanes of the node: nothing is kept until Keep says so.
func (a *Allocator) Begin() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.claims = a.claims[:0]
	for _, p := range a.places {
		p.keeper = ""
	}
}

// Keep holds free what one trial of the lane needs, from all lanes that ask after this in the pass: processors, memory, and named
// devices that no lane before it keeps. The devices stay the same from pass to pass as long as the lane waits and they can be had; to
// choose again each time could run after the emptiest device for ever. A lane for which there are not enough devices keeps nothing.
//
// What the lane's own trials use counts as free in time, so that lanes behind it get what it can't use anyway.
func (a *Allocator) Keep(c Claim) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.Resources.NeedsGPU() && !a.keepDevicesLocked(&c) {
		return
	}
	a.claims = append(a.claims, c)
}

// Forget lets go of the devices that a lane kept, which does not wait any more.
func (a *Allocator) Forget(lane grid.Lane) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sets, lane)
}

// keepDevicesLocked keeps devices for one trial: those of the last time, and in place of what is lost those with the most free.
func (a *Allocator) keepDevicesLocked(c *Claim) bool {
	var all []candidate
	for _, p := range a.places {
		milli, memory, ok := p.needs(&c.Resources)
		if !ok || p.absent || p.split || p.keeper != "" || p.State != Ready && p.State != Dirty || p.Exclusive && milli < grid.One {
			continue
		}
		all = append(all, candidate{p, milli, memory})
	}
	n := max(c.Resources.WholeGPUs(), 1)
	if len(all) < n {
		delete(a.sets, c.Lane)
		return false
	}
	before := a.sets[c.Lane]
	slices.SortStableFunc(all, func(x, y candidate) int {
		return cmp.Or(last(slices.Contains(before, y.UUID), slices.Contains(before, x.UUID)), last(x.State != Ready, y.State != Ready), cmp.Compare(x.place.milli, y.place.milli))
	})
	set := make([]string, n)
	for i, k := range all[:n] {
		k.keeper, k.kept, k.keptBytes = c.Lane, k.milli, k.memory
		set[i] = k.UUID
	}
	a.sets[c.Lane] = set
	return true
}

// last orders what is false before what is true.
func last(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	}
	return -1
}

// roomLocked reports whether processors and memory for one more trial of the lane are free, and left by the lanes that keep some.
func (a *Allocator) roomLocked(lane grid.Lane, need use, obey bool) bool {
	if !a.used.add(need).within(a.cpus, a.memory) {
		return false
	}
	if !obey || len(a.claims) == 0 {
		return true
	}
	total := need
	for name, u := range a.lanes {
		if !slices.ContainsFunc(a.claims, func(c Claim) bool { return c.Lane == name && name != lane }) {
			total = total.add(u)
		}
	}
	for i := range a.claims {
		if c := &a.claims[i]; c.Lane != lane {
			total = total.add(use{c.Resources.CPUs, c.Resources.Memory})
		}
	}
	return total.within(a.cpus, a.memory)
}

// within reports whether it is there. Of what is not asked for there may be too little.
func (u use) within(cpus grid.Milli, memory int64) bool { return u.cpus <= cpus && u.memory <= memory }
