package natsd

import (
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"mlfnode/grid"
)

// localUser is the user of connections of this process.
const localUser = "mlfnode"

// Permissions returns the subjects that a node may publish to and subscribe to.
type Permissions func(grid.NodeID) (publish, subscribe []string)

// authenticator decides who may connect: clients of this process by a password that never leaves
// it, with all permissions, and nodes by their certificates.
type authenticator struct {
	password    string
	peer        func(tls.ConnectionState) (grid.NodeID, error)
	permissions Permissions
	conns       *connections
	log         *slog.Logger

	mu         sync.Mutex
	handshakes map[grid.NodeID]handshakes // of nodes that have not authenticated since
	blocked    map[grid.NodeID]time.Time  // until when a node is refused
}

// handshakes counts how often a node has shown a valid certificate in a row without authenticating.
// A node of protocol version 1 does so: it does not understand how this server greets it.
type handshakes struct {
	count  int
	warned bool
	last   time.Time
}

const (
	// handshakeAge is how long a handshake counts.
	handshakeAge = time.Hour
	// outdatedHandshakes is the count above which a node is taken for one of an older version.
	outdatedHandshakes = 5
)

var _ server.Authentication = (*authenticator)(nil)

func newAuthenticator(
	peer func(tls.ConnectionState) (grid.NodeID, error), permissions Permissions, log *slog.Logger,
) *authenticator {
	return &authenticator{
		password: rand.Text(), peer: peer, permissions: permissions, conns: newConnections(), log: log,
		handshakes: map[grid.NodeID]handshakes{}, blocked: map[grid.NodeID]time.Time{},
	}
}

// Check implements server.Authentication.
func (a *authenticator) Check(c server.ClientAuthentication) bool {
	state := c.GetTLSConnectionState()
	if state == nil { // a client of this process: those of other machines have to begin with TLS
		if subtle.ConstantTimeCompare([]byte(c.GetOpts().Password), []byte(a.password)) != 1 {
			return false
		}
		c.RegisterUser(&server.User{Username: localUser})
		return true
	}
	node, err := a.peer(*state)
	if err != nil || node == "" {
		a.log.Debug("node is refused", "from", c.RemoteAddress(), "err", err)
		return false
	}
	if a.isBlocked(node) {
		return false
	}
	publish, subscribe := a.permissions(node)
	c.RegisterUser(&server.User{Username: string(node), Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: publish}, Subscribe: &server.SubjectPermission{Allow: subscribe},
	}})
	a.conns.add(c.GetID(), node)
	if _, err := a.peer(*state); err != nil { // Kick may have missed the connection
		a.conns.remove(c.GetID())
		return false
	}
	return true
}

// block refuses a node for blockTime.
func (a *authenticator) block(node grid.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(a.blocked, func(_ grid.NodeID, until time.Time) bool { return now.After(until) })
	a.blocked[node] = now.Add(blockTime)
}

// isBlocked reports whether a node that has got as far as this is refused.
func (a *authenticator) isBlocked(node grid.NodeID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.handshakes, node) // the node speaks this version's protocol
	if time.Now().Before(a.blocked[node]) {
		return true
	}
	delete(a.blocked, node)
	return false
}

// countHandshakes returns a copy of cfg that counts the handshakes of each node.
func (a *authenticator) countHandshakes(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	if forClient := cfg.GetConfigForClient; forClient != nil {
		cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := forClient(hello)
			if own != nil {
				own.VerifyConnection = cfg.VerifyConnection
			}
			return own, err
		}
	}
	verify := cfg.VerifyConnection
	cfg.VerifyConnection = func(s tls.ConnectionState) error {
		if verify != nil {
			if err := verify(s); err != nil {
				return err
			}
		}
		node, err := a.peer(s)
		if err != nil {
			return err
		}
		a.countHandshake(node)
		return nil
	}
	return cfg
}

// countHandshake counts a handshake with a valid certificate, and warns once about a node that does
// not get further.
func (a *authenticator) countHandshake(node grid.NodeID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	h, seen := a.handshakes[node]
	if !seen {
		maps.DeleteFunc(a.handshakes, func(_ grid.NodeID, h handshakes) bool { return now.Sub(h.last) > handshakeAge })
	}
	h.count++
	h.last = now
	if h.count > outdatedHandshakes && !h.warned {
		h.warned = true
		a.log.Warn("node does not speak this version's protocol, and takes no trials; its programs go on. "+
			"Update its mlfnode: run mlfnode up, or mlfnode push and mlfnode restart", "node", node)
	}
	a.handshakes[node] = h
}
