package membership

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"time"

	"mlfnode/cluster"
	"mlfnode/grid"
	"mlfnode/node/api"
)

// A cluster has one master. A backup that is restored while the old master runs makes a second one,
// which would lease the same trials; so does an old machine that boots again after a restore
// elsewhere.

// rivalTimeout bounds each search for another master. Only a machine that does not answer takes
// that long.
const rivalTimeout = 10 * time.Second

// RefuseSecondMaster returns an error if another master of this cluster is running; they have the
// same port of the API. It looks where the cluster was when this master ran last, or when its
// backup was made, and asks the nodes there for others.
func (s *Membership) RefuseSecondMaster(ctx context.Context, apiPort int) error {
	p, err := LoadPeers(s.stateDir)
	if err != nil {
		return nil // it had no peers
	}
	joining, stop := context.WithTimeout(ctx, rivalTimeout)
	defer stop()
	join(joining, s.Gossip, s.log, p.Gossip)
	addresses := slices.Clone(p.API)
	for _, m := range s.Gossip.Members() {
		if m.There() && m.Has(grid.Master) && m.Node != s.id.Node {
			addresses = append(addresses, hostPort(m.Address, m.APIPort))
		}
	}
	if host, _, err := net.SplitHostPort(s.Gossip.Namesake()); err == nil {
		addresses = append(addresses, hostPort(host, apiPort))
	}
	own := hostPort(s.Local().Address, apiPort)
	for _, address := range addresses {
		if address == own {
			continue
		}
		dialing, stop := context.WithTimeout(ctx, rivalTimeout)
		conn, err := (&tls.Dialer{Config: s.id.Client()}).DialContext(dialing, "tcp", address)
		stop()
		if err == nil { // it has shown the certificate of a master
			_ = conn.Close() // nothing was sent
			return &api.Error{
				Msg:  "another master of this cluster is running at " + address,
				Hint: "a cluster has one: stop that one first, or leave this one stopped",
			}
		}
	}
	return nil
}

// WarnOfRival logs that another node that is alive claims to be the master.
func (s *Membership) WarnOfRival(m cluster.Member) {
	if m.State == cluster.Alive && m.Has(grid.Master) && m.Node != s.id.Node {
		s.log.Error("another master of this cluster is running; stop one of them",
			"node", m.Node, "address", hostPort(m.Address, m.APIPort))
	}
}

// markRivals gives each of several masters that are alive a reason that names another one.
func markRivals(all []api.Member) {
	var masters []int
	for i := range all {
		if all[i].State == string(cluster.Alive) && slices.Contains(all[i].Roles, string(grid.Master)) {
			masters = append(masters, i)
		}
	}
	for k, i := range masters {
		if len(masters) > 1 {
			other := masters[(k+1)%len(masters)]
			all[i].Reason = fmt.Sprintf("the cluster has %d masters, also %s: stop one of them",
				len(masters), all[other].Node)
		}
	}
}
