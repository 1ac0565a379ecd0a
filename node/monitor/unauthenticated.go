package monitor

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// unauthenticatedConns is the set of connections that have not yet presented a token. There are at
// most limit of them: a new one beyond that closes the oldest. So clients without a token that hold
// connections open cannot keep out clients with one.
type unauthenticatedConns struct {
	limit int

	mu     sync.Mutex
	order  list.List // of *unauthenticatedConn, the oldest first
	byConn map[net.Conn]*unauthenticatedConn
}

// unauthenticatedConn is one such connection.
type unauthenticatedConn struct {
	all     *unauthenticatedConns
	conn    net.Conn
	element *list.Element // nil once it is authenticated or closed; guarded by all.mu
}

func newUnauthenticatedConns(limit int) *unauthenticatedConns {
	return &unauthenticatedConns{limit: limit, byConn: map[net.Conn]*unauthenticatedConn{}}
}

// track registers for the connection events of the server.
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

// connOf returns the connection of a request, or nil if connections are not tracked.
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

// add lists a connection. If there is one too many, add removes the oldest from the list and
// returns it.
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

// closeAbruptly closes a connection without TLS's close_notify: writing that to a peer that does
// not read takes seconds, during which the server would accept no connections.
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

// authenticated records that a valid token was presented on the connection.
func (n *unauthenticatedConn) authenticated() {
	if n == nil {
		return
	}
	n.all.mu.Lock()
	defer n.all.mu.Unlock()
	n.all.removeLocked(n)
}
