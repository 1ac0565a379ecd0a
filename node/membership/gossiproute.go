package membership

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
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
func (r *gossipRoute) look(ctx context.Context, gossip *cluster.Cluster, log *slog.Logger, reached []string) bool {
	advertised := ""
	for _, m := range gossip.Members() {
		if m.Has(grid.Master) && m.Node != gossip.Node() {
			advertised = hostPort(m.Address, m.Port)
		}
	}
	if advertised != "" && reaches(ctx, advertised) {
		gossip.Reroute("", "")
		return join(ctx, gossip, log, []string{advertised})
	}
	i := slices.IndexFunc(reached, func(a string) bool { return a != advertised && reaches(ctx, a) })
	if i < 0 {
		return false
	}
	if advertised != "" { // otherwise the master itself says what it advertises
		gossip.Reroute(advertised, reached[i])
		text := fmt.Sprintf(
			"the master advertises %s, which this machine cannot reach; gossip goes to %s, the address that it joined by "+
				"(`advertise` in the master's node.yaml chooses the address)", advertised, reached[i])
		if text != r.logged {
			r.logged = text
			log.Warn(text)
		}
	}
	return join(ctx, gossip, log, reached[i:i+1])
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
