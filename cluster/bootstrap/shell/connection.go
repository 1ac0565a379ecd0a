package shell

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"mlfnode/node/poll"
)

const (
	// maxSessions is how many programs run at once over one connection; sshd's MaxSessions is 10.
	maxSessions = 8
	// keepaliveInterval and maxKeepaliveMisses find a machine that is gone within 20 s.
	keepaliveInterval  = 5 * time.Second
	maxKeepaliveMisses = 3
)

// Connection is a machine reached over ssh.
type Connection struct {
	route         route
	client        *ssh.Client
	conn          *trackedConn
	releaseJump   func() error // releases the jump host, nil if there is none
	sessions      chan struct{}
	done          chan struct{} // closed by Close
	once          sync.Once
	keepAliveDone sync.WaitGroup
}

var _ Machine = (*Connection)(nil)

// Close ends the connection, and those to the jump hosts before it that no other goes through.
// Programs that run get a *Problem.
func (c *Connection) Close() error {
	var err error
	c.once.Do(func() {
		close(c.done)
		err = c.client.Close()
		c.keepAliveDone.Wait()
		if errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			err = nil // it was lost before
		}
		if c.releaseJump != nil {
			err = errors.Join(err, c.releaseJump())
		}
	})
	return err
}

// keepAlive asks the machine for a sign of life and closes the connection when there is none. All
// that comes in counts as one: on a slow line the answer may queue behind much else.
func (c *Connection) keepAlive() {
	tick := time.NewTicker(keepaliveInterval)
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
		} else if missed++; missed >= maxKeepaliveMisses {
			_ = c.conn.Close() // which fails all that use the connection
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

// Run implements Machine. It reads no more of stdin than the program consumes and what is in
// flight. A program of more than some 20 KB may be too long for a command line.
func (c *Connection) Run(ctx context.Context, program string, stdin io.Reader, stdout io.Writer) error {
	select {
	case c.sessions <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if stdout == nil {
		stdout = io.Discard
	}
	stderr := &tail{}
	marked, line := withMarker(program)
	out, errs := &markerFilter{marker: line, dst: stdout}, &markerFilter{marker: line, dst: stderr}
	ended := make(chan error, 1)
	go func() { // ends with the session: ctx closes that, and keep the connection
		defer func() { <-c.sessions }()
		ended <- c.session(ctx, marked, stdin, out, errs)
	}()
	select {
	case err := <-ended:
		return c.runError(err, out, errs, stderr)
	case <-ctx.Done():
		out.discard()
		return context.Cause(ctx)
	}
}

// session runs a program in a session of its own, and returns what ssh.Session.Wait would. That one
// waits for the end of the output, which a process that the program leaves behind may keep open;
// session waits for closeDelay after the last of it.
func (c *Connection) session(ctx context.Context, program string, stdin io.Reader, out, errs *markerFilter) error {
	channel, requests, err := c.open(ctx)
	if err != nil {
		return c.sessionError(err)
	}
	end := func() { _ = channel.Close() } // returns EOF if the program has exited
	defer end()
	defer context.AfterFunc(ctx, end)()
	out.failed = end
	ok, err := channel.SendRequest("exec", true, ssh.Marshal(struct{ Command string }{commandLine(program)}))
	if err == nil && !ok {
		err = errors.New("it runs no commands")
	}
	if err != nil {
		return c.sessionError(err)
	}
	if stdin == nil {
		_ = channel.CloseWrite() // the program sees the end immediately
	} else {
		go func() { // ends with stdin, or at the next write after the session's end; nobody waits for it
			_, _ = io.Copy(channel, stdin) // a program need not read all
			_ = channel.CloseWrite()
		}()
	}
	var both sync.WaitGroup
	both.Go(func() { _, _ = io.Copy(out, channel) })
	both.Go(func() { _, _ = io.Copy(errs, channel.Stderr()) })
	taken := make(chan struct{}) // closed at the end of both outputs
	go func() {
		both.Wait()
		close(taken)
	}()
	err = waitExit(requests)
	for moved := uint64(0); !waitFor(closeDelay, taken); {
		last := moved
		if moved = out.writes.Load() + errs.writes.Load(); moved == last && !out.busy.Load() && !errs.busy.Load() {
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
	waitFor(closeDelay, closed) // until then the server counts this session among those it allows
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
		if !errors.As(err, new(*ssh.OpenChannelError)) || !poll.Sleep(ctx, openPause<<try) {
			break
		}
	}
	return channel, requests, err
}

// waitFor waits until end is closed, and reports whether that happened in time.
func waitFor(limit time.Duration, end <-chan struct{}) bool {
	select {
	case <-end:
		return true
	case <-time.After(limit):
		return false
	}
}

// runError returns the error of Run for the end of a session.
func (c *Connection) runError(err error, out, errs *markerFilter, stderr *tail) error {
	started, said, writeErr := out.result()
	exit, failed := errors.AsType[*ExitError](err)
	problem, lost := errors.AsType[*Problem](err)
	switch {
	case lost:
		return problem
	case writeErr != nil:
		return writeErr
	case err != nil && !failed:
		return lostProblem(c.route)
	case !started:
		_, saidToo, _ := errs.result()
		return problemf("give the user a shell there, as with `chsh -s /bin/sh "+c.route.user+"`",
			"the login shell of %s on %s runs no programs, it said %q", c.route.user, c.route,
			cmp.Or(strings.TrimSpace(said+saidToo), "nothing"))
	case failed:
		return &ExitError{Code: exit.Code, Stderr: stderr.String()}
	}
	return nil
}

// lost reports whether the connection is gone.
func (c *Connection) lost() bool { return c.conn.ended.Load() }

func (c *Connection) sessionError(err error) error {
	if c.lost() || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return lostProblem(c.route)
	}
	return problemf("see the log of the ssh server there", "%s starts no program (%v)", c.route, err)
}

// trackedConn counts the bytes received, and records the end of the stream.
type trackedConn struct {
	net.Conn
	received atomic.Int64
	ended    atomic.Bool
}

// Read implements net.Conn.
func (c *trackedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	if err != nil {
		c.ended.Store(true)
	}
	return n, err
}
