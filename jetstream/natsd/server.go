// Package natsd runs an embedded NATS server with JetStream in one folder.
//
// It starts nats-server with the limits that suit a master, lets in nodes of the cluster by their
// certificates, repairs what a kill has left half written, and reopens JetStream after a write
// error. What the streams hold is up to the client, package jetstream.
//
// nats-server closes a stream for good when a write fails, usually because the disk is full. The
// Server notices, ends the context that Available returns, with ErrDisk, and reopens JetStream as
// soon as the folder can be written again.
package natsd

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

	"mlfnode/node/filelock"
	"mlfnode/node/poll"
)

// Config says where a Server keeps its folder, and who may connect.
type Config struct {
	Dir    string // created with mode 0700 if missing; one Server at a time holds it
	Logger *slog.Logger
	Listen *Listen // for the other nodes of a cluster; nil accepts connections of this process only

	// Permissions returns the subjects that a node may use. It is required with Listen.
	Permissions Permissions

	// Disposable names the streams that are not synced to disk: after a power cut one whose
	// settings are lost starts empty.
	Disposable []string

	// Unsynced leaves flushing the folder to the caller, after Close. A restore needs this: either
	// all of it counts, or nothing.
	Unsynced bool
}

// Errors that callers branch on.
var (
	// ErrInUse is returned by Start when a living process holds the folder.
	ErrInUse = errors.New("the store's folder is in use by another process; stop that one first")
	// ErrDisk is the cause of Available's end while the folder can't be written, for example
	// because the disk is full.
	ErrDisk = errors.New("the disk that holds the store can't be written")
	// ErrClosed is the cause of Available's end after Close.
	ErrClosed = errors.New("the store is closed")
)

const (
	// MaxPayload is the longest message, which is NATS's own default. Larger messages would cost
	// memory at both ends.
	MaxPayload = 1 << 20
	// MaxControlLine is the longest line of the protocol that a client may send; subjects are part
	// of it. nats-server closes the connection of a client that sends a longer one.
	MaxControlLine = 32 << 10
	// MaxSubjectDetails is how many subjects one answer of nats-server about a stream lists.
	MaxSubjectDetails = server.JSMaxSubjectDetails
	// LocalPingInterval is the interval of pings between clients of this process and a Server that
	// does not listen. It keeps an idle node quiet: an in-process connection can't go dead
	// unnoticed.
	LocalPingInterval = 10 * time.Minute

	// startLimit bounds how long Start may take to recover a folder.
	startLimit = time.Minute
	// maxMemory bounds JetStream's memory streams. Only consumers are kept there: some hundred
	// bytes each.
	maxMemory = 16 << 20
	// maxStore is what nats-server compares the sum of all stream limits with. The limits that
	// matter are per stream, so this one must not get in the way; the default, three quarters of
	// the free disk, would refuse to open on a nearly full one.
	maxStore = 1 << 60
)

// Server is an embedded NATS server with JetStream in one folder. It listens where Config says, or
// nowhere.
type Server struct {
	log        *slog.Logger
	dir        string
	disposable []string
	lock       *os.File
	opts       *server.Options

	errorReported poll.Signal // nats-server has logged an error
	stop          context.CancelFunc
	background    sync.WaitGroup

	nodeConnections
	writable Availability
}

// Available returns a context that ends when the folder can't be written (with ErrDisk as the
// cause) or the Server is closed (with ErrClosed). After recovery from a write error, Available
// returns a new context.
func (s *Server) Available() context.Context { return s.writable.Current() }

// Availability is a time in which something can be used, and after its end the next one.
type Availability struct {
	mu      sync.Mutex
	current context.Context
	end     context.CancelCauseFunc // of current
}

// Begin begins a new time, which ends with parent at the latest. An earlier one must have ended.
func (a *Availability) Begin(parent context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.current, a.end = context.WithCancelCause(parent)
}

// End ends the current time: everything that waits within it fails immediately.
func (a *Availability) End(cause error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end(cause)
}

// Current returns a context that ends with the current time.
func (a *Availability) Current() context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.current
}

