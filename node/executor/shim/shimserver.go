package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/private"
	"mlfnode/node/processid"
)

// server is the state of a shim.
type server struct {
	settings settings
	exec     executor.Executor
	info     shimInfo // describes exec; Runs is not used
	log      *slog.Logger
	done     chan struct{}  // closed when the shim is to end
	working  sync.WaitGroup // slots

	mu          sync.Mutex
	endReason   error // why it ends; nil before
	agents      agentConns
	slots       map[uint64]*serverSlot
	runs        map[uint64]*run
	orphanTimer *countdown
}

func newServer(set settings, exec executor.Executor, trees shimInfo, log *slog.Logger) *server {
	k := &server{
		settings: set, exec: exec, info: trees, log: log, done: make(chan struct{}), slots: map[uint64]*serverSlot{},
		runs: map[uint64]*run{},
	}
	k.orphanTimer = &countdown{over: func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.agents.current == nil { // none has come in time
			k.stopLocked(errOrphaned)
		}
	}}
	k.orphanTimer.Reset(set.AgentTimeout)
	return k
}

// run serves until the shim is to end, and returns when nothing is left.
func (srv *server) run(listener *net.UnixListener) {
	var accepting, serving sync.WaitGroup
	accepting.Go(func() { srv.accept(listener, &serving) })
	<-srv.done
	listener.Close()
	accepting.Wait()
	srv.working.Wait()
	srv.mu.Lock()
	if a := srv.agents.current; a != nil {
		a.conn.Close() // only now: the outcomes of its runs have been sent
	}
	srv.mu.Unlock()
	serving.Wait()
	srv.orphanTimer.Stop()
}

// accept serves connections until the listener is closed.
func (srv *server) accept(listener *net.UnixListener, serving *sync.WaitGroup) {
	for n := 1; ; n++ {
		c, err := listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // too many open files: what runs must go on
			srv.log.Warn("connection not accepted", "err", err)
			select {
			case <-time.After(acceptRetry):
			case <-srv.done:
			}
			continue
		}
		serving.Go(func() { srv.handleConn(c, n) })
	}
}

const (
	// helloTimeout limits the wait for the first message of a connection.
	helloTimeout = 5 * time.Second
	// acceptRetry is the pause after a connection could not be accepted.
	acceptRetry = 100 * time.Millisecond
)

// handleConn reads the first message of the nth connection and serves it accordingly.
func (srv *server) handleConn(c *net.UnixConn, n int) {
	defer c.Close()
	if !private.IsOwn(c) {
		srv.log.Warn("refused a connection of another user")
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(helloTimeout))
	said := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() { // the end of the shim does not wait for silent connections
		select {
		case <-srv.done:
			_ = c.SetReadDeadline(time.Now())
		case <-said:
		}
	})
	m, err := readFrame(c)
	close(said)
	watching.Wait()
	if err != nil {
		srv.log.Info("invalid first message", "err", err)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	switch m.Kind {
	case kindHello:
		srv.serveAgent(c, n, m)
	case kindSlot:
		srv.openSlot(c, m)
	}
}

// stop makes the shim stop everything and end. Only the first reason counts.
func (srv *server) stop(why error) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.stopLocked(why)
}

func (srv *server) stopLocked(why error) {
	if srv.endReason != nil {
		return
	}
	srv.endReason = why
	close(srv.done)
	for _, r := range srv.runs {
		r.stop(why)
	}
	for _, s := range srv.slots {
		s.conn.shutdownRead()
	}
}

// stopIfDoneLocked ends the shim of an earlier agent once no run is left.
func (srv *server) stopIfDoneLocked() {
	if srv.agents.ownerLeft() && len(srv.runs) == 0 {
		srv.stopLocked(errDone)
	}
}

// run is an attempt that an agent has requested and whose outcome is not yet known to be safe.
type run struct {
	id           uint64
	name, record string
	agent        *agentConn
	stop         context.CancelCauseFunc
	kill         chan struct{} // closed to end the grace
	killClosed   bool          // kill is closed
	pid          int
	container    bool              // it is in a container
	outcome      *executor.Outcome // once it has ended
	discarded    bool              // nobody needs its outcome
}

// outlivesAgent reports whether the run may outlive its agent.
func (r *run) outlivesAgent() bool { return r.name != "" && !r.discarded }

// info describes the run to an agent.
func (r *run) info() runInfo {
	h := runInfo{ID: r.id, Name: r.name, PID: r.pid, Outcome: r.outcome, Container: r.container}
	if r.outcome == nil && r.pid != 0 {
		program, _ := processid.Of(r.pid)
		h.Start = program.Start
	}
	return h
}

// stopLocked executes a stop message. A run that is already being stopped can only have its grace
// ended.
func (r *run) stopLocked(m *message) {
	if m.Kill && !r.killClosed {
		r.killClosed = true
		close(r.kill)
	}
	r.stop(m.err())
}

// endRun records how a run has ended and tells the agent, if there is one.
func (srv *server) endRun(s *serverSlot, r *run, o executor.Outcome) {
	srv.mu.Lock()
	if errors.Is(srv.endReason, errOrphaned) && o.Class == grid.ClassLost {
		o.Reason = fmt.Sprintf("its node agent ended, and no other took it over within %s", srv.settings.AgentTimeout)
	}
	r.outcome = &o
	to := srv.agents.current
	switch {
	case r.agent != to && !r.outlivesAgent():
		delete(srv.runs, r.id)
		srv.stopIfDoneLocked()
		to = nil
	case to == nil:
		r.recordOutcome(srv.log)
	}
	srv.mu.Unlock()
	answer := &message{Kind: kindEnded, ID: r.id, Outcome: r.outcome}
	switch {
	case to == nil:
	case to == r.agent:
		_ = s.conn.send(answer) // lost if the agent is gone; then detachAgent records it
	default:
		to.send(answer)
	}
}

// recordOutcome writes an outcome to the run's record, for an agent that may come after the shim's
// own end.
func (r *run) recordOutcome(log *slog.Logger) {
	if r.record == "" {
		return
	}
	if err := executor.WriteRecord(r.record, r.name, *r.outcome); err != nil && !errors.Is(err, unix.ENOENT) {
		log.Warn("outcome not recorded", "run", r.name, "err", err)
	}
}

// collectRun forgets a run whose outcome is safe. A run that is still going on is forgotten at its
// end.
func (srv *server) collectRun(id uint64) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	r := srv.runs[id]
	switch {
	case r == nil:
	case r.outcome == nil:
		r.discarded = true
	default:
		delete(srv.runs, id)
		srv.stopIfDoneLocked()
	}
}
