package shim

import (
	"net"
	"os"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
)

// slot is a slot of the executor with the connection over which the agent uses it.
type slot struct {
	number uint64
	by     *session
	line   *line
	exec   executor.Slot

	last   uint64   // the run that began last; guarded by the server
	early  *message // a stop for a run that has not come yet; guarded by the server
	closed bool     // the agent has said bye
}

// openSlot serves a slot on the goroutine of its connection, until it is closed or the agent is gone.
func (k *server) openSlot(c *net.UnixConn, m *message) {
	l, err := newLine(c)
	if err != nil {
		k.log.Warn("slot not opened", "err", err)
		return
	}
	defer l.close()
	exec, err := k.exec.Slot()
	if err != nil {
		_ = l.send(&message{Kind: kindRefused, Reason: err.Error()})
		return
	}
	defer exec.Close()
	s := &slot{number: m.Slot, line: l, exec: exec}
	if !k.register(s) {
		_ = l.send(&message{Kind: kindRefused, Reason: "this shim takes no new attempts"})
		return
	}
	defer k.unregister(s)
	if l.send(&message{Kind: kindReady}) == nil {
		k.serve(s)
	}
}

// register takes a slot on. Only the agent that started the shim may have slots.
func (k *server) register(s *slot) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.why != nil || k.first == nil || k.now != k.first || k.slots[s.number] != nil {
		return false
	}
	s.by = k.now
	k.slots[s.number] = s
	k.working.Add(1)
	return true
}

// unregister forgets a slot. An agent that is there and has not said bye learns over its control connection how the slot's last run
// ended.
func (k *server) unregister(s *slot) {
	defer k.working.Done()
	m := &message{Kind: kindGone, Slot: s.number}
	k.mu.Lock()
	delete(k.slots, s.number)
	to := k.now
	if r := k.runs[s.last]; r != nil {
		m.ID, m.Outcome = r.id, r.outcome
	}
	k.mu.Unlock()
	if to == s.by && to != nil && !s.closed {
		to.send(m)
	}
}

// serve runs one attempt after the other. A run is collected by the next one: the agent asks for it when it has noted the
// outcome of the last.
func (k *server) serve(s *slot) {
	for {
		m, body, files, err := s.line.receive()
		if err != nil {
			return
		}
		switch {
		case m.Kind == kindBye:
			closeAll(files)
			k.collect(s.last)
			s.closed = true
			return
		case m.Kind == kindRun && m.Order != nil:
			k.collect(s.last)
			k.perform(s, m, body, files)
		default:
			closeAll(files)
		}
	}
}

// perform runs an attempt to its end.
func (k *server) perform(s *slot, m *message, body []byte, files []*os.File) {
	defer closeAll(files)
	o := m.Order
	row, err := row(body)
	if err != nil || o.Argc < 0 || o.Argc > len(row) {
		k.log.Warn("an attempt can't be read", "run", o.Name)
		s.line.hangUp()
		return
	}
	r, ctx := k.begin(s, m)
	defer r.stop(nil)
	a := &executor.Attempt{
		Spec: o.Spec, Argv: row[:o.Argc], Env: row[o.Argc:], Stdout: file(files, o.Stdout), Stderr: file(files, o.Stderr), Kill: r.kill,
		Started: func(b executor.Begun) {
			k.mu.Lock()
			r.pid = b.PID
			k.mu.Unlock()
			if o.Tell {
				_ = s.line.send(&message{Kind: kindBegan, ID: m.ID, PID: b.PID, Box: b.Container})
			}
		},
	}
	if max(o.Stdout, o.Stderr) > len(files) { // the kernel had no number for them
		k.ended(s, r, refused(grid.ClassNode, "its output files could not be passed to the shim, which has too many open files; raise the limit (ulimit -n)", time.Now()))
		return
	}
	k.ended(s, r, s.exec.Run(ctx, a))
}

func file(files []*os.File, n int) *os.File {
	if n < 1 || n > len(files) {
		return nil
	}
	return files[n-1]
}
