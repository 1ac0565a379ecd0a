// Package doctor examines whether a host is fit to be a node of a cluster: each finding names what is wrong, what causes it
// and what cures it.
//
// What can be seen on the host itself or from the outside of the master is looked at directly, with real sockets and files.
// What only other parts of mlfnode know, as the limits that are enforced or what the master says, is passed in as data or as
// a func, so that this package knows none of them.
package doctor

import (
	"context"
	"net"
	"strconv"
	"time"

	"mlfnode/grid"
)

// State says how bad a finding is.
type State string

// The states of findings. With OK nothing is wrong; Warn costs speed or safety; Bad keeps the node from working.
const (
	OK   State = "ok"
	Warn State = "warn"
	Bad  State = "bad"
)

// Finding is one thing that was looked at.
type Finding struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Cause string `json:"cause"`          // what was found
	Cure  string `json:"cure,omitempty"` // what to do about it; empty with OK
}

// Ports are those of a cluster.
type Ports struct{ API, NATS, Gossip int }

// DefaultPorts are the ports without settings.
func DefaultPorts() Ports { return Ports{API: 7420, NATS: 7421, Gossip: 7422} }

// Answer is what the master says about itself.
type Answer struct {
	Time    time.Time // by its clock, when it answered
	Version string    // "" if it does not tell
}

// Service says how the node is kept running on this host.
type Service struct {
	Systemd   bool // the host is run by systemd
	Installed bool
	Active    bool
	User      bool // it is a service of a user
	Linger    bool // which runs without a login
}

// Host is what is examined. Zero fields are left out of the examination, or stand for the default.
type Host struct {
	StateDir  string
	Node      grid.NodeID
	Version   string
	Ports     Ports
	Bind      string // the address that the node listens on; empty is every one
	Advertise string // the address that other nodes are told; empty is found out
	Master    bool   // this host is to be the master
	Running   bool   // our own agent runs, so that it holds its ports

	Seed   string // the master's host name or address; empty where there is none yet
	Limits string // what limits of resources are enforced, as "memory"; empty for none
	GPUs   GPUs

	Containers Containers
	Service    *Service

	Ask   func(context.Context) (Answer, error)                 // asks the master; nil asks for the date only
	Back  func(ctx context.Context, network, port string) error // has the master try our port over tcp or udp; nil leaves it out
	Roots Trust                                                 // what the master's certificate must chain to
}

// checkTime bounds each look that waits for something.
const checkTime = 3 * time.Second

// Check examines the host. It blocks for some seconds at most where the network is silent.
func Check(ctx context.Context, h Host) []Finding {
	if h.Ports == (Ports{}) {
		h.Ports = DefaultPorts()
	}
	found := h.ports()
	found = append(found, h.permissions()...)
	found = append(found, h.disk()...)
	found = append(found, h.memory(), h.files(), h.limits())
	found = append(found, h.gpus("/")...)
	found = append(found, h.containers()...)
	if h.Service != nil {
		found = append(found, judgeService(*h.Service))
	}
	found = append(found, h.ownName(ctx))
	if h.Seed == "" || h.Master {
		return found
	}
	seed := h.seedName(ctx)
	if found = append(found, seed); seed.State == Bad {
		return found
	}
	found = append(found, h.reach(ctx)...)
	found = append(found, h.master(ctx)...)
	return append(found, h.back(ctx)...)
}

func fine(name, cause string) Finding { return Finding{Name: name, State: OK, Cause: cause} }

func warn(name, cause, cure string) Finding {
	return Finding{Name: name, State: Warn, Cause: cause, Cure: cure}
}

func bad(name, cause, cure string) Finding {
	return Finding{Name: name, State: Bad, Cause: cause, Cure: cure}
}

func (h Host) at(port int) string { return net.JoinHostPort(h.Seed, strconv.Itoa(port)) }
