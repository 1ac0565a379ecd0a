// Package allocator decides which processors, memory and devices each trial of a node gets. It does
// nothing but keep the books: it does no I/O, reads no clock and starts no goroutine.
//
// A trial gets whole devices, or a share of one device in thousandths and bytes. The rules:
//
//   - At all times the shares of a device add up to at most the device. Only what Restore takes
//     over from an earlier agent, and a device that has shrunk, can exceed that.
//   - A whole device is given to one trial alone.
//   - Of a request for several devices nothing is held before all of them are free.
//   - Lanes that wait hold devices and room for one of their trials (HoldFor); the lanes behind
//     them get what that leaves.
//
// Shares go where they leave the least, whole devices where they lie together: see placement.go.
package allocator

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
)

// MaxSlots bounds how many trials run at a time on a node, whatever they request.
const MaxSlots = 4096

// Share is what an allocation holds of one device.
type Share struct {
	UUID   string     `json:"uuid"`
	Parent string     `json:"parent,omitempty"`
	Index  int        `json:"index"`
	Milli  grid.Milli `json:"gpus"`
	Memory int64      `json:"memory"`
}

// Allocation is what one running trial has. It is never changed.
type Allocation struct {
	Lane   grid.Lane  `json:"lane"`
	CPUs   grid.Milli `json:"cpus"`
	Memory int64      `json:"memory,omitempty"`
	Shares []Share    `json:"shares,omitempty"` // in the order of the devices' indexes
	Slot   int        `json:"slot,omitempty"`   // the lowest number that no other allocation of the node had
}

// UUIDs lists the devices.
func (al *Allocation) UUIDs() []string {
	if al == nil || len(al.Shares) == 0 {
		return nil
	}
	all := make([]string, len(al.Shares))
	for i := range al.Shares {
		all[i] = al.Shares[i].UUID
	}
	return all
}

// Options are the policies of a node.
type Options struct {
	Share   int  // most trials on one device at one time; 0 means DefaultShare
	Watched bool // the devices are watched: one whose trial has ended stays Dirty until SetState says otherwise
}

// maxSlot bounds slot numbers that are read from manifests.
const maxSlot = 1 << 16

// DefaultShare is how many trials may share one device.
const DefaultShare = 8

// Allocator keeps the books of one node. Its methods may be called concurrently.
type Allocator struct {
	opts Options

	mu           sync.Mutex
	cpus         grid.Milli // of the node
	memory       int64
	used         amount
	lanes        map[grid.Lane]amount // what the trials of each lane use
	devices      []*bookedDevice      // by index
	hasInstances bool                 // some are parts of others
	allocations  map[*Allocation]struct{}
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

// New returns the allocator of a node with these resources.
func New(opts Options, cpus grid.Milli, memory int64, devices []Device) *Allocator {
	opts.Share = cmp.Or(opts.Share, DefaultShare)
	a := &Allocator{
		opts: opts, lanes: map[grid.Lane]amount{}, allocations: map[*Allocation]struct{}{},
		heldSets: map[grid.Lane][]string{},
	}
	a.Update(cpus, memory, devices)
	return a
}

// Update changes what the node has. Allocations stay as they are, even on devices that no longer
// exist: what is free may be negative for a while. The state of a known device stays as SetState
// has set it.
func (a *Allocator) Update(cpus grid.Milli, memory int64, devices []Device) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cpus, a.memory = cpus, memory
	a.updateLocked(devices)
}

// SetDevices is Update for the devices alone.
func (a *Allocator) SetDevices(devices []Device) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.updateLocked(devices)
}

// SetSize is Update for processors and memory alone.
func (a *Allocator) SetSize(cpus grid.Milli, memory int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cpus, a.memory = cpus, memory
}

func (a *Allocator) updateLocked(devices []Device) {
	old := map[string]*bookedDevice{}
	for _, p := range a.devices {
		old[p.UUID] = p
	}
	a.devices = nil
	for _, d := range devices {
		p := old[d.UUID]
		if p == nil {
			p = &bookedDevice{}
		} else if !p.absent {
			d.State, d.Why, d.Since = p.State, p.Why, p.Since
		}
		p.Device, p.absent, p.split = d, false, false
		a.devices = append(a.devices, p)
		delete(old, d.UUID)
	}
	for _, p := range old {
		if len(p.shares) > 0 {
			p.absent = true
			a.devices = append(a.devices, p)
		}
	}
	for _, p := range a.devices {
		if q := a.deviceLocked(p.Parent); p.Parent != "" && q != nil && !p.absent {
			q.split = true
		}
	}
	a.sortLocked()
}

