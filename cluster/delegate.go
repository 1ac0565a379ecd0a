package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
)

// delegate implements the interfaces that memberlist calls, mostly with its lock held: it only
// records what it receives, and neither blocks nor calls back.
type delegate struct{ c *Cluster }

var (
	_ memberlist.Delegate         = (*delegate)(nil)
	_ memberlist.EventDelegate    = (*delegate)(nil)
	_ memberlist.AliveDelegate    = (*delegate)(nil)
	_ memberlist.ConflictDelegate = (*delegate)(nil)
	_ memberlist.MergeDelegate    = (*delegate)(nil)
	_ memberlist.PingDelegate     = (*delegate)(nil)
)

// NodeMeta returns what is sent with the news that this node is alive.
func (d *delegate) NodeMeta(limit int) []byte { return d.c.published.meta(limit) }

// NotifyMsg is for messages that nobody sends in this version.
func (d *delegate) NotifyMsg([]byte) {}

// GetBroadcasts has none.
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState returns what this node sends in an exchange with another one.
func (d *delegate) LocalState(bool) []byte {
	return encodeDetails(append([]*detail{d.c.published.detail(d.c.node)}, d.c.table.details()...))
}

// MergeRemoteState receives what the other node sent, after the states of the nodes that it is
// about.
func (d *delegate) MergeRemoteState(buf []byte, _ bool) {
	d.c.table.receive(decodeDetails(buf))
}

// NotifyJoin is called when a node is alive that was not, or is new.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.c.table.update(n, Alive, time.Now()) }

// NotifyUpdate is called when a node's metadata changes.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.c.table.update(n, Alive, time.Now()) }

// NotifyLeave is called both when a node has left and when it is dead; a node that leaves has said
// so before.
func (d *delegate) NotifyLeave(n *memberlist.Node) { d.c.table.update(n, Dead, time.Now()) }

// NotifyPingComplete is called when a node has answered a probe.
func (d *delegate) NotifyPingComplete(n *memberlist.Node, _ time.Duration, _ []byte) {
	d.c.table.probed(grid.NodeID(n.Name), true, time.Now())
}

// AckPayload has nothing to add to an answer.
func (d *delegate) AckPayload() []byte { return nil }

// NotifyAlive refuses nodes that nobody could list.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	if n.Name == "" || len(n.Name) > maxName || printable([]byte(n.Name), maxName) != n.Name {
		return errors.New("a node name that is too long or has control characters")
	}
	d.c.table.probed(grid.NodeID(n.Name), true, time.Now()) // this may refute a suspicion
	return nil
}

// NotifyConflict is called when another node uses a name that is taken. The second node is not
// admitted.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	if d.c.admission.worthLogging(other) {
		d.c.log.Warn("two nodes use one name; the second is not admitted", "node", existing.Name,
			"address", existing.Address(), "second", other.Address())
	}
}

// NotifyMerge sees the nodes that the other side knows when one joins the other. It refuses when
// this node's own name is taken by one at another address that is not known to be dead.
func (d *delegate) NotifyMerge(peers []*memberlist.Node) error {
	for _, p := range peers {
		there := p.State == memberlist.StateAlive || p.State == memberlist.StateSuspect
		if grid.NodeID(p.Name) == d.c.node && there && p.Address() != d.c.address {
			d.c.admission.refuse(p.Address())
			return fmt.Errorf("the name %s is taken by %s", p.Name, p.Address())
		}
	}
	return nil
}
