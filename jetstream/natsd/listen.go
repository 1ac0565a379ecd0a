package natsd

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"mlfnode/grid"
)

// Listen says how the other nodes of a cluster reach a Server.
type Listen struct {
	Host string // address to listen on; empty means every address
	Port int    // 0 takes a free one; see Server.Addr
	TLS  *tls.Config
	// Peer returns the node that a client's certificate names. An error refuses the client. Peer is
	// called once more when Kick can already find the connection: the node may have been removed
	// meanwhile.
	Peer func(tls.ConnectionState) (grid.NodeID, error)
}

const (
	// handshakeLimit is how long a client may take to show its certificate: enough for a slow line,
	// too short to pile up.
	handshakeLimit = 3 * time.Second
	// maxClients bounds connections, including those without a certificate yet; a node has one.
	maxClients = 4096
	// maxSubscriptions bounds the subscriptions of one connection. A node has two, and a master one
	// for each reader.
	maxSubscriptions = 16 << 10
	// MaxNodeSubscriptions bounds the subscriptions of a node: each answer to it is sent to all.
	// subscriptionInterval is how often nodes with more are looked for.
	MaxNodeSubscriptions = 16
	subscriptionInterval = time.Second
	// blockTime is how long a node that was cut off stays out: it would go on as before.
	blockTime = 10 * time.Second
	// writeLimit is how long a client may leave its answers unread before it is cut off, and
	// maxPending bounds what waits for it meanwhile. The master's own connections may lag behind
	// what all nodes send together.
	writeLimit = 10 * time.Second
	maxPending = 64 << 20
	// reapInterval is how often closed connections are looked for: nats-server does not report
	// them.
	reapInterval = 100 * time.Millisecond

	// PingInterval is how often a connection between two machines is tested, and MaxPings how many
	// pings may go unanswered: a half-open connection ends within some seconds.
	PingInterval = 2 * time.Second
	MaxPings     = 3
)

// listen configures the server to accept connections of other nodes.
func (s *Server) listen(l *Listen, permissions Permissions) error {
	port := l.Port
	if port == 0 {
		port = server.RANDOM_PORT
	} else { // nats-server reports a port in use as text only
		try, err := net.Listen("tcp", net.JoinHostPort(l.Host, strconv.Itoa(port)))
		if err != nil {
			return fmt.Errorf("listen for nodes: %w", err)
		}
		try.Close()
	}
	s.auth = newAuthenticator(l.Peer, permissions, s.log)
	o := s.opts
	o.DontListen, o.Host, o.Port = false, l.Host, port
	o.TLSConfig, o.TLSTimeout, o.TLSHandshakeFirst = s.auth.countHandshakes(l.TLS), handshakeLimit.Seconds(), true
	o.CustomClientAuthentication, o.AuthTimeout = s.auth, handshakeLimit.Seconds()
	o.MaxConn, o.MaxSubs = maxClients, maxSubscriptions
	o.PingInterval, o.MaxPingsOut, o.MaxPending, o.WriteDeadline = PingInterval, MaxPings, maxPending, writeLimit
	return nil
}

// Listens reports whether the server accepts connections of other nodes.
func (s *Server) Listens() bool { return s.auth != nil }

// Addr returns the address that the server listens on, nil if it does not listen.
func (s *Server) Addr() net.Addr {
	if s.auth == nil {
		return nil
	}
	return s.nats.Addr()
}

// nodeConnections are the connections of nodes to a server.
type nodeConnections struct {
	auth *authenticator // nil if the server does not listen
	nats *server.Server
}

// watch maintains the table of connections until ctx ends, and closes connections of nodes with
// more than MaxNodeSubscriptions.
func (c *nodeConnections) watch(ctx context.Context) {
	reap := time.NewTicker(reapInterval)
	defer reap.Stop()
	count := time.NewTicker(subscriptionInterval)
	defer count.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-count.C:
			c.closeOversubscribed()
		case <-c.auth.conns.superseded:
		case <-reap.C:
		}
		c.auth.conns.reap(func(id uint64) bool { return c.nats.GetClient(id) != nil }, c.closeConnection)
	}
}

func (c *nodeConnections) closeOversubscribed() {
	open, err := c.nats.Connz(&server.ConnzOptions{Limit: maxClients})
	if err != nil {
		c.auth.log.Debug("connections could not be listed", "err", err)
		return
	}
	nodes := c.auth.conns.byID()
	for _, conn := range open.Conns {
		if node := nodes[conn.Cid]; node != "" && conn.NumSubs > MaxNodeSubscriptions {
			c.auth.log.Warn("node has too many subscriptions; its connection is closed",
				"node", node, "subscriptions", conn.NumSubs)
			c.closeConnection(conn.Cid)
		}
	}
}

func (c *nodeConnections) closeConnection(id uint64) {
	_ = c.nats.DisconnectClientByID(id) // fails if the connection has ended by itself
}

// Connections returns how many connections each node has. A node that has just reconnected may have
// two.
func (c *nodeConnections) Connections() map[grid.NodeID]int {
	count := map[grid.NodeID]int{}
	if c.auth != nil {
		for _, node := range c.auth.conns.byID() {
			count[node]++
		}
	}
	return count
}

// Disconnections calls fn with each node whose last connection ends, until stop is called: shortly
// after the other side has closed it, and within some seconds if it does not answer. fn must be
// quick and must not call stop; it does not run after stop has returned. The Server must listen.
func (c *nodeConnections) Disconnections(fn func(grid.NodeID)) (stop func()) {
	return c.auth.conns.onDisconnect(fn)
}

// Kick closes the connections of a node that may no longer connect.
func (c *nodeConnections) Kick(node grid.NodeID) {
	for id, of := range c.auth.conns.byID() {
		if of == node {
			c.closeConnection(id)
		}
	}
}

// Block closes the connections of a node, and refuses new ones for a while.
func (c *nodeConnections) Block(node grid.NodeID) {
	c.auth.block(node)
	c.Kick(node)
}
