package devices

import (
	"fmt"
	"slices"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node/failure"
)

// faultRetention is how long faults and blamed failures are remembered.
const faultRetention = 24 * time.Hour

// faultLogInterval is the shortest time between two log messages about errors with one number:
// drivers repeat some many times a second.
const faultLogInterval = time.Minute

// maxFaults bounds how many faults of a device are remembered.
const maxFaults = 64

// fault is an error that the driver reported for a device.
type fault struct {
	At  time.Time `json:"at"`
	Xid int       `json:"xid"`
}

// recordFaults records what the driver reported. An error without a device concerns all of
// them, as evidence for attempts; it takes none out of service.
func (fs *findings) recordFaults(faults []inventory.Fault) {
	for _, f := range faults {
		if f.Xid == 0 {
			continue // the recovery action has changed, which the next full reading shows
		}
		if last := fs.faultLoggedAt[f.Xid]; f.Time.Sub(last) > faultLogInterval {
			fs.log.Warn("the GPU driver reports an error", "gpu", f.UUID, "xid", f.Xid)
			fs.faultLoggedAt[f.Xid] = f.Time
		}
		for _, d := range fs.devices {
			if f.UUID != "" && !d.isAffectedBy(&f) {
				continue
			}
			for _, a := range fs.attempts {
				// The first error that explains failures is the cause of those that follow.
				if a.observed[d.UUID] != nil && a.xid == 0 && failure.XidOf(f.Xid).Class != grid.ClassNone {
					a.xid, a.faultyDevice = f.Xid, d.UUID
				}
			}
			if f.UUID != "" {
				d.addFault(fault{f.Time, f.Xid})
			}
		}
	}
}

// isAffectedBy reports whether an error of a GPU concerns this device: an error of an instance
// concerns only that instance.
func (d *device) isAffectedBy(f *inventory.Fault) bool {
	switch {
	case f.UUID == d.UUID:
		return f.GPUInstance == inventory.Unknown || !d.gpu.MIG
	case f.UUID != d.Parent:
		return false
	}
	in := d.instance
	if f.GPUInstance == inventory.Unknown || in == nil || in.GPUInstance == inventory.Unknown {
		return true
	}
	return in.GPUInstance == f.GPUInstance &&
		(f.ComputeInstance == inventory.Unknown || in.ComputeInstance == f.ComputeInstance)
}

// addFault records an error and takes the device out of service when there were enough of its kind.
func (d *device) addFault(f fault) {
	d.Faults = slices.DeleteFunc(d.Faults, func(old fault) bool { return f.At.Sub(old.At) > faultRetention })
	if d.Faults = append(d.Faults, f); len(d.Faults) > maxFaults {
		d.Faults = slices.Delete(d.Faults, 0, len(d.Faults)-maxFaults)
	}
	kind, n := failure.XidOf(f.Xid), 0
	for _, f := range d.Faults {
		if failure.XidOf(f.Xid) == kind {
			n++
		}
	}
	if kind.FaultsUntilSick > 0 && d.Sick == "" && n >= kind.FaultsUntilSick {
		d.Sick = fmt.Sprintf("Xid %d: %s", f.Xid, kind.Reason)
	}
}
