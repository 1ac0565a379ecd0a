package jetstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
)

const (
	// callLimit is the longest that one call may take when its caller sets no deadline: a flush on a busy disk takes seconds
	// at worst.
	callLimit = 10 * time.Second
	// closeLimit is how long Close waits for what was published without an answer.
	closeLimit = 2 * time.Second
)

// Store is a client of a Server. All parts may be used from many goroutines.
type Store struct {
	Records   *Records
	Queue     *Queue
	Events    *Events
	Logs      *Logs
	Bundles   *Objects
	Artifacts *Objects
	Calls     *Calls

	node    grid.NodeID // in whose name this store writes
	conn    *nats.Conn
	js      js.JetStream
	streams map[string]js.Stream // by name; filled by open
	log     *slog.Logger
	limits  Limits
	life    func() context.Context
	gone    chan struct{} // closed when the connection has ended for good
	asked   atomic.Bool   // Close was called
	lost    chan struct{} // closed when the connection has ended for good without Close
	desk    *desk         // answers the nodes of a Server that listens

	eventShares, artifactShares *shares // what other nodes store

	looking sync.Mutex
	looked  map[string]int  // how far PurgeOrphans has looked, by filter
	perLook int             // how many subjects it looks at together
	maxLook uint64          // of how many subjects a stream is passed over
	crowded map[string]bool // streams that were passed over last
}

// ended is called when the connection has ended for good.
func (s *Store) ended() {
	if !s.asked.Load() {
		close(s.lost)
	}
	close(s.gone)
}

// Lost is closed when the connection has ended for good although nobody closed the store, as it does when the server refuses what
// was sent on it. Nothing of the store works any more then, and nothing brings it back.
func (s *Store) Lost() <-chan struct{} { return s.lost }

// OpenStore connects to the server and creates or updates the streams. Close it before the server.
func (s *Server) OpenStore(ctx context.Context) (*Store, error) {
	st := &Store{
		node: s.node, streams: map[string]js.Stream{}, log: s.log, limits: s.limits, life: s.Available,
		gone: make(chan struct{}), lost: make(chan struct{}), looked: map[string]int{}, perLook: subjectPage, maxLook: maxSubjects, crowded: map[string]bool{},
	}
	conn, err := s.connect(nats.ClosedHandler(func(*nats.Conn) { st.ended() }))
	if err != nil {
		return nil, err
	}
	st.conn = conn
	if err := st.open(ctx); err != nil {
		st.Close()
		return nil, s.Diagnose(err)
	}
	if s.Listens() {
		if st.desk, err = openDesk(st, s); err != nil {
			st.Close()
			return nil, err
		}
	}
	return st, nil
}

func (s *Store) open(ctx context.Context) error {
	var err error
	if s.js, err = js.New(s.conn, js.WithDefaultTimeout(callLimit)); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	if err := s.makeStreams(ctx); err != nil {
		return err
	}
	s.parts()
	return s.Queue.load(ctx)
}

// parts gives each kind of content its type.
func (s *Store) parts() {
	s.Records = &Records{store: s, life: lifeOf(s.streams[recordStream].CachedInfo())}
	s.Queue = newQueue(s)
	s.Events = &Events{store: s, life: lifeOf(s.streams[eventStream].CachedInfo())}
	s.Logs = &Logs{store: s}
	s.Bundles = &Objects{store: s, bucket: bundleBucket, setting: bundleBucket}
	s.Artifacts = &Objects{store: s, bucket: artifactBucket, setting: artifactBucket}
	s.Calls = &Calls{store: s}
	s.eventShares = newShares(s, eventStream, "events", "events", s.limits.EventBytes)
	s.artifactShares = newShares(s, artifactBucket, artifactBucket, artifactBucket, s.limits.ArtifactBytes)
}

// Bundle gives the content of a bundle, or ErrNotFound.
func (s *Store) Bundle(ctx context.Context, digest string) (io.ReadCloser, error) {
	return s.Bundles.Open(ctx, digest)
}

