package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
)

// Calls are what nodes ask the master. They are not stored: who gets no answer asks again.
type Calls struct{ store *Store }

// The verbs of calls.
const (
	callBeat    = "beat"
	callKeyring = "keyring"
)

// BeatInterval is how often a node tells the master that it is there; BeatLimit is how long one may be silent.
const (
	BeatInterval = 500 * time.Millisecond
	BeatLimit    = 2 * time.Second
)

// Beat is what a node tells the master again and again. It states, it never asks for a change, so losing one costs nothing.
type Beat struct {
	V          int         `json:"v"`
	Start      string      `json:"start"` // names the life of the agent: another one each time it starts
	Held       []HeldLease `json:"held,omitempty"`
	Running    int         `json:"running"`
	Keys       uint64      `json:"keys,omitempty"`       // which gossip keyring the node has
	Draining   bool        `json:"draining,omitempty"`   // the node takes no more leases
	Restarting bool        `json:"restarting,omitempty"` // the agent ends now and comes back; its attempts go on meanwhile
	Leaving    bool        `json:"leaving,omitempty"`    // the agent ends and gives back what it held

	// Waits says why trials of a lane get nothing on this node now, for at most MaxWaits lanes.
	Waits map[grid.Lane]grid.Refusal `json:"waits,omitempty"`

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

// MaxWaits bounds what a beat says of lanes that wait.
const MaxWaits = 32

// HeldLease is a lease in a node's hands. Of two nodes that claim one, the later delivery holds it.
type HeldLease struct {
	Seq        uint64       `json:"s"`
	Deliveries int          `json:"d"`
	ID         grid.LeaseID `json:"i,omitempty"` // "" from a node that goes by sequences

	// What the lease is for, and what runs under it, for a master that has taken it back or has lost it.
	Sweep grid.SweepID `json:"w,omitempty"`
	Runs  []HeldRun    `json:"r,omitempty"`

	// Hi is where the trials end that the node keeps, if it gives back those behind: none of them has begun. Else it is 0.
	Hi int64 `json:"h,omitempty"`
}

// HeldRun is an attempt that runs under a lease.
type HeldRun struct {
	Index   int64         `json:"x"`
	Attempt int           `json:"a"`
	Run     string        `json:"r"`
	Started int64         `json:"t"` // microseconds since 1970, by the node's clock
	Age     time.Duration `json:"g"` // how long it has run
}

// Orders are the master's answer to a Beat: what is so now, whatever was said before.
type Orders struct {
	V int `json:"v"`
	// Stop are leases that the node no longer holds: what runs under them is to stop. Lost are the same for those that the node told
	// without an ID.
	Stop []grid.LeaseID `json:"stop,omitempty"`
	Lost []uint64       `json:"lost,omitempty"`
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

	// Curves says of which trials the node is to report curves. Nodes that do not know it report all.
	Curves grid.CurveShare `json:"curves,omitempty"`

	// Pace is how long the node is to wait between two reports, in nanoseconds; shorter than the node's own pause it means nothing.
	Pace time.Duration `json:"pace,omitempty"`
}

// wireVersion is the version of beats and orders.
const wireVersion = 1

// Beat sends a beat and gives the master's orders.
func (c *Calls) Beat(ctx context.Context, b Beat) (Orders, error) {
	b.V = wireVersion
	var o Orders
	return o, c.request(ctx, callBeat, b, &o)
}

// ServeBeats has fn answer beats until stop is called. fn must be quick.
func (c *Calls) ServeBeats(fn func(grid.NodeID, *Beat) Orders) (stop func(), err error) {
	return serve(c, callBeat, func(node grid.NodeID, b *Beat) any {
		o := fn(node, b)
		o.V = wireVersion
		return o
	})
}

// Keyring asks for the gossip keys, the primary first.
func (c *Calls) Keyring(ctx context.Context) (keys [][]byte, err error) {
	return keys, c.request(ctx, callKeyring, struct{}{}, &keys)
}

// ServeKeyring has fn answer requests for the gossip keys until stop is called.
func (c *Calls) ServeKeyring(fn func(grid.NodeID) [][]byte) (stop func(), err error) {
	return serve(c, callKeyring, func(node grid.NodeID, _ *struct{}) any { return fn(node) })
}

func (c *Calls) request(ctx context.Context, verb string, ask, answer any) error {
	data, err := json.Marshal(ask)
	if err != nil {
		return fmt.Errorf("encode a %s: %w", verb, err)
	}
	ctx, stop := c.store.limited(ctx)
	defer stop()
	msg, err := c.store.conn.RequestWithContext(ctx, callSubject(c.store.node, verb), data)
	if err != nil {
		return c.store.explain(ctx, "ask the master for "+verb, err)
	}
	if err := json.Unmarshal(msg.Data, answer); err != nil {
		return fmt.Errorf("read the answer to a %s: %w", verb, err)
	}
	return nil
}

// serve answers the calls of one verb. What can't be read gets no answer, and neither does what wants its answer elsewhere than
// where the node listens: then it is not the node's, but an answer that somebody has sent here.
func serve[T any](c *Calls, verb string, fn func(grid.NodeID, *T) any) (stop func(), err error) {
	sub, err := c.store.conn.Subscribe("mlf.call.*."+verb, func(m *nats.Msg) {
		ask := new(T)
		err := json.Unmarshal(m.Data, ask)
		if err == nil && !strings.HasPrefix(m.Reply, inbox(writer(m.Subject))+".") {
			err = errors.New("it wants its answer elsewhere")
		}
		if err != nil {
			c.store.log.Warn("call is not taken", "verb", verb, "node", writer(m.Subject), "err", err)
			return
		}
		data, err := json.Marshal(fn(writer(m.Subject), ask))
		if err == nil {
			err = m.Respond(data)
		}
		if err != nil {
			c.store.log.Debug("call could not be answered", "node", writer(m.Subject), "err", err)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("listen for %s calls: %w", verb, err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
