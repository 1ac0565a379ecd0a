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
	Watched bool // the devices are watched: one whose trial has ended stays Dirty until SetAvailability says otherwise
}

// maxSlot bounds slot numbers that are read from manifests.
const maxSlot = 1 << 16

// DefaultShare is how many trials may share one device.
const DefaultShare = 8

// Allocator keeps the books of one node. Its methods may be called concurrently.
type Allocator struct {
	watched bool

	mu sync.Mutex
	books
}

// New returns the allocator of a node with these resources.
func New(opts Options, cpus grid.Milli, memory int64, devices []Device) *Allocator {
	a := &Allocator{watched: opts.Watched, books: books{
		cpus: cpus, memory: memory, devices: deviceList{share: cmp.Or(opts.Share, DefaultShare)},
		lanes: map[grid.Lane]amount{}, allocations: map[*Allocation]struct{}{}, heldSets: map[grid.Lane][]string{},
	}}
	a.devices.update(devices)
	return a
}

// SetDevices changes which devices the node has. Allocations stay as they are, even on devices that
// no longer exist: what is free may be negative for a while. The state of a known device stays as
// SetAvailability has set it.
func (a *Allocator) SetDevices(devices []Device) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.devices.update(devices)
}

// SetSize changes how many processors and how much memory the node has. Allocations stay as they
// are.
func (a *Allocator) SetSize(cpus grid.Milli, memory int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cpus, a.memory = cpus, memory
}

// SetAvailability sets the state of a device. An unknown device is ignored.
func (a *Allocator) SetAvailability(uuid string, to Availability) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.devices.find(uuid); p != nil {
		p.Availability = to
	}
}

// Reserve allocates what one trial of the lane needs, if it is free and not held for others.
// Otherwise it returns what is in the way.
func (a *Allocator) Reserve(lane grid.Lane, r grid.Resources) (*Allocation, grid.Refusal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.CPUs < 0 || r.Memory < 0 || !a.hasRoom(lane, amount{r.CPUs, r.Memory}, true) {
		return nil, a.explain(lane, &r)
	}
	al := &Allocation{Lane: lane, CPUs: r.CPUs, Memory: r.Memory, Slot: len(a.slotUses)}
	if r.NeedsGPU() {
		if al.Shares = a.devices.choose(lane, &r); al.Shares == nil {
			return nil, a.explain(lane, &r)
		}
	}
	if n := slices.Index(a.slotUses, 0); n >= 0 {
		al.Slot = n
	}
	a.book(al)
	delete(a.heldSets, lane)
	return al, grid.Refusal{}
}

// ReplaceDevice exchanges an allocation of these resources for one without the device, or returns
// the same one when no other is possible now. wait says that a trial that waits will get another
// device.
func (a *Allocator) ReplaceDevice(al *Allocation, r grid.Resources, without string) (_ *Allocation, wait bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.devices.find(without)
	if _, ok := a.allocations[al]; !ok || p == nil || !slices.Contains(al.UUIDs(), without) {
		return al, false
	}
	a.unbook(al)
	state := p.State
	p.State = Sick // so that it is not chosen
	shares, slots := a.devices.choose(al.Lane, &r), a.slots(&r, inService)
	p.State = state
	if shares != nil {
		al = &Allocation{Lane: al.Lane, CPUs: al.CPUs, Memory: al.Memory, Shares: shares, Slot: al.Slot}
	}
	a.book(al)
	return al, shares == nil && slots > 0
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
		if a.devices.find(s.UUID) == nil {
			gone := Device{UUID: s.UUID, Parent: s.Parent, Index: s.Index, Group: -1, NUMA: -1}
			a.devices.all = append(a.devices.all, &bookedDevice{Device: gone, absent: true})
		}
	}
	a.devices.sort()
	a.book(al)
}

// Release gives an allocation back. It returns false, and does nothing, when that has been done
// already. With Options.Watched, devices that were used are Dirty from now on.
func (a *Allocator) Release(al *Allocation, used bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.allocations[al]; !ok {
		return false
	}
	a.unbook(al)
	for _, s := range al.Shares {
		if p := a.devices.find(s.UUID); used && a.watched && p.State == Ready {
			p.State, p.Why = Dirty, "its memory has not been checked yet"
		}
	}
	a.devices.all = slices.DeleteFunc(a.devices.all, func(p *bookedDevice) bool {
		return p.absent && len(p.shares) == 0
	})
	return true
}

// Slots returns how many trials with these resources the node can run at a time when nothing else
// runs. Devices that are out of service do not count.
func (a *Allocator) Slots(r grid.Resources) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.slots(&r, inService)
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
	for _, p := range a.devices.all {
		b.Devices = append(b.Devices, DeviceUsage{
			Device: p.Device, Free: grid.One - p.milli, FreeMemory: p.Memory - p.memory, Shares: len(p.shares),
			HeldFor: p.heldFor, Absent: p.absent, Split: p.split,
		})
	}
	return b
}
