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
	at  time.Time
	xid int
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
	d.faults = slices.DeleteFunc(d.faults, func(old fault) bool { return f.at.Sub(old.at) > memory })
	if d.faults = append(d.faults, f); len(d.faults) > mostFaults {
		d.faults = slices.Delete(d.faults, 0, len(d.faults)-mostFaults)
	}
	kind := failure.XidOf(f.xid)
	if kind.Sick == 0 || d.sick != "" || d.count(kind) < kind.Sick {
		return
	}
	d.sick = fmt.Sprintf("Xid %d: %s", f.xid, kind.Why)
}

// count is how many errors of a kind the device had.
func (d *device) count(kind *failure.Xid) int {
	n := 0
	for _, f := range d.faults {
		if failure.XidOf(f.xid) == kind {
			n++
		}
	}
	return n
}
