package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
)

// attention is how long a node looks often after a probe was not answered: a suspicion comes half a second later.
const attention = 2 * time.Second

// ears are what memberlist calls, mostly with its lock held: they note things and never block or call back.
type ears struct{ c *Cluster }

var (
	_ memberlist.Delegate         = (*ears)(nil)
	_ memberlist.EventDelegate    = (*ears)(nil)
	_ memberlist.AliveDelegate    = (*ears)(nil)
	_ memberlist.ConflictDelegate = (*ears)(nil)
	_ memberlist.MergeDelegate    = (*ears)(nil)
)

// NodeMeta is what goes with the news that this node is alive.
func (e *ears) NodeMeta(limit int) []byte { return e.c.told.meta(limit) }

// NotifyMsg is for messages that nobody sends in this version.
func (e *ears) NotifyMsg([]byte) {}

// GetBroadcasts has none.
func (e *ears) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState is what is exchanged with another node. The mirror does without; a node that joins in the same moment gets it at
// the next exchange.
func (e *ears) LocalState(join bool) []byte {
	if join && e.c.look.looking.Load() {
		return nil
	}
	return encodeDetails(append([]*detail{e.c.told.detail(e.c.node)}, e.c.table.details()...))
}

// MergeRemoteState is what the other node sent.
func (e *ears) MergeRemoteState(buf []byte, _ bool) {
	e.c.table.receive(decodeDetails(buf))
	e.c.nudge()
}

// NotifyJoin, NotifyLeave and NotifyUpdate say that a look is worth it.
func (e *ears) NotifyJoin(*memberlist.Node) { e.c.nudge() }

// NotifyLeave is called for deaths too.
func (e *ears) NotifyLeave(*memberlist.Node) { e.c.nudge() }

// NotifyUpdate is called when a node tells something new.
func (e *ears) NotifyUpdate(*memberlist.Node) { e.c.nudge() }

// unanswered is called when a direct probe got no answer. It never turns the second probe, over TCP, off.
func (e *ears) unanswered(string) bool {
	e.c.watchful.Store(time.Now().Add(attention).UnixNano())
	e.c.nudge()
	return false
}

// NotifyAlive refuses nodes that nobody could list.
func (e *ears) NotifyAlive(n *memberlist.Node) error {
	if n.Name == "" || len(n.Name) > maxName || printable([]byte(n.Name), maxName) != n.Name {
		return errors.New("a node name that is too long or has control characters")
	}
	return nil
}

// NotifyConflict is called when another node uses a name that is taken. It is not taken in.
func (e *ears) NotifyConflict(existing, other *memberlist.Node) {
	if e.c.door.strange(other) {
		e.c.log.Warn("two nodes use one name; the second is not taken in", "node", existing.Name,
			"address", existing.Address(), "second", other.Address())
	}
}

// NotifyMerge sees the nodes that the other side knows when one joins the other. It refuses when this node's own name is taken
// by one at another address that is not known to be dead.
func (e *ears) NotifyMerge(peers []*memberlist.Node) error {
	for _, p := range peers {
		there := p.State == memberlist.StateAlive || p.State == memberlist.StateSuspect
		if grid.NodeID(p.Name) == e.c.node && there && p.Address() != e.c.address {
			e.c.door.shut(p.Address())
			return fmt.Errorf("the name %s is taken by %s", p.Name, p.Address())
		}
	}
	return nil
}
