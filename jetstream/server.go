package jetstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"golang.org/x/sys/unix"

	"mlfnode/grid"
)

const (
	// startLimit is the longest that recovering a folder may take before Start gives up.
	startLimit = time.Minute
	// storeMemory bounds JetStream's own memory streams. Only consumers are kept there: some hundred bytes each.
	storeMemory = 16 << 20
	// storeBytes is what nats-server compares the sum of all limits with. Limits are per stream here, so it must only be out
	// of the way; the default would be three quarters of the free disk, which refuses to open on a nearly full one.
	storeBytes = 1 << 60
	// controlLine is the longest line of the protocol that a connection may send. nats-server ends a connection that sends a longer
	// one, and all of the master's store goes through one; the names in a line are bounded by maxSubject.
	controlLine = 32 << 10
	// pingInterval keeps an idle node quiet: an in-process connection can't go dead unnoticed.
	pingInterval = 10 * time.Minute
)

// Server is an embedded NATS server with JetStream in one folder. It listens where Config says, else nowhere.
type Server struct {
	log    *slog.Logger
	node   grid.NodeID
	dir    string
	limits Limits
	lock   *os.File
	nats   *server.Server
	opts   *server.Options

	suspect chan struct{} // nats-server reported an error
	stop    context.CancelFunc
	tending sync.WaitGroup
	door    *door // nil when it does not listen

	mu    sync.Mutex
	alive context.Context // ends, with the cause, when JetStream can't be written, and when the server closes
	end   context.CancelCauseFunc
}

// Start opens the folder and recovers what it holds, also after a kill. It returns ErrInUse when another process has it, and an
// error that names the stream when one can't be read; no message is changed in either case.
func Start(cfg Config) (*Server, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the store's folder: %w", err)
	}
	lock, err := lockFolder(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{
		log: cfg.Logger.With("component", "jetstream"), node: cfg.Node, dir: cfg.Dir, limits: cfg.Limits.withDefaults(), lock: lock,
		opts: options(cfg.Dir), suspect: make(chan struct{}, 1),
	}
	s.opts.SyncAlways = !cfg.Unsynced
	s.alive, s.end = context.WithCancelCause(context.Background()) // ends with Close
	if cfg.Listen != nil {
		if err := s.listen(cfg.Listen); err != nil {
			s.closeServer()
			return nil, err
		}
	}
	if err := s.start(); err != nil {
		s.closeServer()
		return nil, s.blame(err)
	}
	ctx, stop := context.WithCancel(context.Background()) // ends with Close
	s.stop = stop
	s.tending.Go(func() { s.tend(ctx) })
	if s.door != nil {
		s.tending.Go(func() { s.watchConnections(ctx) })
	}
	return s, nil
}

// lockFolder keeps a second process out, which would corrupt the streams. The lock ends with the process.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of the store: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	return f, nil
}

func options(dir string) *server.Options {
	return &server.Options{
		ServerName: "mlfnode", DontListen: true, NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
		JetStream: true, StoreDir: dir, SyncAlways: true, JetStreamMaxMemory: storeMemory, JetStreamMaxStore: storeBytes,
		MaxPayload: maxPayload, MaxControlLine: controlLine, PingInterval: pingInterval, MaxClosedClients: 1, MaxTracedMsgLen: 64,
	}
}

// inside connects a client of this process.
func (s *Server) inside(opts ...nats.Option) (*nats.Conn, error) {
	opts = append(opts, nats.InProcessServer(s), nats.Name("mlfnode"), nats.MaxReconnects(-1), nats.PingInterval(pingInterval),
		nats.CustomInboxPrefix(inbox(s.node)), nats.SyncQueueLen(inboxMessages),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			s.log.Debug("nats client of the master", "err", err)
		}))
	if s.door != nil {
		opts = append(opts, nats.UserInfo(ownUser, s.door.own))
	}
	return nats.Connect("", opts...)
}

// start runs nats-server up to the point where it serves.
func (s *Server) start() error {
	if err := mend(s.opts.StoreDir); err != nil {
		return err
	}
	ns, err := server.NewServer(s.opts)
	if err != nil {
		return fmt.Errorf("set up the NATS server: %w", err)
	}
	s.nats = ns
	l := &serverLog{log: s.log, suspect: s.suspect}
	ns.SetLoggerV2(l, false, false, false)
	ns.Start() // returns once it serves
	if msg := l.fatal(); msg != "" {
		return fmt.Errorf("start the NATS server: %s", msg)
	}
	if !ns.ReadyForConnections(startLimit) {
		return errors.New("the NATS server was not ready within a minute")
	}
	return s.checkStreams()
}

// checkStreams finds streams that nats-server could not recover: it only logs them, and would make new ones in their place.
func (s *Server) checkStreams() error {
	return damage(s.dir, func() []server.HealthzError { return s.nats.Healthz(&server.HealthzOptions{Details: true}).Errors })
}

// healthTries is how often nats-server is asked for its health. It gives itself a millisecond to see that it has started, and on a
// busy machine says now and then that it has not.
const healthTries = 100

// damage asks for the health of the streams in a folder, and says what is wrong with them.
func damage(dir string, health func() []server.HealthzError) error {
	var errs []server.HealthzError
	for range healthTries {
		if errs = health(); len(errs) == 0 {
			return nil
		}
		if errs[0].Type != server.HealthzErrorConn {
			return fmt.Errorf("the store in %s is damaged: %s. Restore the folder, or move it away to start with an empty one", dir, errs[0].Error)
		}
	}
	return fmt.Errorf("the NATS server does not get ready: %s", errs[0].Error)
}

// InProcessConn connects a client in this process; it makes a Server what nats.InProcessServer wants.
func (s *Server) InProcessConn() (net.Conn, error) { return s.nats.InProcessConn() }

// Close ends the server. It returns when everything is flushed and every goroutine has ended.
func (s *Server) Close() {
	s.stop()
	s.tending.Wait()
	s.closeServer()
}

func (s *Server) closeServer() {
	s.end(ErrClosed)
	if s.nats != nil {
		s.nats.Shutdown()
		s.nats.WaitForShutdown()
	}
	s.lock.Close()
}

// life is a context that ends when the server can't be written or is closed.
func (s *Server) life() context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.alive
}
