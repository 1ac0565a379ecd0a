package jetstream

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

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
	// sendTime is how long a client may take no answer before it is cut off.
	sendTime = 10 * time.Second
)

// gate is where the connections of other nodes come in. nats-server itself listens nowhere: each connection has to show a
// certificate, gets a connection of this process to the server, in the node's name, and what the node sends is looked at on its
// way (filter).
type gate struct {
	log    *slog.Logger
	listen Listen
	socket net.Listener
	inside func() (net.Conn, error)
	secret string // lets the gate's connections in
	room   chan struct{}

	running sync.WaitGroup
	ending  chan struct{} // closed by close

	mu     sync.Mutex
	open   map[net.Conn]grid.NodeID // "" before the certificate
	ended  map[int]func(grid.NodeID)
	ids    int
	closed bool
}

// openGate begins to listen; serve takes connections.
func openGate(l Listen, inside func() (net.Conn, error), log *slog.Logger) (*gate, error) {
	socket, err := net.Listen("tcp", net.JoinHostPort(l.Host, strconv.Itoa(l.Port)))
	if err != nil {
		return nil, fmt.Errorf("listen for nodes: %w", err)
	}
	return &gate{
		log: log, listen: l, socket: socket, inside: inside, secret: rand.Text(), room: make(chan struct{}, maxClients),
		ending: make(chan struct{}),
		open:   map[net.Conn]grid.NodeID{}, ended: map[int]func(grid.NodeID){},
	}, nil
}

// serve takes connections until close.
func (g *gate) serve() {
	pause := time.Duration(0)
	for {
		g.room <- struct{}{}
		conn, err := g.socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || !g.enter(conn) {
			<-g.room
			if err != nil {
				pause = g.backOff(pause, err)
			}
			continue
		}
		pause = 0
		g.running.Go(func() {
			defer func() { <-g.room }()
			g.attend(conn)
		})
	}
}

// acceptPause and acceptPauses bound the wait after a connection that could not be taken, as when no file is left: net/http's.
const (
	acceptPause  = 5 * time.Millisecond
	acceptPauses = time.Second
)

// backOff waits after a failure to take a connection, twice as long each time, and gives the wait. It says so when the wait begins,
// and not each time.
func (g *gate) backOff(last time.Duration, err error) time.Duration {
	if last == 0 {
		g.log.Warn("connections can't be accepted; trying again", "err", err)
	}
	pause := min(max(acceptPause, 2*last), acceptPauses)
	wait := time.NewTimer(pause)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-g.ending:
	}
	return pause
}

// enter notes a connection; false when the gate is closed.
func (g *gate) enter(conn net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		conn.Close()
		return false
	}
	g.open[conn] = ""
	return true
}

// attend passes a connection on until one of its ends closes.
func (g *gate) attend(raw net.Conn) {
	node, err := g.pass(raw)
	if err != nil {
		g.log.Debug("connection of a node ended", "node", node, "from", raw.RemoteAddr(), "err", err)
	}
	raw.Close()
	g.mu.Lock()
	delete(g.open, raw)
	told := make([]func(grid.NodeID), 0, len(g.ended))
	for _, fn := range g.ended {
		told = append(told, fn)
	}
	g.mu.Unlock()
	if node == "" {
		return
	}
	for _, fn := range told {
		fn(node)
	}
}

// pass is one connection. The node is "" when it has shown no good certificate.
func (g *gate) pass(raw net.Conn) (grid.NodeID, error) {
	outside := tls.Server(raw, g.listen.TLS)
	node, err := g.identify(outside)
	if err != nil {
		return "", err
	}
	g.mu.Lock()
	g.open[raw] = node
	g.mu.Unlock()
	if _, err := g.listen.Peer(outside.ConnectionState()); err != nil {
		return "", err
	}
	inside, err := g.inside()
	if err != nil {
		return node, err
	}
	defer inside.Close()
	sent := make(chan error, 1)
	go func() {
		f := newFilter(node, g.secret, outside, inside)
		err := f.run()
		if errors.As(err, &refusedError{}) {
			g.log.Warn("node was cut off for what it sent", "node", node, "from", raw.RemoteAddr(), "err", err)
		}
		inside.Close() // ends the copying
		sent <- err
	}()
	_, err = io.Copy(patient{outside}, inside)
	raw.Close() // ends the filter
	return node, errors.Join(err, <-sent)
}

// identify does the handshake.
func (g *gate) identify(conn *tls.Conn) (grid.NodeID, error) {
	ctx, stop := context.WithTimeout(context.Background(), doorTime) // a connection has no context
	defer stop()
	if err := conn.HandshakeContext(ctx); err != nil {
		return "", err
	}
	return g.listen.Peer(conn.ConnectionState())
}

// patient is a connection to a client that has to take what it is sent.
type patient struct{ net.Conn }

// Write implements io.Writer.
func (p patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}

// kick ends the connections of a node.
func (g *gate) kick(node grid.NodeID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for conn, of := range g.open {
		if of == node {
			conn.Close()
		}
	}
}

// watch has fn called with each node whose connection ends.
func (g *gate) watch(fn func(grid.NodeID)) (stop func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ids++
	id := g.ids
	g.ended[id] = fn
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.ended, id)
	}
}

// close ends everything, and returns when it has.
func (g *gate) close() {
	close(g.ending)
	g.socket.Close()
	g.mu.Lock()
	g.closed = true
	for conn := range g.open {
		conn.Close()
	}
	g.mu.Unlock()
	g.running.Wait()
}
