package allocator

import (
	"cmp"
	"slices"

	"mlfnode/grid"
)

// relaxation names a condition that is ignored, to find out whether it alone is in the way.
type relaxation uint8

const (
	ignoreState relaxation = 1 << iota // devices that are not ready count
	ignoreHolds                        // devices that are held for others count
)

// fitsLocked reports whether a trial of the lane can have this much of the device now.
func (a *Allocator) fitsLocked(
	p *bookedDevice, lane grid.Lane, milli grid.Milli, memory int64, without relaxation,
) bool {
	switch {
	case p.absent || p.split || p.State != Ready && without&ignoreState == 0,
		milli == grid.One && len(p.shares) > 0,
		milli < grid.One && (p.Exclusive || len(p.shares) >= a.opts.Share),
		p.milli+milli > grid.One || p.memory+memory > p.Memory,
		a.overlapsLocked(p):
		return false
	}
	if p.heldFor == "" || p.heldFor == lane || without&ignoreHolds != 0 {
		return true
	}
	otherMilli, otherMemory, n := p.usedByOthers(p.heldFor)
	return otherMilli+p.heldMilli+milli <= grid.One && otherMemory+p.heldMemory+memory <= p.Memory &&
		n+2 <= a.opts.Share
}

// overlapsLocked reports whether an allocation has a device of which this one is a part, or a part
// of this one: what Restore took over may date from when the GPU was divided in another way.
func (a *Allocator) overlapsLocked(p *bookedDevice) bool {
	if !a.hasInstances {
		return false
	}
	for _, q := range a.devices {
		if len(q.shares) > 0 && (p.Parent != "" && q.UUID == p.Parent || q.Parent != "" && q.Parent == p.UUID) {
			return true
		}
	}
	return false
}

// candidatesLocked lists the devices that a trial of the lane could get now, with what it would get
// of each.
func (a *Allocator) candidatesLocked(lane grid.Lane, r *grid.Resources, without relaxation) []candidate {
	var all []candidate
	for _, p := range a.devices {
		if milli, memory, ok := p.needs(r); ok && a.fitsLocked(p, lane, milli, memory, without) {
			all = append(all, candidate{p, milli, memory})
		}
	}
	return all
}

// candidate is a device with what a trial would get of it.
type candidate struct {
	*bookedDevice
	milli  grid.Milli
	memory int64
}

// chooseDevicesLocked picks the devices of one trial; nil when not all of them are free.
func (a *Allocator) chooseDevicesLocked(lane grid.Lane, r *grid.Resources) []Share {
	all := a.candidatesLocked(lane, r, 0)
	n := max(r.WholeGPUs(), 1)
	if len(all) < n {
		return nil
	}
	if r.WholeGPUs() > 0 {
		slices.SortStableFunc(all, func(c, d candidate) int { return cmp.Compare(c.Memory, d.Memory) })
		all = pickTogether(all, n, func(c candidate) int { return c.Group }, func(c candidate) int { return c.NUMA })
	} else {
		all = []candidate{
			slices.MinFunc(all, func(c, d candidate) int { return cmp.Compare(c.remainder(), d.remainder()) }),
		}
	}
	slices.SortFunc(
		all, func(c, d candidate) int { return cmp.Or(cmp.Compare(c.Index, d.Index), cmp.Compare(c.UUID, d.UUID)) },
	)
	shares := make([]Share, len(all))
	for i, c := range all {
		shares[i] = Share{UUID: c.UUID, Parent: c.Parent, Index: c.Index, Milli: c.milli, Memory: c.memory}
	}
	return shares
}

// remainder measures what a share leaves of the device, in thousandths and in memory; the least is
// best. A MIG instance, of which nothing is left, has a fixed value.
func (c candidate) remainder() int64 {
	if c.Parent != "" {
		return 1000 // like a device that is half left: it is taken for trials that fill it, before a whole GPU is split
	}
	free, room := grid.One-c.bookedDevice.milli-c.milli, c.Memory-c.bookedDevice.memory-c.memory
	return int64(free) + int64(milliOf(room, max(c.Memory, 1)))
}

// pickTogether picks n of at least n candidates that lie together: those of the smallest group that
// holds them, else whole groups, the largest first. Within a group the next key decides in the same
// way, and without further keys the order.
func pickTogether(all []candidate, n int, keys ...func(candidate) int) []candidate {
	if len(keys) == 0 || len(all) == n {
		return all[:n]
	}
	groups := map[int][]candidate{}
	for _, c := range all {
		groups[keys[0](c)] = append(groups[keys[0](c)], c)
	}
	sorted := make([][]candidate, 0, len(groups))
	for _, g := range groups {
		sorted = append(sorted, g)
	}
	// The smallest first; of equal ones the one whose first device comes first in the order of all.
	slices.SortFunc(sorted, func(g, h []candidate) int {
		return cmp.Or(
			cmp.Compare(len(g), len(h)), cmp.Compare(g[0].Memory, h[0].Memory), cmp.Compare(g[0].Index, h[0].Index),
			cmp.Compare(g[0].UUID, h[0].UUID),
		)
	})
	for _, g := range sorted {
		if len(g) >= n {
			return pickTogether(g, n, keys[1:]...)
		}
	}
	largest := sorted[len(sorted)-1]
	rest := slices.DeleteFunc(slices.Clone(all), func(c candidate) bool { return keys[0](c) == keys[0](largest[0]) })
	return append(slices.Clone(largest), pickTogether(rest, n-len(largest), keys...)...)
}
