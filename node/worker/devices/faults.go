package devices

import (
	"fmt"
	"slices"
	"time"

	"mlfnode/cluster/inventory"
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

// rule is what errors with some numbers mean for a device.
type rule struct {
	xids  []int
	after int    // how many within a day take the device out of service; 0 is none
	why   string // what is wrong then, and what helps; "" is information, and no evidence
}

// rules is NVIDIA's catalogue of Xid errors, as far as it says something about the device. The first rule with the number counts, and the
// last is for all others. What an error means for the attempts on the device is in package failure.
var rules = []rule{
	{xids: []int{13, 31, 32, 43, 45, 68, 69, 11, 25, 39, 40, 41, 60, 70, 71, 72, 75, 76, 77, 80, 82, 83, 84, 85, 86},
		why: "a program failed on it"}, // or was killed: it says nothing of the device
	{xids: []int{63, 78, 92, 154}}, // information
	{xids: []int{94}, after: 3, why: "contained memory errors repeat; needs a reset"},
	{xids: []int{48}, after: 1, why: "uncorrected memory error; needs a reset"},
	{xids: []int{46, 62, 64, 95, 110, 119, 120, 136, 140, 143, 155, 156, 158}, after: 1, why: "the GPU or its firmware has stopped; needs a reset"},
	{xids: []int{109}, after: 2, why: "context switches time out; needs a reset"},
	{xids: []int{79}, after: 1, why: "fell off the bus; needs a restart of the machine, and a look at its power and its slot"},
	{xids: []int{74, 144, 145, 146, 147, 148, 149, 150}, after: 1, why: "NVLink error; needs a reset"},
	{xids: []int{54}, after: 1, why: "a power cable is not connected"},
	{after: 3, why: "unknown errors repeat"},
}

func ruleOf(xid int) *rule {
	for i := range rules {
		if slices.Contains(rules[i].xids, xid) || len(rules[i].xids) == 0 {
			return &rules[i]
		}
	}
	return &rules[len(rules)-1]
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
	r := ruleOf(f.xid)
	if r.after == 0 || d.sick != "" || d.count(r) < r.after {
		return
	}
	d.sick = fmt.Sprintf("Xid %d: %s", f.xid, r.why)
}

// count is how many errors of a rule's kind the device had.
func (d *device) count(r *rule) int {
	n := 0
	for _, f := range d.faults {
		if ruleOf(f.xid) == r {
			n++
		}
	}
	return n
}
