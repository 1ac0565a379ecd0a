package worker

import (
	"cmp"
	"context"
	"path/filepath"
	"sync/atomic"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/worker/allocator"
	"mlfnode/node/worker/devices"
)

// DeviceTracker knows the GPUs of the node: what trials may have of them, and what attempts use.
type DeviceTracker struct {
	*capacity
	cfg *Config

	watch   *devices.Watch // nil when the devices are not watched
	present atomic.Bool    // the machine has GPUs, whether trials may use them or not
	policy  atomic.Pointer[Policy]
}

func newDeviceTracker(cfg *Config, c *capacity, cacheDir, boot string) *DeviceTracker {
	dt := &DeviceTracker{cfg: cfg, capacity: c}
	if cfg.GPUs.Usage == nil {
		return dt
	}
	dt.policy.Store(&cfg.Policy)
	dt.watch = devices.New(devices.Config{
		Source: cfg.GPUs.Usage, Allocator: c.allocator, SetDevices: dt.SetDevices, Foreign: cfg.Policy.Foreign,
		ListDevices: func(m *inventory.Machine) []allocator.Device { return DevicesOf(m, *dt.policy.Load()) },
		OnFreed:     c.wake.Set, OnChanged: cfg.GPUs.OnChanged,
		CacheDir: cacheDir, File: filepath.Join(cfg.Dir, "devices.json"), Boot: boot, Logger: cfg.Logger,
	})
	return dt
}

// SetMachine updates the devices from the latest reading of the machine.
func (dt *DeviceTracker) SetMachine(m inventory.Machine) {
	if len(m.GPUs) > 0 {
		dt.present.Store(true)
	}
	if dt.watch == nil {
		dt.SetDevices(DevicesOf(&m, dt.cfg.Policy))
		return
	}
	dt.watch.SetMachine(m)
}

// SetPolicy changes what trials may have of the devices, from the next SetMachine on.
func (dt *DeviceTracker) SetPolicy(p Policy) {
	if dt.watch != nil {
		dt.policy.Store(&p)
		dt.watch.SetForeign(p.Foreign)
	}
}

// Annotate returns the machine with the states of its devices, the trials on them, and the policy.
func (dt *DeviceTracker) Annotate(m inventory.Machine) inventory.Machine {
	if dt.watch == nil {
		return m
	}
	if m = dt.watch.Annotate(m); len(m.GPUs) == 0 {
		return m
	}
	m.GPUPolicy = &inventory.GPUPolicy{
		Reserve: dt.policy.Load().Reserve, Share: cmp.Or(dt.cfg.Policy.Share, allocator.DefaultShare),
	}
	return m
}

// Resize changes what trials may use of the machine's processors and memory.
func (dt *DeviceTracker) Resize(m inventory.Machine) {
	dt.allocator.SetSize(grid.MilliOf(m.CPUs), m.Memory)
	dt.resized()
}

// SetDevices sets the devices that trials may get. Running trials keep theirs, even those that are
// no longer in the list.
func (dt *DeviceTracker) SetDevices(devices []allocator.Device) {
	dt.allocator.SetDevices(devices)
	dt.resized()
}

// begin records that the attempt is about to start its program. On a node without devices that
// costs nothing.
func (dt *DeviceTracker) begin(a *attempt) {
	if !dt.watches(a) {
		return
	}
	shares := a.shares()
	a.devices.watched = true
	dt.watch.Begin(devices.Attempt{
		Trial: a.id, Number: a.number, Devices: a.allocation.UUIDs(),
		Whole: len(shares) > 0 && shares[0].Milli >= grid.One,
	})
}

// watches reports whether the attempt's use of devices, its own or others', is observed.
func (dt *DeviceTracker) watches(a *attempt) bool {
	return dt.watch != nil && (len(a.shares()) > 0 || dt.watch.HasDevices())
}

// recordProgram records which program an attempt has started.
func (dt *DeviceTracker) recordProgram(a *attempt, b executor.Program) {
	if a.devices.watched {
		dt.watch.Started(a.id, a.number, b.PID, b.Container)
	}
}

// end records that the attempt's programs have ended, and adds what was observed of them to its
// result.
func (dt *DeviceTracker) end(a *attempt, result *grid.Result) {
	if !a.devices.watched {
		return
	}
	a.devices.watched = false
	failed := result.Class == grid.ClassExit || result.Class == grid.ClassSignal
	seen := dt.watch.End(context.Background(), a.id, a.number, failed) // bounded
	result.Usage.GPU, a.devices.evidence = seen.Use, seen.Evidence
	if !a.task.Resources.Measured() {
		return
	}
	// Estimates of the trials' need are based on what each device is.
	shares, booked := a.shares(), dt.allocator.Usage().Devices
	for i := range seen.Use {
		use := &seen.Use[i]
		for k := range booked {
			if booked[k].UUID == use.UUID {
				use.Model, use.Total = booked[k].Name, booked[k].Memory
			}
		}
		if shares[i].Milli < grid.One {
			use.Share = shares[i].Memory
		}
	}
}

// release returns an allocation. Its devices are free once their memory is.
func (dt *DeviceTracker) release(al *allocator.Allocation) {
	if dt.watch != nil {
		dt.watch.MarkDirty(al)
	}
	dt.allocator.Release(al, true)
}

// usable reports whether the devices of an allocation can take the next attempt of its lease: none
// has been taken out of service. After an attempt that failed it waits until they hold nothing of
// it.
func (dt *DeviceTracker) usable(ctx context.Context, al *allocator.Allocation, failed bool) bool {
	if dt.watch == nil || len(al.Shares) == 0 {
		return true
	}
	return (!failed || dt.watch.AwaitFree(ctx, al)) && dt.watch.InService(al)
}
