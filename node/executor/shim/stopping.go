package shim

import (
	"context"
	"errors"
	"time"

	"mlfnode/node/executor"
)

// stopping passes the end of a context on to the shim, while a run is awaited.
type stopping struct {
	link *link
	id   uint64
	kill <-chan struct{}

	detach func() bool
	done   chan struct{} // closed when pass has returned
	over   chan struct{} // closed when the run has ended
	left   bool          // the run is left to the next agent
}

// stopping watches ctx for a run of the slot.
func (l *slotLine) stopping(ctx context.Context, id uint64, a *executor.Attempt) *stopping {
	// The connection is of no more use when a run was left, so that reading from it may fail for good.
	left := make(chan struct{})
	l.left = left
	leave := func() {
		_ = l.conn.SetReadDeadline(time.Unix(1, 0))
		close(left)
	}
	if a.Name == "" {
		leave = nil
	}
	return newStopping(ctx, l.link, id, a.Kill, leave)
}

// newStopping calls leave, if it is given, when the cause of ctx's end says so.
func newStopping(ctx context.Context, l *link, id uint64, kill <-chan struct{}, leave func()) *stopping {
	s := &stopping{link: l, id: id, kill: kill}
	if ctx.Done() == nil {
		return s
	}
	s.done, s.over = make(chan struct{}), make(chan struct{})
	s.detach = context.AfterFunc(ctx, func() {
		defer close(s.done)
		s.pass(context.Cause(ctx), leave)
	})
	return s
}

func (s *stopping) pass(why error, leave func()) {
	if leave != nil && errors.Is(why, executor.ErrLeave) {
		s.left = true
		leave()
		return
	}
	m := &message{Kind: kindStop, ID: s.id, Cause: causeOf(why), Kill: errors.Is(why, executor.ErrKill), Save: errors.Is(why, executor.ErrCancelledSaving)}
	if s.link.send(m) != nil || m.Kill || s.kill == nil {
		return // a shim that is gone kills its programs
	}
	select {
	case <-s.kill:
		m.Kill = true
		_ = s.link.send(m)
	case <-s.over:
	}
}

// end ends the watch and reports whether the run was left.
func (s *stopping) end() (left bool) {
	if s.detach == nil || s.detach() {
		return false
	}
	close(s.over)
	<-s.done
	return s.left
}
