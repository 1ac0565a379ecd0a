package jetstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
)

// Remote says how a node reaches the Server of its master.
type Remote struct {
	Node   grid.NodeID
	Dial   func(ctx context.Context) (net.Conn, error) // to where the master is now
	TLS    *tls.Config                                 // with the node's certificate
	Logger *slog.Logger
	// Connected is called with each change of the connection, false first when it ends; may be nil.
	Connected func(bool)
	// Refused is called each time that the master does not take the node's certificate, because it has expired by the master's clock or for
	// another reason; may be nil.
	Refused func(expired bool)
}

const (
	// redialInterval is the pause between two tries to reach the master, with some jitter so that a restarted one is not overrun.
	redialInterval = 200 * time.Millisecond
	redialJitter   = 100 * time.Millisecond
	dialLimit      = 3 * time.Second
)

// Connect opens a Store on the Server of another node. It waits until the master has been reached, or ctx ends. Later the
// connection comes back by itself whenever it was lost; calls in between fail, and readers go on where they stopped.
func Connect(ctx context.Context, r Remote) (*Store, error) {
	log := r.Logger.With("component", "jetstream")
	line := newLine()
	st := &Store{
		node: r.Node, remote: true, streams: map[string]js.Stream{}, log: log, limits: Limits{}.withDefaults(),
		life: line.life, gone: make(chan struct{}), lost: make(chan struct{}),
	}
	told := r.Connected
	if told == nil {
		told = func(bool) {}
	}
	var once sync.Once
	reached := make(chan struct{})
	up := func(*nats.Conn) {
		line.connected()
		once.Do(func() { close(reached) })
		told(true)
	}
	conn, err := nats.Connect("nats://master", nats.SetCustomDialer(&dialer{Remote: r, life: line.closing}), nats.Name(string(r.Node)),
		nats.CustomInboxPrefix(inbox(r.Node)), nats.SyncQueueLen(inboxMessages),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(redialInterval),
		nats.ReconnectJitter(redialJitter, redialJitter), nats.ReconnectBufSize(-1), nats.Timeout(dialLimit),
		nats.PingInterval(livePing), nats.MaxPingsOutstanding(livePingOut), nats.DontRandomize(),
		nats.IgnoreAuthErrorAbort(), nats.ConnectHandler(up), nats.ReconnectHandler(up),
		nats.DisconnectErrHandler(func(*nats.Conn, error) {
			line.lost(errNoMaster)
			told(false)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Debug("nats client", "err", err) }),
		nats.ClosedHandler(func(*nats.Conn) { line.close(); st.ended() }))
	if err != nil {
		line.close()
		return nil, fmt.Errorf("connect to the master: %w", err)
	}
	st.conn = conn
	if err := st.openRemote(ctx, reached); err != nil {
		st.Close()
		return nil, err
	}
	return st, nil
}

// errNoMaster is what calls get while there is no connection.
var errNoMaster = errors.New("there is no connection to the master")

// line is the life of a connection that comes and goes: what waits for an answer on one that is lost waits no longer.
type line struct {
	closing context.Context // ends with the store
	end     context.CancelCauseFunc

	mu    sync.Mutex
	alive context.Context
	cut   context.CancelCauseFunc
}

func newLine() *line {
	l := &line{}
	l.closing, l.end = context.WithCancelCause(context.Background()) // ends with Close
	l.connected()
	return l
}

func (l *line) connected() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut != nil {
		l.cut(errNoMaster)
	}
	l.alive, l.cut = context.WithCancelCause(l.closing)
}

func (l *line) lost(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut(cause)
}

func (l *line) close() { l.end(ErrClosed) }

func (l *line) life() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.alive
}

// openRemote waits for the connection and looks the streams up.
func (s *Store) openRemote(ctx context.Context, reached <-chan struct{}) error {
	select {
	case <-reached:
	case <-ctx.Done():
		return fmt.Errorf("reach the master: %w", context.Cause(ctx))
	}
	for {
		err := s.lookUp(ctx)
		if err == nil {
			return nil
		}
		s.log.Debug("streams of the master can't be opened yet", "err", err)
		wait := time.NewTimer(tailRetry)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return fmt.Errorf("open the master's store: %w", context.Cause(ctx))
		}
	}
}

func (s *Store) lookUp(ctx context.Context) (err error) {
	if s.js, err = js.New(s.conn, js.WithDefaultTimeout(callLimit)); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	ctx, stop := context.WithTimeout(ctx, callLimit)
	defer stop()
	for _, cfg := range streams(s.limits) {
		if s.streams[cfg.Name], err = s.js.Stream(ctx, cfg.Name); err != nil {
			return fmt.Errorf("open stream %s: %w", cfg.Name, err)
		}
	}
	return s.parts()
}

// dialer lets nats.go connect to wherever the master is at the moment. It does the TLS handshake itself, to see what the master
// thinks of it.
type dialer struct {
	Remote
	life context.Context // of the store: nats.go gives none
}

// Dial implements nats.CustomDialer; the address stands for the master and says nothing.
func (d *dialer) Dial(string, string) (net.Conn, error) {
	ctx, stop := context.WithTimeout(d.life, dialLimit)
	defer stop()
	raw, err := d.Remote.Dial(ctx)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, d.TLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return &judged{conn, d.Refused}, nil
}

// judged is a connection whose other side says, by its first word after the handshake, whether it takes the certificate.
type judged struct {
	net.Conn
	refused func(expired bool)
}

// Read implements net.Conn.
func (j *judged) Read(p []byte) (int, error) {
	n, err := j.Conn.Read(p)
	if err == nil || j.refused == nil {
		return n, err
	}
	switch text := err.Error(); { // crypto/tls exports no type for alerts over TCP
	case strings.Contains(text, "tls: bad certificate"):
		j.refused(false)
	case strings.Contains(text, "tls: expired certificate"):
		j.refused(true)
	}
	return n, err
}
