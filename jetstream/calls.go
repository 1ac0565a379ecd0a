package jetstream

import (
	"errors"
	"sync"
	"time"

	"mlfnode/grid"
)

// Calls are what nodes ask the master, who alone uses the store. A node of this process calls through LocalClient, the others over their
// connections; both come to the same functions here. What is asked is not stored: who gets no answer asks again.
type Calls struct {
	store   *Store
	metrics listeners[*grid.Batch]

	mu      sync.Mutex
	beats   func(grid.NodeID, *Heartbeat) Directives
	refuses func(grid.NodeID, grid.Lane) bool
	keyring func(grid.NodeID) [][]byte
}

// The verbs of calls.
const (
	callBeat     = "beat"
	callKeyring  = "keyring"
	callSweeps   = "sweeps"   // records that have changed
	callSweep    = "sweep"    // one record
	callTake     = "take"     // leases
	callReturn   = "return"   // a lease that is done with
	callPostpone = "postpone" // a lease
	callEvents   = "events"
	callOutput   = "output"
	callMetrics  = "metrics" // of running attempts; not answered
)

// hints is what, behind a node's inbox, the master tells it unasked.
const hints = "hints"

// HeartbeatInterval is how often a node tells the master that it is there; HeartbeatTimeout is how long one may be silent.
const (
	HeartbeatInterval = 500 * time.Millisecond
	HeartbeatTimeout  = 2 * time.Second
)

// Heartbeat is what a node tells the master again and again. It states, it never asks for a change, so losing one costs nothing.
type Heartbeat struct {
	V          int         `json:"v"`
	Start      string      `json:"start"` // names the life of the agent: another one each time it starts
	Leases     []HeldLease `json:"held,omitempty"`
	Running    int         `json:"running"`
	Keys       uint64      `json:"keys,omitempty"`       // which gossip keyring the node has
	Draining   bool        `json:"draining,omitempty"`   // the node takes no more leases
	Restarting bool        `json:"restarting,omitempty"` // the agent ends now and comes back; its attempts go on meanwhile
	Leaving    bool        `json:"leaving,omitempty"`    // the agent ends and gives back what it held

	// Refusals says why trials of a lane get nothing on this node now, for at most MaxRefusals lanes.
	Refusals map[grid.Lane]grid.Refusal `json:"waits,omitempty"`

	// Sample says what the machine is doing, once in a SampleInterval. Masters that do not know it leave it.
	Sample *Sample `json:"sample,omitempty"`

	// Mark is that of the newest orders. A beat may arrive long after it was sent, when a connection was cut for a while: its mark
	// tells how old what it says may be.
	Mark uint64 `json:"mark,omitempty"`

	// Outlive is how long the node's programs go on without an agent; 0 when it does not say so.
	Outlive time.Duration `json:"outlive,omitempty"`
}

// SampleInterval is how often a node says what its machine is doing, and MaxSampledGPUs of how many GPUs at most.
const (
	SampleInterval = 15 * time.Second
	MaxSampledGPUs = 64
)

// Sample is what a machine is doing, in percent. A figure that is not known is -1.
type Sample struct {
	Load   int         `json:"l"` // over one minute, of the processors
	CPU    int         `json:"c"`
	Memory int         `json:"m"`
	Disk   int         `json:"d"` // that the node's state is on
	GPUs   []GPUSample `json:"g,omitempty"`
}

// GPUSample is what one GPU is doing.
type GPUSample struct {
	UUID        string `json:"u"`
	Busy        int    `json:"b"` // percent of the time in which it computed
	Memory      int    `json:"m"` // percent
	Temperature int    `json:"t"` // degrees Celsius
	Power       int    `json:"p"` // watts
}

// MaxRefusals bounds what a beat says of lanes that wait.
const MaxRefusals = 32

