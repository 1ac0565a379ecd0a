package master

import (
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/packing"
	"mlfnode/jetstream"
)

// gpuSharing decides how trials of one sweep with gpu_memory: auto share GPUs. Leases for trials
// that share one are in lanes of their own, one for each size; others are in the sweep's own lane,
// which gives a whole device.
type gpuSharing struct {
	estimates packing.Estimates
	parts     []grid.Resources // what trials get, by estimate; the zero value where they get a whole device
	changed   bool             // since the record was written
}

// maxPartSizes bounds the sizes of parts of GPUs for one sweep. It leaves some of the sweep's lanes
// to retries and to earlier sizes.
const maxPartSizes = jetstream.MaxLanes - 3

// maxScanned bounds how many trials are checked to find one that belongs in a lane.
const maxScanned = 1000

func newGPUSharing(estimates packing.Estimates, task *grid.Task) *gpuSharing {
	g := &gpuSharing{estimates: slices.Clone(estimates)}
	g.computeParts(task)
	return g
}

// computeParts computes what trials get by the estimates. It rounds up until there are few sizes.
func (g *gpuSharing) computeParts(task *grid.Task) {
	for step := int64(packing.Step); ; step *= 2 {
		sizes := map[grid.Resources]bool{}
		g.parts = make([]grid.Resources, len(g.estimates))
		for i := range g.estimates {
			e := &g.estimates[i]
			n, memory, share := e.Fit(step)
			if n <= 1 || e.Learning(trialsNeeded(task)) {
				continue
			}
			need := task.Resources
			need.GPUs, need.GPUMemory, need.GPUModel = share, memory, e.Model
			if need.Check() == nil {
				g.parts[i], sizes[need] = need, true
			}
		}
		if len(sizes) <= maxPartSizes {
			return
		}
	}
}

// trialsNeeded returns how many trials of one kind must have run alone.
func trialsNeeded(task *grid.Task) int {
	if task.MeasureBy != "" {
		return packing.TrialsByValue
	}
	return packing.Trials
}

// observe updates the estimates by what an attempt has used of its GPU.
func (g *gpuSharing) observe(task *grid.Task, value string, r *grid.Result) {
	use := &r.Usage.GPU[0]
	if use.Model == "" || grid.CheckLabel("model", use.Model) != nil {
		return
	}
	e := g.estimates.For(use.Model, value, use.Total)
	if e == nil {
		return
	}
	before := *e
	e.Learn(packing.Attempt{
		Share: use.Share, Peak: use.Peak, Busy: use.Busy, Wall: time.Duration(r.Usage.Wall) * time.Microsecond,
		Succeeded: r.Class == grid.ClassNone, OutOfMemory: r.Class == grid.ClassCUDAShared,
		Asked: packing.Asked(r.Reason),
	}, trialsNeeded(task))
	if e.Differs(&before) {
		g.changed = true
		g.computeParts(task)
	}
}

// estimatesFor returns the estimates that apply to a value, one for each model of GPU.
func (g *gpuSharing) estimatesFor(value string) []*packing.Estimate {
	var all []*packing.Estimate
	for i := range g.estimates {
		if e := g.estimates.Find(g.estimates[i].Model, value); e != nil && !slices.Contains(all, e) {
			all = append(all, e)
		}
	}
	return all
}

// partFor returns what trials with a value get on GPUs of a model; ok is false when they get a
// whole one.
func (g *gpuSharing) partFor(model, value string) (need grid.Resources, ok bool) {
	for i := range g.estimates {
		if g.parts[i].GPUs > 0 && &g.estimates[i] == g.estimates.Find(model, value) {
			return g.parts[i], true
		}
	}
	return grid.Resources{}, false
}

// wholeDeviceLimit returns how many trials with a value may be in the lane of whole devices at one
// time, counted over the GPU models on which they do not share a device. While a model is being
// measured it is one for each device, so that the trials after them are not leased whole, too.
func (g *gpuSharing) wholeDeviceLimit(
	task *grid.Task, value string, slots func(grid.Resources) int,
) (n int, learning bool) {
	base := task.Resources.Initial()
	unknown := slots(base) // on models of which nothing is known
	var models []string
	for i := range g.estimates {
		model := g.estimates[i].Model
		if slices.Contains(models, model) {
			continue
		}
		models = append(models, model)
		part := base
		part.GPUModel = model
		on := slots(part)
		unknown -= on
		if _, shared := g.partFor(model, value); !shared {
			n += on
			e := g.estimates.Find(model, value)
			learning = learning || e == nil || e.Learning(trialsNeeded(task))
		}
	}
	if unknown > 0 {
		n, learning = n+unknown, true
	}
	if !learning {
		n *= queueDepth
	}
	return n, learning
}

// nextSharedLease is nextLease for a sweep whose trials share GPUs as they are measured.
func (f *feed) nextSharedLease(need grid.Resources, now time.Time, slots int) (lease, bool) {
	if l, ok := f.nextRetry(f.sweep.Task.Resources, need, 1, now); ok {
		if ok, _ := f.belongsInLane(l.lo, need, f.leasesInLane); ok {
			return l, true
		}
	}
	alike := f.sweep.Task.MeasureBy == ""
	looked := 0
	for gap := range f.missing() {
		for i := gap.Lo; i < gap.Hi; i++ {
			ok, learning := f.belongsInLane(i, need, f.leasesInLane)
			if ok {
				size := int64(1)
				if alike && !learning {
					size = f.leaseSize(slots)
				}
				return lease{lo: i, hi: min(gap.Hi, i+size), attempt: 1, lane: f.laneFor(need), since: now}, true
			}
			if looked++; alike || looked == maxScanned {
				return lease{}, false
			}
		}
	}
	return lease{}, false
}
