package inventory

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Unknown stands for a figure of a GPU that its driver does not report.
const Unknown = -1

// GPU is one GPU and its use when it was read.
type GPU struct {
	Index       int        `json:"index"`
	UUID        string     `json:"uuid"` // what CUDA_VISIBLE_DEVICES takes
	Name        string     `json:"name"`
	Memory      int64      `json:"memory"`                // bytes
	MemoryUsed  int64      `json:"memory_used"`           // bytes
	Utilization int        `json:"utilization"`           // percent; Unknown in MIG mode
	Temperature int        `json:"temperature"`           // degrees Celsius, or Unknown
	Power       int        `json:"power,omitempty"`       // watts, or Unknown
	Processes   int        `json:"processes"`             // programs that compute on it, of all containers, or Unknown
	MIG         bool       `json:"mig,omitempty"`         // MIG mode is on: only the instances can be used
	Instances   []Instance `json:"instances,omitempty"`   // MIG devices, in the driver's order
	Capability  string     `json:"capability,omitempty"`  // CUDA compute capability, as in 8.0
	Group       int        `json:"group"`                 // GPUs of one group reach each other by NVLink or one PCI host bridge, or Unknown
	NUMA        int        `json:"numa"`                  // NUMA node, or Unknown
	Mode        string     `json:"mode,omitempty"`        // compute mode when it is not the default: exclusive or prohibited
	Persistence bool       `json:"persistence,omitempty"` // the driver stays loaded between programs
	Recovery    Recovery   `json:"recovery,omitempty"`    // what the driver says has to be done to the GPU
	Problem     string     `json:"problem,omitempty"`     // why it can't be used; "" when all is well

	State  string    `json:"state,omitempty"`  // what the node makes of it, see node/worker; "" is not known
	Why    string    `json:"why,omitempty"`    // the reason of the state
	Since  time.Time `json:"since,omitzero"`   // when it entered the state
	Trials []string  `json:"trials,omitempty"` // what runs there now, at most a few
}

// Instance is one MIG device: a part of a GPU that CUDA sees as a device of its own.
type Instance struct {
	UUID            string   `json:"uuid"`    // MIG-…
	Profile         string   `json:"profile"` // as in 1g.10gb
	Memory          int64    `json:"memory"`  // bytes
	MemoryUsed      int64    `json:"memory_used,omitempty"`
	GPUInstance     int      `json:"gi"`
	ComputeInstance int      `json:"ci"`
	State           string   `json:"state,omitempty"`
	Why             string   `json:"why,omitempty"`
	Trials          []string `json:"trials,omitempty"`
}

// Recovery is what the driver says has to be done to a GPU before it can be used again (NVML's
// field 230).
type Recovery int

// The actions that NVML names. Higher values ask for something that concerns the whole machine.
const (
	RecoveryUnknown       Recovery = Unknown // the driver does not know the field
	RecoveryNone          Recovery = 0
	RecoveryReset         Recovery = 1
	RecoveryReboot        Recovery = 2
	RecoveryDrainP2P      Recovery = 3
	RecoveryDrainAndReset Recovery = 4
)

// String is what has to be done, for people.
func (r Recovery) String() string {
	switch {
	case r <= RecoveryNone:
		return ""
	case r == RecoveryReset:
		return "needs a reset: nvidia-smi --gpu-reset as root, with no program on it"
	case r == RecoveryDrainP2P:
		return "needs its peers drained: end the programs that use it together with other GPUs"
	case r == RecoveryDrainAndReset:
		return "needs to be drained and reset: nvidia-smi --gpu-reset as root, with no program on it"
	}
	return "needs a restart of the machine"
}

// Process is a program that has memory of a device. It is numbered as in this machine's root PID
// namespace, whatever container it is in.
type Process struct {
	PID      int
	Memory   int64 // bytes of the device, or Unknown
	Graphics bool  // it draws and does not compute: a desktop, not a program that competes with trials
}

// Use is what a device, a GPU or an instance, holds at a moment.
type Use struct {
	UUID      string
	Memory    int64 // bytes used, by processes and by the driver itself
	Busy      int   // percent of the time in which it computed, or Unknown
	Processes []Process
	Listed    bool // Processes is complete
}

// Fault is an error that the driver reported, or a change of the recovery action.
type Fault struct {
	Time            time.Time
	UUID            string // of the GPU, not of an instance; "" when the driver did not say which
	Xid             int    // NVIDIA's number of the error; 0 for a change without one
	GPUInstance     int    // of the instance that the error is confined to, or Unknown
	ComputeInstance int
}

// Sample is one look at the use of all devices, with the faults since the look before.
type Sample struct {
	Time   time.Time
	Uses   []Use
	Faults []Fault
	Health error // why faults can't be watched; nil when they are
}

// Find gives the use of a device.
func (s *Sample) Find(uuid string) (Use, bool) {
	i := slices.IndexFunc(s.Uses, func(u Use) bool { return u.UUID == uuid })
	if i < 0 {
		return Use{}, false
	}
	return s.Uses[i], true
}

// Source reads the GPUs of a machine. Its methods are called by one goroutine at a time, and may
// block in the driver for good.
type Source interface {
	// Read fills in GPUs, Driver, CUDA and GPUProblem.
	Read(ctx context.Context, m *Machine)
	// Sample looks at the use of the devices and at faults since the last call.
	Sample(ctx context.Context) (Sample, error)
	// Close ends the work with the driver. The next call begins it again.
	Close()
}

// Group is how many devices of one kind a machine has. A profile makes them instances.
type Group struct {
	Model      string `json:"model"`
	Memory     int64  `json:"memory"` // bytes of each
	Capability string `json:"capability,omitempty"`
	Profile    string `json:"profile,omitempty"`
	Total      int    `json:"total"`
	Ready      int    `json:"ready"` // of these, such as are in service
}

// inService reports whether trials may use a device that is in a state of package
// node/worker/devices, now or in a moment. One of an agent that tells no state may be used if it
// has no problem.
func inService(state string) bool { return state == "" || state == "ready" || state == "dirty" }

// GroupsOf counts devices by kind, the largest first. A GPU in MIG mode counts by its instances
// alone.
func GroupsOf(gpus []GPU) []Group {
	count := map[Group]*Group{}
	var all []*Group
	add := func(kind Group, good bool) {
		g := count[kind]
		if g == nil {
			g = &Group{Model: kind.Model, Memory: kind.Memory, Capability: kind.Capability, Profile: kind.Profile}
			count[kind] = g
			all = append(all, g)
		}
		if g.Total++; good {
			g.Ready++
		}
	}
	for i := range gpus {
		g := &gpus[i]
		if !g.MIG {
			add(Group{Model: g.Name, Memory: g.Memory, Capability: g.Capability}, g.Problem == "" && inService(g.State))
		}
		for _, in := range g.Instances {
			add(Group{Model: g.Name, Memory: in.Memory, Capability: g.Capability, Profile: in.Profile},
				g.Problem == "" && inService(in.State))
		}
	}
	slices.SortStableFunc(all, func(a, b *Group) int {
		return cmp.Or(cmp.Compare(b.Memory, a.Memory), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Profile, b.Profile), cmp.Compare(a.Capability, b.Capability))
	})
	groups := make([]Group, len(all))
	for i, g := range all {
		groups[i] = *g
	}
	return groups
}

// The compute modes that keep programs from sharing a GPU.
const (
	Exclusive  = "exclusive"  // one program at a time
	Prohibited = "prohibited" // none
)
