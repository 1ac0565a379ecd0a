// Package cluster tracks which nodes there are, which of them are alive, and what each one
// publishes about itself.
//
// The nodes gossip (SWIM with Lifeguard, by hashicorp/memberlist): each one probes some others
// twice a second, and what one learns spreads to all in about a second. There is no master in this;
// `members` works on any node. A member is alive; suspect when this node can't reach it; dead when
// nobody heard of it in time; left when it announced its departure. A suspect node returns by
// answering, a dead or left one by joining again. What a node publishes travels in two ways: the
// few bytes on which others base decisions travel with the news that it is alive, and everything
// else (GPUs, long texts, load) is exchanged between pairs of nodes now and then.
//
// Gossip never changes a trial. It alerts the master early that a node may be dead; the master
// requires a second sign before it takes leases back.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
	"mlfnode/node/poll"
)

// Config says how a node takes part. All fields but Advertise, Keys and Label are needed.
type Config struct {
	Node grid.NodeID
	Bind string // address to listen on, TCP and UDP; 0.0.0.0 or :: for all
	Port int    // 0: any free one
	// address where others reach this node; empty: Bind, or ChooseAddress("") if Bind is
	// unspecified
	Advertise string
	// 16, 24 or 32 bytes each, the primary first; none is allowed on loopback only, and then
	// nothing is encrypted
	Keys   [][]byte
	Label  string       // id of the cluster, at most 255 bytes: nodes with another one are not heard
	Self   Self         // what this node publishes at first
	Logger *slog.Logger // messages of memberlist are debug messages

	wrap func(memberlist.NodeAwareTransport) memberlist.NodeAwareTransport // for tests that lose packets
}

// Cluster is this node's part in the gossip. Its methods may be called from any goroutine.
type Cluster struct {
	*keyring

	log     *slog.Logger
	node    grid.NodeID
	address string // host:port that others reach this node at
	port    int    // that this node listens on
	ml      *memberlist.Memberlist

	table     *table
	published *publishedState
	route     atomic.Pointer[route] // nil for none
	admission admission

	life    context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup
}

// Start listens and is a cluster of one until it joins others or they join it.
func Start(cfg Config) (*Cluster, error) {
	advertise, err := cfg.check()
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		log: cfg.Logger.With("component", "cluster"), node: cfg.Node, table: newTable(cfg.Node),
		published: &publishedState{
			started: time.Now().Truncate(time.Millisecond), self: cfg.Self, sent: cfg.Self, serial: 1,
			changed: poll.NewSignal(),
		},
	}
	if c.keyring, err = newKeyring(cfg.Keys); err != nil {
		return nil, err
	}
	if err := c.listen(cfg, advertise); err != nil {
		return nil, err
	}
	c.life, c.end = context.WithCancel(context.Background()) // ends with Close
	c.table.receive([]*detail{c.published.detail(c.node)})
	c.running.Go(func() { c.table.run(c.life, c.log) })
	c.running.Go(func() { c.published.run(c.life, c.ml, c.log) })
	c.running.Go(c.reconnect)
	return c, nil
}

// check refuses what can't work, and returns the address that other nodes are to use.
func (cfg *Config) check() (advertise string, err error) {
	bind, err := netip.ParseAddr(cfg.Bind)
	switch {
	case err != nil:
		return "", fmt.Errorf("bind address of the gossip: %w", err)
	case cfg.Node == "" || len(cfg.Node) > maxName:
		return "", fmt.Errorf("node name %q: it needs 1 to %d bytes", cfg.Node, maxName)
	case len(cfg.Label) > memberlist.LabelMaxSize:
		return "", fmt.Errorf("cluster label: it has %d bytes, want at most %d", len(cfg.Label),
			memberlist.LabelMaxSize)
	case len(cfg.Keys) == 0 && !bind.IsLoopback():
		return "", fmt.Errorf("gossip on %s without a key: only a loopback address may go unencrypted", cfg.Bind)
	}
	for _, key := range cfg.Keys {
		if err := memberlist.ValidateKey(key); err != nil {
			return "", fmt.Errorf("gossip key: %w", err)
		}
	}
	switch {
	case cfg.Advertise == "" && !bind.IsUnspecified():
		return bind.String(), nil
	case cfg.Advertise == "":
		chosen, err := ChooseAddress("")
		return chosen.String(), err
	}
	advertised, err := netip.ParseAddr(cfg.Advertise)
	if err != nil {
		return "", fmt.Errorf("advertised address of the gossip: %w. Give an IP address that the other nodes reach",
			err)
	}
	if advertised.IsUnspecified() || advertised.IsMulticast() {
		return "", fmt.Errorf("advertised address of the gossip: other nodes can't reach %s", advertised)
	}
	return advertised.String(), nil
}

