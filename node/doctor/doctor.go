// Package doctor checks whether a host is fit to be a node of a cluster. Each finding names what
// was found and what to do about it.
//
// The package checks the host itself and the master's ports directly, with real files and sockets.
// What only other parts of mlfnode know, such as the enforced limits or the master's answers, its
// callers pass in as data or as a func, so that it imports none of them.
package doctor

import (
	"context"
	"time"
)

// State is the severity of a finding.
type State string

// The states of findings. OK means that nothing is wrong, Warn costs speed or safety, and Bad keeps
// the node from working.
const (
	OK   State = "ok"
	Warn State = "warn"
	Bad  State = "bad"
)

// Finding is the result of one check.
type Finding struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Cause string `json:"cause"`          // what was found
	Cure  string `json:"cure,omitempty"` // what to do about it; empty with OK
}

// Ports are the ports of a cluster's nodes.
type Ports struct{ API, NATS, Gossip int }

// DefaultPorts returns the ports of a cluster without settings.
func DefaultPorts() Ports { return Ports{API: 7420, NATS: 7421, Gossip: 7422} }

// Service is the systemd service that keeps the node running.
type Service struct {
	Systemd   bool // systemd runs on the host
	Installed bool
	Active    bool
	User      bool // a user's service
	Linger    bool // the user's services run without a login
}

// Host describes the host to check. The checks that need a field which is zero are skipped, or use
// a default.
type Host struct {
	StateDir  string
	Version   string
	Ports     Ports
	Bind      string // the address that the node listens on; empty means all
	Advertise string // the address that other nodes use; empty means that it is detected
	Master    bool   // this host is the master
	Running   bool   // the node runs, so it has its ports

	Limits     string // the enforced resource limits, such as "memory"; empty for none
	GPUs       GPUs
	Containers Containers
	Service    *Service
	RemoteMaster
}

// checkTimeout bounds each check that waits for an answer.
const checkTimeout = 3 * time.Second

// Check runs all checks. It blocks for a few seconds at most if the network does not answer.
func Check(ctx context.Context, h Host) []Finding {
	if h.Ports == (Ports{}) {
		h.Ports = DefaultPorts()
	}
	found := h.checkPorts()
	found = append(found, checkStateFolder(h.StateDir)...)
	found = append(found, checkDisk(h.StateDir)...)
	found = append(found, checkMemory(), checkOpenFiles(h.Master), judgeLimits(h.Limits))
	found = append(found, checkGPUs(&h.GPUs, "/")...)
	found = append(found, checkContainers(&h.Containers, &h.GPUs)...)
	if h.Service != nil {
		found = append(found, judgeService(*h.Service))
	}
	found = append(found, checkOwnName(ctx, h.Advertise))
	if h.Seed == "" || h.Master {
		return found
	}
	seed := checkSeedName(ctx, h.Seed)
	if found = append(found, seed); seed.State == Bad {
		return found
	}
	found = append(found, h.checkMasterPorts(ctx)...)
	found = append(found, h.checkMaster(ctx)...)
	return append(found, h.checkDialBack(ctx, h.Ports.Gossip)...)
}

func fine(name, cause string) Finding { return Finding{Name: name, State: OK, Cause: cause} }

func warn(name, cause, cure string) Finding {
	return Finding{Name: name, State: Warn, Cause: cause, Cure: cure}
}

func bad(name, cause, cure string) Finding {
	return Finding{Name: name, State: Bad, Cause: cause, Cure: cure}
}
