// Package monitor is the HTTP server of a node: the API that the command line and the web page use. It shows what records,
// history and the log stream hold, and passes on to the master what a user wants changed.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
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
	Node    api.Node // what does not change
	Logger  *slog.Logger

	// Members lists the nodes of the cluster; nil on a node that stands alone.
	Members func() []api.Member
	// Working reports whether the node takes trials; nil where it does as soon as it answers.
	Working func() bool
	// The rest is for a master; nil on others.
	Authority  *trust.Authority
	Scheduling *scheduling.Registry                     // likewise
	Address    string                                   // HOST:PORT of the API, for machines that join
	Meet       func() membership.JoinReply              // where a machine that joins finds the others
	Forget     func(context.Context, grid.NodeID) error // takes a node out of the cluster
	Rotate     func(context.Context) error              // gives the cluster a new gossip key
	Backup     func(context.Context, io.Writer) error   // writes all that the master has
	CA         func() api.CA                            // how far a rotation of the CA has come
	StepCA     func(context.Context, api.CAStep) error  // takes its next step
}

// Monitor serves the API. Make one with New.
type Monitor struct {
	cfg        Config
	log        *slog.Logger
	knocks     knocks
	charts     *charts
	etas       *charts // with a turn of their own: a chart may take longer than what shows the time left can wait
	logIndexes *logIndexes
	taskLists  turns // a list of Flower's tasks is made in memory

	strangerTime time.Duration // for a request of somebody who has shown no token to be sent
	recheckTime  time.Duration // between two checks of a stream's token
	strangers    *strangers
	hub          *hub // nil on a worker

	healthy, ready *health
	metrics        *metrics
}

// New makes a Monitor.
func New(cfg Config) *Monitor {
	m := &Monitor{
		cfg: cfg, log: cfg.Logger.With("component", "monitor"), charts: newCharts(keptAnswers), etas: newCharts(keptETAs), logIndexes: newLogIndexes(),
		taskLists:    make(turns, 1),
		strangerTime: strangerTime, recheckTime: recheckTime, strangers: newStrangers(maxStrangers),
	}
	m.metrics = newMetrics()
	m.healthy = &health{ask: m.isHealthy, limit: healthTime, log: m.log.With("question", "healthy")}
	m.ready = &health{ask: m.isReady, limit: healthTime, log: m.log.With("question", "ready")}
	if cfg.Master != nil {
		m.hub = newHub(m)
	}
	return m
}

// Bounds of what a client may keep busy without saying anything.
const (
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	headerBytes = 32 << 10
	maxStreams  = 100 // requests at one time over one HTTP/2 connection
)

// shutdownTime is how long answers may go on when the node stops. Streams that have no end of their own are cut then.
const shutdownTime = 500 * time.Millisecond

// Serve answers the requests of this node's owner on l until ctx ends.
func (m *Monitor) Serve(ctx context.Context, l net.Listener) error {
	return m.serve(ctx, l, m.newRouter(), nil)
}

// ServeOthers answers requests of anybody on l, which speaks TLS, as far as their tokens allow, until ctx ends.
func (m *Monitor) ServeOthers(ctx context.Context, l net.Listener) error {
	return m.serve(ctx, l, m.guarded(m.newRouter()), m.strangers)
}

func (m *Monitor) serve(ctx context.Context, l net.Listener, h http.Handler, strangers *strangers) error {
	// Answers that are under way when ctx ends get a little more time: the requests have a context of their own.
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	base := context.WithValue(requests, leavingKey{}, ctx.Done())
	srv := &http.Server{
		Handler:           h,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: 256 << 10, MaxReceiveBufferPerStream: 64 << 10},
		ReadHeaderTimeout: headerTime, IdleTimeout: idleTime, MaxHeaderBytes: headerBytes,
		BaseContext: func(net.Listener) context.Context { return base },
		ErrorLog:    slog.NewLogLogger(m.log.Handler(), slog.LevelDebug),
	}
	if strangers != nil {
		strangers.watch(srv)
	}
	return serveUntil(ctx, srv, l, func() {
		last, cancel := context.WithTimeout(requests, shutdownTime)
		defer cancel()
		if srv.Shutdown(last) != nil {
			cut()
			srv.Close()
		}
	})
}

