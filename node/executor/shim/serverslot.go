package shim

import (
	"context"
	"net"
	"os"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// serverSlot is a slot of the executor and the connection over which the agent uses it.
type serverSlot struct {
	server *server
	number uint64
	agent  *agentConn
	conn   *blockingConn
	exec   executor.Slot

	lastRun   uint64   // the run that began last; guarded by server.mu
	earlyStop *message // a stop for a run that has not arrived yet; guarded by server.mu
	closed    bool     // the agent has closed it
}

// openSlot serves a slot on the goroutine of its connection, until the slot is closed or the agent
// is gone.
func (srv *server) openSlot(c *net.UnixConn, m *message) {
	l, err := newBlockingConn(c)
	if err != nil {
		srv.log.Warn("slot not opened", "err", err)
		return
	}
	defer l.file.Close()
	exec, err := srv.exec.Slot()
	if err != nil {
		_ = l.send(&message{Kind: kindRefused, Reason: err.Error()})
		return
	}
	defer exec.Close()
	s := &serverSlot{server: srv, number: m.Slot, conn: l, exec: exec}
	if !s.register() {
		_ = l.send(&message{Kind: kindRefused, Reason: "this shim takes no new attempts"})
		return
	}
	defer s.unregister()
	if l.send(&message{Kind: kindReady}) == nil {
		s.serve()
	}
}

// register registers a slot. Only the agent that started the shim may have slots.
func (s *serverSlot) register() bool {
	srv := s.server
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.endReason != nil || !srv.agents.ownerConnected() || srv.slots[s.number] != nil {
		return false
	}
	s.agent = srv.agents.current
	srv.slots[s.number] = s
	srv.working.Add(1)
	return true
}

// unregister removes a slot. A connected agent that has not closed the slot is told over its
// control connection how the slot's last run ended.
func (s *serverSlot) unregister() {
	srv := s.server
	defer srv.working.Done()
	m := &message{Kind: kindGone, Slot: s.number}
	srv.mu.Lock()
	delete(srv.slots, s.number)
	to := srv.agents.current
	if r := srv.runs[s.lastRun]; r != nil {
		m.ID, m.Outcome = r.id, r.outcome
	}
	srv.mu.Unlock()
	if to == s.agent && to != nil && !s.closed {
		to.send(m)
	}
}

// serve runs one attempt after another. The next run collects the previous one: the agent only
// requests it after it has recorded the previous outcome.
func (s *serverSlot) serve() {
	srv := s.server
	for {
		m, body, files, err := s.conn.receive()
		if err != nil {
			return
		}
		switch {
		case m.Kind == kindBye:
			closeAll(files)
			srv.collectRun(s.lastRun)
			s.closed = true
			return
		case m.Kind == kindRun && m.Run != nil:
			srv.collectRun(s.lastRun)
			s.performRun(m, body, files)
		default:
			closeAll(files)
		}
	}
}

// performRun runs an attempt to its end.
func (s *serverSlot) performRun(m *message, body []byte, files []*os.File) {
	srv := s.server
	defer closeAll(files)
	o := m.Run
	row, err := decodeStrings(body)
	if err != nil || o.Argc < 0 || o.Argc > len(row) {
		srv.log.Warn("an attempt can't be read", "run", o.Name)
		s.conn.shutdownRead()
		return
	}
	r, ctx := s.beginRun(m)
	defer r.stop(nil)
	a := &executor.Attempt{
		Spec: o.Spec, Argv: row[:o.Argc], Env: row[o.Argc:], Stdout: file(files, o.Stdout),
		Stderr: file(files, o.Stderr), Kill: r.kill,
		Started: func(b executor.Program) {
			srv.mu.Lock()
			r.pid = b.PID
			srv.mu.Unlock()
			if o.Tell {
				_ = s.conn.send(&message{Kind: kindBegan, ID: m.ID, PID: b.PID, Container: b.Container})
			}
		},
	}
	if max(o.Stdout, o.Stderr) > len(files) { // the process had no descriptors left for them
		srv.endRun(s, r, refused(grid.ClassNode,
			"its output files could not be passed to the shim, which has too many open files; raise the limit (ulimit -n)",
			time.Now()))
		return
	}
	srv.endRun(s, r, s.exec.Run(ctx, a))
}

// beginRun registers a run. A message that stops it may have arrived before.
func (s *serverSlot) beginRun(m *message) (*run, context.Context) {
	srv := s.server
	ctx, stop := context.WithCancelCause(context.Background()) // ends with the run, by stop
	r := &run{
		id: m.ID, name: m.Run.Name, record: m.Run.Record, agent: s.agent, stop: stop, kill: make(chan struct{}),
		container: m.Run.Container != nil,
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.runs[r.id], s.lastRun = r, r.id
	switch {
	case srv.endReason != nil:
		stop(srv.endReason)
	case srv.agents.current != s.agent:
		stop(executor.ErrLost)
	case s.earlyStop != nil && s.earlyStop.ID == r.id:
		r.stopLocked(s.earlyStop)
		s.earlyStop = nil
	}
	return r, ctx
}

func file(files []*os.File, n int) *os.File {
	if n < 1 || n > len(files) {
		return nil
	}
	return files[n-1]
}
