package membership

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"mlfnode/cluster"
)

// routeTimeout bounds one attempt to reach the gossip of the master.
const routeTimeout = time.Second

// gossipRoute is how the gossip of a worker reaches the master: at the address that the master
// advertises or, if this machine is in another network of the master, at the address by which it
// joined.
type gossipRoute struct {
	logged string // the last message
}

// look tries both routes to a master that gossip does not see, and reports whether one of them
// works.
func (r *gossipRoute) look(ctx context.Context, s *Membership, reached []string) bool {
	if s.authority != nil { // it is the master
		return false
	}
	advertised := ""
	for _, m := range s.Gossip.Members() {
		if m.Has(cluster.Master) && m.Node != s.Gossip.Node() {
			advertised = hostPort(m.Address, m.Port)
		}
	}
	if advertised != "" && reaches(ctx, advertised) {
		s.Gossip.Reroute("", "")
		return s.join(ctx, []string{advertised})
	}
	i := slices.IndexFunc(reached, func(a string) bool { return a != advertised && reaches(ctx, a) })
	if i < 0 {
		return false
	}
	if advertised == "" { // it says itself what it advertises
		return s.join(ctx, reached[i:i+1])
	}
	s.Gossip.Reroute(advertised, reached[i])
	r.warn(s, fmt.Sprintf("the master advertises %s, which this machine cannot reach; gossip goes to %s, the address that it joined by "+
		"(`advertise` in the master's node.yaml chooses the address)", advertised, reached[i]))
	return s.join(ctx, reached[i:i+1])
}

// warn logs a message, unless it was the last one, too.
func (r *gossipRoute) warn(s *Membership, text string) {
	if text != r.logged {
		r.logged = text
		s.log.Warn(text)
	}
}

// reaches reports whether something listens at the address.
func reaches(ctx context.Context, address string) bool {
	d := net.Dialer{Timeout: routeTimeout}
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// reachedAt returns the address of the master's gossip at the host by which its API was reached. Of
// a host with several IP addresses it is the first one that answers, "" if none does.
func reachedAt(ctx context.Context, host string, port int) string {
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return ""
	}
	for _, a := range addresses {
		if at := hostPort(a, port); reaches(ctx, at) {
			return at
		}
	}
	return ""
}
