package node

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"mlfnode/node/api"
	"mlfnode/node/config"
	"mlfnode/node/poll"
)

// Session is a connection to the node of a state folder, which runs in another process or in this
// one.
type Session struct {
	client  *api.Client
	dir     string
	node    *Node // nil when another process runs it
	quiet   bool
	contact *Contact // of a master that is reached over the network
	cluster bool     // with a node of a cluster on this machine

	mu   sync.Mutex
	stop func() // ends the serving
}

const (
	// attachTime bounds the wait for a node that starts or stops in another process.
	attachTime = 30 * time.Second
	// attachInterval is how often the session is tried meanwhile.
	attachInterval = 20 * time.Millisecond
	// busyInterval is how often a node that hosts sweeps of other terminals checks whether it may
	// end.
	busyInterval = 100 * time.Millisecond
)

// Attach finds the node of the state folder, or makes one in this process: with host true a working
// one, that other terminals reach through its unix socket; with host false a quiet one for reads
// and changes of records, which runs no trial.
//
// It waits, up to attachTime, for a node that another process starts or stops; notice is called
// once that takes longer. It returns ErrOfCluster for a folder of a cluster's node: see Await.
func Attach(ctx context.Context, cfg config.Config, host bool, notice func()) (*Session, error) {
	if RoleOf(cfg.StateDir) != "" {
		return nil, ErrOfCluster
	}
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	say := time.AfterFunc(noticeTime, notice)
	defer say.Stop()
	tick := time.NewTicker(attachInterval)
	defer tick.Stop()
	for {
		if s := reach(ctx, cfg.StateDir); s != nil {
			return s, nil
		}
		s, err := become(ctx, cfg, host)
		if !errors.Is(err, ErrInUse) {
			return s, err
		}
		if Holder(cfg.StateDir) == 0 && lastHost(cfg.StateDir) != "" {
			return nil, inUse(cfg.StateDir) // what runs on another machine can't be reached, however long one waits
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return nil, inUse(cfg.StateDir)
			}
			return nil, context.Cause(ctx)
		}
	}
}

// At returns the session with the node that answers for the state folder, and what it is; nil if
// none answers.
func At(ctx context.Context, cfg config.Config) (*Session, api.Node) {
	s := reach(ctx, cfg.StateDir)
	if s == nil {
		return nil, api.Node{}
	}
	about, err := s.client.Node(ctx)
	if err != nil {
		s.Close()
		return nil, api.Node{}
	}
	return s, about
}

// Running reports whether some process runs a node that answers for the state folder.
func Running(ctx context.Context, cfg config.Config) bool { return reach(ctx, cfg.StateDir) != nil }

// reach returns a session with a node of another process, nil if none answers.
func reach(ctx context.Context, dir string) *Session {
	c, err := dial(ctx, dir)
	if err != nil {
		return nil
	}
	c.Close()
	return &Session{dir: dir, client: api.NewClient(func(ctx context.Context) (net.Conn, error) {
		return dial(ctx, dir)
	})}
}

// become starts the node in this process.
func become(ctx context.Context, cfg config.Config, host bool) (*Session, error) {
	n, err := Open(ctx, cfg, !host)
	if err != nil {
		return nil, err
	}
	s := &Session{dir: cfg.StateDir, node: n, quiet: !host}
	if !host {
		// A quiet node answers this process alone: others wait for the folder, which takes
		// milliseconds.
		p := &pipe{conns: make(chan net.Conn), closed: make(chan struct{})}
		s.stop = n.serve(n.monitor, p)
		s.client = api.NewClient(p.dial)
		return s, nil
	}
	s.client = api.NewClient(func(ctx context.Context) (net.Conn, error) { return dial(ctx, cfg.StateDir) })
	if err := s.listen(); err != nil {
		n.Close()
		return nil, err
	}
	return s, nil
}

func (s *Session) listen() error {
	l, err := listen(s.dir)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop = s.node.serve(s.node.monitor, l)
	return nil
}

func (s *Session) unlisten() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Client returns a client of the node.
func (s *Session) Client() *api.Client { return s.client }

// Hosting reports whether the working node is in this process.
func (s *Session) Hosting() bool { return s.node != nil && !s.quiet }

// Failed returns a channel with the error of a hosted node that ended by itself. Nothing is sent
// when not hosting.
func (s *Session) Failed() <-chan error {
	if s.node == nil {
		return nil
	}
	return s.node.Failed()
}

// Idle blocks as long as this process hosts sweeps that run, those of other terminals included; it
// returns immediately when not hosting. When it returns without an error the node accepts no more
// requests, so that no sweep begins before Close.
func (s *Session) Idle(ctx context.Context) error {
	if !s.Hosting() {
		return nil
	}
	for {
		err := poll.Until(ctx, busyInterval, func() (bool, error) {
			select {
			case err := <-s.node.Failed():
				return false, err
			default:
			}
			busy, err := s.node.master.Busy(ctx)
			return !busy, err
		})
		if err != nil {
			return err
		}
		s.unlisten()
		busy, err := s.node.master.Busy(ctx)
		if err != nil || !busy {
			return err
		}
		if err := s.listen(); err != nil {
			return err
		}
	}
}

// Close ends the session. A hosted node stops; its running trials are stopped and run again later.
func (s *Session) Close() error {
	s.client.Close()
	s.unlisten()
	if s.node != nil {
		s.node.Close()
	}
	return nil
}

// pipe is a listener for connections inside this process.
type pipe struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipe) dial(ctx context.Context) (net.Conn, error) {
	mine, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return mine, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept implements net.Listener.
func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipe) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr implements net.Listener.
func (p *pipe) Addr() net.Addr { return &net.UnixAddr{Name: "in-process", Net: "unix"} }