// HeldLease is a lease in a node's hands. Of two nodes that claim one, the later delivery holds it.
type HeldLease struct {
	Seq        uint64       `json:"s"`
	Deliveries int          `json:"d"`
	ID         grid.LeaseID `json:"i,omitempty"`

	// What the lease is for, and what runs under it, for a master that has taken it back or has lost it.
	Sweep    grid.SweepID     `json:"w,omitempty"`
	Attempts []RunningAttempt `json:"r,omitempty"`

	// Hi is where the trials end that the node keeps, if it gives back those behind: none of them has begun. Else it is 0.
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

// Directives are the master's answer to a Heartbeat: what is so now, whatever was said before.
type Directives struct {
	V int `json:"v"`
	// Stop are leases that the node no longer holds: what runs under them is to stop.
	Stop []grid.LeaseID `json:"stop,omitempty"`
	// Mark is for the next beats; another one each time that the node was not heard of for a while.
	Mark uint64 `json:"mark,omitempty"`

	// Finish are leases of which what runs may go on, but no further trial is to begin.
	Finish []grid.LeaseID `json:"finish,omitempty"`

	Drain      bool   `json:"drain,omitempty"`      // take no more leases
	Quarantine bool   `json:"quarantine,omitempty"` // with Drain: because trials fail there
	Reason     string `json:"reason,omitempty"`     // why, for people
	// Without names parts of the node (its GPUs, its container engine) for which it is to take no leases, with the reasons.
	Without map[grid.Scope]string `json:"without,omitempty"`
	Keys    uint64                `json:"keys,omitempty"` // which gossip keyring is in force; another one than the node has is to be asked for
	// CAs names the CAs that are trusted; where the node has others, it is to renew its certificate.
	CAs uint64 `json:"cas,omitempty"`

	// Curves says of which trials the node is to report curves. Nodes that do not know it report all.
	Curves grid.CurveShare `json:"curves,omitempty"`

	// Pace is how long the node is to wait between two reports, in nanoseconds; shorter than the node's own pause it means nothing.
	Pace time.Duration `json:"pace,omitempty"`
}

// wireVersion is the version of beats and orders. Nodes before version 2 used the store themselves; they can't connect.
const wireVersion = 2

// HandleHeartbeats has fn answer heartbeats until stop is called. fn must be quick.
func (c *Calls) HandleHeartbeats(fn func(grid.NodeID, *Heartbeat) Directives) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beats = fn
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.beats = nil
	}
}

// RefuseLeases gives a node no leases of a lane while refuses returns true for them, until stop is called. A node stops asking once
// its next heartbeat has told it; until then it would take what it must not have. refuses must be quick.
func (c *Calls) RefuseLeases(refuses func(grid.NodeID, grid.Lane) bool) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refuses = refuses
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.refuses = nil
	}
}

// lease gives a node leases of a lane that it may take.
func (c *Calls) lease(node grid.NodeID, t *takeCall) []GrantedLease {
	c.mu.Lock()
	refuses := c.refuses
	c.mu.Unlock()
	if refuses != nil && refuses(node, grid.Lane(t.Lane)) {
		return []GrantedLease{}
	}
	return c.store.Queue.take(node, t.Lane, min(t.N, maxTaken), t.Level)
}

// HandleKeyring has fn answer requests for the gossip keys until stop is called.
func (c *Calls) HandleKeyring(fn func(grid.NodeID) [][]byte) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keyring = fn
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.keyring = nil
	}
}

// HandleMetrics calls fn with the metrics of running attempts that nodes tell, until stop is called. fn must be quick.
//
// They are a state, not an event: only the newest counts, and the result holds the last ones. So nothing of them is stored in a stream,
// however long an attempt runs; a node says them again from time to time, which makes a lost message good.
func (c *Calls) HandleMetrics(fn func(*grid.Batch)) (stop func()) { return c.metrics.add(fn) }

// beat answers a beat.
func (c *Calls) beat(node grid.NodeID, b *Heartbeat) (Directives, error) {
	c.mu.Lock()
	fn := c.beats
	c.mu.Unlock()
	if fn == nil {
		return Directives{}, errStarting
	}
	o := fn(node, b)
	o.V = wireVersion
	return o, nil
}

// keys answers a request for the gossip keys.
func (c *Calls) keys(node grid.NodeID) ([][]byte, error) {
	c.mu.Lock()
	fn := c.keyring
	c.mu.Unlock()
	if fn == nil {
		return nil, errStarting
	}
	return fn(node), nil
}

// errStarting is the answer of a master that does not work yet.
var errStarting = errors.New("the master is starting")

// tell takes metrics of running attempts. What a node may not state is left out.
func (c *Calls) tell(node grid.NodeID, b *grid.Batch) {
	if b.Node != node || b.V > grid.EventVersion {
		return
	}
	kept := b.Events[:0]
	for _, e := range b.Events {
		if e.Kind == grid.Metrics && writes(node, e.Run) {
			kept = append(kept, e)
		}
	}
	if b.Events = kept; len(kept) > 0 {
		c.metrics.tell(b)
	}
}
