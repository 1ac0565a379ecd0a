package master

import (
	"context"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/jetstream"
)

// Nodes connects the master to the cluster's nodes.
type Nodes struct {
	Scheduling

	// Members returns the view of gossip, this node included.
	Members func() []cluster.Member
	// Refused reports whether the node's machine answers while its agent does not.
	Refused func(ctx context.Context, node grid.NodeID) bool
	// Disconnections calls fn when the connection of a node has ended.
	Disconnections func(fn func(grid.NodeID)) (stop func())
	// Fits reports whether a node has room for trials with these resources, were nothing else
	// running there; nil allows all.
	Fits func(*cluster.Member, grid.Resources) bool
	// Keys identifies the gossip keyring in force.
	Keys func() uint64
	// CAs identifies the CAs that the cluster trusts; nil when that is not known.
	CAs func() uint64
	// Known reports whether a node belongs to the cluster, whether it is up or not; nil when that
	// is not known.
	Known func(grid.NodeID) bool
	// CrashLimit is how many nodes may die under a trial before it is set aside.
	CrashLimit int
	Outage     Outage
	// Self is the master's own node.
	Self grid.NodeID
	// LinkUp reports whether this machine's own link is up; nil when that is not known.
	LinkUp func() bool
}

// knows reports whether a node belongs to the cluster, as far as that is known.
func (n *Nodes) knows(node grid.NodeID) bool { return n.Known == nil || n.Known(node) }

// Scheduling reports and changes which nodes may take trials.
type Scheduling struct {
	// Drain reports whether a node may not take leases, whether that is because it is broken, and
	// why in words.
	Drain func(grid.NodeID) (drain, broken bool, reason string)
	// Quarantine drains a node that is broken.
	Quarantine func(node grid.NodeID, reason string)
	// Withhold keeps trials that need a part of a node from it for a while, and Withheld returns
	// these parts with the reasons.
	Withhold func(node grid.NodeID, part grid.Scope, reason string, until time.Time)
	Withheld func(grid.NodeID) map[grid.Scope]string
}

// refusesLane reports whether a node gets no leases of a lane: it is drained, or trials of the lane
// are withheld from it.
func (s *Scheduling) refusesLane(node grid.NodeID, lane grid.Lane) bool {
	drained, _, _ := s.Drain(node)
	return drained || s.Withheld(node)[grid.ScopeOfLane(lane)] != ""
}

// setDirectives adds to the directives of a node which trials it may take.
func (s *Scheduling) setDirectives(o *jetstream.Directives, node grid.NodeID) {
	o.Drain, o.Quarantine, o.Reason = s.Drain(node)
	o.Without = s.Withheld(node)
}
