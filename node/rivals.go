package node

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strconv"
	"time"

	"mlfnode/cluster"
	"mlfnode/cluster/trust"
	"mlfnode/node/api"
	"mlfnode/node/config"
)

// A cluster has one master. A backup that is restored while the old master runs, or an old machine that
// boots again after a restore elsewhere, makes a second one, which would lease the same trials.

// rivalTime bounds each look for another master. Only a machine that is silent takes so long.
const rivalTime = 10 * time.Second

// refuseSecondMaster returns an error if another master of this cluster runs. It looks where the cluster
// was when this master ran last, or when its backup was made, and asks the nodes there for others.
func (n *Node) refuseSecondMaster(ctx context.Context, id *trust.Identity, ports config.Ports) error {
	k, err := loadKnown(n.cfg.StateDir)
	if err != nil {
		return nil // it has met nobody
	}
	met, stop := context.WithTimeout(ctx, rivalTime)
	defer stop()
	n.meet(met, k.Gossip)
	addresses := slices.Clone(k.API)
	for _, m := range n.fleet.cluster.Members() {
		if m.There() && m.Has(cluster.Master) && m.Node != n.cfg.Node {
			addresses = append(addresses, joinAddress(m.Address, m.APIPort))
		}
	}
	if host, _, err := net.SplitHostPort(n.fleet.cluster.Namesake()); err == nil {
		addresses = append(addresses, joinAddress(host, ports.API))
	}
	own := joinAddress(n.local().Address, ports.API)
	for _, address := range addresses {
		if address != own && answersAsMaster(ctx, id, address) {
			return &api.Error{
				Msg:  "another master of this cluster runs at " + address,
				Hint: "a cluster has one: stop that one first, or leave this one stopped",
			}
		}
	}
	return nil
}

// answersAsMaster reports whether a master of the node's cluster serves the API at the address.
func answersAsMaster(ctx context.Context, id *trust.Identity, address string) bool {
	ctx, stop := context.WithTimeout(ctx, rivalTime)
	defer stop()
	d := tls.Dialer{Config: id.Client()}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = conn.Close() // nothing was sent
	return true
}

// warnOfRival logs that another node is alive that says it is the master.
func (n *Node) warnOfRival(m cluster.Member) {
	if m.State == cluster.Alive && m.Has(cluster.Master) && m.Node != n.cfg.Node {
		n.log.Error("another master of this cluster runs; stop one of them", "node", m.Node, "address", joinAddress(m.Address, m.APIPort))
	}
}

// markRivals gives each of several living masters a reason that names another one.
func markRivals(all []api.Member) {
	var masters []int
	for i := range all {
		if all[i].State == string(cluster.Alive) && slices.Contains(all[i].Roles, string(cluster.Master)) {
			masters = append(masters, i)
		}
	}
	for k, i := range masters {
		if len(masters) > 1 {
			other := masters[(k+1)%len(masters)]
			all[i].Reason = "the cluster has " + strconv.Itoa(len(masters)) + " masters, also " + string(all[other].Node) + ": stop one of them"
		}
	}
}
