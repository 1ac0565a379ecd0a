package jetstream

import (
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
	"mlfnode/jetstream/natsd"
)

// Config says where and how a Server keeps its folder.
type Config struct {
	Dir    string // created with mode 0700 if missing; one Server at a time holds it
	Node   grid.NodeID
	Logger *slog.Logger
	Limits Limits        // zero fields get their default
	Listen *natsd.Listen // for the other nodes of a cluster; nil keeps everything in this process

	// Unsynced leaves flushing the folder to the caller, after Close. A restore needs this: either
	// all of it counts, or nothing.
	Unsynced bool
}

// Server is a natsd.Server that holds a Store.
type Server struct {
	*natsd.Server
	log    *slog.Logger
	node   grid.NodeID
	limits Limits
}

// Start starts the server in a folder, as natsd.Start does. Nodes may call the master and receive
// its answers, nothing else.
func Start(cfg Config) (*Server, error) {
	s := &Server{log: cfg.Logger.With("component", "jetstream"), node: cfg.Node, limits: cfg.Limits.withDefaults()}
	var err error
	s.Server, err = natsd.Start(natsd.Config{
		Dir: cfg.Dir, Logger: s.log, Listen: cfg.Listen,
		Permissions: func(node grid.NodeID) (publish, subscribe []string) {
			return []string{callSubject(node, anyVerb)}, []string{inbox(node) + ".>"}
		},
		Disposable: []string{leaseStream}, // the master leases again what is missing
		Unsynced:   cfg.Unsynced,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// connect connects a client of this process.
func (s *Server) connect(opts ...nats.Option) (*nats.Conn, error) {
	opts = append(opts, nats.InProcessServer(s), nats.Name("mlfnode"), nats.MaxReconnects(-1),
		nats.PingInterval(natsd.LocalPingInterval), nats.CustomInboxPrefix(inbox(s.node)),
		nats.SyncQueueLen(inboxMessages),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			s.log.Debug("nats client of the master", "err", err)
		}))
	if user, password := s.Credentials(); user != "" {
		opts = append(opts, nats.UserInfo(user, password))
	}
	conn, err := nats.Connect("", opts...)
	if err != nil {
		return nil, fmt.Errorf("connect to the store: %w", err)
	}
	return conn, nil
}
