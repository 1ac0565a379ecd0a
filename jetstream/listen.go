package jetstream

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"mlfnode/grid"
)

// Listen says how the other nodes of a cluster reach a Server.
type Listen struct {
	Host string // address to listen on; empty is every address
	Port int    // 0 takes a free one; see Server.Addr
	TLS  *tls.Config
	// Peer says which node a client is by its certificate. An error refuses the client. It is asked again once Kick finds the connection:
	// the node may have been forgotten meanwhile.
	Peer func(tls.ConnectionState) (grid.NodeID, error)
}

const (
	// doorTime is how long a client may take to show its certificate: enough for a slow line, too short to pile up.
	doorTime = 3 * time.Second
	// maxClients bounds connections, those without a certificate yet included; a node has one.
	maxClients = 4096
	// maxSubscriptions bounds what one connection listens to. A node has two subscriptions, and a master one for each reader.
	maxSubscriptions = 16 << 10
	// maxNodeSubscriptions bounds what a node listens to: each answer to it is sent to all. Those
	// who listen to more are found once in a countInterval.
	maxNodeSubscriptions = 16
	countInterval        = time.Second
	// barTime is how long a node stays out that was cut off: it would go on as before.
	barTime = 10 * time.Second
	// sendTime is how long a client may take no answer before it is cut off, and clientBytes bounds what waits for it meanwhile.
	// The master's own connections may lag behind what all nodes send together.
	sendTime    = 10 * time.Second
	clientBytes = 64 << 20
	// livePing is how often a connection to another node is tried, so that one that is half open ends within some seconds.
	livePing    = 2 * time.Second
	livePingOut = 3
	// lookInterval is how often connections that have ended are looked for: nats-server does not tell.
	lookInterval = 100 * time.Millisecond
)

// ownUser is the user of connections of this process.
const ownUser = "mlfnode"

// door lets clients in: those of this process by a secret that never leaves it, with all rights, and nodes by their certificates.
type door struct {
	own  string
	peer func(tls.ConnectionState) (grid.NodeID, error)
	log  *slog.Logger
	soon chan struct{} // holds a token when a connection is to be ended

	telling sync.Mutex // held while those that watch are told; taken before mu

	mu    sync.Mutex
	nodes map[uint64]grid.NodeID // connections, by nats-server's numbers
	older []uint64               // of nodes that have a newer one
	ended map[int]func(grid.NodeID)
	ids   int

	knocks map[grid.NodeID]knock     // of nodes whose certificate is good and that have not come in
	barred map[grid.NodeID]time.Time // until when a node stays out
}

// knock is how often a node has shown its certificate in a row without coming in. A node of the version before this
// one does that: it does not understand how this server greets it.
type knock struct {
	count int
	said  bool
	last  time.Time
}

// knockAge is how long a knock counts.
const knockAge = time.Hour

// outdatedKnocks is how often a node must have knocked to be taken for one of an older version.
const outdatedKnocks = 5

var _ server.Authentication = (*door)(nil)

func newDoor(l *Listen, log *slog.Logger) *door {
	return &door{
		own: rand.Text(), peer: l.Peer, log: log, soon: make(chan struct{}, 1),
		nodes: map[uint64]grid.NodeID{}, ended: map[int]func(grid.NodeID){}, knocks: map[grid.NodeID]knock{},
		barred: map[grid.NodeID]time.Time{},
	}
}

// Check implements server.Authentication.
func (d *door) Check(c server.ClientAuthentication) bool {
	state := c.GetTLSConnectionState()
	if state == nil { // of this process: whoever comes from outside has to begin with TLS
		if subtle.ConstantTimeCompare([]byte(c.GetOpts().Password), []byte(d.own)) != 1 {
			return false
		}
		c.RegisterUser(&server.User{Username: ownUser})
		return true
	}
	node, err := d.peer(*state)
	if err != nil || node == "" {
		d.log.Debug("node is refused", "from", c.RemoteAddress(), "err", err)
		return false
	}
	if d.staysOut(node) {
		return false
	}
	c.RegisterUser(&server.User{Username: string(node), Permissions: permissions(node)})
	d.enter(c.GetID(), node)
	if _, err := d.peer(*state); err != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.nodes, c.GetID())
		return false
	}
	return true
}

// bar keeps a node out for a while.
func (d *door) bar(node grid.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(d.barred, func(_ grid.NodeID, until time.Time) bool { return now.After(until) })
	d.barred[node] = now.Add(barTime)
}

// staysOut reports whether a node may not come in yet.
func (d *door) staysOut(node grid.NodeID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Now().Before(d.barred[node]) {
		delete(d.knocks, node) // it is not of an older version
		return true
	}
	delete(d.barred, node)
	return false
}

// admit has each certificate that is found good noted, and says what is to be done about a node that shows one again and again.
func (d *door) admit(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	if each := cfg.GetConfigForClient; each != nil {
		cfg.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			own, err := each(hello)
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
		node, err := d.peer(s)
		if err != nil {
			return err
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		now := time.Now()
		k, seen := d.knocks[node]
		if !seen {
			maps.DeleteFunc(d.knocks, func(_ grid.NodeID, k knock) bool { return now.Sub(k.last) > knockAge })
		}
		k.count++
		k.last = now
		if k.count > outdatedKnocks && !k.said {
			k.said = true
			d.log.Warn("node does not speak this version's protocol, and takes no trials; its programs go on. Update its mlfnode: run mlfnode up, or "+
				"mlfnode push and mlfnode restart", "node", node)
		}
		d.knocks[node] = k
		return nil
	}
	return cfg
}

// permissions are what a node may do: call the master, and listen to the answers.
func permissions(node grid.NodeID) *server.Permissions {
	return &server.Permissions{
		Publish:   &server.SubjectPermission{Allow: []string{callSubject(node, anyVerb)}},
		Subscribe: &server.SubjectPermission{Allow: []string{inbox(node) + ".>"}},
	}
}

// inbox is where answers to a node go.
func inbox(node grid.NodeID) string { return "_INBOX." + token(string(node)) }

// enter notes a connection of a node, which takes the place of an earlier one.
func (d *door) enter(id uint64, node grid.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.knocks, node)
	for old, of := range d.nodes {
		if of == node {
			d.older = append(d.older, old)
		}
	}
	d.nodes[id] = node
	if len(d.older) > 0 {
		select {
		case d.soon <- struct{}{}:
		default:
		}
	}
}

