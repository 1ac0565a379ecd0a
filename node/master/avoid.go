package master

import (
	"slices"

	"mlfnode/cluster"
	"mlfnode/cluster/inventory"
	"mlfnode/grid"
)

const (
	// shunned is how many of a trial's last attempts count for what the next one avoids.
	shunned = 2
	// avoidLimit bounds the nodes that a lease names.
	avoidLimit = 16
)

// shun is where an attempt failed in a class whose retries avoid that.
type shun struct {
	node  grid.NodeID
	scope grid.Scope
}

// shun notes that an attempt of trial i failed in this class on a node.
func (f *feed) shun(i int64, node grid.NodeID, class grid.Class) {
	scope := grid.FailureOf(class).Avoid
	if node == "" || scope != grid.ScopeNode && scope != grid.ScopeModel {
		return // the worker itself avoids devices
	}
	all := append(f.shuns[i], shun{node, scope})
	f.shuns[i] = all[max(0, len(all)-shunned):]
}

// avoid gives the nodes that are to leave a trial to others; none when no other node takes trials.
func (s *state) avoid(shuns []shun) []grid.NodeID {
	if len(shuns) == 0 || s.m.cfg.Nodes == nil {
		return nil
	}
	members := s.m.cfg.Nodes.Members()
	var all []grid.NodeID
	for _, sh := range shuns {
		for i := range members {
			same := sh.scope == grid.ScopeModel && sameModel(&members[i], find(members, sh.node))
			if (members[i].Node == sh.node || same) && !slices.Contains(all, members[i].Node) && len(all) < avoidLimit {
				all = append(all, members[i].Node)
			}
		}
	}
	for i := range members {
		m := &members[i]
		if m.State == cluster.Alive && m.Has(cluster.Worker) && !m.Drained && !m.Quarantined && !slices.Contains(all, m.Node) {
			return all
		}
	}
	return nil
}

func find(members []cluster.Member, node grid.NodeID) *cluster.Member {
	for i := range members {
		if members[i].Node == node {
			return &members[i]
		}
	}
	return nil
}

// sameModel reports whether a node has GPUs of no other model than those of another one.
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
