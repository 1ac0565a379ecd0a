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
	trees    holdings // what exec says of itself; Runs is not used
	log      *slog.Logger
	listener *net.UnixListener
	over     chan struct{}  // closed when the shim is to end
	serving  sync.WaitGroup // connections
	working  sync.WaitGroup // slots

	mu       sync.Mutex
	why      error    // why it ends; nil while it goes on
	now      *session // the agent; nil while there is none
	first    *session // the agent that started the shim, which alone begins runs
	slots    map[uint64]*slot
	runs     map[uint64]*run
	patience *countdown
}

func newServer(set settings, exec executor.Executor, trees holdings, log *slog.Logger) *server {
	k := &server{
		settings: set, exec: exec, trees: trees, log: log, over: make(chan struct{}), slots: map[uint64]*slot{}, runs: map[uint64]*run{},
	}
	k.patience = &countdown{over: k.expire}
	k.patience.Reset(set.Patience)
	return k
}

// run serves until the end, and returns when nothing is left.
func (k *server) run() {
	var accepting sync.WaitGroup
	accepting.Go(k.accept)
	<-k.over
	k.listener.Close()
	accepting.Wait()
	k.working.Wait()
	k.mu.Lock()
	if k.now != nil {
		k.now.conn.Close() // only now: the ends of its runs have been told
	}
	k.mu.Unlock()
	k.serving.Wait()
	k.patience.Stop()
}

func (k *server) accept() {
	for n := 1; ; n++ {
		c, err := k.listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no more open files: what runs must go on
			k.log.Warn("connection not accepted", "err", err)
			select {
			case <-time.After(acceptPause):
			case <-k.over:
			}
			continue
		}
		k.serving.Go(func() { k.greet(c, n) })
	}
}

const (
	// greetTime bounds the first message of a connection, sendTime each one to an agent.
	greetTime = 5 * time.Second
	sendTime  = 5 * time.Second
	// acceptPause is the wait after a connection could not be accepted.
	acceptPause = 100 * time.Millisecond
)

// greet finds out who calls, as the nth.
func (k *server) greet(c *net.UnixConn, n int) {
	defer c.Close()
	if !private.IsOwn(c) {
		k.log.Warn("another user called")
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(greetTime))
	said := make(chan struct{})
	k.serving.Go(func() { // the end of the shim does not wait for those who say nothing
		select {
		case <-k.over:
			_ = c.SetReadDeadline(time.Now())
		case <-said:
		}
	})
	m, err := readFrame(c)
	close(said)
	if err != nil {
		k.log.Info("a caller said nothing of use", "err", err)
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	switch m.Kind {
	case kindHello:
		k.attend(c, n, m)
	case kindSlot:
		k.openSlot(c, m)
	}
}

// end has the shim stop everything and end. The first reason counts.
func (k *server) end(why error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.endLocked(why)
}

func (k *server) endLocked(why error) {
	if k.why != nil {
		return
	}
	k.why = why
	close(k.over)
	for _, r := range k.runs {
		r.stop(why)
	}
	for _, s := range k.slots {
		s.line.hangUp()
	}
}

// expire ends the shim when no agent has come in time.
func (k *server) expire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now == nil {
		k.endLocked(errOrphaned)
	}
}

// settleLocked ends the shim of an earlier agent once nothing is left to keep.
func (k *server) settleLocked() {
	if k.first != nil && k.now != k.first && len(k.runs) == 0 {
		k.endLocked(errDone)
	}
}

// orphaned is the reason of what was stopped because no agent came.
func (k *server) orphaned() string {
	return fmt.Sprintf("its node agent ended, and no other took it over within %s", k.settings.Patience)
}

// run is an attempt that an agent has asked for and whose outcome is not known to be safe.
type run struct {
	id           uint64
	name, record string
	by           *session
	stop         context.CancelCauseFunc
	kill         chan struct{} // closed to end the grace
	hard         bool          // kill is closed
	pid          int
	box          bool              // it is in a container
	outcome      *executor.Outcome // once it has ended
	dropped      bool              // nobody wants to know its outcome
}

// kept reports whether the run may outlive its agent.
func (r *run) kept() bool { return r.name != "" && !r.dropped }

// held tells an agent of the run.
func (r *run) held() held {
	h := held{ID: r.id, Name: r.name, PID: r.pid, Outcome: r.outcome, Box: r.box}
	if r.outcome == nil && r.pid != 0 {
		program, _ := processid.Of(r.pid)
		h.Start = program.Start
	}
	return h
}

// begin takes a run on. What it is stopped by may have come before it.
func (k *server) begin(s *slot, m *message) (*run, context.Context) {
	ctx, stop := context.WithCancelCause(context.Background()) // ends with the run, by stop
	r := &run{
		id: m.ID, name: m.Order.Name, record: m.Order.Record, by: s.by, stop: stop, kill: make(chan struct{}), box: m.Order.Container != nil,
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.runs[r.id], s.last = r, r.id
	switch {
	case k.why != nil:
		stop(k.why)
	case k.now != s.by:
		stop(executor.ErrLost)
	case s.early != nil && s.early.ID == r.id:
		r.haltLocked(s.early)
		s.early = nil
	}
	return r, ctx
}

// haltLocked does what a stop message says. One for a run that is being stopped can only end its grace.
func (r *run) haltLocked(m *message) {
	if m.Kill && !r.hard {
		r.hard = true
		close(r.kill)
	}
	r.stop(m.err())
}

// ended notes how a run has ended and tells whoever is there.
func (k *server) ended(s *slot, r *run, o executor.Outcome) {
	k.mu.Lock()
	if errors.Is(k.why, errOrphaned) && o.Class == grid.ClassLost {
		o.Reason = k.orphaned()
	}
	r.outcome = &o
	to := k.now
	switch {
	case r.by != to && !r.kept():
		delete(k.runs, r.id)
		k.settleLocked()
		to = nil
	case to == nil:
		k.record(r)
	}
	k.mu.Unlock()
	answer := &message{Kind: kindEnded, ID: r.id, Outcome: r.outcome}
	switch {
	case to == nil:
	case to == r.by:
		_ = s.line.send(answer) // an agent that is gone misses it; then it is recorded, see detach
	default:
		to.send(answer)
	}
}

// record writes an outcome down for an agent that may come after the shim's own end.
func (k *server) record(r *run) {
	if r.record == "" {
		return
	}
	if err := executor.WriteRecord(r.record, r.name, *r.outcome); err != nil && !errors.Is(err, unix.ENOENT) {
		k.log.Warn("outcome not recorded", "run", r.name, "err", err)
	}
}

// collect forgets a run whose outcome is safe. One that still runs is forgotten at its end.
func (k *server) collect(id uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.runs[id]
	switch {
	case r == nil:
	case r.outcome == nil:
		r.dropped = true
	default:
		delete(k.runs, id)
		k.settleLocked()
	}
}
