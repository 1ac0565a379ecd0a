package devices

import (
	"fmt"
	"slices"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/node/failure"
)

// memory is how long faults and strikes are remembered.
const memory = 24 * time.Hour

// quiet is how long an error with one number is not logged again: drivers repeat some many times in a second.
const quiet = time.Minute

// mostFaults bounds how many faults of a device are remembered.
const mostFaults = 64

// fault is an error that the driver reported for a device.
type fault struct {
	At  time.Time `json:"at"`
	Xid int       `json:"xid"`
}

// faultsLocked takes over what the driver reported. An error whose device is not known concerns all of them, as evidence for attempts; it
// takes none out of service.
func (w *Watch) faultsLocked(faults []inventory.Fault) {
	for _, f := range faults {
		if f.Xid == 0 {
			continue // the recovery action has changed, which the next full look reads
		}
		if last := w.reported[f.Xid]; f.Time.Sub(last) > quiet {
			w.log.Warn("the GPU driver reports an error", "gpu", f.UUID, "xid", f.Xid)
			w.reported[f.Xid] = f.Time
		}
		for _, d := range w.devices {
			if f.UUID != "" && !d.concerns(&f) {
				continue
			}
			w.attemptFaultLocked(d.UUID, f.Xid)
			if f.UUID != "" {
				d.fail(fault{f.Time, f.Xid})
			}
		}
	}
}

// concerns reports whether an error of a GPU is one of this device: an error of an instance is that of the instance alone.
func (d *device) concerns(f *inventory.Fault) bool {
	switch {
	case f.UUID == d.UUID:
		return f.GPUInstance == inventory.Unknown || !d.gpu.MIG
	case f.UUID != d.Parent:
		return false
	}
	in := d.instance
	return f.GPUInstance == inventory.Unknown || in == nil || in.GPUInstance == inventory.Unknown ||
		in.GPUInstance == f.GPUInstance && (f.ComputeInstance == inventory.Unknown || in.ComputeInstance == f.ComputeInstance)
}

// fail notes an error and takes the device out of service when there were enough of its kind.
func (d *device) fail(f fault) {
	d.Faults = slices.DeleteFunc(d.Faults, func(old fault) bool { return f.At.Sub(old.At) > memory })
	if d.Faults = append(d.Faults, f); len(d.Faults) > mostFaults {
		d.Faults = slices.Delete(d.Faults, 0, len(d.Faults)-mostFaults)
	}
	kind := failure.XidOf(f.Xid)
	if kind.Sick == 0 || d.Sick != "" || d.count(kind) < kind.Sick {
		return
	}
	d.Sick = fmt.Sprintf("Xid %d: %s", f.Xid, kind.Why)
}

// count is how many errors of a kind the device had.
func (d *device) count(kind *failure.Xid) int {
	n := 0
	for _, f := range d.Faults {
		if failure.XidOf(f.Xid) == kind {
			n++
		}
	}
	return n
}
