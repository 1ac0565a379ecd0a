package node

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"mlfnode/cluster"
)

// routeTimeout bounds a try to reach the master's gossip.
const routeTimeout = time.Second

// gossipRoute is how a worker's gossip finds the master: at the address that the master advertises, or, where this machine is in
// another one of the master's networks, at the one by which it has joined.
type gossipRoute struct {
	told string // what was last said about it
}

// look tries the ways to a master that gossip does not see as alive, and reports whether one leads there.
func (r *gossipRoute) look(ctx context.Context, n *Node, reached []string) bool {
	if n.authority != nil { // it is the master
		return false
	}
	advertised := ""
	for _, m := range n.fleet.cluster.Members() {
		if m.Has(cluster.Master) && m.Node != n.fleet.cluster.Node() {
			advertised = joinAddress(m.Address, m.Port)
		}
	}
	if advertised != "" && reaches(ctx, advertised) {
		n.fleet.cluster.Reroute("", "")
		return n.meet(ctx, []string{advertised})
	}
	i := slices.IndexFunc(reached, func(a string) bool { return a != advertised && reaches(ctx, a) })
	if i < 0 {
		return false
	}
	if advertised == "" { // it says itself what it advertises
		return n.meet(ctx, reached[i:i+1])
	}
	n.fleet.cluster.Reroute(advertised, reached[i])
	r.say(n, fmt.Sprintf("the master advertises %s, which this machine cannot reach; gossip goes to %s, the address that it joined by "+
		"(`advertise` in the master's node.yaml chooses the address)", advertised, reached[i]))
	return n.meet(ctx, reached[i:i+1])
}

func (r *gossipRoute) say(n *Node, text string) {
	if text != r.told {
		r.told = text
		n.log.Warn(text)
	}
}

func reaches(ctx context.Context, address string) bool {
	d := net.Dialer{Timeout: routeTimeout}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// reachedAt gives the master's gossip at the host by which its API was reached, as an IP address where a name was used: the first
// that answers, "" for none.
func reachedAt(ctx context.Context, host string, port int) string {
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return ""
	}
	for _, a := range addresses {
		if at := joinAddress(a, port); reaches(ctx, at) {
			return at
		}
	}
	return ""
}
