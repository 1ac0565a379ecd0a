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
	return a.neverFitsLocked(&r)
}

func (a *Allocator) neverFitsLocked(r *grid.Resources) grid.Refusal {
	if r.CPUs > a.cpus {
		return grid.Refusal{Code: grid.RefusedNever, Of: grid.AmountCPUs, Want: int64(r.CPUs), Have: int64(a.cpus)}
	}
	if r.Memory > a.memory {
		return grid.Refusal{Code: grid.RefusedNever, Of: grid.AmountMemory, Want: r.Memory, Have: a.memory}
	}
	if !r.NeedsGPU() || a.slotsLocked(r, func(*bookedDevice) bool { return true }) > 0 {
		return grid.Refusal{}
	}
	count := func(r grid.Resources) (n int64, largest int64) {
		for _, p := range a.devices {
			if _, _, ok := p.needs(&r); ok && !p.absent && !p.split {
				n, largest = n+1, max(largest, p.total(&r))
			}
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
	return a.refusedByDeviceLocked(grid.RefusedExclusive, r, func(p *bookedDevice) bool { return p.Exclusive })
}

// Explain returns what keeps a trial of the lane from starting now, as Reserve would.
func (a *Allocator) Explain(lane grid.Lane, r grid.Resources) grid.Refusal {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.explainLocked(lane, &r)
}

// refusedByDeviceLocked returns a refusal that names the first device of the right kind for which
// the condition holds.
func (a *Allocator) refusedByDeviceLocked(
	code grid.RefusalCode, r *grid.Resources, so func(*bookedDevice) bool,
) grid.Refusal {
	refusal := grid.Refusal{Code: code}
	for _, p := range a.devices {
		if _, _, ok := p.needs(r); ok && !p.absent && !p.split && so(p) {
			refusal.Device, refusal.By = strconv.Itoa(p.Index), p.Why
			break
		}
	}
	return refusal
}

// explainLocked returns what keeps a trial of the lane from starting now: of several reasons the
// one that lasts longest.
func (a *Allocator) explainLocked(lane grid.Lane, r *grid.Resources) grid.Refusal {
	if never := a.neverFitsLocked(r); never.Code != "" {
		return never
	}
	need := amount{r.CPUs, r.Memory}
	if !a.hasRoomLocked(lane, need, false) {
		if free := a.cpus - a.used.cpus; r.CPUs > free {
			return grid.Refusal{
				Code: grid.RefusedBusy, Of: grid.AmountCPUs, Want: int64(r.CPUs), Have: int64(max(free, 0)),
			}
		}
		return grid.Refusal{
			Code: grid.RefusedBusy, Of: grid.AmountMemory, Want: r.Memory, Have: max(a.memory-a.used.memory, 0),
		}
	}
	if !r.NeedsGPU() {
		return a.refusedBehindLocked()
	}
	n := max(r.WholeGPUs(), 1)
	enough := func(without relaxation) bool { return len(a.candidatesLocked(lane, r, without)) >= n }
	switch {
	case enough(0), enough(ignoreHolds):
		return a.refusedBehindLocked()
	case enough(ignoreState | ignoreHolds):
		states := map[State]grid.RefusalCode{
			Sick: grid.RefusedSick, Gone: grid.RefusedGone, Dirty: grid.RefusedDirty, Foreign: grid.RefusedForeign,
		}
		for _, s := range []State{Foreign, Sick, Gone, Dirty} {
			if f := a.refusedByDeviceLocked(
				states[s], r, func(p *bookedDevice) bool { return p.State == s },
			); f.Device != "" {
				return f
			}
		}
	}
	return a.refusedBusyLocked(lane, r)
}

func (a *Allocator) refusedBehindLocked() grid.Refusal {
	refusal := grid.Refusal{Code: grid.RefusedBehind}
	if len(a.waiting) > 0 {
		refusal.By = string(a.waiting[0].Lane)
	}
	return refusal
}

// refusedBusyLocked returns how much is free of what a trial needs.
func (a *Allocator) refusedBusyLocked(lane grid.Lane, r *grid.Resources) grid.Refusal {
	if n := r.WholeGPUs(); n > 0 {
		free := len(a.candidatesLocked(lane, r, ignoreHolds))
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
	for _, p := range a.devices {
		if _, _, ok := p.needs(r); !ok || p.absent || p.split || p.State != Ready {
			continue
		}
		free := int64(max(grid.One-p.milli, 0))
		if byMemory {
			free = max(p.Memory-p.memory, 0)
		}
		total += free
		refusal.Have = max(refusal.Have, free)
	}
	if total >= refusal.Want && refusal.Have < refusal.Want {
		refusal.Code = grid.RefusedFragment
	}
	return refusal
}
