package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
	"mlfnode/node/poll"
)

// ErrNameTaken is returned by Join when another node of the cluster has the name of this node. If
// that was this machine under another address, the name is free as soon as the others know that it
// is dead, which takes some seconds.
var ErrNameTaken = errors.New("this node's name is taken")

const (
	// dialLimit bounds the attempt to reach one address.
	dialLimit = 3 * time.Second
	// reconnectInterval is how often a node tries to reach members that it lost.
	reconnectInterval = 5 * time.Second
)

// Join makes this node a member of the cluster of one of the seeds (HOST:PORT of a gossip port);
// the first that answers is enough. The error says for each seed why it failed. Join returns
// ErrNameTaken when the cluster does not admit this node; close it then. Later the node finds its
// way back by itself, even after a long partition.
func (c *Cluster) Join(ctx context.Context, seeds []string) error {
	defer c.admission.beginJoin()()
	var refusals []error
	for _, seed := range seeds {
		err := c.joinSeed(ctx, seed)
		if err == nil {
			c.admission.admitted(seed)
			c.table.wake.Set()
			return nil
		}
		if taken := c.admission.err(); taken != nil {
			return taken
		}
		if refusals = append(refusals, fmt.Errorf("join by %s: %w", seed, err)); ctx.Err() != nil {
			break
		}
	}
	if len(refusals) == 0 {
		return errors.New("join a cluster: no seed is given")
	}
	return errors.Join(refusals...)
}

// joinSeed tries every address of a seed.
func (c *Cluster) joinSeed(ctx context.Context, seed string) error {
	host, port, err := net.SplitHostPort(seed)
	if err != nil {
		return fmt.Errorf("%w; want HOST:PORT", err)
	}
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return fmt.Errorf("look up its address: %w", err)
	}
	var last error
	for _, ip := range addresses {
		if last = c.joinAddress(ctx, net.JoinHostPort(ip.Unmap().String(), port)); last == nil {
			return nil
		}
	}
	return last
}

func (c *Cluster) joinAddress(ctx context.Context, address string) error {
	if address == c.address {
		return errors.New("it is this node itself")
	}
	if err := checkListening(ctx, address); err != nil {
		return err
	}
	result := make(chan error, 1)
	c.running.Go(func() {
		_, err := c.ml.Join([]string{address})
		result <- err
	})
	select {
	case err := <-result:
		if err == nil {
			return nil
		}
		// memberlist gives its reasons as text
		says := func(words string) bool { return strings.Contains(err.Error(), words) }
		switch {
		case says("installed keys could decrypt"), says("encrypt"):
			return errors.New(
				"it has another gossip key: was this node taken out of the cluster, or the key changed while it was away?")
		case says(io.EOF.Error()), says("connection reset"):
			return errors.New(
				"it closed the connection: it belongs to another cluster, or the port is not that of the gossip")
		}
		return err
	case <-ctx.Done():
		return fmt.Errorf("it does not answer: %w", context.Cause(ctx))
	case <-c.life.Done():
		return errors.New("this node is closed")
	}
}

// checkListening returns an error early, and within the context, if nobody listens.
func checkListening(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	switch {
	case err == nil:
		return conn.Close()
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("the machine answers, but nothing listens on that port: is mlfnode running there?")
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("no answer: is the machine up, and does its firewall let the port through, for TCP and UDP?")
	}
	return err
}

// reconnect tries to reach lost members: after a partition nobody probes dead members, so both
// halves would stay apart.
func (c *Cluster) reconnect() {
	for poll.Sleep(c.life, poll.Jitter(reconnectInterval)) {
		if lost := c.admission.lost(c.Members(), c.node); len(lost) > 0 && !c.published.departed.Load() {
			// An error is the normal case: most dead members stay dead.
			if err := c.joinAddress(c.life, lost[rand.IntN(len(lost))]); err != nil {
				c.log.Debug("lost member not found", "err", err)
			}
		}
	}
}

// lost returns the addresses of dead members, and the seeds if no other member is there.
func (a *admission) lost(members []Member, self grid.NodeID) []string {
	var dead []string
	others := 0
	for _, m := range members {
		switch {
		case m.State == Dead:
			dead = append(dead, m.gossip())
		case m.State == Alive && m.Node != self:
			others++
		}
	}
	if others > 0 {
		return dead
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return append(dead, a.seeds...)
}

// admission is what this node knows about being let into a cluster, and about other nodes that use
// a name twice.
type admission struct {
	mu        sync.Mutex
	seeds     []string // the address that let this node in last
	trying    bool     // a Join is under way
	holder    string   // address of the node that had this node's name during the last Join
	inside    bool     // some cluster took this node in
	strangers map[string]time.Time
}

func (a *admission) beginJoin() (end func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.trying, a.holder = true, ""
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.trying = false
	}
}

func (a *admission) admitted(seed string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.holder, a.inside, a.seeds = "", true, []string{seed}
}

func (a *admission) refuse(holder string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.trying { // a node that comes later and wants this one's name is the one to give way
		a.holder = holder
	}
}

// err returns the error of a node that was never admitted because of its name.
func (a *admission) err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.holder == "" || a.inside {
		return nil
	}
	return fmt.Errorf(
		"%w by the node at %s: give this one another name, or wait some seconds if that was this machine before",
		ErrNameTaken, a.holder)
}

// Namesake returns the gossip address of another node of the same name that has kept this one out
// of the cluster, "" if there is none.
func (c *Cluster) Namesake() string {
	c.admission.mu.Lock()
	defer c.admission.mu.Unlock()
	if c.admission.inside {
		return ""
	}
	return c.admission.holder
}

const (
	// warnAgain is how often one conflict is logged, and maxStrangers how many nodes are
	// distinguished.
	warnAgain    = time.Minute
	maxStrangers = 100
)

// worthLogging reports whether to log a node that uses a taken name.
func (a *admission) worthLogging(n *memberlist.Node) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, key := time.Now(), n.Name+" "+n.Address()
	if last, ok := a.strangers[key]; ok && now.Sub(last) < warnAgain {
		return false
	}
	if a.strangers == nil || len(a.strangers) >= maxStrangers {
		a.strangers = map[string]time.Time{}
	}
	a.strangers[key] = now
	return true
}
