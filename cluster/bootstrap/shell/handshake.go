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
	// handshakeTimeout bounds a handshake, not counting the time that the user takes to answer.
	handshakeTimeout = 10 * time.Second
	// retryTimeout bounds the pauses between tries with a server that drops connections, as with
	// MaxStartups it does while others come in. Waiting for a turn, or for an answer of the user,
	// uses up none of it.
	retryTimeout = 15 * time.Second
	firstPause   = 200 * time.Millisecond
)

// Dial connects to a machine and is let in. The error is a *Problem, or the cause of ctx's end.
func (d *Dialer) Dial(ctx context.Context, t Target) (*Connection, error) {
	r, err := d.route(t)
	if err != nil {
		return nil, err
	}
	way, err := d.jumpPath(r, maxJumps)
	if errors.Is(err, errJumpLoop) {
		return nil, jumpLoopProblem(t)
	}
	if err != nil {
		return nil, err
	}
	return d.dialThrough(ctx, r, way)
}

// dialThrough reaches a machine by way of jump hosts.
func (d *Dialer) dialThrough(ctx context.Context, r route, way []route) (*Connection, error) {
	jump, leave, err := d.connectJumps(ctx, r, way)
	if err != nil {
		return nil, err
	}
	c, err := d.dialRetrying(ctx, r, jump)
	if err != nil {
		_ = leave() // the machine's error matters
		return nil, err
	}
	c.releaseJump = leave
	return c, nil
}

// dialRetrying connects and shakes hands, and tries again while the server drops connections.
func (d *Dialer) dialRetrying(ctx context.Context, r route, jump *Connection) (*Connection, error) {
	paused := time.Duration(0)
	for pause := firstPause; ; pause *= 2 {
		c, err := d.dialOnce(ctx, r, jump)
		if !errors.Is(err, errDropped) {
			return c, err
		}
		wait := pause/2 + rand.N(pause)
		if paused += wait; paused > retryTimeout {
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

// dialOnce makes one attempt.
func (d *Dialer) dialOnce(ctx context.Context, r route, jump *Connection) (*Connection, error) {
	leave, err := d.limiter.acquire(ctx, r.knownHostsName()+" "+r.address())
	if err != nil {
		return nil, err
	}
	defer leave()
	conn, err := dialTransport(ctx, r, jump)
	if err != nil {
		return nil, err
	}
	k, err := loadKnownHosts(r)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	clock := newHandshakeTimer(handshakeTimeout, func() { _ = conn.Close() })
	release := context.AfterFunc(ctx, func() { _ = conn.Close() })
	counted := &trackedConn{Conn: conn}
	a := newHandshake(ctx, d, r, counted, clock)
	sc, channels, requests, err := ssh.NewClientConn(counted, r.address(), a.config(k))
	clock.stop()
	if err == nil && release() {
		return newConnection(r, ssh.NewClient(sc, channels, requests), counted), nil
	}
	_ = conn.Close() // the handshake's error matters
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, a.failureReason(err)
}

// failureReason returns why a handshake failed. Its connection is closed.
func (h *handshake) failureReason(err error) error {
	late, silent := h.timer.ended.Load(), h.conn.received.Load() == 0
	if p, ok := h.conn.Conn.(*proxyConn); ok && silent {
		if late {
			return silentProxyProblem(h.route, handshakeTimeout)
		}
		if said, failed := p.failure(); failed {
			return proxyProblem(h.route, said)
		}
	}
	switch {
	case late:
		return silentProblem(h.route, handshakeTimeout)
	case h.callbackErr == nil && isDropped(err):
		return errDropped
	}
	return h.explain(err)
}

func isDropped(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// dialTransport opens the way to a machine, through the jump host when there is one, or by the
// command that the configuration has for it.
func dialTransport(ctx context.Context, r route, jump *Connection) (net.Conn, error) {
	if jump == nil && r.proxy != "" {
		p, err := startProxy(r)
		if err != nil {
			return nil, err // not a nil *proxyConn in an interface
		}
		return p, nil
	}
	limited, cancel := context.WithTimeout(ctx, r.connectTimeout)
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

// handshakeTimer aborts a handshake that takes too long.
type handshakeTimer struct {
	limit time.Duration
	timer *time.Timer
	ended atomic.Bool
}

func newHandshakeTimer(limit time.Duration, end func()) *handshakeTimer {
	p := &handshakeTimer{limit: limit}
	p.timer = time.AfterFunc(limit, func() {
		p.ended.Store(true)
		end()
	})
	return p
}

func (t *handshakeTimer) stop()  { t.timer.Stop() }
func (t *handshakeTimer) start() { t.timer.Reset(t.limit) }

// handshakeLimiter bound how many handshakes go on at once, together and with each server: sshd
// drops connections beyond a few (MaxStartups 10:30:100), and others use it too.
type handshakeLimiter struct {
	all chan struct{}

	mu        sync.Mutex
	perServer map[string]chan struct{} // one for each server of a cluster, so few that they are kept
}

const (
	maxHandshakes          = 8
	maxHandshakesPerServer = 2
)

func newHandshakeLimiter() *handshakeLimiter {
	return &handshakeLimiter{all: make(chan struct{}, maxHandshakes), perServer: map[string]chan struct{}{}}
}

// acquire waits for a slot at a server. The server's own slot comes first, so that a slow server
// does not hold up others.
func (l *handshakeLimiter) acquire(ctx context.Context, server string) (leave func(), err error) {
	l.mu.Lock()
	if l.perServer[server] == nil {
		l.perServer[server] = make(chan struct{}, maxHandshakesPerServer)
	}
	turns := []chan struct{}{l.perServer[server], l.all}
	l.mu.Unlock()
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
