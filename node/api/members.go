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
	Node        grid.NodeID `json:"node"`
	Index       int         `json:"index"`
	Instance    int         `json:"instance"` // -1 for a whole GPU, otherwise the position of a MIG instance on it
	UUID        string      `json:"uuid"`
	Parent      string      `json:"parent,omitempty"` // UUID of the GPU that a MIG instance is on
	Name        string      `json:"name"`
	Profile     string      `json:"profile,omitempty"` // profile of a MIG instance, such as 1g.10gb
	MIG         bool        `json:"mig,omitempty"`     // the GPU is divided into MIG instances
	Capability  string      `json:"capability,omitempty"`
	Group       int         `json:"group"` // GPUs of one group are connected directly, by NVLink or a single PCIe bridge
	NUMA        int         `json:"numa"`
	Mode        string      `json:"mode,omitempty"` // exclusive or prohibited
	Memory      int64       `json:"memory_bytes"`
	Used        int64       `json:"memory_used_bytes"`
	Utilization int         `json:"utilization_percent"`
	Temperature int         `json:"temperature_celsius"`
	Power       int         `json:"power_watts"`
	Processes   int         `json:"processes"`
	State       string      `json:"state,omitempty"` // ready, foreign, dirty, sick, gone or unused
	Why         string      `json:"why,omitempty"`   // the reason for the state
	Since       time.Time   `json:"since,omitzero"`
	Trials      []string    `json:"trials,omitempty"` // some of the trials that are running on it
	Problem     string      `json:"problem,omitempty"`
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

// NewToken requests a token.
type NewToken struct {
	Role    string        `json:"role"`
	Expires time.Duration `json:"expires"` // lifetime; 0 means that it never expires
	Uses    int           `json:"uses"`    // number of machines that may join with it; 0 means no limit
	User    string        `json:"user"`    // role of the access token that the joining person receives
	Note    string        `json:"note"`
}

// CA is the progress of a rotation of the cluster's CA.
type CA struct {
	Stage string `json:"stage"`           // settled, announced or switched
	Pin   string `json:"pin"`             // SHA-256 of the CA that issues certificates
	Other string `json:"other,omitempty"` // SHA-256 of the other CA: the new one while it is announced, the old one after the switch

	Behind []grid.NodeID `json:"behind"` // reachable nodes that have not followed the last step
	Away   []grid.NodeID `json:"away"`   // unreachable nodes that have not followed the last step
}

// CAStep requests the next step of a rotation of the CA.
type CAStep struct {
	Step string `json:"step"` // rotate, switch or retire
	Now  bool   `json:"now"`  // do not wait for nodes that have not followed the previous step: they need a token to join again
}

// TokenMade is a new token, with everything else that is needed to use it.
type TokenMade struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Role    string    `json:"role"`
	Expires time.Time `json:"expires,omitzero"`
	Master  string    `json:"master"` // HOST:PORT of the API
}

// TokenKnown is a token in a list, without its secret.
type TokenKnown struct {
	ID      string    `json:"id"`
	Role    string    `json:"role"`
	State   string    `json:"state"` // good, expired, revoked or used up
	Note    string    `json:"note,omitempty"`
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires,omitzero"`
	Used    int       `json:"used"`
	Uses    int       `json:"uses,omitempty"`
}

// Members lists the nodes by name.
func (c *Client) Members(ctx context.Context) ([]Member, error) {
	return get[[]Member](ctx, c, PathMembers, nil)
}

// Drain lets the running trials of a node finish and assigns it no new ones.
func (c *Client) Drain(ctx context.Context, node grid.NodeID, reason string) error {
	return c.member(ctx, node, "drain", Drain{Reason: reason})
}

// Undrain lets a node take trials again, even after it was quarantined, and puts its GPUs back into
// service.
func (c *Client) Undrain(ctx context.Context, node grid.NodeID) error {
	return c.member(ctx, node, "undrain", nil)
}

// Forget invalidates a node's certificate and frees its name.
func (c *Client) Forget(ctx context.Context, node grid.NodeID) error {
	return c.member(ctx, node, "forget", nil)
}

func (c *Client) member(ctx context.Context, node grid.NodeID, action string, body any) error {
	path := strings.Replace(PathMemberAction, "{node}", url.PathEscape(string(node)), 1)
	_, err := post[struct{}](ctx, c, strings.Replace(path, "{action}", action, 1), body)
	return err
}

// MakeToken makes a token.
func (c *Client) MakeToken(ctx context.Context, t NewToken) (TokenMade, error) {
	return post[TokenMade](ctx, c, PathTokens, t)
}

// Tokens lists the tokens, the newest first.
func (c *Client) Tokens(ctx context.Context) ([]TokenKnown, error) {
	return get[[]TokenKnown](ctx, c, PathTokens, nil)
}

// RevokeToken revokes a token and everything that was issued through it.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	resp, err := c.do(ctx, http.MethodDelete, strings.Replace(PathToken, "{id}", url.PathEscape(id), 1), nil, nil)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// RotateKeyring gives the cluster a new gossip key.
func (c *Client) RotateKeyring(ctx context.Context) error {
	_, err := post[struct{}](ctx, c, PathKeyring, nil)
	return err
}

// CA returns the progress of a rotation of the cluster's CA.
func (c *Client) CA(ctx context.Context) (CA, error) { return get[CA](ctx, c, PathCA, nil) }

// StepCA takes the next step of a rotation of the CA, and waits a few seconds for the nodes to
// follow.
func (c *Client) StepCA(ctx context.Context, s CAStep) (CA, error) {
	return post[CA](ctx, c, PathCA, s)
}

// StatusSameHost is the status of a Reach request over loopback, which the master does not try.
const StatusSameHost = http.StatusConflict

// Reach asks the master to connect to this machine. The error states why it could not; over UDP
// there is no such error: the word either arrives or does not.
func (c *Client) Reach(ctx context.Context, r Reach) error {
	_, err := post[struct{}](ctx, c, PathReach, r)
	return err
}

// Post sends a request for which this package has no method; the answer is decoded into a T.
func Post[T any](ctx context.Context, c *Client, path string, body any) (T, error) {
	return post[T](ctx, c, path, body)
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