// PutArtifacts stores what a run of a trial has left.
func (s *Store) PutArtifacts(ctx context.Context, id grid.TrialID, run string, r io.Reader) error {
	return s.Artifacts.Put(ctx, id.ArtifactName(run), r, nil)
}

// Close ends the connection.
func (s *Store) Close() {
	s.asked.Store(true)
	if s.desk != nil {
		s.desk.close()
	}
	_ = s.conn.FlushTimeout(closeLimit) // a server that is gone already makes this fail
	s.conn.Close()
	<-s.gone
}

// guard gives a context that also ends, with the cause, when the server can't be written or closes.
func (s *Store) guard(ctx context.Context) (context.Context, func()) {
	life := s.life()
	guarded, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(life, func() { cancel(context.Cause(life)) })
	return guarded, func() {
		unhook()
		cancel(nil)
	}
}

// limited is guard for one call: it also ends after callLimit when the caller has set no deadline.
func (s *Store) limited(ctx context.Context) (context.Context, func()) {
	guarded, stop := s.guard(ctx)
	if _, ok := ctx.Deadline(); ok {
		return guarded, stop
	}
	timed, cancel := context.WithTimeout(guarded, callLimit)
	return timed, func() {
		cancel()
		stop()
	}
}

// explain adds the subject to an error, and puts the guard's cause in the place of a bare cancellation.
func (s *Store) explain(ctx context.Context, verb string, err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) {
		err = ErrClosed
	}
	if cause := context.Cause(ctx); cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		err = cause
	}
	return fmt.Errorf("%s: %w", verb, err)
}

// publish stores one message and returns its sequence once it is on disk. opts may carry a message id or an expected sequence.
func (s *Store) publish(ctx context.Context, msg *nats.Msg, opts ...js.PublishOpt) (uint64, error) {
	ctx, stop := s.limited(ctx)
	defer stop()
	if err := checkSubject(msg.Subject); err != nil {
		return 0, err
	}
	if len(msg.Data) > maxPayload-4096 { // headers share the limit
		return 0, ErrTooLarge
	}
	ack, err := s.js.PublishMsg(ctx, msg, append(opts, js.WithRetryAttempts(0))...)
	if err != nil {
		return 0, s.explain(ctx, "store", err)
	}
	return ack.Sequence, nil
}

// Ping asks the server for a message, to find out whether it answers.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.lastOf(ctx, recordStream, probeSubject)
	if errors.Is(err, ErrNotFound) {
		return nil // nobody has called Probe yet
	}
	return err
}

// Probe has the server write a message to disk, and reads it back.
func (s *Store) Probe(ctx context.Context) error {
	seq, err := s.publish(ctx, &nats.Msg{Subject: probeSubject})
	if err != nil {
		return err
	}
	last, err := s.lastOf(ctx, recordStream, probeSubject)
	if err != nil {
		return err
	}
	if last.Sequence < seq { // a later one is another probe's
		return fmt.Errorf("the store gives message %d for message %d", last.Sequence, seq)
	}
	return nil
}

// IsUnavailable reports whether an operation of a Store failed because the server can't be reached or can't write now. That passes:
// the operation may be tried again until it does.
func IsUnavailable(err error) bool {
	for _, passing := range []error{
		ErrDisk, ErrNoMaster, errBusy, errStarting, errLost, nats.ErrReconnectBufExceeded, nats.ErrDisconnected, nats.ErrNoResponders, nats.ErrTimeout,
		js.ErrNoStreamResponse, js.ErrJetStreamNotEnabled, context.DeadlineExceeded,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// Codes of nats-server's errors that matter here.
const (
	codeWrongLast   js.ErrorCode = 10071 // another message came first
	codeStoreFailed js.ErrorCode = 10077 // the store refused; the description says which limit
)

func hasCode(err error, code js.ErrorCode) bool {
	var api *js.APIError
	return errors.As(err, &api) && api.ErrorCode == code
}