// Start opens the folder and recovers what it holds, also after a kill. It returns ErrInUse if
// another process has it, ErrDisk if it can't be written, and an error that names the stream if one
// can't be read. No message is changed in either case.
func Start(cfg Config) (*Server, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the store's folder: %w", err)
	}
	// A second process would corrupt the streams. The lock ends with the process.
	lock, err := filelock.TryLock(filepath.Join(cfg.Dir, "lock"))
	if errors.Is(err, filelock.ErrLocked) {
		return nil, ErrInUse
	}
	if err != nil {
		return nil, fmt.Errorf("lock the store: %w", err)
	}
	s := &Server{
		log: cfg.Logger, dir: cfg.Dir, disposable: cfg.Disposable, lock: lock, errorReported: poll.NewSignal(),
		opts: &server.Options{
			ServerName: "mlfnode", DontListen: true, NoSigs: true, NoLog: true, DisableJetStreamBanner: true,
			JetStream: true, StoreDir: cfg.Dir, SyncAlways: !cfg.Unsynced,
			JetStreamMaxMemory: maxMemory, JetStreamMaxStore: maxStore,
			MaxPayload: MaxPayload, MaxControlLine: MaxControlLine, PingInterval: LocalPingInterval,
			MaxClosedClients: 1, MaxTracedMsgLen: 64,
		},
	}
	s.writable.Begin(context.Background()) // ends with Close
	if cfg.Listen != nil {
		if err := s.listen(cfg.Listen, cfg.Permissions); err != nil {
			s.shutdown()
			return nil, err
		}
	}
	if err := s.start(); err != nil {
		s.shutdown()
		return nil, s.Diagnose(err)
	}
	ctx, stop := context.WithCancel(context.Background()) // ends with Close
	s.stop = stop
	s.background.Go(func() { s.watchHealth(ctx) })
	if s.auth != nil {
		s.background.Go(func() { s.watch(ctx) })
	}
	return s, nil
}

// start runs nats-server up to the point where it serves.
func (s *Server) start() error {
	if err := repair(s.opts.StoreDir, s.disposable); err != nil {
		return err
	}
	ns, err := server.NewServer(s.opts)
	if err != nil {
		return fmt.Errorf("set up the NATS server: %w", err)
	}
	s.nats = ns
	l := &serverLog{log: s.log, disposable: s.disposable, errorReported: s.errorReported}
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

// checkStreams returns an error if nats-server could not recover a stream. nats-server only logs
// that, and a client would create a new stream in its place.
func (s *Server) checkStreams() error {
	return streamErrors(s.dir, func() []server.HealthzError {
		return s.nats.Healthz(&server.HealthzOptions{Details: true}).Errors
	})
}

// maxHealthChecks bounds how often nats-server is asked for its health. It gives itself a
// millisecond to see that it has started, so on a busy machine it sometimes reports that it has
// not.
const maxHealthChecks = 100

// streamErrors asks for the health of the streams in dir, and returns what is wrong with them.
func streamErrors(dir string, health func() []server.HealthzError) error {
	var errs []server.HealthzError
	for range maxHealthChecks {
		if errs = health(); len(errs) == 0 {
			return nil
		}
		if errs[0].Type != server.HealthzErrorConn {
			return fmt.Errorf("the store in %s is damaged: %s. "+
				"Restore the folder, or move it away to start with an empty one", dir, errs[0].Error)
		}
	}
	return fmt.Errorf("the NATS server does not become ready: %s", errs[0].Error)
}

// InProcessConn connects a client of this process. It implements nats.InProcessConnProvider.
func (s *Server) InProcessConn() (net.Conn, error) { return s.nats.InProcessConn() }

// Credentials returns the user and the password of clients of this process, which may use every
// subject. Both are empty if the server does not listen, and then it wants none.
func (s *Server) Credentials() (user, password string) {
	if s.auth == nil {
		return "", ""
	}
	return localUser, s.auth.password
}

// Close ends the server. It returns when everything is flushed and every goroutine has ended.
func (s *Server) Close() {
	s.stop()
	s.background.Wait()
	s.shutdown()
}

func (s *Server) shutdown() {
	s.writable.End(ErrClosed)
	if s.nats != nil {
		s.nats.Shutdown()
		s.nats.WaitForShutdown()
	}
	s.lock.Close()
}
