package monitor

import (
	"container/list"
	"context"
	"net"
	"net/http"
	"sync"
)

// strangers are the connections on which no token has been shown yet. There are at most limit of them: when another one comes, the
// oldest is closed. So clients without a token that hold connections open cannot keep out clients with one.
type strangers struct {
	limit int

	mu     sync.Mutex
	order  list.List // of *stranger, the oldest first
	byConn map[net.Conn]*stranger
}

// stranger is one connection.
type stranger struct {
	all  *strangers
	conn net.Conn
	at   *list.Element // nil once it is admitted or has ended; guarded by strangers.mu
}

func newStrangers(limit int) *strangers {
	return &strangers{limit: limit, byConn: map[net.Conn]*stranger{}}
}

// watch has the server tell of its connections.
func (s *strangers) watch(srv *http.Server) {
	srv.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return context.WithValue(ctx, strangerKey{}, s.enter(conn))
	}
	srv.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			s.leave(conn)
		}
	}
}

type strangerKey struct{}

// strangerOf gives the connection of a request, nil where connections are not watched.
func strangerOf(ctx context.Context) *stranger {
	s, _ := ctx.Value(strangerKey{}).(*stranger)
	return s
}

func (s *strangers) enter(conn net.Conn) *stranger {
	n, oldest := s.add(conn)
	if oldest != nil {
		cut(oldest)
	}
	return n
}

// add lists a connection, and takes the oldest off the list and returns it where the new one is one too many.
func (s *strangers) add(conn net.Conn) (n *stranger, oldest net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order.Len() >= s.limit {
		first := s.order.Front().Value.(*stranger)
		s.removeLocked(first)
		oldest = first.conn
	}
	n = &stranger{all: s, conn: conn}
	n.at = s.order.PushBack(n)
	s.byConn[conn] = n
	return n, oldest
}

// cut closes a connection without a farewell: for TLS that is a write to a peer that may not read, and it takes seconds then, in
// which the server would accept nobody.
func cut(conn net.Conn) {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn()
	}
	conn.Close()
}

func (s *strangers) leave(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.byConn[conn]; n != nil {
		s.removeLocked(n)
	}
}

func (s *strangers) removeLocked(n *stranger) {
	if n.at == nil {
		return
	}
	s.order.Remove(n.at)
	delete(s.byConn, n.conn)
	n.at = nil
}

// admit says that a good token was shown on the connection.
func (n *stranger) admit() {
	if n == nil {
		return
	}
	n.all.mu.Lock()
	defer n.all.mu.Unlock()
	n.all.removeLocked(n)
}
