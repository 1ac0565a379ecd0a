package allocator

import (
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
)

// State says whether a device may be given to trials.
type State string

// The states of a device.
const (
	Ready   State = ""        // it may
	Dirty   State = "dirty"   // a trial has ended there, and its memory has not been seen free since
	Foreign State = "foreign" // a program that is not a trial computes on it
	Sick    State = "sick"    // it is out of service
	Gone    State = "gone"    // its driver no longer reports it
)

// Availability is the state of a device and the reason for it.
type Availability struct {
	State State
	Why   string    // the reason for a state other than Ready, for people
	Since time.Time // when it entered the state
}

// Device is a GPU or a MIG instance that trials can get.
type Device struct {
	UUID    string // the value for CUDA_VISIBLE_DEVICES
	Parent  string // UUID of the GPU that a MIG instance is part of; "" for a GPU
	Index   int    // of the GPU, as people count them
	Name    string // the model
	Profile string // of a MIG instance, like 1g.10gb
	Total   int64  // bytes of the whole device, which requests for whole devices are compared with; 0 means Memory
	Memory  int64  // bytes that trials may have

	Group     int  // number of the NVLink island; -1 if not known
	NUMA      int  // nearest NUMA node of the machine's memory; -1 if not known
	Exclusive bool // its compute mode allows one process only: it is never shared

	Availability
}

// needs returns what one trial takes of a device; ok is false when it can't use the device, however
// free it is.
func (d *Device) needs(r *grid.Resources) (milli grid.Milli, memory int64, ok bool) {
	if r.GPUMemory > d.size(r) || r.GPUModel != "" &&
		!strings.Contains(strings.ToLower(d.Name), strings.ToLower(r.GPUModel)) {
		return 0, 0, false
	}
	instance := d.Parent != ""
	switch {
	case r.GPUProfile != "":
		return grid.One, d.Memory, strings.EqualFold(d.Profile, r.GPUProfile)
	case r.GPUs >= grid.One:
		return grid.One, d.Memory, !instance
	case r.GPUs > 0:
		memory = r.GPUMemory
		if memory == 0 {
			memory = shareOf(d.Memory, r.GPUs)
		}
		return r.GPUs, memory, !instance
	case instance:
		return grid.One, d.Memory, true
	}
	return milliOf(r.GPUMemory, d.Memory), r.GPUMemory, true
}

// size is the memory that a request is compared with.
func (d *Device) size(r *grid.Resources) int64 {
	if r.WholeGPUs() > 0 {
		return max(d.Total, d.Memory)
	}
	return d.Memory
}

// shareOf returns a number of thousandths of an amount, rounded down.
func shareOf(amount int64, m grid.Milli) int64 {
	hi, lo := bits.Mul64(uint64(max(amount, 0)), uint64(m))
	if hi >= uint64(grid.One) {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, uint64(grid.One))
	return int64(min(q, math.MaxInt64))
}

// milliOf returns the thousandths that a part is of a whole that is not smaller, rounded up.
func milliOf(part, whole int64) grid.Milli {
	if whole <= 0 {
		return grid.One
	}
	hi, lo := bits.Mul64(uint64(max(part, 0)), uint64(grid.One))
	q, rest := bits.Div64(hi, lo, uint64(whole))
	if rest > 0 {
		q++
	}
	return max(grid.Milli(q), 1)
}

// bookedDevice is a device with what is allocated of it.
type bookedDevice struct {
	Device
	milli  grid.Milli // in use
	memory int64      // in use
	shares []portion  // who uses it
	absent bool       // the node no longer has it, but an allocation does
	split  bool       // it is divided into MIG instances

	heldFor    grid.Lane // the lane that this device is held for in this pass, "" for none
	heldMilli  grid.Milli
	heldMemory int64
}

// portion is one trial's part of a device.
type portion struct {
	lane   grid.Lane
	milli  grid.Milli
	memory int64
}

// remove removes a portion.
func (p *bookedDevice) remove(h portion) {
	if i := slices.Index(p.shares, h); i >= 0 {
		p.shares[i] = p.shares[len(p.shares)-1]
		p.shares = p.shares[:len(p.shares)-1]
		p.milli, p.memory = p.milli-h.milli, p.memory-h.memory
	}
}
