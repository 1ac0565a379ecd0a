package shim

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// slotConn is the connection of a slot.
type slotConn struct {
	control *controlConn
	conn    *net.UnixConn
	in      *bufio.Reader
	slot    uint64
	runs    uint64        // begun
	gone    chan *message // buffered; what the shim sends when the connection has ended
	leaving chan struct{} // closed when the current run is left to the next agent
}

// openTimeout limits the wait for a shim's answer to a new slot: a shim that has too many open
// files can't even receive the request.
const openTimeout = 15 * time.Second

func (c *slotConn) open(limit time.Duration) error {
	b, err := appendFrame(nil, &message{Kind: kindSlot, V: version, Slot: c.slot})
	if err != nil {
		return err
	}
	_ = c.conn.SetDeadline(time.Now().Add(limit))
	defer func() { _ = c.conn.SetDeadline(time.Time{}) }()
	if _, err := c.conn.Write(b); err != nil {
		return err
	}
	m, err := readFrame(c.in)
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("the shim did not answer within %s", limit)
	case err != nil:
		return err
	case m.Kind == kindRefused:
		return errors.New(m.Reason)
	}
	return nil
}

func (c *slotConn) close() {
	c.conn.Close()
	c.control.slots.remove(c)
}

// await waits for the outcome.
func (c *slotConn) await(id uint64, a *executor.Attempt) (executor.Outcome, error) {
	for {
		m, err := readFrame(c.in)
		if err != nil {
			return executor.Outcome{}, err
		}
		switch {
		case m.ID != id:
		case m.Kind == kindBegan && a.Started != nil:
			a.Started(executor.Program{PID: m.PID, Container: m.Container})
		case m.Kind == kindEnded && m.Outcome != nil:
			return *m.Outcome, nil
		}
	}
}

// awaitGone waits for the outcome of a run whose connection has ended. A live shim lets the run go
// on and sends its outcome over the control connection. The outcome stays unknown if the run is
// left or the shim is no longer ours.
func (c *slotConn) awaitGone(id uint64, began time.Time) (o executor.Outcome, known bool) {
	c.conn.Close() // so that the shim gives it up, too
	var m *message
	select {
	case m = <-c.gone:
	case <-c.leaving:
		return o, false
	case <-c.control.ended:
		select { // it may have been the last message
		case m = <-c.gone:
		default:
			return o, false
		}
	}
	if m.ID != id || m.Outcome == nil {
		return refused(grid.ClassNode, "its shim could not read what it was told to run", began), true
	}
	return *m.Outcome, true
}

// slotConns are the connections of the slots that use one shim.
type slotConns struct {
	mu       sync.Mutex
	byNumber map[uint64]*slotConn
	last     uint64 // number of the newest slot
	closed   bool   // the control connection has ended
}

// add gives the slot a number. It reports false if the control connection has ended.
func (s *slotConns) add(c *slotConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if s.byNumber == nil {
		s.byNumber = map[uint64]*slotConn{}
	}
	s.last++
	c.slot = s.last
	s.byNumber[c.slot] = c
	return true
}

func (s *slotConns) remove(c *slotConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byNumber, c.slot)
}

// everUsed reports whether there has been a slot.
func (s *slotConns) everUsed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last > 0
}

// forwardGone passes on what the shim says about a slot whose connection has ended.
func (s *slotConns) forwardGone(m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.byNumber[m.Slot]; c != nil {
		select {
		case c.gone <- m:
		default: // it is sent once
		}
	}
}

// closeAll closes all connections, and prevents further ones.
func (s *slotConns) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, c := range s.byNumber {
		c.conn.Close()
	}
}
