package shim

import (
	"bufio"
	"fmt"
	"net"
	"sync"
	"time"

	"mlfnode/node/executor"
)

// session is an agent's control connection, as the shim sees it.
type session struct {
	conn *net.UnixConn
	nth  int // in the order of connections

	mu  sync.Mutex // held to send
	buf []byte
}

func (s *session) send(m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sendLocked(m)
}

// sendLocked sends a message. An agent that takes none for long is treated as gone: others can then take over.
func (s *session) sendLocked(m *message) {
	buf, err := appendFrame(s.buf[:0], m)
	if err != nil {
		return // our own types always encode
	}
	s.buf = buf
	_ = s.conn.SetWriteDeadline(time.Now().Add(sendTime))
	if _, err := s.conn.Write(buf); err != nil {
		s.conn.Close()
	}
}

// attend serves an agent until it goes.
func (k *server) attend(c *net.UnixConn, nth int, hello *message) {
	s := &session{conn: c, nth: nth}
	if why := k.refusal(hello); why != "" {
		s.send(&message{Kind: kindRefused, V: version, Oldest: oldest, Reason: why})
		return
	}
	old, ok := k.attach(s, hello.Own)
	if !ok {
		return
	}
	if old != nil {
		k.log.Warn("another agent has taken over while the last one was still there")
		old.send(&message{Kind: kindTaken})
		old.conn.Close()
	}
	k.heed(s)
	k.detach(s)
}

// refusal says why a caller can't be served.
func (k *server) refusal(hello *message) string {
	switch {
	case hello.Token != k.settings.Token:
		return "this shim belongs to another state folder"
	case hello.V < oldest || hello.Oldest > version:
		return fmt.Sprintf("the agent speaks versions %d to %d of the shims' protocol, this shim %d to %d", hello.Oldest, hello.V, oldest, version)
	}
	return ""
}

// attach makes s the agent, tells it of the runs, and gives the agent that it takes over from. An agent that was killed just
// after its call may be heard later than the next one: it must not take over from that.
func (k *server) attach(s *session, own bool) (old *session, ok bool) {
	s.mu.Lock() // so that what happens from here on is told after the welcome
	defer s.mu.Unlock()
	k.mu.Lock()
	if k.why != nil || k.now != nil && k.now.nth > s.nth {
		k.mu.Unlock()
		return nil, false
	}
	k.patience.Stop()
	old, k.now = k.now, s
	switch {
	case k.first != nil:
	case own:
		k.first = s
	default: // the agent that started this shim has not lived to call
		k.first = new(session)
	}
	for _, slot := range k.slots {
		slot.line.hangUp() // of the earlier agent; what it runs goes on
	}
	hold := k.trees
	for _, r := range k.runs {
		if r.kept() {
			hold.Runs = append(hold.Runs, r.held())
		} else if r.outcome != nil {
			delete(k.runs, r.id)
		} else {
			r.stop(executor.ErrLost)
		}
	}
	k.settleLocked()
	k.mu.Unlock()
	s.sendLocked(&message{Kind: kindWelcome, V: version, Oldest: oldest, Hold: &hold})
	return old, true
}

// heed does what the agent says until it goes.
func (k *server) heed(s *session) {
	r := bufio.NewReader(s.conn)
	for {
		m, err := readFrame(r)
		if err != nil {
			return
		}
		switch m.Kind {
		case kindStop:
			k.halt(m)
		case kindCollect:
			k.collect(m.ID)
		case kindQuit:
			k.end(fmt.Errorf("its agent wants no more of it: %w", executor.ErrHalted))
		}
	}
}

// halt stops a run, or remembers to, when the message has overtaken it.
func (k *server) halt(m *message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if r := k.runs[m.ID]; r != nil {
		if r.outcome == nil {
			r.haltLocked(m)
		}
		return
	}
	if s := k.slots[m.ID>>slotShift]; s != nil && m.ID > s.last {
		if s.early != nil {
			m.Kill = m.Kill || s.early.Kill
		}
		s.early = m
	}
}

// detach notes that an agent is gone. What it has started goes on, and what has ended is written down.
func (k *server) detach(s *session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now != s {
		return
	}
	k.now = nil
	for id, r := range k.runs {
		switch {
		case r.kept() && r.outcome != nil:
			k.record(r)
		case r.outcome != nil:
			delete(k.runs, id)
		case !r.kept():
			r.stop(executor.ErrLost)
		}
	}
	k.settleLocked()
	if k.why == nil {
		k.log.Info("the agent is gone; its programs go on", "runs", len(k.runs))
		k.patience.Reset(k.settings.Patience)
	}
}