func (a *Allocator) sortLocked() {
	a.hasInstances = slices.ContainsFunc(a.devices, func(p *bookedDevice) bool { return p.Parent != "" })
	slices.SortFunc(a.devices, func(p, q *bookedDevice) int {
		return cmp.Or(cmp.Compare(p.Index, q.Index), cmp.Compare(p.UUID, q.UUID))
	})
}

func (a *Allocator) deviceLocked(uuid string) *bookedDevice {
	for _, p := range a.devices {
		if p.UUID == uuid {
			return p
		}
	}
	return nil
}

// SetState sets the state of a device and the reason for it. An unknown device is ignored.
func (a *Allocator) SetState(uuid string, s State, why string, since time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.deviceLocked(uuid); p != nil {
		p.State, p.Why, p.Since = s, why, since
	}
}

// Reserve allocates what one trial of the lane needs, if it is free and not held for others.
// Otherwise it returns what is in the way.
func (a *Allocator) Reserve(lane grid.Lane, r grid.Resources) (*Allocation, grid.Refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	need := amount{r.CPUs, r.Memory}
	if need.cpus < 0 || need.memory < 0 || !a.hasRoomLocked(lane, need, true) {
		return nil, a.explainLocked(lane, &r)
	}
	var shares []Share
	if r.NeedsGPU() {
		if shares = a.chooseDevicesLocked(lane, &r); shares == nil {
			return nil, a.explainLocked(lane, &r)
		}
	}
	al := &Allocation{Lane: lane, CPUs: r.CPUs, Memory: r.Memory, Shares: shares, Slot: a.freeSlotLocked()}
	a.bookLocked(al)
	delete(a.heldSets, lane)
	return al, grid.Refusal{}
}

// ReplaceDevice exchanges an allocation of these resources for one without the device, or returns
// the same one when no other is possible.
func (a *Allocator) ReplaceDevice(al *Allocation, r grid.Resources, without string) *Allocation {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.deviceLocked(without)
	if _, ok := a.allocations[al]; !ok || p == nil || !slices.Contains(al.UUIDs(), without) {
		return al
	}
	a.unbookLocked(al)
	state := p.State
	p.State = Sick // so that it is not chosen
	shares := a.chooseDevicesLocked(al.Lane, &r)
	p.State = state
	if shares != nil {
		al = &Allocation{Lane: al.Lane, CPUs: al.CPUs, Memory: al.Memory, Shares: shares, Slot: al.Slot}
	}
	a.bookLocked(al)
	return al
}

// Restore takes over the allocation of a trial that an earlier agent started, whether it is free or
// not, and whether the devices exist or not.
func (a *Allocator) Restore(al *Allocation) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if al.Slot < 0 || al.Slot > maxSlot {
		al.Slot = 0
	}
	for _, s := range al.Shares {
		if a.deviceLocked(s.UUID) == nil {
			a.devices = append(
				a.devices,
				&bookedDevice{
					Device: Device{UUID: s.UUID, Parent: s.Parent, Index: s.Index, Group: -1, NUMA: -1}, absent: true,
				},
			)
		}
	}
	a.sortLocked()
	a.bookLocked(al)
}

func (a *Allocator) bookLocked(al *Allocation) {
	u := amount{al.CPUs, al.Memory}
	a.used = a.used.add(u)
	a.lanes[al.Lane] = a.lanes[al.Lane].add(u)
	for _, s := range al.Shares {
		a.deviceLocked(s.UUID).book(portion{al.Lane, s.Milli, s.Memory})
	}
	a.allocations[al] = struct{}{}
	for al.Slot >= len(a.slotUses) {
		a.slotUses = append(a.slotUses, 0)
	}
	a.slotUses[al.Slot]++
}

// freeSlotLocked returns the lowest free slot number.
func (a *Allocator) freeSlotLocked() int {
	if n := slices.Index(a.slotUses, 0); n >= 0 {
		return n
	}
	return len(a.slotUses)
}

