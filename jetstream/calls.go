package jetstream

import (
	"errors"
	"slices"
	"time"

	"mlfnode/grid"
)

// Calls answers the calls of nodes to the master, which alone uses the store. A node of this
// process calls through LocalClient, the others over their connections; both reach the same
// functions. A call is not stored: a node that gets no answer calls again.
type Calls struct {
	store   *Store
	metrics observers[*grid.Batch]

	onHeartbeat installed[func(grid.NodeID, *Heartbeat) Directives]
	refuses     installed[func(grid.NodeID, grid.Lane) bool]
	onKeyring   installed[func(grid.NodeID) [][]byte]
}

// The verbs of calls.
const (
	callHeartbeat = "beat"
	callKeyring   = "keyring"
	callSweeps    = "sweeps"   // records that have changed
	callSweep     = "sweep"    // one record
	callTake      = "take"     // leases
	callReturn    = "return"   // a lease that is done with
	callPostpone  = "postpone" // a lease
	callEvents    = "events"
	callOutput    = "output"
	callMetrics   = "metrics" // of running attempts; has no answer
)

// hintToken is the token, below a node's inbox, under which the master sends hints.
const hintToken = "hints"

// HeartbeatInterval is how often a node sends a heartbeat to the master; HeartbeatTimeout is how
// long a node may be silent.
const (
	HeartbeatInterval = 500 * time.Millisecond
	HeartbeatTimeout  = 2 * time.Second
)

// Heartbeat is the state that a node reports again and again. It never asks for a change, so a lost
// one does no harm.
type Heartbeat struct {
	V          int         `json:"v"`
	Start      string      `json:"start"` // identifies the agent's process: a new value each time it starts
	Leases     []HeldLease `json:"held,omitempty"`
	Running    int         `json:"running"`
	Keys       uint64      `json:"keys,omitempty"`       // identifies the node's gossip keyring
	Draining   bool        `json:"draining,omitempty"`   // the node takes no more leases
	Restarting bool        `json:"restarting,omitempty"` // the agent stops and will be back; its attempts continue
	Leaving    bool        `json:"leaving,omitempty"`    // the agent stops and returns its leases

	// Refusals are the reasons why trials of a lane get nothing on this node at the moment, for at
	// most MaxRefusals lanes.
	Refusals map[grid.Lane]grid.Refusal `json:"waits,omitempty"`

	// Sample is what the machine is doing, once in a SampleInterval. Older masters ignore it.
	Sample *Sample `json:"sample,omitempty"`

	// Mark is that of the latest directives. A heartbeat may arrive long after it was sent if the
	// connection was interrupted: its mark tells how old its content may be.
	Mark uint64 `json:"mark,omitempty"`

	// Outlive is how long the node's programs run on without an agent; 0 if the node does not say.
	Outlive time.Duration `json:"outlive,omitempty"`
}

// SampleInterval is how often a node reports a Sample, and MaxSampledGPUs bounds the GPUs in it.
const (
	SampleInterval = 15 * time.Second
	MaxSampledGPUs = 64
)

// Sample is what a machine is doing, in percent. An unknown figure is -1.
type Sample struct {
	Load   int         `json:"l"` // load average over one minute
	CPU    int         `json:"c"`
	Memory int         `json:"m"`
	Disk   int         `json:"d"` // the one that holds the node's state
	GPUs   []GPUSample `json:"g,omitempty"`
}

// GPUSample is what one GPU is doing.
type GPUSample struct {
	UUID        string `json:"u"`
	Busy        int    `json:"b"` // percent of the time
	Memory      int    `json:"m"` // percent
	Temperature int    `json:"t"` // degrees Celsius
	Power       int    `json:"p"` // watts
}

// MaxRefusals bounds the refusals of a heartbeat.
const MaxRefusals = 32

// HeldLease is a lease that a node holds. If two nodes claim one, the later delivery holds it.
type HeldLease struct {
	Seq        uint64       `json:"s"`
	Deliveries int          `json:"d"`
	ID         grid.LeaseID `json:"i,omitempty"`

	// What the lease is for, and what runs under it, for a master that has reclaimed or lost it.
	Sweep    grid.SweepID     `json:"w,omitempty"`
	Attempts []RunningAttempt `json:"r,omitempty"`

	// Hi is where the range would end if the node returned the trials behind it, of which none has
	// begun; 0 if there are none.
	Hi int64 `json:"h,omitempty"`
}

