package node

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"mlfnode/cluster"
	"mlfnode/cluster/inventory"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/config"
)

// protocol is the version of the wire formats that this program speaks: of beats, events and leases.
const protocol = 1

// tellInterval is how often a node looks whether what it tells others has changed.
const tellInterval = 2 * time.Second

// fleet is this node's part in a cluster: its gossip and what it tells there.
type fleet struct {
	cluster *cluster.Cluster
	keyring *trust.Keyring
	id      *trust.Identity
}

// gossip starts the node's membership, with these roles and ports of a master.
func (n *Node) gossip(id *trust.Identity, keyring *trust.Keyring, roles []cluster.Role, ports config.Ports) error {
	cfg := &n.cfg
	f := &fleet{keyring: keyring, id: id}
	seen := cfg.Machine
	self := cluster.Self{
		Version: cfg.Version, Protocol: protocol, Roles: roles, APIPort: ports.API, NATSPort: ports.NATS,
		CPUs: cfg.Machine.CPUs, Memory: cfg.Machine.Memory, Load: load(), Inventory: &seen, Labels: cfg.Labels,
	}
	var err error
	f.cluster, err = cluster.Start(cluster.Config{
		Node: id.Node, Bind: cfg.Cluster.ListenAddress(), Port: cfg.Cluster.Ports.Gossip, Advertise: cfg.Cluster.Advertise,
		Keys: keyring.Keys(), Label: hex.EncodeToString(id.Cluster[:8]), Self: self, Logger: cfg.Logger,
	})
	if err != nil {
		return fmt.Errorf("start gossip: %w", err)
	}
	n.onClose(func() { n.leave(f.cluster) })
	n.fleet = f
	n.start("inventory", n.machine.Run)
	n.start("tell", n.tell)
	n.start("sample", n.sample)
	return nil
}

// leaveTime bounds the goodbye.
const leaveTime = time.Second

// leave says goodbye to the others, if this node is not to be back in a moment.
func (n *Node) leave(c *cluster.Cluster) {
	defer c.Close()
	if !n.stopping.Load() {
		return
	}
	ctx, stop := context.WithTimeout(context.Background(), leaveTime) // the node ends
	defer stop()
	if err := c.Leave(ctx); err != nil {
		n.log.Debug("no other node was told that this one leaves", "err", err)
	}
}

// tell keeps what others hear of this node up to date.
func (n *Node) tell(ctx context.Context) error {
	tick := time.NewTicker(tellInterval)
	defer tick.Stop()
	for {
		running := 0
		if w := n.working(); w != nil {
			running = w.Running()
		}
		n.fleet.cluster.Update(func(s *cluster.Self) { s.Running, s.Load = running, load() })
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// obey has gossip tell what the master says of this node, and keeps up with the keyring and the CA.
func (n *Node) obey(o *jetstream.Directives) {
	w := n.working()
	full, trouble := false, ""
	if w != nil {
		full, trouble = w.DiskFull(), w.UnavailableReason()
	}
	n.fleet.cluster.Update(func(s *cluster.Self) {
		s.Drained, s.Quarantined, s.Reason = o.Drain && !o.Quarantine, o.Quarantine, o.Reason
		if trouble != "" && !o.Drain {
			s.Drained, s.Reason = full, trouble
		}
		for _, part := range slices.Sorted(maps.Keys(o.Without)) {
			switch {
			case s.Reason != "":
			case part.OneLane():
				s.Reason = "takes no trials like some that failed: " + o.Without[part]
			default:
				s.Reason = fmt.Sprintf("takes no trials that need its %s: %s", part, o.Without[part])
			}
		}
	})
	if o.Keys != 0 && o.Keys != keysID(n.fleet.keyring.Keys()) {
		nudge(n.stale)
	}
	if o.CAs != 0 && o.CAs != n.fleet.id.Trusted().ID() {
		nudge(n.rotated)
	}
}

// keysID names a keyring: what others may know of it.
func keysID(keys [][]byte) uint64 {
	sum := sha256.Sum256(bytes.Join(keys, nil))
	return max(binary.BigEndian.Uint64(sum[:]), 1)
}

// load is the load average of the last minute; 0 where the system does not tell.
func load() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), " ")
	v, _ := strconv.ParseFloat(first, 64) // 0 for what can't be read
	return v
}

