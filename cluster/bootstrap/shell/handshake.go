package shell

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// handshakeLimit bounds a handshake, without the time that a person takes to answer.
	handshakeLimit = 10 * time.Second
	// retryLimit bounds the pauses between tries with a server that drops connections, as with MaxStartups it does while others
	// come in. Waiting for a turn, or for an answer of the user, uses up none of it.
	retryLimit = 15 * time.Second
	firstPause = 200 * time.Millisecond
)

// Dial connects to a machine and is let in. The error is a *Problem, or the cause of ctx's end.
func (d *Dialer) Dial(ctx context.Context, t Target) (*Connection, error) {
	r, err := d.route(t)
	if err != nil {
		return nil, err
	}
	way, err := d.way(r, jumpDepth)
	if errors.Is(err, errCircle) {
		return nil, jumpLoopProblem(t)
	}
	if err != nil {
		return nil, err
	}
	return d.reachBy(ctx, r, way)
}

// reachBy reaches a machine by way of jump hosts.
func (d *Dialer) reachBy(ctx context.Context, r route, way []route) (*Connection, error) {
	jump, leave, err := d.pass(ctx, r, way)
	if err != nil {
		return nil, err
	}
	c, err := d.reach(ctx, r, jump)
	if err != nil {
		_ = leave() // the error to tell is the machine's
		return nil, err
	}
	c.leave = leave
	return c, nil
}

// reach connects and shakes hands, again and again while the server drops connections.
func (d *Dialer) reach(ctx context.Context, r route, jump *Connection) (*Connection, error) {
	paused := time.Duration(0)
	for pause := firstPause; ; pause *= 2 {
		c, err := d.once(ctx, r, jump)
		if !errors.Is(err, errDropped) {
			return c, err
		}
		wait := pause/2 + rand.N(pause)
		if paused += wait; paused > retryLimit {
			return nil, droppedProblem(r)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// errDropped is given by once for a connection that ended before the handshake did.
var errDropped = errors.New("shake hands: connection dropped")

// once makes one try.
func (d *Dialer) once(ctx context.Context, r route, jump *Connection) (*Connection, error) {
	leave, err := d.slots.enter(ctx, r.knownAs()+" "+r.address())
	if err != nil {
		return nil, err
	}
	defer leave()
	conn, err := connect(ctx, r, jump)
	if err != nil {
		return nil, err
	}
	k, err := loadKnown(r)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	clock := newPatience(handshakeLimit, func() { _ = conn.Close() })
	release := context.AfterFunc(ctx, func() { _ = conn.Close() })
	counted := &countedConn{Conn: conn}
	a := &attempt{d: d, ctx: ctx, route: r, conn: counted, clock: clock}
	sc, channels, requests, err := ssh.NewClientConn(counted, r.address(), a.config(k))
	clock.stop()
	if err == nil && release() {
		return newConnection(r, ssh.NewClient(sc, channels, requests), counted), nil
	}
	_ = conn.Close() // the handshake's error is the one to tell
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, a.failure(err)
}

// failure says why a handshake failed; its connection is closed.
func (a *attempt) failure(err error) error {
	late, silent := a.clock.ended.Load(), a.conn.received.Load() == 0
	if p, ok := a.conn.Conn.(*proxyConn); ok && silent {
		if late {
			return silentProxyProblem(a.route, handshakeLimit)
		}
		if said, failed := p.failure(); failed {
			return proxyProblem(a.route, said)
		}
	}
	switch {
	case late:
		return hungProblem(a.route, handshakeLimit)
	case a.problem == nil && isDrop(err):
		return errDropped
	}
	return a.outcome(err)
}

func isDrop(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// connect opens the way to a machine, through the jump host when there is one, or by the command that the configuration has for it.
func connect(ctx context.Context, r route, jump *Connection) (net.Conn, error) {
	if jump == nil && r.proxy != "" {
		p, err := startProxy(r)
		if err != nil {
			return nil, err // not a nil *proxyConn in an interface
		}
		return p, nil
	}
	limited, cancel := context.WithTimeout(ctx, r.connectTime)
	defer cancel()
	var conn net.Conn
	var err error
	if jump == nil {
		conn, err = r.dialer().DialContext(limited, r.family, r.address())
	} else {
		conn, err = jump.client.DialContext(limited, "tcp", r.address())
	}
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case jump != nil && limited.Err() != nil:
		return nil, silentJumpProblem(r, jump.route)
	case jump != nil && jump.lost():
		return nil, jumpProblem(r, jump.route, lostProblem(jump.route))
	case limited.Err() != nil:
		return nil, networkProblem(r, limited.Err())
	case jump != nil:
		return nil, jumpProblem(r, jump.route, jumpReason(err))
	}
	return nil, networkProblem(r, err)
}

// jumpReason takes the words of the jump host out of a refusal.
func jumpReason(err error) error {
	var refused *ssh.OpenChannelError
	switch {
	case !errors.As(err, &refused):
		return err
	case refused.Reason == ssh.Prohibited:
		return errors.New("it passes no connections on, see AllowTcpForwarding of its ssh server")
	}
	return errors.New(refused.Message)
}

// patience ends a handshake that takes too long.
type patience struct {
	limit time.Duration
	timer *time.Timer
	ended atomic.Bool
}

func newPatience(limit time.Duration, end func()) *patience {
	p := &patience{limit: limit}
	p.timer = time.AfterFunc(limit, func() {
		p.ended.Store(true)
		end()
	})
	return p
}

func (p *patience) stop()  { p.timer.Stop() }
func (p *patience) start() { p.timer.Reset(p.limit) }

// slots bound how many handshakes go on at once, together and with each server: sshd drops connections beyond a few
// (MaxStartups 10:30:100), and others use it too.
type slots struct {
	all chan struct{}

	mu   sync.Mutex
	each map[string]chan struct{} // one for each server of a cluster, so few that they are kept
}

const (
	handshakes     = 8
	handshakesEach = 2
)

func newSlots() *slots {
	return &slots{all: make(chan struct{}, handshakes), each: map[string]chan struct{}{}}
}

// enter waits for a turn at a server. The server's own comes first, so that one that is slow does not hold up others.
func (s *slots) enter(ctx context.Context, server string) (leave func(), err error) {
	s.mu.Lock()
	if s.each[server] == nil {
		s.each[server] = make(chan struct{}, handshakesEach)
	}
	turns := []chan struct{}{s.each[server], s.all}
	s.mu.Unlock()
	var taken []chan struct{}
	leave = func() {
		for _, turn := range slices.Backward(taken) {
			<-turn
		}
	}
	for _, turn := range turns {
		select {
		case turn <- struct{}{}:
			taken = append(taken, turn)
		case <-ctx.Done():
			leave()
			return nil, context.Cause(ctx)
		}
	}
	return leave, nil
}