// serveUntil serves until ctx ends, and then until shutDown, which must close the server, has returned.
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

func (m *Monitor) node(r *http.Request) (api.Node, error) {
	n := m.cfg.Node
	n.Orders, n.Features = grid.Orders(), grid.Features()
	n.Time, n.Working = time.Now().UTC(), m.cfg.Working == nil || m.cfg.Working()
	if m.cfg.Store == nil {
		return n, nil
	}
	var err error
	n.Store, err = m.stores(r.Context())
	return n, err
}

// stores says what each part of the store holds.
func (m *Monitor) stores(ctx context.Context) ([]api.Store, error) {
	usage, err := m.cfg.Store.Usage(ctx)
	if err != nil {
		return nil, err
	}
	var all []api.Store
	for _, u := range usage {
		all = append(all, api.Store{Name: u.Name, Bytes: u.Bytes, Limit: u.Limit})
	}
	if m.cfg.Master != nil && m.cfg.Master.Snapshots() != nil {
		bytes, limit := m.cfg.Master.Snapshots().Usage()
		all = append(all, api.Store{Name: "checkpoints", Bytes: bytes, Limit: limit})
	}
	return all, nil
}

// record finds the sweep that a request names.
func (m *Monitor) record(r *http.Request) (*grid.Sweep, error) {
	return m.recordOf(grid.SweepID(r.PathValue("sweep")))
}

func (m *Monitor) recordOf(id grid.SweepID) (*grid.Sweep, error) {
	if id == api.Last {
		return m.newest()
	}
	rec, ok := m.cfg.Master.Sweep(id)
	if !ok || rec.Sweep.Removing {
		if s, err := m.called(string(id)); s != nil || err != nil {
			return s, err
		}
		return nil, &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("there is no sweep %q", id), Hint: "list them with: mlfnode sweeps"}
	}
	return rec.Sweep, nil
}

// called finds the sweep that its user has given a name of their own; nil for none.
func (m *Monitor) called(name string) (*grid.Sweep, error) {
	var found []*grid.Sweep
	for _, rec := range m.cfg.Master.Sweeps() {
		if rec.Sweep.Name == name && name != "" && !rec.Sweep.Removing {
			found = append(found, rec.Sweep)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	ids := make([]string, len(found))
	for i, s := range found {
		ids[i] = string(s.ID)
	}
	slices.Sort(ids)
	return nil, &api.Error{Status: http.StatusConflict, Msg: fmt.Sprintf("%d sweeps are named %q", len(found), name),
		Hint: "name one by its id: " + strings.Join(ids[:min(len(ids), 12)], ", ")}
}

func (m *Monitor) newest() (*grid.Sweep, error) {
	var newest *grid.Sweep
	for _, rec := range m.cfg.Master.Sweeps() {
		if rec.Sweep.Removing {
			continue
		}
		if newest == nil || rec.Sweep.Compare(newest) > 0 {
			newest = rec.Sweep
		}
	}
	if newest == nil {
		return nil, &api.Error{Status: http.StatusNotFound, Msg: "there is no sweep yet", Hint: "start one with: mlfnode sweep PROJECT"}
	}
	return newest, nil
}

// trialIndex reads the index of a trial of s; "" and -1 are all trials, which is -1.
func trialIndex(s *grid.Sweep, text string) (int64, error) {
	if text == "" || text == "-1" {
		return -1, nil
	}
	index, err := strconv.ParseInt(text, 10, 64)
	if err == nil && index >= 0 && index < s.Space.Count() {
		return index, nil
	}
	trials := "trials"
	if s.Space.Count() == 1 {
		trials = "trial"
	}
	return 0, &api.Error{
		Status: http.StatusNotFound, Msg: fmt.Sprintf("%s has %d %s, and no trial %s", s.ID, s.Space.Count(), trials, text),
		Hint: fmt.Sprintf("list them with: mlfnode trials %s", s.ID),
	}
}
