package master

import (
	"fmt"

	"mlfnode/grid"
	"mlfnode/node/history"
)

// strikeLimit is how many attempts in a row must fail at their start on a node before it is quarantined.
const strikeLimit = 3

// health tells broken nodes from broken programs. A node is to blame when attempts fail at their start there, one after the
// other, while those of the same sweep run on another node. A program that can't be started anywhere is not the node's fault.
type health struct {
	strikes map[grid.NodeID]strikes
	able    map[grid.SweepID]map[grid.NodeID]bool // where attempts of a sweep have run
}

// strikes are failures in a row.
type strikes struct {
	sweep  grid.SweepID
	count  int
	reason string
}

func newHealth() *health {
	return &health{strikes: map[grid.NodeID]strikes{}, able: map[grid.SweepID]map[grid.NodeID]bool{}}
}

// note follows one change of a trial.
func (h *health) note(t *history.Transition) {
	if t.Node == "" || t.Change == grid.Reopen {
		return
	}
	failed := t.Change != grid.Began && (t.Class == grid.ClassStart || t.Class == grid.ClassSetup)
	switch {
	case failed:
		s := h.strikes[t.Node]
		if s.sweep != t.Sweep {
			s = strikes{sweep: t.Sweep}
		}
		s.count++
		s.reason = string(t.Class)
		h.strikes[t.Node] = s
	case t.Change == grid.Began || t.Class == grid.ClassNone || t.Class == grid.ClassExit:
		delete(h.strikes, t.Node)
		if h.able[t.Sweep] == nil {
			h.able[t.Sweep] = map[grid.NodeID]bool{}
		}
		h.able[t.Sweep][t.Node] = true
	}
}

// broken gives the nodes to quarantine, each with the reason, and begins to count anew for them.
func (h *health) broken() map[grid.NodeID]string {
	found := map[grid.NodeID]string{}
	for node, s := range h.strikes {
		if s.count < strikeLimit {
			continue
		}
		for other := range h.able[s.sweep] {
			if other != node {
				found[node] = fmt.Sprintf("%d trials of %s in a row failed at their %s here, and ran on %s", s.count, s.sweep, s.reason, other)
			}
		}
	}
	for node := range found {
		delete(h.strikes, node)
	}
	return found
}

// forget drops what is known of a sweep that has ended.
func (h *health) forget(id grid.SweepID) { delete(h.able, id) }
