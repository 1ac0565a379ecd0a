package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"mlfnode/cluster"
	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/durable"
)

// known is where a node has met its cluster, kept in cluster.json of the state folder: what it needs to find the others again.
type known struct {
	API    []string `json:"api"`    // HOST:PORT of the master, the last one first
	NATS   []string `json:"nats"`   // likewise
	Gossip []string `json:"gossip"` // of members
	// Reached is the master's gossip at the address by which this node joined, which the master need not advertise.
	Reached []string `json:"reached,omitempty"`
}

const (
	knownFile = "cluster.json"
	// knownGossip bounds the remembered members: any one of them leads to all.
	knownGossip = 16
	// rejoinInterval is how often a node that sees nobody tries the members that it has known.
	rejoinInterval = 3 * time.Second
)

func loadKnown(state string) (*known, error) {
	var k known
	b, err := os.ReadFile(filepath.Join(state, knownFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("this node has credentials but does not know where its cluster is; join again with: mlfnode join --seed HOST")
	}
	if err == nil {
		err = json.Unmarshal(b, &k)
	}
	if err != nil || len(k.API) == 0 || len(k.NATS) == 0 {
		return nil, fmt.Errorf("read where the cluster is: %w", errors.Join(err, errors.New(knownFile+" is damaged; join again")))
	}
	return &k, nil
}

// knownAddresses bounds the remembered addresses of the master.
const knownAddresses = 4

// meetAt has the master looked for at the seed of the settings first, when that is another one than where it was met: it has moved,
// and its ports are taken to be those of the settings.
func (k *known) meetAt(c *config.Cluster) error {
	if c.Seed == "" {
		return nil
	}
	address, err := api.WithPort(c.Seed, c.Ports.API)
	if err != nil || slices.Contains(k.API, address) {
		return err
	}
	host, _, _ := net.SplitHostPort(address) // WithPort has made it
	add := func(to *[]string, most int, address string) {
		*to = append([]string{address}, *to...)
		*to = (*to)[:min(len(*to), most)]
	}
	add(&k.API, knownAddresses, address)
	add(&k.NATS, knownAddresses, joinAddress(host, c.Ports.NATS))
	add(&k.Gossip, knownGossip, joinAddress(host, c.Ports.Gossip))
	return nil
}

func (k *known) save(state string) error {
	b, err := json.Marshal(k)
	if err != nil {
		return fmt.Errorf("encode where the cluster is: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(state, knownFile), append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("remember where the cluster is: %w", durable.WithoutPath(err))
	}
	return nil
}

// rejoin brings this node together with the others whenever it sees none of them, and with the master whenever that one is back;
// and it remembers who is there.
func (n *Node) rejoin(ctx context.Context) error {
	tick := time.NewTicker(rejoinInterval)
	defer tick.Stop()
	changed := make(chan struct{}, 1)
	defer n.fleet.cluster.Watch(func(cluster.Member) { nudge(changed) })()
	k := known{}
	if n.known != nil {
		k = *n.known
	} else if old, err := loadKnown(n.cfg.StateDir); err == nil {
		k = *old
	}
	back := false
	var road gossipRoute
	for {
		master := n.masterGossip()
		if len(master) == 0 {
			road.look(ctx, n, k.Reached)
		}
		if back = back && len(master) > 0; back {
			back = !n.meet(ctx, master) // its gossip may start after all else
		}
		there := n.gossipAddresses()
		if len(there) <= 1 && len(k.Gossip) > 0 {
			n.meet(ctx, k.Gossip)
			there = n.gossipAddresses()
		}
		k.remember(n, there)
		select {
		case <-tick.C:
		case <-changed:
		case <-n.back:
			back = true
		case <-ctx.Done():
			return nil
		}
	}
}

// meet reports whether one of the others answers.
func (n *Node) meet(ctx context.Context, others []string) bool {
	err := n.fleet.cluster.Join(ctx, others)
	if err != nil {
		n.log.Debug("no other node answers", "err", err)
	}
	return err == nil
}

// masterGossip is where the master gossips, as far as this node has heard of one.
func (n *Node) masterGossip() []string {
	var all []string
	for _, m := range n.fleet.cluster.Members() {
		if m.There() && m.Has(cluster.Master) && m.Node != n.fleet.cluster.Node() {
			all = append(all, joinAddress(m.Address, m.Port))
		}
	}
	return all
}

// nudge puts one into a channel that holds one, unless it is there.
func nudge(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// remember saves the members when they have changed.
func (k *known) remember(n *Node, there []string) {
	own := n.local()
	there = slices.DeleteFunc(there, func(a string) bool { return a == joinAddress(own.Address, own.Port) })
	there = there[:min(len(there), knownGossip)]
	if len(there) == 0 || slices.Equal(there, k.Gossip) {
		return
	}
	k.Gossip = there
	if len(k.API) == 0 { // of a master itself
		k.API, k.NATS = []string{joinAddress(own.Address, own.APIPort)}, []string{joinAddress(own.Address, own.NATSPort)}
	}
	if err := k.save(n.cfg.StateDir); err != nil {
		n.log.Warn("members could not be remembered", "err", err)
	}
}
