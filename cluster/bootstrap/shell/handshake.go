package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"mlfnode/node/poll"
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

// Dial connects to a machine and authenticates. The error is a *Problem, or the cause of ctx's end.
func (d *Dialer) Dial(ctx context.Context, t Target) (*Connection, error) {
	r, err := d.route(t)
	if err != nil {
		return nil, err
	}
	way, err := d.jumpPath(r, maxJumps)
	if errors.Is(err, errJumpLoop) {
		return nil, problemf("fix ProxyJump in ~/.ssh/config", "the jump hosts of %s form a loop", t.Host)
	}
	if err != nil {
		return nil, err
	}
	return d.dialThrough(ctx, r, way)
}

// dialThrough reaches a machine by way of jump hosts, and tries again while its server drops
// connections.
func (d *Dialer) dialThrough(ctx context.Context, r route, way []route) (*Connection, error) {
	var jump *Connection
	leave := func() error { return nil }
	if n := len(way); n > 0 {
		var path strings.Builder
		for _, hop := range way {
			fmt.Fprintf(&path, "%s %s %s,", hop.user, hop.name, hop.address())
		}
		var err error
		jump, leave, err = d.jumps.acquire(ctx, path.String(), func(ctx context.Context) (*Connection, error) {
			return d.dialThrough(ctx, way[n-1], way[:n-1])
		})
		if err != nil {
			return nil, wrapJumpError(r, way[n-1], err)
		}
	}
	paused := time.Duration(0)
	for pause := firstPause; ; pause *= 2 {
		c, err := d.dialOnce(ctx, r, jump)
		if err == nil {
			c.releaseJump = leave
			return c, nil
		}
		wait := poll.Jitter(pause)
		if errors.Is(err, errDropped) {
			if paused += wait; paused > retryTimeout {
				err = problemf("see the log of the ssh server there; MaxStartups may be low, or this address blocked",
					"%s closes connections before the ssh handshake's end, for %v", r, retryTimeout)
			} else if poll.Sleep(ctx, wait) {
				continue
			} else {
				err = context.Cause(ctx)
			}
		}
		_ = leave() // the machine's error matters
		return nil, err
	}
}

// errDropped is returned by dialOnce for a connection that ended before the handshake did.
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
	release := context.AfterFunc(ctx, func() { _ = conn.Close() })
	h := &handshake{dialer: d, ctx: ctx, route: r, conn: &trackedConn{Conn: conn}}
	h.timer = newHandshakeTimer(handshakeTimeout, func() { _ = conn.Close() })
	h.answers.handshake = h
	sc, channels, requests, err := ssh.NewClientConn(h.conn, r.address(), h.config(k))
	h.timer.stop()
	if err == nil && release() {
		c := &Connection{
			route: r, client: ssh.NewClient(sc, channels, requests), conn: h.conn,
			sessions: make(chan struct{}, maxSessions), done: make(chan struct{}),
		}
		c.keepAliveDone.Go(c.keepAlive)
		return c, nil
	}
	_ = conn.Close() // the handshake's error matters
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, h.failureReason(err)
}

// failureReason returns why a handshake failed. Its connection is closed.
func (h *handshake) failureReason(err error) error {
	late, silent := h.timer.ended.Load(), h.conn.received.Load() == 0
	if p, ok := h.conn.Conn.(*proxyConn); ok && silent {
		if late {
			return problemf("see whether `"+h.route.command()+"` gets there",
				"the ProxyCommand of %s said nothing for %v: %s", h.route.name, handshakeTimeout, h.route.proxy)
		}
		if said, failed := p.failure(); failed {
			return proxyProblem(h.route, said)
		}
	}
	dropped := func(by error) bool { return errors.Is(err, by) }
	switch {
	case late:
		return problemf(fmt.Sprintf("check that port %d is an ssh server and that the machine is not overloaded",
			h.route.port),
			"%s took the connection and then said nothing for %v", h.route, handshakeTimeout)
	case h.callbackErr == nil &&
		slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE}, dropped):
		return errDropped
	}
	return h.explain(err)
}

// dialTransport opens the connection to a machine: through the jump host, if there is one, or by
// the ProxyCommand that the configuration has for it.
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
		var d net.Dialer
		if r.bindAddress != nil {
			d.LocalAddr = &net.TCPAddr{IP: r.bindAddress}
		}
		conn, err = d.DialContext(limited, r.family, r.address())
	} else {
		conn, err = jump.client.DialContext(limited, "tcp", r.address())
	}
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case jump != nil && limited.Err() != nil:
		name := jump.route.name
		return nil, problemf(fmt.Sprintf("check that %s is on and reached from %s, and that %s itself still answers",
			r.host, name, name),
			"the jump host %s did not get through to %s within %v", name, r.address(), r.connectTimeout)
	case jump != nil && jump.lost():
		return nil, jumpProblem(r, jump.route, lostProblem(jump.route))
	case limited.Err() != nil:
		return nil, networkProblem(r, limited.Err())
	case jump != nil:
		if refused, ok := errors.AsType[*ssh.OpenChannelError](err); ok { // in the words of the jump host
			err = errors.New(refused.Message)
			if refused.Reason == ssh.Prohibited {
				err = errors.New("it passes no connections on, see AllowTcpForwarding of its ssh server")
			}
		}
		return nil, jumpProblem(r, jump.route, err)
	}
	return nil, networkProblem(r, err)
}

// handshakeTimer aborts a handshake that takes too long.
type handshakeTimer struct {
	limit time.Duration
	timer *time.Timer
	ended atomic.Bool
}

// newHandshakeTimer calls end once the time has run out.
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

// handshakeLimiter bounds how many handshakes go on at once, together and with each server: sshd
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