// members is what gossip knows, in the form of the API. A master leaves out those that it was told to forget, of which gossip
// remembers that they died.
func (n *Node) members() []api.Member {
	all, forgotten := []api.Member{}, n.forgotten()
	for _, m := range n.fleet.cluster.Members() {
		if forgotten[m.Node] && !m.There() {
			continue
		}
		v := member(&m, m.Node == n.fleet.cluster.Node())
		n.correct(&v, &m)
		all = append(all, v)
	}
	markRivals(all)
	return all
}

// correct puts what this node knows at first hand in the place of what gossip will say a moment later: what it runs itself, and, on a
// master, which nodes it has told to take no trials.
func (n *Node) correct(v *api.Member, m *cluster.Member) {
	if w := n.working(); v.Local && w != nil {
		v.Running = w.Running()
	}
	if n.authority == nil || !m.There() {
		return
	}
	if d := n.authority.Drains()[m.Node]; d.On {
		v.Quarantined = d.By == quarantined
		v.Drained, v.Reason = !v.Quarantined, d.Reason
	}
}

func (n *Node) forgotten() map[grid.NodeID]bool {
	names := map[grid.NodeID]bool{}
	if n.authority == nil {
		return names
	}
	for _, known := range n.authority.Nodes() {
		names[known.Node] = !known.Forgotten.IsZero()
	}
	return names
}

func member(m *cluster.Member, local bool) api.Member {
	v := api.Member{
		Node: m.Node, State: string(m.State), Since: m.Since.UTC(), Address: net.JoinHostPort(m.Address, strconv.Itoa(m.Port)),
		Version: m.Version, Roles: []string{}, Local: local, CPUs: m.CPUs, Memory: m.Memory, GPUs: m.GPUs, Load: m.Load,
		Running: m.Running, Drained: m.Drained, Quarantined: m.Quarantined, Reason: m.Reason, Labels: m.Labels, Devices: []api.GPU{},
	}
	if !m.There() {
		v.Load, v.Running = 0, 0 // what it said last is over
	}
	for _, r := range m.Roles {
		v.Roles = append(v.Roles, string(r))
	}
	if m.Inventory == nil {
		return v
	}
	v.Driver, v.CUDA, v.Problem, v.MoreDevices = m.Inventory.Driver, m.Inventory.CUDA, m.Inventory.GPUProblem, m.Inventory.More
	for _, g := range m.Inventory.Groups {
		v.Groups = append(v.Groups, api.GPUGroup(g))
	}
	for i := range m.Inventory.GPUs {
		g := &m.Inventory.GPUs[i]
		v.Devices = append(v.Devices, api.GPU{
			Node: m.Node, Index: g.Index, Instance: inventory.Unknown, UUID: g.UUID, Name: g.Name, MIG: g.MIG, Capability: g.Capability,
			Group: g.Group, NUMA: g.NUMA, Mode: g.Mode, Memory: g.Memory, Used: g.MemoryUsed, Utilization: g.Utilization,
			Temperature: g.Temperature, Power: g.Power, Processes: g.Processes, State: g.State, Why: g.Why, Since: g.Since,
			Trials: g.Trials, Problem: g.Problem,
		})
		for k, in := range g.Instances {
			v.Devices = append(v.Devices, api.GPU{
				Node: m.Node, Index: g.Index, Instance: k, UUID: in.UUID, Parent: g.UUID, Name: g.Name, Profile: in.Profile,
				Capability: g.Capability, Group: inventory.Unknown, NUMA: g.NUMA, Memory: in.Memory, Used: in.MemoryUsed,
				Utilization: inventory.Unknown, Temperature: inventory.Unknown, Power: inventory.Unknown, Processes: inventory.Unknown,
				State: in.State, Why: in.Why, Trials: in.Trials,
			})
		}
	}
	return v
}

// gossipAddresses lists where nodes that are there gossip, for others to join.
func (n *Node) gossipAddresses() []string {
	var all []string
	for _, m := range n.fleet.cluster.Members() {
		if m.There() {
			all = append(all, net.JoinHostPort(m.Address, strconv.Itoa(m.Port)))
		}
	}
	return all
}

// local is this node as gossip tells of it.
func (n *Node) local() cluster.Member {
	for _, m := range n.fleet.cluster.Members() {
		if m.Node == n.fleet.cluster.Node() {
			return m
		}
	}
	return cluster.Member{Node: grid.NodeID(n.cfg.Node)}
}