// Release gives an allocation back. It returns false, and does nothing, when that has been done
// already. With Options.Watched, its devices are Dirty from now on.
func (a *Allocator) Release(al *Allocation) bool { return a.release(al, a.opts.Watched) }

// ReturnUnused is Release for an allocation that was not used: its devices stay as they are.
func (a *Allocator) ReturnUnused(al *Allocation) bool { return a.release(al, false) }

func (a *Allocator) release(al *Allocation, dirty bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.allocations[al]; !ok {
		return false
	}
	a.unbookLocked(al)
	for _, s := range al.Shares {
		if p := a.deviceLocked(s.UUID); dirty && p.State == Ready {
			p.State, p.Why = Dirty, "its memory has not been checked yet"
		}
	}
	a.devices = slices.DeleteFunc(a.devices, func(p *bookedDevice) bool { return p.absent && len(p.shares) == 0 })
	return true
}

// unbookLocked undoes bookLocked.
func (a *Allocator) unbookLocked(al *Allocation) {
	delete(a.allocations, al)
	a.slotUses[al.Slot]--
	u := amount{al.CPUs, al.Memory}
	a.used = a.used.sub(u)
	if a.lanes[al.Lane] = a.lanes[al.Lane].sub(u); a.lanes[al.Lane] == (amount{}) {
		delete(a.lanes, al.Lane)
	}
	for _, s := range al.Shares {
		a.deviceLocked(s.UUID).unbook(portion{al.Lane, s.Milli, s.Memory})
	}
}

// Slots returns how many trials with these resources the node can run at a time when nothing else
// runs. Devices that are out of service do not count.
func (a *Allocator) Slots(r grid.Resources) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.slotsLocked(&r, func(p *bookedDevice) bool { return p.State != Sick && p.State != Gone })
}

// SlotsWithout is Slots without a device.
func (a *Allocator) SlotsWithout(r grid.Resources, uuid string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.slotsLocked(&r, func(p *bookedDevice) bool { return p.State != Sick && p.State != Gone && p.UUID != uuid })
}

func (a *Allocator) slotsLocked(r *grid.Resources, counts func(*bookedDevice) bool) int {
	if r.CPUs < 0 || r.Memory < 0 { // no valid record asks for less than nothing
		return 0
	}
	n := int64(MaxSlots)
	if r.CPUs > 0 {
		n = min(n, int64(a.cpus/r.CPUs))
	}
	if r.Memory > 0 {
		n = min(n, a.memory/r.Memory)
	}
	if !r.NeedsGPU() {
		return int(max(n, 0))
	}
	total, whole := int64(0), int64(max(r.WholeGPUs(), 1))
	for _, p := range a.devices {
		milli, memory, ok := p.needs(r)
		if !ok || p.absent || p.split || !counts(p) || p.Exclusive && milli < grid.One {
			continue
		}
		fit := min(int64(grid.One/milli), int64(a.opts.Share))
		if memory > 0 {
			fit = min(fit, p.Memory/memory)
		}
		total += fit
	}
	return int(max(min(n, total/whole), 0))
}

// Usage is a snapshot of what is in use.
type Usage struct {
	CPUs, FreeCPUs     grid.Milli
	Memory, FreeMemory int64
	Devices            []DeviceUsage
}

// DeviceUsage is one device in a Usage.
type DeviceUsage struct {
	Device
	Free       grid.Milli // thousandths
	FreeMemory int64
	Shares     int       // trials on it
	HeldFor    grid.Lane // the lane that it is held for, "" for none
	Absent     bool      // the node no longer has it, but a trial does
	Split      bool      // it is divided into MIG instances
}

// Usage returns a snapshot of what is in use now.
func (a *Allocator) Usage() Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := Usage{CPUs: a.cpus, FreeCPUs: a.cpus - a.used.cpus, Memory: a.memory, FreeMemory: a.memory - a.used.memory}
	for _, p := range a.devices {
		b.Devices = append(b.Devices, DeviceUsage{
			Device: p.Device, Free: grid.One - p.milli, FreeMemory: p.Memory - p.memory, Shares: len(p.shares),
			HeldFor: p.heldFor,
			Absent:  p.absent, Split: p.split,
		})
	}
	return b
}
