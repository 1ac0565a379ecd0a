package cluster

import (
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// route has what is meant for one address go to another one.
type route struct{ from, to string }

// Reroute has this node send to another address what is for the one that a member advertises, both HOST:PORT: a machine with two
// networks advertises its address in one of them, and this node may be in the other one. There is one such route at a time; an
// empty from is for none.
func (c *Cluster) Reroute(from, to string) {
	if from == "" || from == to {
		c.route.Store(nil)
		return
	}
	c.route.Store(&route{from, to})
}

// rerouted is a network with the route in it.
type rerouted struct {
	memberlist.NodeAwareTransport
	route *atomic.Pointer[route]
}

func (t rerouted) address(a memberlist.Address) memberlist.Address {
	if r := t.route.Load(); r != nil && r.from == a.Addr {
		a.Addr = r.to
	}
	return a
}

// WriteToAddress sends a packet, as memberlist wants it.
func (t rerouted) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.NodeAwareTransport.WriteToAddress(b, t.address(a))
}

// DialAddressTimeout opens a stream, as memberlist wants it.
func (t rerouted) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.NodeAwareTransport.DialAddressTimeout(t.address(a), timeout)
}
