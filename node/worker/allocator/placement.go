package allocator

import (
	"cmp"
	"iter"
	"maps"
	"slices"

	"mlfnode/grid"
)

// relaxation names a condition that is ignored, to find out whether it alone is in the way.
type relaxation uint8

const (
	ignoreState relaxation = 1 << iota // devices that are not ready count
	ignoreHolds                        // devices that are held for others count
)

// candidate is a device with what a trial would get of it.
type candidate struct {
	*bookedDevice
	milli  grid.Milli
	memory int64
}

// deviceList is the devices of a node, and those that it no longer has but allocations do.
type deviceList struct {
	all          []*bookedDevice // by index
	hasInstances bool            // some are parts of others
	share        int             // most trials on one device
}

func (l *deviceList) update(devices []Device) {
	old := map[string]*bookedDevice{}
	for _, p := range l.all {
		old[p.UUID] = p
	}
	l.all = nil
	for _, d := range devices {
		p := old[d.UUID]
		if p == nil {
			p = &bookedDevice{}
		} else if !p.absent {
			d.Availability = p.Availability
		}
		p.Device, p.absent, p.split = d, false, false
		l.all = append(l.all, p)
		delete(old, d.UUID)
	}
	for _, p := range old {
		if len(p.shares) > 0 {
			p.absent = true
			l.all = append(l.all, p)
		}
	}
	for _, p := range l.all {
		if q := l.find(p.Parent); p.Parent != "" && q != nil && !p.absent {
			q.split = true
		}
	}
	l.sort()
}

func (l *deviceList) sort() {
	l.hasInstances = slices.ContainsFunc(l.all, func(p *bookedDevice) bool { return p.Parent != "" })
	slices.SortFunc(l.all, func(p, q *bookedDevice) int {
		return cmp.Or(cmp.Compare(p.Index, q.Index), cmp.Compare(p.UUID, q.UUID))
	})
}

func (l *deviceList) find(uuid string) *bookedDevice {
	for _, p := range l.all {
		if p.UUID == uuid {
			return p
		}
	}
	return nil
}

// suiting yields the devices of the node that a trial could use, however much of them is free, with
// what it would get of each.
func (l *deviceList) suiting(r *grid.Resources) iter.Seq[candidate] {
	return func(yield func(candidate) bool) {
		for _, p := range l.all {
			if milli, memory, ok := p.needs(r); ok && !p.absent && !p.split && !yield(candidate{p, milli, memory}) {
				return
			}
		}
	}
}

// fits reports whether a trial of the lane can have what the candidate says now.
func (l *deviceList) fits(c candidate, lane grid.Lane, without relaxation) bool {
	p := c.bookedDevice
	switch {
	case p.State != Ready && without&ignoreState == 0,
		c.milli == grid.One && len(p.shares) > 0,
		c.milli < grid.One && (p.Exclusive || len(p.shares) >= l.share),
		p.milli+c.milli > grid.One || p.memory+c.memory > p.Memory,
		l.overlaps(p):
		return false
	}
	if p.heldFor == "" || p.heldFor == lane || without&ignoreHolds != 0 {
		return true
	}
	// What the lane that holds the device uses of it itself counts as free.
	milli, memory, n := p.milli+p.heldMilli+c.milli, p.memory+p.heldMemory+c.memory, len(p.shares)+2
	for _, h := range p.shares {
		if h.lane == p.heldFor {
			milli, memory, n = milli-h.milli, memory-h.memory, n-1
		}
	}
	return milli <= grid.One && memory <= p.Memory && n <= l.share
}

// overlaps reports whether an allocation has a device of which this one is a part, or a part of
// this one: what Restore took over may date from when the GPU was divided in another way.
func (l *deviceList) overlaps(p *bookedDevice) bool {
	return l.hasInstances && slices.ContainsFunc(l.all, func(q *bookedDevice) bool {
		return len(q.shares) > 0 && (p.Parent != "" && q.UUID == p.Parent || q.Parent != "" && q.Parent == p.UUID)
	})
}

// candidates lists the devices that a trial of the lane could get now, with what it would get of
// each.
func (l *deviceList) candidates(lane grid.Lane, r *grid.Resources, without relaxation) []candidate {
	var all []candidate
	for c := range l.suiting(r) {
		if l.fits(c, lane, without) {
			all = append(all, c)
		}
	}
	return all
}

// choose picks the devices of one trial; nil when not all of them are free.
func (l *deviceList) choose(lane grid.Lane, r *grid.Resources) []Share {
	all := l.candidates(lane, r, 0)
	n := max(r.WholeGPUs(), 1)
	if len(all) < n {
		return nil
	}
	if r.WholeGPUs() > 0 {
		slices.SortStableFunc(all, func(c, d candidate) int { return cmp.Compare(c.Memory, d.Memory) })
		all = pickTogether(all, n, func(c candidate) int { return c.Group }, func(c candidate) int { return c.NUMA })
	} else {
		least := func(c, d candidate) int { return cmp.Compare(c.remainder(), d.remainder()) }
		all = []candidate{slices.MinFunc(all, least)}
	}
	slices.SortFunc(all, func(c, d candidate) int {
		return cmp.Or(cmp.Compare(c.Index, d.Index), cmp.Compare(c.UUID, d.UUID))
	})
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
		// like a device that is half left: it is taken for trials that fill it, before a whole GPU
		// is split
		return 1000
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
	// The smallest first; of equal ones the one whose first device comes first in the order of all.
	sorted := slices.SortedFunc(maps.Values(groups), func(g, h []candidate) int {
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
