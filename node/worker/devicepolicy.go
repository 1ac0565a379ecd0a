package worker

import (
	"slices"
	"strconv"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node/worker/allocator"
	"mlfnode/node/worker/devices"
)

// Policy says what trials may have of a node's devices.
type Policy struct {
	None bool     // no devices at all
	Use  []string // indexes and UUIDs of those that they may use; empty for all
	// bytes of each GPU that are never allocated: the driver and each program's context take some
	Reserve int64
	Foreign devices.Foreign // what happens to GPUs on which other programs compute
	Share   int             // most trials on one device; 0 means allocator.DefaultShare
}

// DefaultReserve is what is reserved of each GPU unless the node's settings say otherwise.
const DefaultReserve = 512 << 20

// DevicesOf returns the devices of a machine that trials may have. Of a GPU in MIG mode these are
// its instances.
func DevicesOf(m *inventory.Machine, p Policy) []allocator.Device {
	if p.None {
		return nil
	}
	uses := func(names ...string) bool {
		return len(p.Use) == 0 ||
			slices.ContainsFunc(names, func(name string) bool { return slices.Contains(p.Use, name) })
	}
	var all []allocator.Device
	for i := range m.GPUs {
		g := &m.GPUs[i]
		d := allocator.Device{
			UUID: g.UUID, Index: g.Index, Name: g.Name, Total: g.Memory, Memory: max(g.Memory-p.Reserve, 0),
			Group: g.Group, NUMA: g.NUMA,
			Exclusive: g.Mode == inventory.Exclusive,
		}
		switch {
		case g.Problem != "":
			d.State, d.Why = allocator.Sick, g.Problem
		case g.Mode == inventory.Prohibited:
			d.State, d.Why = allocator.Sick, "its compute mode lets no program in"
		}
		if !g.MIG && g.UUID != "" && uses(g.UUID, strconv.Itoa(g.Index)) {
			all = append(all, d)
		}
		for _, in := range g.Instances {
			if in.UUID != "" && uses(g.UUID, strconv.Itoa(g.Index), in.UUID) {
				part := d
				part.UUID, part.Parent, part.Profile = in.UUID, g.UUID, in.Profile
				part.Total, part.Memory = in.Memory, in.Memory
				all = append(all, part)
			}
		}
	}
	return all
}

// NodeOf returns what a machine offers to trials, as other nodes know it. Where its list of devices
// is cut, only their kinds are known.
func NodeOf(cpus float64, memory int64, m *inventory.Machine) allocator.Node {
	n := allocator.Node{CPUs: grid.MilliOf(cpus), Memory: memory}
	if m == nil {
		return n
	}
	reserve := int64(DefaultReserve)
	if p := m.GPUPolicy; p != nil {
		reserve, n.Options.Share = max(p.Reserve, 0), max(p.Share, 0)
	}
	if !m.More {
		for _, d := range DevicesOf(m, Policy{Reserve: reserve}) {
			if d.State = publishedState(m, d.UUID); d.State != devices.Unused {
				n.Devices = append(n.Devices, d)
			}
		}
		return n
	}
	for i, g := range m.Groups {
		for k := range g.Total {
			name := strconv.Itoa(i) + "." + strconv.Itoa(k)
			d := allocator.Device{
				UUID: name, Index: k, Name: g.Model, Profile: g.Profile, Total: g.Memory,
				Memory: max(g.Memory-reserve, 0),
			}
			if g.Profile != "" {
				d.Parent, d.Memory = "parent of "+name, g.Memory
			}
			if k >= g.Ready {
				d.State = allocator.Sick
			}
			n.Devices = append(n.Devices, d)
		}
	}
	return n
}

// publishedState returns the state that a node has published of one of its devices, which may be
// devices.Unused.
func publishedState(m *inventory.Machine, uuid string) allocator.State {
	for i := range m.GPUs {
		g := &m.GPUs[i]
		state := g.State
		if k := slices.IndexFunc(g.Instances, func(in inventory.Instance) bool { return in.UUID == uuid }); k >= 0 {
			state = g.Instances[k].State
		} else if g.UUID != uuid {
			continue
		}
		switch s := allocator.State(state); {
		case g.Problem != "":
			return allocator.Sick
		case slices.Contains([]allocator.State{
			allocator.Sick, allocator.Gone, allocator.Dirty, allocator.Foreign, devices.Unused,
		}, s):
			return s
		}
	}
	return allocator.Ready
}