// listen opens the port and starts memberlist on it.
func (c *Cluster) listen(cfg Config, advertise string) error {
	mc := settings()
	mc.Name, mc.Label, mc.Keyring = string(cfg.Node), cfg.Label, c.ring
	mc.Logger = log.New(&memberlistLog{to: c.log}, "", 0)
	udpTCP, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
		BindAddrs: []string{cfg.Bind}, BindPort: cfg.Port, Logger: mc.Logger,
	})
	if err != nil {
		return fmt.Errorf("open the gossip port: %w", err)
	}
	c.port = udpTCP.GetAutoBindPort()
	mc.BindAddr, mc.BindPort, mc.AdvertiseAddr, mc.AdvertisePort = cfg.Bind, c.port, advertise, c.port
	c.address = net.JoinHostPort(advertise, strconv.Itoa(c.port))
	var network memberlist.NodeAwareTransport = udpTCP
	if cfg.wrap != nil {
		network = cfg.wrap(network)
	}
	mc.Transport = transport{network, c}
	d := &delegate{c: c}
	mc.Delegate, mc.Events, mc.Alive, mc.Conflict, mc.Merge, mc.Ping = d, d, d, d, d, d
	if c.ml, err = memberlist.Create(mc); err != nil {
		udpTCP.Shutdown()
		return fmt.Errorf("start the gossip: %w", err)
	}
	return nil
}

// settings are memberlist's for a LAN, but faster: a death is known to all in about 3 s in place of
// 6 to 10 s.
func settings() *memberlist.Config {
	mc := memberlist.DefaultLANConfig()
	mc.ProbeInterval, mc.ProbeTimeout = 500*time.Millisecond, 200*time.Millisecond
	mc.SuspicionMult, mc.SuspicionMaxTimeoutMult = 3, 3
	mc.GossipInterval = 100 * time.Millisecond
	// What a packet lost is repaired by the next exchange of states: within 15 s, 30 s for 40
	// members, a minute for 200, which costs them 0.1 and 0.2 kB/s more than memberlist's 30 s do,
	// without what GPUs add.
	mc.PushPullInterval = 15 * time.Second
	// A machine that comes back with another address takes its name back once it is known to be
	// dead.
	mc.DeadNodeReclaimTime = time.Nanosecond
	return mc
}

// Port is the port this node listens on.
func (c *Cluster) Port() int { return c.port }

// Node is this node's name.
func (c *Cluster) Node() grid.NodeID { return c.node }

// Members lists all known members by name, this node among them: the alive and suspect ones, those
// that died in the last hour and those that left in the last ten minutes.
func (c *Cluster) Members() []Member { return c.table.members(time.Now()) }

// Watch calls a func with each member that is known now, and then with each one whose state changes
// or whose agent was restarted (Started differs). Calls come from one goroutine, one after the
// other. The func may take its time, but no other change is seen meanwhile: what happens to a
// member while a func runs is one change. The returned func ends it; one call may still be under
// way then.
func (c *Cluster) Watch(fn func(Member)) (stop func()) {
	return c.table.watch(fn)
}

// Refused reports whether a node's machine answers and its agent is gone: its gossip port refuses
// connections. It is false for a node that is not known, for one whose machine is silent, and when
// the context ends first.
func (c *Cluster) Refused(ctx context.Context, node grid.NodeID) bool {
	m, ok := c.table.find(node)
	if !ok || node == c.node {
		return false
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", m.gossip())
	if err == nil {
		conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// Update changes what this node publishes. The func gets a copy to change and must not call the
// Cluster. The change reaches the others within about a second; changes in quick succession are
// published as one, and the last is always published. In a big cluster a change of only the number
// of running attempts is published less often, so that it does not delay the news of a death.
func (c *Cluster) Update(change func(*Self)) {
	c.published.update(change)
	c.table.receive([]*detail{c.published.detail(c.node)})
}

// Leave announces that this node leaves, so that others see it as left and not as dead. It returns
// when one of them has received that, or when the context ends. Close must still be called.
func (c *Cluster) Leave(ctx context.Context) error {
	if c.published.departed.Swap(true) || c.admission.err() != nil {
		return nil // a goodbye in a name that belongs to another node would take that one out
	}
	patience := leaveLimit
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, max(time.Until(deadline), time.Millisecond))
	}
	left := make(chan error, 1)
	c.running.Go(func() {
		c.published.setLeaving()
		begun := time.Now()
		// A later message replaces one that is still queued, so the first is sent before the second
		// is queued. A node that misses it learns it from the next state exchange.
		if err := c.ml.UpdateNode(patience / 2); err != nil {
			c.log.Debug("announce leave", "err", err)
		}
		left <- c.ml.Leave(max(patience-time.Since(begun), time.Millisecond))
	})
	select {
	case err := <-left:
		if err != nil {
			return errors.New("leave the cluster: no other node could be reached")
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("leave the cluster: %w", context.Cause(ctx))
	}
}

// leaveLimit is the longest that a goodbye takes: gossip goes out ten times a second.
const leaveLimit = 2 * time.Second

// Close stops to take part, without a goodbye. It returns when every goroutine has ended.
func (c *Cluster) Close() {
	c.published.departed.Store(true)
	c.end()
	c.running.Wait()
	if err := c.ml.Shutdown(); err != nil {
		c.log.Debug("shutdown of the gossip", "err", err)
	}
}
