package master

import (
	"slices"

	"mlfnode/grid"
)

// trialNeeds says which resources trials of a sweep get, and so in which lane they are leased.
type trialNeeds struct {
	sweep     *grid.Sweep
	sharing   *gpuSharing                  // how trials share GPUs, with gpu_memory: auto; else nil
	slots     func(grid.Resources) int     // how many attempts with these resources the cluster can run at a time
	fits      func(grid.Resources) bool    // whether a node could run a trial with these
	escalated map[int64]grid.Resources     // of trials whose next attempt gets other resources than the task asks for
	lanes     map[grid.Lane]grid.Resources // of the record, beside the sweep's own
}

// baseNeed returns the resources of trials in the sweep's own lane.
func (n *trialNeeds) baseNeed() grid.Resources { return n.sweep.Task.Resources.Initial() }

// needs returns the resources of trials that may be leased now.
func (n *trialNeeds) needs(retries *retryQueue) []grid.Resources {
	all := []grid.Resources{n.baseNeed()}
	add := func(need grid.Resources) {
		if need.CPUs > 0 && need != n.sweep.Task.Resources && !slices.Contains(all, need) {
			all = append(all, need)
		}
	}
	for need := range retries.byNeed {
		add(need)
	}
	if n.sharing != nil {
		for _, need := range n.sharing.parts {
			add(need)
		}
	}
	return all
}

// laneFor returns the lane of trials with these resources.
func (n *trialNeeds) laneFor(need grid.Resources) grid.Lane {
	return grid.LaneOf(n.sweep.Priority, need, n.sweep.Task.Image)
}

// escalate decides what the next attempt of a trial with these failures gets.
func (n *trialNeeds) escalate(i int64, failed map[grid.Class]int) {
	delete(n.escalated, i)
	if len(failed) == 0 {
		return
	}
	if need := n.sweep.Task.Escalated(failed, n.fits); need != n.sweep.Task.Resources {
		n.escalated[i] = need
	}
}

// measureValue returns the value of the axis by which a trial's need is measured.
func (n *trialNeeds) measureValue(i int64) string {
	key := n.sweep.Task.MeasureBy
	if key == "" {
		return ""
	}
	params, err := n.sweep.Space.At(i)
	if err != nil {
		return ""
	}
	for _, p := range params {
		if p.Key == key {
			return p.Value.Text
		}
	}
	return ""
}

// belongsInLane reports whether a new trial belongs in the lane of these resources now, with so
// many leases in each lane.
func (n *trialNeeds) belongsInLane(i int64, need grid.Resources, leased map[grid.Lane]int) (ok, learning bool) {
	value := n.measureValue(i)
	if need == n.baseNeed() {
		limit, learning := n.sharing.wholeDeviceLimit(&n.sweep.Task, value, n.slots)
		return leased[n.sweep.Lane()] < limit, learning
	}
	part, ok := n.sharing.partFor(need.GPUModel, value)
	return ok && part == need, false
}
