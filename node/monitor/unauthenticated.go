package monitor

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// unauthenticatedConns are the connections on which no token has been shown yet. There are at most limit of them: when another one comes, the
// oldest is closed. So clients without a token that hold connections open cannot keep out clients with one.
type unauthenticatedConns struct {
	limit int

	mu     sync.Mutex
	order  list.List // of *stranger, the oldest first
	byConn map[net.Conn]*unauthenticatedConn
}

// unauthenticatedConn is one connection.
type unauthenticatedConn struct {
	all     *unauthenticatedConns
	conn    net.Conn
	element *list.Element // nil once it is admitted or has ended; guarded by strangers.mu
}

func newUnauthenticatedConns(limit int) *unauthenticatedConns {
	return &unauthenticatedConns{limit: limit, byConn: map[net.Conn]*unauthenticatedConn{}}
}

// track has the server tell of its connections.
func (s *unauthenticatedConns) track(srv *http.Server) {
	srv.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, s.connOpened(conn))
	}
	srv.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			s.connClosed(conn)
		}
	}
}

type connKey struct{}

// connOf gives the connection of a request, nil where connections are not watched.
func connOf(ctx context.Context) *unauthenticatedConn {
	s, _ := ctx.Value(connKey{}).(*unauthenticatedConn)
	return s
}

func (s *unauthenticatedConns) connOpened(conn net.Conn) *unauthenticatedConn {
	n, oldest := s.add(conn)
	if oldest != nil {
		closeAbruptly(oldest)
	}
	return n
}

// add lists a connection, and takes the oldest off the list and returns it where the new one is one too many.
func (s *unauthenticatedConns) add(conn net.Conn) (n *unauthenticatedConn, oldest net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order.Len() >= s.limit {
		first := s.order.Front().Value.(*unauthenticatedConn)
		s.removeLocked(first)
		oldest = first.conn
	}
	n = &unauthenticatedConn{all: s, conn: conn}
	n.element = s.order.PushBack(n)
	s.byConn[conn] = n
	return n, oldest
}

// closeAbruptly closes a connection without a farewell: for TLS that is a write to a peer that may not read, and it takes seconds then, in
// which the server would accept nobody.
func closeAbruptly(conn net.Conn) {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	conn.Close()
}

func (s *unauthenticatedConns) connClosed(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.byConn[conn]; n != nil {
		s.removeLocked(n)
	}
}

func (s *unauthenticatedConns) removeLocked(n *unauthenticatedConn) {
	if n.element == nil {
		return
	}
	s.order.Remove(n.element)
	delete(s.byConn, n.conn)
	n.element = nil
}

// authenticated says that a good token was shown on the connection.
func (n *unauthenticatedConn) authenticated() {
	if n == nil {
		return
	}
	n.all.mu.Lock()
	defer n.all.mu.Unlock()
	n.all.removeLocked(n)
}
