package node

import (
	"cmp"
	"fmt"
	"strings"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/node/worker"
	"mlfnode/node/worker/allocator"
)

// capacity is what the nodes of a cluster can run, as the master sees them.
type capacity struct{ gossip *cluster.Cluster }

// slots returns how many attempts with these resources the nodes that take trials can run at a
// time.
func (c capacity) slots(r grid.Resources) int {
	total := 0
	for _, m := range c.gossip.Members() {
		if m.There() && m.Has(grid.Worker) && !m.Drained && !m.Quarantined {
			total += slotsOf(&m, r)
		}
	}
	return total
}

// problem returns why no node takes trials although there are nodes, "" if one does.
func (c capacity) problem() string {
	var all []string
	for _, m := range c.gossip.Members() {
		if !m.There() || !m.Has(grid.Worker) {
			continue
		}
		if m.Reason == "" && !m.Drained && !m.Quarantined {
			return ""
		}
		all = append(all, fmt.Sprintf("%s: %s", m.Node, cmp.Or(m.Reason, "drained")))
	}
	return strings.Join(all, "; ")
}

// neverFits returns why none of the known nodes, up or not, could ever run an attempt with these
// resources: what the nearest one lacks. As long as no node is known, as in the first moments of a
// master that runs no trials, nothing is too large.
func (c capacity) neverFits(r grid.Resources) string {
	var best grid.Refusal
	name := grid.NodeID("")
	for _, m := range c.gossip.Members() {
		if !m.Has(grid.Worker) {
			continue
		}
		has := capacityOf(&m, r)
		refusal := has.NeverFits(r)
		if !r.Nodes.Has(m.Node, m.Labels) {
			refusal = grid.Refusal{Code: grid.RefusedNodes, What: string(r.Nodes)}
		}
		if refusal.Code == "" {
			return ""
		}
		if name == "" || refusal.IsNearer(&best) {
			best, name = refusal, m.Node
		}
	}
	if name == "" {
		return ""
	}
	return string(name) + " " + best.String()
}

// capacityOf returns what a node has for trials with these resources.
func capacityOf(m *cluster.Member, r grid.Resources) allocator.Node {
	if !r.NeedsGPU() {
		return allocator.Node{CPUs: grid.MilliOf(m.CPUs), Memory: m.Memory}
	}
	return worker.NodeOf(m.CPUs, m.Memory, m.Inventory)
}

// slotsOf returns how many attempts with these resources a node can run at a time.
func slotsOf(m *cluster.Member, r grid.Resources) int {
	if !r.Nodes.Has(m.Node, m.Labels) {
		return 0
	}
	has := capacityOf(m, r)
	return has.Slots(r)
}
