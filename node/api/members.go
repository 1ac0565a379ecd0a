package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mlfnode/grid"
)

// Member is one node as gossip sees it, as `members --json` prints it.
type Member struct {
	Node        grid.NodeID `json:"node"`
	State       string      `json:"state"` // alive, suspect, dead or left
	Since       time.Time   `json:"since"`
	Address     string      `json:"address"` // address of its gossip port
	Version     string      `json:"version"`
	Roles       []string    `json:"roles"`
	Local       bool        `json:"local"` // the node that answers
	CPUs        float64     `json:"cpus"`
	Memory      int64       `json:"memory_bytes"`
	GPUs        int         `json:"gpus"`
	Load        float64     `json:"load"` // over one minute
	Running     int         `json:"running"`
	Drained     bool        `json:"drained"`
	Quarantined bool        `json:"quarantined"`
	Reason      string      `json:"reason"` // why it is drained
	Labels      []string    `json:"labels,omitempty"`
	Devices     []GPU       `json:"devices"`
	Groups      []GPUGroup  `json:"gpu_groups,omitempty"` // complete even if devices are left out
	MoreDevices bool        `json:"more_devices,omitempty"`
	Driver      string      `json:"driver,omitempty"`
	CUDA        string      `json:"cuda,omitempty"`
	Problem     string      `json:"problem,omitempty"` // why its GPUs can't be used
}

// GPUGroup is the number of a member's devices of one kind. A profile means that they are MIG
// instances.
type GPUGroup struct {
	Model      string `json:"model"`
	Memory     int64  `json:"memory_bytes"`
	Capability string `json:"capability,omitempty"`
	Profile    string `json:"profile,omitempty"`
	Total      int    `json:"total"`
	Ready      int    `json:"ready"` // how many of these are available to trials
}

// GPU is one device of a member, a GPU or a MIG instance, as `gpus --json` prints it. A figure that
// the driver does not report is -1.
type GPU struct {
	Node       grid.NodeID `json:"node"`
	Index      int         `json:"index"`
	Instance   int         `json:"instance"` // -1 for a whole GPU, otherwise the position of a MIG instance on it
	UUID       string      `json:"uuid"`
	Parent     string      `json:"parent,omitempty"` // UUID of the GPU that a MIG instance is on
	Name       string      `json:"name"`
	Profile    string      `json:"profile,omitempty"` // profile of a MIG instance, such as 1g.10gb
	MIG        bool        `json:"mig,omitempty"`     // the GPU is divided into MIG instances
	Capability string      `json:"capability,omitempty"`
	// GPUs of one group are connected directly, by NVLink or a single PCIe bridge
	Group       int       `json:"group"`
	NUMA        int       `json:"numa"`
	Mode        string    `json:"mode,omitempty"` // exclusive or prohibited
	Memory      int64     `json:"memory_bytes"`
	Used        int64     `json:"memory_used_bytes"`
	Utilization int       `json:"utilization_percent"`
	Temperature int       `json:"temperature_celsius"`
	Power       int       `json:"power_watts"`
	Processes   int       `json:"processes"`
	State       string    `json:"state,omitempty"` // ready, foreign, dirty, sick, gone or unused
	Why         string    `json:"why,omitempty"`   // the reason for the state
	Since       time.Time `json:"since,omitzero"`
	Trials      []string  `json:"trials,omitempty"` // some of the trials that are running on it
	Problem     string    `json:"problem,omitempty"`
}

// Drain keeps new trials off a node.
type Drain struct {
	Reason string `json:"reason"`
}

// Reach requests that the master try a port of the client's machine. Over UDP the master sends the
// word several times.
type Reach struct {
	Network string `json:"network"` // tcp or udp
	Port    int    `json:"port"`
	Word    string `json:"word,omitempty"`
}

// WattsOfByte is the number of watts in one step of GPUSamples.Power.
const WattsOfByte = 8

// SampleSteps are the intervals of the samples that are kept: for the last hour, for a day, and for
// 14 days.
var SampleSteps = [...]time.Duration{15 * time.Second, time.Minute, 15 * time.Minute}

// NodeSamples is the recent load of a node's machine. Each byte of a figure is a sample, the newest
// last: a percentage of at most 254, or 255 if there is no sample. In JSON they are base64.
type NodeSamples struct {
	Node   grid.NodeID  `json:"node"`
	Step   float64      `json:"step_seconds"` // interval between samples
	Until  time.Time    `json:"until"`        // end of the interval of the newest sample
	Load   []byte       `json:"load"`         // load average over one minute, relative to the number of processors
	CPU    []byte       `json:"cpu"`
	Memory []byte       `json:"memory"`
	Disk   []byte       `json:"disk"` // the disk of the state folder
	GPUs   []GPUSamples `json:"gpus"`
}

// GPUSamples is the recent load of one GPU.
type GPUSamples struct {
	UUID        string `json:"uuid"`
	Utilization []byte `json:"utilization"` // percentage of time in which it was computing
	Memory      []byte `json:"memory"`      // percent
	Temperature []byte `json:"temperature"` // degrees Celsius
	Power       []byte `json:"power"`       // in steps of 8 watts
}

// Members reads the nodes of the cluster and acts on them.
type Members struct{ client *Client }

// Members returns the calls about nodes.
func (c *Client) Members() Members { return Members{c} }

// List lists the nodes by name.
func (m Members) List(ctx context.Context) ([]Member, error) {
	return get[[]Member](ctx, m.client, PathMembers, nil)
}

// Drain lets the running trials of a node finish and assigns it no new ones.
func (m Members) Drain(ctx context.Context, node grid.NodeID, reason string) error {
	return m.act(ctx, node, "drain", Drain{Reason: reason})
}

// Undrain lets a node take trials again, even after it was quarantined, and puts its GPUs back into
// service.
func (m Members) Undrain(ctx context.Context, node grid.NodeID) error {
	return m.act(ctx, node, "undrain", nil)
}

// Forget invalidates a node's certificate and frees its name.
func (m Members) Forget(ctx context.Context, node grid.NodeID) error {
	return m.act(ctx, node, "forget", nil)
}

func (m Members) act(ctx context.Context, node grid.NodeID, action string, body any) error {
	path := strings.Replace(PathMemberAction, "{node}", url.PathEscape(string(node)), 1)
	_, err := post[struct{}](ctx, m.client, strings.Replace(path, "{action}", action, 1), body)
	return err
}

// StatusSameHost is the status of a Reach request over loopback, which the master does not try.
const StatusSameHost = http.StatusConflict

// Reach asks the master to connect to this machine. The error states why it could not; over UDP
// there is no such error: the word either arrives or does not.
func (m Members) Reach(ctx context.Context, r Reach) error {
	_, err := post[struct{}](ctx, m.client, PathReach, r)
	return err
}
