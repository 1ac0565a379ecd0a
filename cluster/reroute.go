package cluster

import (
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
)

// route redirects what is meant for one address to another one.
type route struct{ from, to string }

// Reroute sends what is meant for the address that a member advertises to another one, both
// HOST:PORT: a machine in two networks advertises its address in one of them, and this node may be
// in the other. There is one route at a time; an empty from removes it.
func (c *Cluster) Reroute(from, to string) {
	if from == "" || from == to {
		c.route.Store(nil)
		return
	}
	c.route.Store(&route{from, to})
}

// longestProbe is more than the probe of an ailing node takes, eight intervals, and less than the
// 10 s that memberlist gives an exchange of states.
const longestProbe = 5 * time.Second

// transport is a network with the route in it. It records which members cannot be reached.
type transport struct {
	memberlist.NodeAwareTransport
	c *Cluster
}

func (t transport) address(a memberlist.Address) memberlist.Address {
	if r := t.c.route.Load(); r != nil && r.from == a.Addr {
		a.Addr = r.to
	}
	return a
}

// WriteToAddress sends a packet, as memberlist wants it.
func (t transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	return t.NodeAwareTransport.WriteToAddress(b, t.address(a))
}

// DialAddressTimeout opens a stream, as memberlist wants it. One that must be there within the time
// of a probe is for a member that did not answer over UDP. A failure of this node itself says
// nothing about the member: no time was left, or no file.
func (t transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	conn, err := t.NodeAwareTransport.DialAddressTimeout(t.address(a), timeout)
	if 0 < timeout && timeout < longestProbe && !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) {
		t.c.table.probed(grid.NodeID(a.Name), err == nil, time.Now())
	}
	return conn, err
}
