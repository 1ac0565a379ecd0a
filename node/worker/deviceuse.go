package worker

import (
	"cmp"
	"context"
	"path/filepath"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/failure"
	"mlfnode/node/worker/allocator"
	"mlfnode/node/worker/devices"
)

// watchDevices has somebody look at the node's devices, where Config says how.
func (w *Worker) newDeviceWatch() {
	if w.cfg.GPUs == nil {
		return
	}
	w.policy.Store(&w.cfg.Policy)
	w.gpus = devices.New(devices.Config{
		Source: w.cfg.GPUs, Allocator: w.allocator, SetDevices: w.SetDevices, Foreign: w.cfg.Policy.Foreign, CacheDir: w.bundles.cacheDir(), Logger: w.log,
		File: filepath.Join(w.cfg.Dir, "devices.json"), Boot: w.boot,
		ListDevices: func(m *inventory.Machine) []allocator.Device { return DevicesOf(m, *w.policy.Load()) },
		OnFreed:     w.wakeDispatcher, OnChanged: w.cfg.OnDevicesChanged,
	})
}

// Meet takes over which devices the machine has, as it was read last.
func (w *Worker) SetMachine(m inventory.Machine) {
	if len(m.GPUs) > 0 {
		w.hasGPUs.Store(true)
	}
	if w.gpus == nil {
		w.SetDevices(DevicesOf(&m, w.cfg.Policy))
		return
	}
	w.gpus.SetMachine(m)
}

// SetPolicy changes what trials may have of the devices, from the next Meet on.
func (w *Worker) SetPolicy(p Policy) {
	if w.gpus != nil {
		w.policy.Store(&p)
		w.gpus.SetForeign(p.Foreign)
	}
}

// Annotate returns the machine with the states of its devices, the trials on them, and what the settings say of them.
func (w *Worker) Annotate(m inventory.Machine) inventory.Machine {
	if w.gpus == nil {
		return m
	}
	if m = w.gpus.Annotate(m); len(m.GPUs) == 0 {
		return m
	}
	m.GPUPolicy = &inventory.GPUPolicy{Reserve: w.policy.Load().Reserve, Share: cmp.Or(w.cfg.Devices.Share, allocator.DefaultShare)}
	return m
}

// beginUse says that the attempt is about to start its program. On a node without devices that costs nothing.
func (w *Worker) beginDeviceUse(a *attempt) {
	if !w.watches(a) {
		return
	}
	shares := a.shares()
	a.deviceWatched = true
	w.gpus.Begin(devices.Attempt{
		Trial: a.id, Number: a.number, Devices: a.allocation.UUIDs(), Whole: len(shares) > 0 && shares[0].Milli >= grid.One,
	})
}

// watches reports whether it is looked at what the attempt does on devices, its own or others'.
func (w *Worker) watches(a *attempt) bool {
	return w.gpus != nil && (len(a.shares()) > 0 || w.gpus.HasDevices())
}

func (a *attempt) shares() []allocator.Share {
	if a.allocation == nil {
		return nil
	}
	return a.allocation.Shares
}

// startedUse says which program an attempt has started.
func (w *Worker) recordProgram(a *attempt, b executor.Program) {
	if a.deviceWatched {
		w.gpus.Started(a.id, a.number, b.PID, b.Container)
	}
}

// endUse says that the attempt's programs have ended, and puts what was seen of them into its result.
func (w *Worker) endDeviceUse(a *attempt, result *grid.Result) {
	if !a.deviceWatched {
		return
	}
	a.deviceWatched = false
	seen := w.gpus.End(context.Background(), a.id, a.number, result.Class == grid.ClassExit || result.Class == grid.ClassSignal) // bounded
	result.Usage.GPU, a.deviceEvidence = seen.Use, seen.Evidence
	if a.task.Resources.Measured() {
		w.describeDeviceUse(a, result.Usage.GPU)
	}
}

// describeUse adds to the use of each device what an estimate of the trials' need goes by.
func (w *Worker) describeDeviceUse(a *attempt, use []grid.DeviceUse) {
	shares, book := a.shares(), w.allocator.Usage()
	for i := range use {
		for k := range book.Devices {
			if d := &book.Devices[k]; d.UUID == use[i].UUID {
				use[i].Model, use[i].Total = d.Name, d.Memory
			}
		}
		if shares[i].Milli < grid.One {
			use[i].Share = shares[i].Memory
		}
	}
}

// blame adds what the devices say to the evidence of a failure.
func (a *attempt) addDeviceEvidence(e *failure.Evidence) {
	seen := &a.deviceEvidence
	e.GPUFull, e.Neighbour = seen.Full, seen.Neighbours
	e.Device = failure.DeviceFault{UUID: seen.Device, Xid: seen.Xid, Gone: seen.Gone, Several: seen.Several}
}

// strike counts an outcome against the device that is to blame for it.
func (w *Worker) countDeviceFailure(a *attempt, result *grid.Result) {
	if w.gpus != nil && result.Device != "" && grid.FailureOf(result.Class).Owner == grid.OwnerDevice {
		w.gpus.RecordFailure(result.Device, a.id, result.Class)
	}
}

// release gives back what a lease's trials had. Its devices are free once their memory is.
func (w *Worker) releaseAllocation(al *allocator.Allocation) {
	if w.gpus != nil {
		w.gpus.MarkDirty(al)
	}
	w.allocator.Release(al)
}

// fit reports whether the devices of an allocation can take the next attempt of its lease: none has been taken out of service. After one
// that has failed it waits until they hold nothing of it.
func (w *Worker) devicesUsable(ctx context.Context, al *allocator.Allocation, failed bool) bool {
	if w.gpus == nil || len(al.Shares) == 0 {
		return true
	}
	return (!failed || w.gpus.AwaitFree(ctx, al)) && w.gpus.InService(al)
}
