package jetstream

import (
	"context"
	"errors"
	"sync"
)

// errCut ends calls whose connection was lost: their answers can't come any more.
var errCut = errors.New("the connection to the master was lost")

// session is one connection after the other. The zero value is ready.
type session struct {
	mu  sync.Mutex
	ctx context.Context // ends with the connection; nil before the first call
	end context.CancelCauseFunc
}

// join gives a context that ends with ctx, and with the connection.
func (s *session) join(ctx context.Context, stop func()) (context.Context, func()) {
	s.mu.Lock()
	if s.ctx == nil {
		s.ctx, s.end = context.WithCancelCause(context.Background()) // ends in cut
	}
	connected := s.ctx
	s.mu.Unlock()
	joined, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(connected, func() { cancel(context.Cause(connected)) })
	return joined, func() {
		unhook()
		cancel(nil)
		stop()
	}
}

// cut ends all calls that are under way.
func (s *session) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		s.end(errCut)
	}
	s.ctx, s.end = nil, nil
}
