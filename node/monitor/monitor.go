// Package monitor is the HTTP server of a node: the API that the command line and the web page use.
// It reads records, history and the log stream, and passes the actions of users on to the master.
package monitor

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"mlfnode/cluster/scheduling"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
	"mlfnode/node/membership"
)

// Config holds the collaborators of a Monitor.
type Config struct {
	Master  *master.Master
	History *history.DB
	Store   *jetstream.Store
	Node    api.Node // the parts that do not change
	Logger  *slog.Logger

	// Members lists the nodes of the cluster; nil on a node that stands alone.
	Members func() []api.Member
	// Working reports whether the node takes trials; nil on a node that takes them from the start.
	Working func() bool
	// Cluster is what the master of a cluster administers; zero on any other node.
	Cluster Cluster
}

// Cluster holds what the master of a cluster administers.
type Cluster struct {
	Authority  *trust.Authority
	Scheduling *scheduling.Registry
	Address    string                                   // HOST:PORT of the API, for machines that join
	Meet       func() membership.JoinReply              // tells a joining machine where the other nodes are
	Forget     func(context.Context, grid.NodeID) error // removes a node from the cluster
	Rotate     func(context.Context) error              // gives the cluster a new gossip key
	Backup     func(context.Context, io.Writer) error   // writes the state of the master
	CA         func() api.CA                            // returns the progress of a rotation of the CA
	StepCA     func(context.Context, api.CAStep) error  // takes the next step of the rotation
}

// Monitor serves the API. Make one with New.
type Monitor struct {
	log             *slog.Logger
	master          bool // the node is a master
	snapshots       bool // it keeps snapshots of trials
	guard           *guard
	unauthenticated *unauthenticatedConns
	requests        *requestMetrics
	handlers        *handlers
}

// New makes a Monitor.
func New(cfg Config) *Monitor {
	log := cfg.Logger.With("component", "monitor")
	m := &Monitor{
		log: log, master: cfg.Master != nil, snapshots: cfg.Master != nil && cfg.Master.Snapshots() != nil,
		requests: newRequestMetrics(), unauthenticated: newUnauthenticatedConns(maxUnauthenticated),
		guard: &guard{authority: cfg.Cluster.Authority, refusals: &refusalLog{}, log: log,
			requestTimeout: requestTimeout, recheckTime: recheckTime},
	}
	m.handlers = newHandlers(&cfg, m.guard.refusals, m.requests, log)
	return m
}

// Limits of idle clients.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	headerBytes   = 32 << 10
	maxStreams    = 100 // concurrent requests on one HTTP/2 connection
)

// shutdownTimeout is how long responses may continue when the node stops. Streams, which do not end
// without being cut, are cut then.
const shutdownTimeout = 500 * time.Millisecond

// Serve answers the requests of this node's owner on l until ctx ends.
func (m *Monitor) Serve(ctx context.Context, l net.Listener) error {
	return m.serve(ctx, l, m.newRouter(), nil)
}

// ServeOthers answers the requests of other clients on l, which speaks TLS, within the rights of
// their tokens, until ctx ends.
func (m *Monitor) ServeOthers(ctx context.Context, l net.Listener) error {
	return m.serve(ctx, l, m.guard.wrap(m.newRouter()), m.unauthenticated)
}

func (m *Monitor) serve(ctx context.Context, l net.Listener, h http.Handler, strangers *unauthenticatedConns) error {
	// Responses in progress when ctx ends get a little more time: the requests have a context of
	// their own.
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	base := context.WithValue(requests, serverStoppingKey{}, ctx.Done())
	srv := &http.Server{
		Handler: h,
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: 256 << 10,
			MaxReceiveBufferPerStream: 64 << 10},
		ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytes,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
	}
	if strangers != nil {
		strangers.track(srv)
	}
	return serveUntil(ctx, srv, l, func() {
		last, cancel := context.WithTimeout(requests, shutdownTimeout)
		defer cancel()
		if srv.Shutdown(last) != nil {
			cut()
			srv.Close()
		}
	})
}

// serveUntil serves until ctx ends, and then until shutDown, which must close the server, has
// returned.
func serveUntil(ctx context.Context, srv *http.Server, l net.Listener, shutDown func()) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		shutDown()
	})
	err := srv.Serve(l)
	if !stop() {
		<-stopped
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
