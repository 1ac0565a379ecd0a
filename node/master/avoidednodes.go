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

// takesLeases reports whether a node is up and runs trials.
func takesLeases(m *cluster.Member) bool {
	return m.State == cluster.Alive && m.Has(grid.Worker) && !m.Drained && !m.Quarantined
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
func (q *queueFeeder) failedNodes(places []failedPlace, lane *laneFeeds) []grid.NodeID {
	if len(places) == 0 || q.m.cfg.Nodes == nil {
		return nil
	}
	members := q.m.cfg.Nodes.Members()
	var all []grid.NodeID
	now := time.Now()
	for _, failed := range places {
		where := findMember(members, failed.node)
		spareGPU := where != nil && where.Inventory != nil && (len(where.Inventory.GPUs) > 1 ||
			slices.ContainsFunc(where.Inventory.GPUs, func(g inventory.GPU) bool { return g.MIG }))
		if now.Sub(failed.at) > avoidFor || failed.scope == grid.ScopeDevice && spareGPU {
			continue // the worker itself avoids devices
		}
		for i := range members {
			m := &members[i]
			there := m.Node == failed.node || failed.scope == grid.ScopeModel && sameModel(m, where)
			if there && !slices.Contains(all, m.Node) && len(all) < maxAvoided {
				all = append(all, m.Node)
			}
		}
	}
	for i := range members { // is there another one that could run it, were nothing else running there?
		m := &members[i]
		fits := q.m.cfg.Nodes.Fits == nil || q.m.cfg.Nodes.Fits(m, lane.need)
		if !takesLeases(m) || !fits || slices.Contains(all, m.Node) {
			continue
		}
		refusal, _ := q.m.nodes.refusal(m.Node, lane.name, now) // none of a node that has reported nothing yet
		if !refusal.Never() && refusal.Code != grid.RefusedEngine && refusal.Code != grid.RefusedWithheld {
			return all
		}
	}
	return nil
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
		case m.Has(grid.Worker) && len(others) < maxAvoided:
			others = append(others, m.Node)
		}
	}
	if !there {
		return failed, len(failed) > 0
	}
	return others, false
}
