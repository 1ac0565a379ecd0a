package cluster

import (
	"net"
	"slices"
	"strconv"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
)

// State is the state of a member as this node sees it.
//
//	        can't be reached        nobody heard of it in time
//	alive ───────────────► suspect ───────────────► dead
//	  ▲ ◄─────────────────────┘                       │
//	  │         it answered                           │
//	  ├────────────────── joins again ────────────────┤
//	  └──────── left ◄── goodbye (from any state)     │
//	              ▲───────────────────────────────────┘
//
// A suspect member still counts as there; most of them answer.
type State string

// The states of a member.
const (
	Alive   State = "alive"
	Suspect State = "suspect"
	Dead    State = "dead"
	Left    State = "left"
)

// Self is the state that a node publishes.
type Self struct {
	Version  string // of mlfnode
	Protocol int    // version of the wire formats that it speaks
	Roles    []grid.NodeRole
	APIPort  int // 0 when it has none
	NATSPort int
	CPUs     float64 // what trials may use
	Memory   int64   // bytes
	GPUs     int
	Slots    int
	Running  int     // attempts
	Load     float64 // load average of the last minute

	Drained     bool   // it takes no new trials because someone said so
	Quarantined bool   // it takes none because they fail here
	Reason      string // why it is drained or quarantined

	Inventory *inventory.Machine // all hardware, may be nil; not to be changed any more
	Labels    []string           // by which tasks name it
}

// Member is a node as this node knows it.
type Member struct {
	Self
	Node    grid.NodeID
	Address string // IP address of its gossip
	Port    int    // of its gossip
	State   State
	Since   time.Time // when this node saw it enter the state, or its agent restart
	Started time.Time // when its agent started, by its own clock; it tells two lives of an agent apart
}

// Has reports whether the member has a role.
func (s Self) Has(role grid.NodeRole) bool {
	return slices.Contains(s.Roles, role)
}

// There reports whether the member takes part: it is alive, or only suspect.
func (m Member) There() bool { return m.State == Alive || m.State == Suspect }

// gossip returns the address of its gossip port.
func (m Member) gossip() string { return net.JoinHostPort(m.Address, strconv.Itoa(m.Port)) }
