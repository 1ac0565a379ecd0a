package shim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// clientSlot is the agent's side of a slot. When its shim dies, the next run uses another shim.
type clientSlot struct {
	client *Client

	mu          sync.Mutex // held during Run and Close
	closed      bool
	conn        *slotConn // nil while there is no usable connection
	uncollected *slotConn // a connection that ended before its last run, which must be collected
	buf         []byte
}

var _ executor.Slot = (*clientSlot)(nil)

// Slot makes a slot. It starts the shim if there is none.
func (c *Client) Slot() (executor.Slot, error) {
	s := &clientSlot{client: c}
	if err := s.connect(); err != nil {
		return nil, fmt.Errorf("make slot: %w", err)
	}
	return s, nil
}

// connect opens the slot's connection.
func (s *clientSlot) connect() error {
	l, err := s.client.ensureShim(context.Background()) // limited by launchTimeout
	if err != nil {
		return err
	}
	conn, err := l.shim.dir.dial()
	if err != nil {
		return err
	}
	line := &slotConn{control: l, conn: conn, in: bufio.NewReader(conn), gone: make(chan *message, 1)}
	if !l.slots.add(line) {
		conn.Close()
		return errors.New(shimDied)
	}
	if err := line.open(openTimeout); err != nil {
		line.close()
		return err
	}
	s.conn = line
	return nil
}

// Run makes the shim run an attempt.
func (s *clientSlot) Run(ctx context.Context, a *executor.Attempt) executor.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	began := time.Now()
	s.collect()
	if s.closed {
		return refused(grid.ClassStart, "the slot is closed", began)
	}
	if ctx.Err() != nil {
		return executor.Unstarted(ctx)
	}
	if s.conn == nil || s.conn.control.isDead() {
		s.drop()
		if err := s.connect(); err != nil {
			return refused(grid.ClassNode, "its shim could not be started: "+err.Error(), began)
		}
	}
	l := s.conn
	if a.Container != nil && !l.control.info.Containers {
		return refused(grid.ClassNode,
			"its shim is of an older version, which runs no containers; it is replaced when it has nothing left to run",
			began)
	}
	if a.Container != nil && a.Name != "" {
		held, started, release := *a, a.Started, func() {}
		defer func() { release() }()
		held.Started = func(b executor.Program) {
			release = s.client.o.holdOutput(held.Name)
			if started != nil {
				started(b)
			}
		}
		a = &held
	}
	l.runs++
	id := runID(l.slot, l.runs)
	err := s.sendRun(id, a)
	switch {
	case errors.Is(err, errTooLong):
		return refused(grid.ClassStart, err.Error(), began)
	case err != nil && !hungUp(err): // the shim is alive, but has not received the whole request
		s.drop()
		return refused(grid.ClassNode, "its shim could not be told to run it: "+err.Error(), began)
	}
	stopping := l.forwardStop(ctx, id, a)
	var o executor.Outcome
	if err == nil {
		o, err = l.await(id, a)
	}
	known := err == nil
	if !known {
		if o, known = l.awaitGone(id, began); known {
			s.uncollected = l
		}
	}
	left := stopping.end()
	if err != nil || left {
		s.drop()
	}
	switch {
	case known:
		return o
	case left:
		return executor.Outcome{Left: true}
	}
	// A run in a container goes on under the next shim.
	if a.Container != nil && a.Name != "" && l.control.died() {
		return s.client.rejoin(ctx, a.Name, a.Kill)
	}
	return l.control.lost(began)
}

// collect makes the shim forget a run that lost its connection. The agent has recorded its outcome
// by now.
func (s *clientSlot) collect() {
	if l := s.uncollected; l != nil {
		s.uncollected = nil
		// a shim that is gone has nothing to collect
		_ = l.control.conn.send(&message{Kind: kindCollect, ID: runID(l.slot, l.runs)})
	}
}

var errTooLong = errors.New(
	"the argument list is too long: arguments and environment take more than 16 MiB; pass large values in a file")

// sendRun sends the attempt with its files.
func (s *clientSlot) sendRun(id uint64, a *executor.Attempt) (err error) {
	o := &runRequest{Spec: a.Spec, Argc: len(a.Argv), Tell: a.Started != nil}
	var fds []int
	o.Stdout, fds = attach(fds, a.Stdout)
	if o.Stderr = o.Stdout; a.Stderr != a.Stdout {
		o.Stderr, fds = attach(fds, a.Stderr)
	}
	s.buf, err = appendFrame(s.buf[:0], &message{Kind: kindRun, ID: id, Run: o}, a.Argv, a.Env)
	if err != nil {
		return err
	}
	if len(s.buf) > maxBody {
		s.buf = nil
		return errTooLong
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	n, _, err := s.conn.conn.WriteMsgUnix(s.buf, oob, nil)
	if err == nil && n < len(s.buf) {
		_, err = s.conn.conn.Write(s.buf[n:])
	}
	return err
}

// hungUp reports whether an error of sending means that the other end is gone, or that this end was
// closed for that reason.
func hungUp(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}

// attach adds a file to those that are sent with the frame and returns its number.
func attach(fds []int, f *os.File) (int, []int) {
	if f == nil {
		return 0, fds
	}
	fds = append(fds, int(f.Fd()))
	return len(fds), fds
}

// drop gives up the connection, without collecting the slot's last run.
func (s *clientSlot) drop() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
}

// Close releases the slot in the shim.
func (s *clientSlot) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.collect()
	if s.closed || s.conn == nil {
		s.closed = true
		return nil
	}
	s.closed = true
	if b, err := appendFrame(nil, &message{Kind: kindBye}); err == nil {
		_, _ = s.conn.conn.Write(b) // a shim that is gone has nothing to collect
	}
	s.drop()
	return nil
}

// refused is the outcome of an attempt that no shim has accepted.
func refused(class grid.Class, reason string, began time.Time) executor.Outcome {
	return executor.Outcome{Class: class, ExitCode: executor.ExitNotRunnable, Reason: reason,
		Start: began, End: time.Now()}
}

// lostOutcome is the outcome of a run whose end was not observed.
func lostOutcome(class grid.Class, reason string, began time.Time) executor.Outcome {
	end := time.Now()
	wall := max(end.Sub(began).Microseconds(), 1)
	return executor.Outcome{Class: class, ExitCode: grid.NoExit, Reason: reason, Start: began, End: end,
		Usage: grid.Usage{Wall: wall}}
}
