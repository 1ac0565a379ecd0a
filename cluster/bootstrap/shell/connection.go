package shell

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"
)

const (
	// sessionsMax is how many programs run at once over one connection; sshd's MaxSessions is 10.
	sessionsMax = 8
	// keepaliveEvery and keepaliveMissed find a machine that is gone within 20 s.
	keepaliveEvery  = 5 * time.Second
	keepaliveMissed = 3
)

// Connection is a machine reached over ssh.
type Connection struct {
	route    route
	client   *ssh.Client
	conn     *countedConn
	leave    func() error // gives up the jump host, nil without
	sessions chan struct{}
	done     chan struct{} // closed by Close
	once     sync.Once
	keeping  sync.WaitGroup
}

var _ Machine = (*Connection)(nil)

func newConnection(r route, client *ssh.Client, conn *countedConn) *Connection {
	c := &Connection{route: r, client: client, conn: conn, sessions: make(chan struct{}, sessionsMax), done: make(chan struct{})}
	c.keeping.Go(c.keep)
	return c
}

// Close ends the connection, and those to the jump hosts before it that no other goes through. Programs that run get a *Problem.
func (c *Connection) Close() error {
	var err error
	c.once.Do(func() {
		close(c.done)
		err = c.client.Close()
		c.keeping.Wait()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			err = nil // it was lost before
		}
		if c.leave != nil {
			err = errors.Join(err, c.leave())
		}
	})
	return err
}

// keep asks the machine for a sign of life and ends the connection when there is none. All that comes in is one: the answer may
// stand behind much else on a slow line.
func (c *Connection) keep() {
	tick := time.NewTicker(keepaliveEvery)
	defer tick.Stop()
	var asking sync.WaitGroup
	defer asking.Wait()
	var waiting atomic.Bool
	for missed, seen := 0, int64(0); ; {
		select {
		case <-c.done:
			return
		case <-tick.C:
		}
		if now := c.conn.received.Load(); !waiting.Load() || now != seen {
			missed, seen = 0, now
		} else if missed++; missed >= keepaliveMissed {
			_ = c.conn.Close() // whoever uses the connection is told by that
			return
		}
		if waiting.CompareAndSwap(false, true) {
			asking.Go(func() {
				defer waiting.Store(false)
				_, _, _ = c.client.SendRequest("keepalive@openssh.com", true, nil) // any answer will do
			})
		}
	}
}

// Run implements Machine. It reads of stdin no more than the program takes, and what is on its way; a program of more than some
// 20 KB may be too long for a command line.
func (c *Connection) Run(ctx context.Context, program string, stdin io.Reader, stdout io.Writer) error {
	select {
	case c.sessions <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if stdout == nil {
		stdout = io.Discard
	}
	complaints := &tail{}
	marked, line := mark(program)
	out, errs := &afterMark{mark: line, to: stdout}, &afterMark{mark: line, to: complaints}
	ended := make(chan error, 1)
	go func() { // ends with the session: ctx closes that, and keep the connection
		defer func() { <-c.sessions }()
		ended <- c.session(ctx, marked, stdin, out, errs)
	}()
	select {
	case err := <-ended:
		return c.result(err, out, errs, complaints)
	case <-ctx.Done():
		out.cut()
		return context.Cause(ctx)
	}
}

// session runs a program in a session of its own, and gives what ssh.Session.Wait would. That one waits for the output's end,
// which a program may leave behind in another's hands; this one waits closeDelay after the last of it.
func (c *Connection) session(ctx context.Context, program string, stdin io.Reader, out, errs *afterMark) error {
	channel, requests, err := c.open(ctx)
	if err != nil {
		return c.sessionError(err)
	}
	end := func() { _ = channel.Close() } // gives EOF where the program has ended
	defer end()
	defer context.AfterFunc(ctx, end)()
	out.failed = end
	ok, err := channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{wrap(program)}))
	if err == nil && !ok {
		err = errNoExec
	}
	if err != nil {
		return c.sessionError(err)
	}
	feed(channel, stdin)
	taken := take(channel, out, errs)
	err = awaitExit(requests)
	for moved := uint64(0); !within(closeDelay, taken); {
		last := moved
		if moved = out.moved.Load() + errs.moved.Load(); moved == last && !out.busy.Load() && !errs.busy.Load() {
			break
		}
	}
	end()
	<-taken
	closed := make(chan struct{})
	go func() { // ends with the channel
		ssh.DiscardRequests(requests)
		close(closed)
	}()
	within(closeDelay, closed) // until then the server counts this session among those it allows
	return err
}

// A server may refuse a session while it still counts one that has ended.
const (
	openTries = 6
	openPause = 50 * time.Millisecond // before the second try, and twice as long before each further one
)

// open opens a session.
func (c *Connection) open(ctx context.Context) (channel ssh.Channel, requests <-chan *ssh.Request, err error) {
	for try := range openTries {
		channel, requests, err = c.client.OpenChannel("session", nil)
		var refused *ssh.OpenChannelError
		if !errors.As(err, &refused) || within(openPause<<try, ctx.Done()) {
			break
		}
	}
	return channel, requests, err
}

var errNoExec = errors.New("it runs no commands")

// feed sends stdin. Nobody waits for what stdin has no more use for.
func feed(channel ssh.Channel, stdin io.Reader) {
	if stdin == nil {
		_ = channel.CloseWrite() // the program sees the end at once
		return
	}
	go func() { // ends with stdin, or at the next write after the session's end
		_, _ = io.Copy(channel, stdin) // a program need not read all
		_ = channel.CloseWrite()
	}()
}

// take copies what the program prints; the channel is closed at the end of both outputs.
func take(channel ssh.Channel, out, errs io.Writer) <-chan struct{} {
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(out, channel) })
	both.Go(func() { _, _ = io.Copy(errs, channel.Stderr()) })
	taken := make(chan struct{})
	go func() {
		both.Wait()
		close(taken)
	}()
	return taken
}

// within waits for an end, and reports whether it came in time.
func within(limit time.Duration, end <-chan struct{}) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-end:
		return true
	case <-timer.C:
		return false
	}
}

// result puts the end of a session into the words of Machine.
func (c *Connection) result(err error, out, errs *afterMark, complaints *tail) error {
	var exit *ExitError
	var problem *Problem
	started, said := out.started()
	switch {
	case errors.As(err, &problem):
		return problem
	case out.cause() != nil:
		return out.cause()
	case err != nil && !errors.As(err, &exit):
		return lostProblem(c.route)
	case !started:
		_, saidToo := errs.started()
		return muteShellProblem(c.route, said+saidToo)
	case exit != nil:
		return &ExitError{Code: exit.Code, Stderr: complaints.String()}
	}
	return nil
}

// lost reports whether the connection is gone.
func (c *Connection) lost() bool {
	return c.conn.ended.Load()
}

func (c *Connection) sessionError(err error) error {
	if c.lost() || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return lostProblem(c.route)
	}
	return sessionProblem(c.route, err)
}

// countedConn counts what comes in, and notes the end.
type countedConn struct {
	net.Conn
	received atomic.Int64
	ended    atomic.Bool
}

// Read implements net.Conn.
func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	if err != nil {
		c.ended.Store(true)
	}
	return n, err
}
