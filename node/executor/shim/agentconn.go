package shim

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"

	"mlfnode/node/executor"
	"mlfnode/node/poll"
)

// An agent that connects while programs are being started waits for them, for at most startTimeout.
const (
	startTimeout      = time.Second
	startPollInterval = time.Millisecond
)

// agentConn is an agent's control connection, on the shim's side.
type agentConn struct {
	conn   frameConn
	number int // in the order of connections
}

// send sends a message. An agent that does not accept it in time is treated as gone, so that others
// can take over.
func (a *agentConn) send(m *message) {
	a.conn.mu.Lock()
	defer a.conn.mu.Unlock()
	a.sendLocked(m)
}

func (a *agentConn) sendLocked(m *message) {
	if a.conn.sendLocked(m) != nil {
		a.conn.Close()
	}
}

// agentConns are the agent that is connected to a shim and the one that started it.
type agentConns struct {
	current *agentConn // nil while none is connected
	owner   *agentConn // the only agent that begins runs; nil before any agent has connected
}

// attach makes a the current agent and returns the previous one. own says that a started the shim.
func (c *agentConns) attach(a *agentConn, own bool) (old *agentConn) {
	old, c.current = c.current, a
	switch {
	case c.owner != nil:
	case own:
		c.owner = a
	default: // the agent that started this shim has died before it connected
		c.owner = new(agentConn)
	}
	return old
}

func (c *agentConns) ownerConnected() bool { return c.owner != nil && c.current == c.owner }

func (c *agentConns) ownerLeft() bool { return c.owner != nil && c.current != c.owner }

// serveAgent serves an agent until its connection ends.
func (srv *server) serveAgent(c *net.UnixConn, nth int, hello *message) {
	s := &agentConn{conn: frameConn{UnixConn: c}, number: nth}
	why := ""
	switch {
	case hello.Token != srv.settings.Token:
		why = "this shim belongs to another state folder"
	case hello.V < oldest || hello.Oldest > version:
		why = fmt.Sprintf("the agent speaks versions %d to %d of the shims' protocol, this shim %d to %d", hello.Oldest,
			hello.V, oldest, version)
	}
	if why != "" {
		s.send(&message{Kind: kindRefused, V: version, Oldest: oldest, Reason: why})
		return
	}
	// The agent learns the process IDs of runs only once, and a program may be at work before its
	// ID is known here.
	_ = poll.Within(context.Background(), startTimeout, startPollInterval, srv.knowsPrograms)
	old, ok := srv.attachAgent(s, hello.Own)
	if !ok {
		return
	}
	if old != nil {
		srv.log.Warn("another agent has taken over from one that was still connected")
		old.send(&message{Kind: kindTaken})
		old.conn.Close()
	}
	defer srv.detachAgent(s)
	r := bufio.NewReader(c)
	for {
		m, err := readFrame(r)
		if err != nil {
			return
		}
		switch m.Kind {
		case kindStop:
			srv.stopRun(m)
		case kindCollect:
			srv.collectRun(m.ID)
		case kindQuit:
			srv.stop(fmt.Errorf("its agent told it to end: %w", executor.ErrHalted))
		}
	}
}

// knowsPrograms reports whether the process IDs of all running programs are known.
func (srv *server) knowsPrograms() bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	for _, r := range srv.runs {
		if r.pid == 0 && r.outcome == nil && r.outlivesAgent() && !r.container {
			return false
		}
	}
	return true
}

// attachAgent makes s the current agent, sends it the list of runs, and returns the agent that it
// replaces. An agent that was killed just after it had connected may be served later than its
// successor, and must not replace that.
func (srv *server) attachAgent(s *agentConn, own bool) (old *agentConn, ok bool) {
	s.conn.mu.Lock() // so that what happens from here on is sent after the welcome
	defer s.conn.mu.Unlock()
	srv.mu.Lock()
	if a := srv.agents.current; srv.endReason != nil || a != nil && a.number > s.number {
		srv.mu.Unlock()
		return nil, false
	}
	srv.orphanTimer.Stop()
	old = srv.agents.attach(s, own)
	for _, slot := range srv.slots {
		slot.conn.shutdownRead() // of the previous agent; what it runs goes on
	}
	hold := srv.info
	for _, r := range srv.runs {
		if r.outlivesAgent() {
			hold.Runs = append(hold.Runs, r.info())
		} else if r.outcome != nil {
			delete(srv.runs, r.id)
		} else {
			r.stop(executor.ErrLost)
		}
	}
	srv.stopIfDoneLocked()
	srv.mu.Unlock()
	s.sendLocked(&message{Kind: kindWelcome, V: version, Oldest: oldest, Info: &hold})
	return old, true
}

// stopRun stops a run. If the message has overtaken the run, it is kept until the run arrives.
func (srv *server) stopRun(m *message) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if r := srv.runs[m.ID]; r != nil {
		if r.outcome == nil {
			r.stopLocked(m)
		}
		return
	}
	if s := srv.slots[m.ID>>slotShift]; s != nil && m.ID > s.lastRun {
		if s.earlyStop != nil {
			m.Kill = m.Kill || s.earlyStop.Kill
		}
		s.earlyStop = m
	}
}

// detachAgent records that an agent is gone. What it has started goes on; outcomes that it has not
// collected are recorded.
func (srv *server) detachAgent(s *agentConn) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.agents.current != s {
		return
	}
	srv.agents.current = nil
	for id, r := range srv.runs {
		switch {
		case r.outlivesAgent() && r.outcome != nil:
			r.recordOutcome(srv.log)
		case r.outcome != nil:
			delete(srv.runs, id)
		case !r.outlivesAgent():
			r.stop(executor.ErrLost)
		}
	}
	srv.stopIfDoneLocked()
	if srv.endReason == nil {
		srv.log.Info("the agent is gone; its programs keep running", "runs", len(srv.runs))
		srv.orphanTimer.Reset(srv.settings.AgentTimeout)
	}
}
