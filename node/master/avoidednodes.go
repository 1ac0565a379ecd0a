package master

import (
	"slices"
	"time"

	"mlfnode/cluster"
	"mlfnode/cluster/inventory"
	"mlfnode/grid"
)

const (
	// maxAvoided bounds the nodes that a lease names.
	maxAvoided = 16
	// avoidFor is how long a trial avoids the place where it failed.
	avoidFor = time.Hour
)

// hasSpareGPU reports whether a node has more than one GPU, or one that is partitioned.
func hasSpareGPU(m *cluster.Member) bool {
	return m != nil && m.Inventory != nil && (len(m.Inventory.GPUs) > 1 || slices.ContainsFunc(m.Inventory.GPUs, func(g inventory.GPU) bool { return g.MIG }))
}

func findMember(members []cluster.Member, node grid.NodeID) *cluster.Member {
	for i := range members {
		if members[i].Node == node {
			return &members[i]
		}
	}
	return nil
}

// sameModel reports whether a node has only GPUs of models that another one has, too.
func sameModel(a, b *cluster.Member) bool {
	if b == nil || a.Inventory == nil || b.Inventory == nil || len(a.Inventory.GPUs) == 0 {
		return false
	}
	for _, g := range a.Inventory.GPUs {
		if !slices.ContainsFunc(b.Inventory.GPUs, func(h inventory.GPU) bool { return h.Name == g.Name }) {
			return false
		}
	}
	return true
}

// failedNodes returns the nodes that are to leave a trial of the lane to others; none when no other
// node could run it.
func (q *queueFeeder) failedNodes(shuns []failedPlace, lane *laneFeeds) []grid.NodeID {
	if len(shuns) == 0 || q.m.cfg.Nodes == nil {
		return nil
	}
	members := q.m.cfg.Nodes.Members()
	var all []grid.NodeID
	now := time.Now()
	for _, sh := range shuns {
		where := findMember(members, sh.node)
		if now.Sub(sh.at) > avoidFor || sh.scope == grid.ScopeDevice && hasSpareGPU(where) {
			continue // the worker itself avoids devices
		}
		for i := range members {
			same := sh.scope == grid.ScopeModel && sameModel(&members[i], where)
			if (members[i].Node == sh.node || same) && !slices.Contains(all, members[i].Node) && len(all) < maxAvoided {
				all = append(all, members[i].Node)
			}
		}
	}
	for i := range members {
		m := &members[i]
		if m.State == cluster.Alive && m.Has(cluster.Worker) && !m.Drained && !m.Quarantined && !slices.Contains(all, m.Node) && q.couldRun(m, lane, now) {
			return all
		}
	}
	return nil
}

// couldRun reports whether trials of the lane could run on a node that takes trials, were nothing
// else running there.
func (q *queueFeeder) couldRun(m *cluster.Member, lane *laneFeeds, now time.Time) bool {
	if q.m.cfg.Nodes.Fits != nil && !q.m.cfg.Nodes.Fits(m, lane.need) {
		return false
	}
	refusal, _ := q.m.nodes.refusal(m.Node, lane.name, now) // none of a node that has reported nothing yet
	return !refusal.Never() && refusal.Code != grid.RefusedEngine && refusal.Code != grid.RefusedWithheld
}

// avoidedNodes returns the nodes that are to leave a trial of the lane to others: all but the one
// that has what the trial saved last, if that node takes trials, else those on which the trial
// failed. elsewhere is true in the latter case: then other nodes could run it.
func (q *queueFeeder) avoidedNodes(f *feed, i int64, lane *laneFeeds) (nodes []grid.NodeID, elsewhere bool) {
	failed := q.failedNodes(f.failedOn[i], lane)
	owner := f.snapshotNodes[i]
	if owner == "" || q.m.cfg.Nodes == nil || slices.Contains(failed, owner) {
		return failed, len(failed) > 0
	}
	var others []grid.NodeID
	there := false
	for _, m := range q.m.cfg.Nodes.Members() {
		switch {
		case m.Node == owner:
			there = m.State == cluster.Alive && !m.Drained && !m.Quarantined
		case m.Has(cluster.Worker) && len(others) < maxAvoided:
			others = append(others, m.Node)
		}
	}
	if !there {
		return failed, len(failed) > 0
	}
	return others, false
}
