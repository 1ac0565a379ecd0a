package shim

import (
	"context"
	"errors"
	"time"

	"mlfnode/node/executor"
)

// stopForwarder forwards the end of a context to the shim while a run is awaited.
type stopForwarder struct {
	control *controlConn
	id      uint64
	kill    <-chan struct{}

	detach    func() bool
	forwarded chan struct{} // closed when forward has returned
	done      chan struct{} // closed when the run has ended
	abandoned bool          // the run is left to the next agent
}

// forwardStop watches ctx for a run of the slot.
func (c *slotConn) forwardStop(ctx context.Context, id uint64, a *executor.Attempt) *stopForwarder {
	// When a run was left its connection is of no more use, so reading from it may fail for good.
	left := make(chan struct{})
	c.leaving = left
	leave := func() {
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
		close(left)
	}
	if a.Name == "" {
		leave = nil
	}
	return newStopForwarder(ctx, c.control, id, a.Kill, leave)
}

// newStopForwarder calls leave, unless it is nil, if the cause of ctx's end is executor.ErrLeave.
func newStopForwarder(ctx context.Context, l *controlConn, id uint64, kill <-chan struct{},
	leave func()) *stopForwarder {
	s := &stopForwarder{control: l, id: id, kill: kill}
	if ctx.Done() == nil {
		return s
	}
	s.forwarded, s.done = make(chan struct{}), make(chan struct{})
	s.detach = context.AfterFunc(ctx, func() {
		defer close(s.forwarded)
		s.forward(context.Cause(ctx), leave)
	})
	return s
}

func (f *stopForwarder) forward(why error, leave func()) {
	if leave != nil && errors.Is(why, executor.ErrLeave) {
		f.abandoned = true
		leave()
		return
	}
	m := &message{Kind: kindStop, ID: f.id, Cause: causeOf(why), Kill: errors.Is(why, executor.ErrKill),
		Save: errors.Is(why, executor.ErrCancelledSaving)}
	if f.control.conn.send(m) != nil || m.Kill || f.kill == nil {
		return // a shim that is gone kills its programs
	}
	select {
	case <-f.kill:
		m.Kill = true
		_ = f.control.conn.send(m)
	case <-f.done:
	}
}

// end stops forwarding and reports whether the run was left.
func (f *stopForwarder) end() (left bool) {
	if f.detach == nil || f.detach() {
		return false
	}
	close(f.done)
	<-f.forwarded
	return f.abandoned
}