// RunningAttempt is an attempt that runs under a lease.
type RunningAttempt struct {
	Index   int64         `json:"x"`
	Attempt int           `json:"a"`
	Run     string        `json:"r"`
	Started int64         `json:"t"` // microseconds since 1970, by the node's clock
	Age     time.Duration `json:"g"` // how long it has run
}

// Directives are the master's answer to a Heartbeat. They state what applies now, whatever earlier
// ones said.
type Directives struct {
	V int `json:"v"`
	// Stop lists leases that the node no longer holds: it is to stop what runs under them.
	Stop []grid.LeaseID `json:"stop,omitempty"`
	// Mark is for the next heartbeats. The master sends a new one each time a node has been silent
	// for a while.
	Mark uint64 `json:"mark,omitempty"`

	// Finish lists leases whose running attempts may continue, while no further trial may begin.
	Finish []grid.LeaseID `json:"finish,omitempty"`

	Drain      bool   `json:"drain,omitempty"`      // take no more leases
	Quarantine bool   `json:"quarantine,omitempty"` // with Drain: because trials fail on the node
	Reason     string `json:"reason,omitempty"`     // for people
	// Without lists parts of the node (its GPUs, its container engine) for which it must take no
	// leases, with the reasons.
	Without map[grid.Scope]string `json:"without,omitempty"`
	// Keys identifies the gossip keyring in force. A node with another one requests it.
	Keys uint64 `json:"keys,omitempty"`
	// CAs identifies the trusted CAs. A node with others renews its certificate.
	CAs uint64 `json:"cas,omitempty"`

	// Curves selects the trials whose curves the node reports. Older nodes report all.
	Curves grid.CurveShare `json:"curves,omitempty"`

	// Pace is the minimum time between two reports of the node. A value below the node's own
	// interval has no effect.
	Pace time.Duration `json:"pace,omitempty"`
}

// wireVersion is the version of heartbeats and directives. Nodes before version 2 used the store
// themselves; they can't connect.
const wireVersion = 2

// HandleHeartbeats answers heartbeats with fn, until stop is called. fn must be quick.
func (c *Calls) HandleHeartbeats(fn func(grid.NodeID, *Heartbeat) Directives) (stop func()) {
	return c.onHeartbeat.set(fn)
}

// RefuseLeases grants a node no leases of a lane while refuses returns true for them, until stop is
// called. A node stops asking for leases only after the answer to its next heartbeat; until then it
// would take leases that it must not have. refuses must be quick.
func (c *Calls) RefuseLeases(refuses func(grid.NodeID, grid.Lane) bool) (stop func()) {
	return c.refuses.set(refuses)
}

// HandleKeyring answers requests for the gossip keys with fn, until stop is called.
func (c *Calls) HandleKeyring(fn func(grid.NodeID) [][]byte) (stop func()) {
	return c.onKeyring.set(fn)
}

// HandleMetrics calls fn with the metrics of running attempts that nodes send, until stop is
// called. fn must be quick.
//
// Metrics are a state, not an event: only the newest count, and the result holds the last ones. So
// they are not stored in a stream, however long an attempt runs. A node sends them again from time
// to time, which makes up for a lost message.
func (c *Calls) HandleMetrics(fn func(*grid.Batch)) (stop func()) { return c.metrics.add(fn) }

// errStarting is the answer of a master that is not ready yet.
var errStarting = errors.New("the master is starting")

// acceptMetrics accepts metrics of running attempts. It drops what a node may not report.
func (c *Calls) acceptMetrics(node grid.NodeID, b *grid.Batch) {
	if b.Node != node || b.V > grid.NewestEventVersion {
		return
	}
	b.Events = slices.DeleteFunc(b.Events, func(e grid.Event) bool {
		return e.Kind != grid.Metrics || !mayWrite(node, e.Run)
	})
	if len(b.Events) > 0 {
		c.metrics.notify(b)
	}
}