// connected lists the nodes that have a connection.
func (d *door) connected() []grid.NodeID {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]grid.NodeID, 0, len(d.nodes))
	for _, node := range d.nodes {
		all = append(all, node)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// all gives the connections of nodes.
func (d *door) all() map[uint64]grid.NodeID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.nodes)
}

// of lists the connections of a node.
func (d *door) of(node grid.NodeID) []uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []uint64
	for id, of := range d.nodes {
		if of == node {
			all = append(all, id)
		}
	}
	return all
}

// watch has fn called with each node whose last connection has ended. After stop, which fn must not call, it does not run any more.
func (d *door) watch(fn func(grid.NodeID)) (stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ids++
	id := d.ids
	d.ended[id] = fn
	return func() {
		d.mu.Lock()
		delete(d.ended, id)
		d.mu.Unlock()
		d.telling.Lock() // a call that has begun ends
		defer d.telling.Unlock()
	}
}

// look ends connections that have been replaced, and tells of nodes that have none any more.
func (d *door) look(open func(uint64) bool, end func(uint64)) {
	d.telling.Lock()
	defer d.telling.Unlock()
	d.mu.Lock()
	older := d.older
	d.older = nil
	left := map[grid.NodeID]bool{}
	for id, node := range d.nodes {
		if open(id) {
			left[node] = true
		}
	}
	var gone []grid.NodeID
	for id, node := range d.nodes {
		if !open(id) {
			delete(d.nodes, id)
			if !left[node] {
				gone = append(gone, node)
			}
		}
	}
	told := make([]func(grid.NodeID), 0, len(d.ended))
	for _, fn := range d.ended {
		told = append(told, fn)
	}
	d.mu.Unlock()
	for _, id := range older {
		end(id)
	}
	for _, node := range gone {
		for _, fn := range told {
			fn(node)
		}
	}
}

// listen sets the server up to listen for other nodes.
func (s *Server) listen(l *Listen) error {
	port := l.Port
	if port == 0 {
		port = server.RANDOM_PORT
	} else { // nats-server reports a port that is taken in words only
		try, err := net.Listen("tcp", net.JoinHostPort(l.Host, strconv.Itoa(port)))
		if err != nil {
			return fmt.Errorf("listen for nodes: %w", err)
		}
		try.Close()
	}
	s.door = newDoor(l, s.log)
	o := s.opts
	o.DontListen, o.Host, o.Port = false, l.Host, port
	o.TLSConfig, o.TLSTimeout, o.TLSHandshakeFirst, o.CustomClientAuthentication = s.door.admit(l.TLS), doorTime.Seconds(), true, s.door
	o.AuthTimeout, o.MaxConn, o.MaxSubs = doorTime.Seconds(), maxClients, maxSubscriptions
	o.PingInterval, o.MaxPingsOut, o.MaxPending, o.WriteDeadline = livePing, livePingOut, clientBytes, sendTime
	return nil
}

// Addr is where the server listens; nil when it does not.
func (s *Server) Addr() net.Addr {
	if s.door == nil {
		return nil
	}
	return s.nats.Addr()
}

// watchConnections looks after the connections of nodes until ctx ends.
func (s *Server) watchConnections(ctx context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	count := time.NewTicker(countInterval)
	defer count.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-count.C:
			s.endOversubscribed()
		case <-s.door.soon:
		case <-tick.C:
		}
		s.door.look(func(id uint64) bool { return s.nats.GetClient(id) != nil }, s.endConnection)
	}
}

// endOversubscribed ends connections of nodes with more subscriptions than a node has.
func (s *Server) endOversubscribed() {
	open, err := s.nats.Connz(&server.ConnzOptions{Limit: maxClients})
	if err != nil {
		s.log.Debug("connections could not be looked at", "err", err)
		return
	}
	nodes := s.door.all()
	for _, c := range open.Conns {
		if node := nodes[c.Cid]; node != "" && c.NumSubs > maxNodeSubscriptions {
			s.log.Warn("node listens to too much; its connection is ended", "node", node, "subscriptions", c.NumSubs)
			s.endConnection(c.Cid)
		}
	}
}

func (s *Server) endConnection(id uint64) {
	_ = s.nats.DisconnectClientByID(id) // has ended by itself otherwise
}

// Disconnections calls fn with the name of each node whose connection ends, until stop is called: shortly after the other side has
// closed it, and within some seconds when it does not answer. fn must be quick, must not call stop, and does not run any more when stop
// has returned. It is for a Server that listens.
func (s *Server) Disconnections(fn func(grid.NodeID)) (stop func(), err error) {
	return s.door.watch(fn), nil
}

// Kick ends the connections of a node that may not come in any more.
func (s *Server) Kick(node grid.NodeID) {
	for _, id := range s.door.of(node) {
		s.endConnection(id)
	}
}
