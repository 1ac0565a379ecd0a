package inventory

import (
	"cmp"
	"context"
	"slices"
	"time"
)

// Unknown represents a value that a GPU's driver does not report.
const Unknown = -1

// GPU is one GPU and its use at the time of reading.
type GPU struct {
	Index       int        `json:"index"`
	UUID        string     `json:"uuid"` // as in CUDA_VISIBLE_DEVICES
	Name        string     `json:"name"`
	Memory      int64      `json:"memory"`               // bytes
	MemoryUsed  int64      `json:"memory_used"`          // bytes
	Utilization int        `json:"utilization"`          // percent; Unknown in MIG mode
	Temperature int        `json:"temperature"`          // degrees Celsius, or Unknown
	Power       int        `json:"power,omitempty"`      // watts, or Unknown
	Processes   int        `json:"processes"`            // programs that compute on it, in all containers, or Unknown
	MIG         bool       `json:"mig,omitempty"`        // MIG mode is on: only the instances can be used
	Instances   []Instance `json:"instances,omitempty"`  // MIG devices, in the driver's order
	Capability  string     `json:"capability,omitempty"` // CUDA compute capability, as in 8.0
	// GPUs of one group are connected by NVLink or one PCI host bridge; or Unknown
	Group int `json:"group"`
	NUMA  int `json:"numa"` // NUMA node, or Unknown
	// Compute mode unless it is the default: exclusive or prohibited.
	Mode        string   `json:"mode,omitempty"`
	Persistence bool     `json:"persistence,omitempty"` // the driver stays loaded between programs
	Recovery    Recovery `json:"recovery,omitempty"`    // recovery action that the driver asks for
	Problem     string   `json:"problem,omitempty"`     // why it cannot be used; "" if it can

	State  string    `json:"state,omitempty"`  // state assigned by the node, see node/worker; "" if unknown
	Why    string    `json:"why,omitempty"`    // the reason of the state
	Since  time.Time `json:"since,omitzero"`   // when it entered the state
	Trials []string  `json:"trials,omitempty"` // some of the trials that are running on it
}

// Instance is one MIG device: a part of a GPU that CUDA treats as a device of its own.
type Instance struct {
	UUID            string   `json:"uuid"`    // MIG-…
	Profile         string   `json:"profile"` // for example 1g.10gb
	Memory          int64    `json:"memory"`  // bytes
	MemoryUsed      int64    `json:"memory_used,omitempty"`
	GPUInstance     int      `json:"gi"`
	ComputeInstance int      `json:"ci"`
	State           string   `json:"state,omitempty"`
	Why             string   `json:"why,omitempty"`
	Trials          []string `json:"trials,omitempty"`
}

// Recovery is the action that the driver requires before a GPU can be used again (NVML's field
// 230).
type Recovery int

// The actions that NVML defines. Higher values concern the whole machine.
const (
	RecoveryUnknown       Recovery = Unknown // the driver does not know the field
	RecoveryNone          Recovery = 0
	RecoveryReset         Recovery = 1
	RecoveryReboot        Recovery = 2
	RecoveryDrainP2P      Recovery = 3
	RecoveryDrainAndReset Recovery = 4
)

// String returns the required action, for people.
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

// Process is a program that uses memory of a device. Its PID is that of the machine's root PID
// namespace, whatever container it is in.
type Process struct {
	PID      int
	Memory   int64 // bytes of the device, or Unknown
	Graphics bool  // it draws and does not compute: a desktop, not a program that competes with trials
}

// Use is the use of a device, a GPU or an instance, at one moment.
type Use struct {
	UUID      string
	Memory    int64 // bytes used, by processes and by the driver itself
	Busy      int   // percent of the time in which it was busy, or Unknown
	Processes []Process
	Listed    bool // Processes is complete
}

// Fault is an error that the driver reported, or a change of the recovery action.
type Fault struct {
	Time            time.Time
	UUID            string // of the GPU, not of an instance; "" if the driver did not identify it
	Xid             int    // NVIDIA's number of the error; 0 for a change without one
	GPUInstance     int    // the instance that the error is confined to, or Unknown
	ComputeInstance int
}

// Sample is the use of all devices at one moment, with the faults since the previous sample.
type Sample struct {
	Time   time.Time
	Uses   []Use
	Faults []Fault
	Health error // why faults cannot be watched; nil if they are
}

// Find returns the use of a device.
func (s *Sample) Find(uuid string) (Use, bool) {
	i := slices.IndexFunc(s.Uses, func(u Use) bool { return u.UUID == uuid })
	if i < 0 {
		return Use{}, false
	}
	return s.Uses[i], true
}

// Source reads the GPUs of a machine. Its methods are called by one goroutine at a time, and may
// block in the driver forever.
type Source interface {
	// Read sets GPUs, Driver, CUDA and GPUProblem.
	Read(ctx context.Context, m *Machine)
	// Sample returns the use of the devices and the faults since the last call.
	Sample(ctx context.Context) (Sample, error)
	// Close releases the driver. The next call opens it again.
	Close()
}

// Group is the number of devices of one kind in a machine. With a profile, they are MIG instances.
type Group struct {
	Model      string `json:"model"`
	Memory     int64  `json:"memory"` // bytes of each
	Capability string `json:"capability,omitempty"`
	Profile    string `json:"profile,omitempty"`
	Total      int    `json:"total"`
	Ready      int    `json:"ready"` // number of those in service
}

// inService reports whether trials can use a device in a state of package node/worker/devices, now
// or shortly. A device without a state, from an agent that reports none, is in service if it has no
// problem.
func inService(state string) bool { return state == "" || state == "ready" || state == "dirty" }

// GroupsOf counts devices by kind, the largest first. A GPU in MIG mode counts only through its
// instances.
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
		return cmp.Or(cmp.Compare(b.Memory, a.Memory), cmp.Compare(a.Model, b.Model), cmp.Compare(a.Profile, b.Profile),
			cmp.Compare(a.Capability, b.Capability))
	})
	groups := make([]Group, len(all))
	for i, g := range all {
		groups[i] = *g
	}
	return groups
}

// The compute modes that prevent programs from sharing a GPU.
const (
	Exclusive  = "exclusive"  // one program at a time
	Prohibited = "prohibited" // none
)
