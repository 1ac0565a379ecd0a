package allocator

import (
	"strconv"

	"mlfnode/grid"
)

// NeverFits returns why trials with these resources could never run on the node, whatever ends
// there and whatever comes back into service; the zero value when they could.
func (a *Allocator) NeverFits(r grid.Resources) grid.Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.neverFits(&r)
}

func (b *books) neverFits(r *grid.Resources) grid.Refusal {
	if r.CPUs > b.cpus {
		return grid.Refusal{Code: grid.RefusedNever, Of: grid.AmountCPUs, Want: int64(r.CPUs), Have: int64(b.cpus)}
	}
	if r.Memory > b.memory {
		return grid.Refusal{Code: grid.RefusedNever, Of: grid.AmountMemory, Want: r.Memory, Have: b.memory}
	}
	if !r.NeedsGPU() || b.slots(r, func(*bookedDevice) bool { return true }) > 0 {
		return grid.Refusal{}
	}
	count := func(r grid.Resources) (n int64, largest int64) {
		for c := range b.devices.suiting(&r) {
			n, largest = n+1, max(largest, c.size(&r))
		}
		return n, largest
	}
	n := int64(max(r.WholeGPUs(), 1))
	plain := grid.Resources{GPUs: r.GPUs, GPUProfile: r.GPUProfile}
	if r.GPUs == 0 && r.GPUProfile == "" {
		plain.GPUMemory = 1
	}
	have, largest := count(plain)
	switch {
	case r.GPUProfile != "" && have < n:
		return grid.Refusal{Code: grid.RefusedProfile, Want: n, Have: have, What: r.GPUProfile}
	case have < n && r.GPUs == 0:
		return grid.Refusal{Code: grid.RefusedNever, Of: grid.AmountGPUs, Want: int64(grid.One)}
	case have < n:
		return grid.Refusal{
			Code: grid.RefusedNever, Of: grid.AmountGPUs, Want: int64(r.GPUs), Have: have * int64(grid.One),
		}
	}
	if r.GPUModel != "" {
		plain.GPUModel = r.GPUModel
		if have, largest = count(plain); have < n {
			return grid.Refusal{Code: grid.RefusedModel, Want: int64(grid.One) * n, Have: have, What: r.GPUModel}
		}
	}
	if have, _ = count(*r); have < n {
		if largest < r.GPUMemory {
			return grid.Refusal{Code: grid.RefusedMemory, Want: r.GPUMemory, Have: largest}
		}
		return grid.Refusal{
			Code: grid.RefusedNever, Of: grid.AmountGPUs, Want: int64(grid.One) * n, Have: have * int64(grid.One),
		}
	}
	return b.devices.refusal(grid.RefusedExclusive, r, func(p *bookedDevice) bool { return p.Exclusive })
}

// Explain returns what keeps a trial of the lane from starting now, as Reserve would.
func (a *Allocator) Explain(lane grid.Lane, r grid.Resources) grid.Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.explain(lane, &r)
}

// refusal returns a refusal that names the first device of the right kind for which the condition
// holds.
func (l *deviceList) refusal(code grid.RefusalCode, r *grid.Resources, so func(*bookedDevice) bool) grid.Refusal {
	for c := range l.suiting(r) {
		if so(c.bookedDevice) {
			return grid.Refusal{Code: code, Device: strconv.Itoa(c.Index), By: c.Why}
		}
	}
	return grid.Refusal{Code: code}
}

// explain returns what keeps a trial of the lane from starting now: of several reasons the
// one that lasts longest.
func (b *books) explain(lane grid.Lane, r *grid.Resources) grid.Refusal {
	if never := b.neverFits(r); never.Code != "" {
		return never
	}
	need := amount{r.CPUs, r.Memory}
	if !b.hasRoom(lane, need, false) {
		if free := b.cpus - b.used.cpus; r.CPUs > free {
			return grid.Refusal{
				Code: grid.RefusedBusy, Of: grid.AmountCPUs, Want: int64(r.CPUs), Have: int64(max(free, 0)),
			}
		}
		return grid.Refusal{
			Code: grid.RefusedBusy, Of: grid.AmountMemory, Want: r.Memory, Have: max(b.memory-b.used.memory, 0),
		}
	}
	behind := grid.Refusal{Code: grid.RefusedBehind}
	if len(b.waiting) > 0 {
		behind.By = string(b.waiting[0].Lane)
	}
	if !r.NeedsGPU() {
		return behind
	}
	n := max(r.WholeGPUs(), 1)
	enough := func(without relaxation) bool { return len(b.devices.candidates(lane, r, without)) >= n }
	switch {
	case enough(0), enough(ignoreHolds):
		return behind
	case enough(ignoreState | ignoreHolds):
		states := map[State]grid.RefusalCode{
			Sick: grid.RefusedSick, Gone: grid.RefusedGone, Dirty: grid.RefusedDirty, Foreign: grid.RefusedForeign,
		}
		for _, s := range []State{Foreign, Sick, Gone, Dirty} {
			refusal := b.devices.refusal(states[s], r, func(p *bookedDevice) bool { return p.State == s })
			if refusal.Device != "" {
				return refusal
			}
		}
	}
	return b.refusedBusy(lane, r)
}

// refusedBusy returns how much is free of what a trial needs.
func (b *books) refusedBusy(lane grid.Lane, r *grid.Resources) grid.Refusal {
	if n := r.WholeGPUs(); n > 0 {
		free := len(b.devices.candidates(lane, r, ignoreHolds))
		return grid.Refusal{
			Code: grid.RefusedBusy, Of: grid.AmountGPUs, Want: int64(n) * int64(grid.One),
			Have: int64(free) * int64(grid.One),
		}
	}
	byMemory := r.GPUs == 0
	refusal := grid.Refusal{Code: grid.RefusedBusy, Of: grid.AmountGPUs, Want: int64(r.GPUs)}
	if byMemory {
		refusal.Of, refusal.Want = grid.AmountGPUMemory, r.GPUMemory
	}
	total := int64(0)
	for c := range b.devices.suiting(r) {
		if c.State != Ready {
			continue
		}
		free := int64(max(grid.One-c.bookedDevice.milli, 0))
		if byMemory {
			free = max(c.Memory-c.bookedDevice.memory, 0)
		}
		total += free
		refusal.Have = max(refusal.Have, free)
	}
	if total >= refusal.Want && refusal.Have < refusal.Want {
		refusal.Code = grid.RefusedFragment
	}
	return refusal
}
