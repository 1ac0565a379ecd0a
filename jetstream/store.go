package jetstream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
	"mlfnode/node/poll"
)

const (
	// callLimit bounds a call whose caller sets no deadline: a flush on a busy disk takes seconds
	// at worst.
	callLimit = 10 * time.Second
	// closeLimit is how long Close waits for messages that were published without an answer.
	closeLimit = 2 * time.Second
)

// Store is the master's client of a Server. All parts may be used by several goroutines at once.
type Store struct {
	Records   *Records
	Queue     *Queue
	Events    *Events
	Logs      *Logs
	Bundles   *Objects
	Artifacts *Objects
	Calls     *Calls

	*connection
	*orphanPurger
	limits     Limits
	callServer *callServer // nil unless the Server listens
}

// connection is the connection of a Store to its server, and the streams there.
type connection struct {
	*link
	node    grid.NodeID // the writer of what is published
	js      js.JetStream
	streams map[string]js.Stream // by name
	log     *slog.Logger
}

// link is a connection to a server, which may be unavailable for a while and ends at some time.
type link struct {
	conn           *nats.Conn
	available      func() context.Context // ends when the server becomes unavailable
	closed         chan struct{}          // closed when the connection has ended for good
	lost           chan struct{}          // closed when it has ended for good, but not by Close
	closeRequested atomic.Bool
}

func newLink(available func() context.Context) *link {
	return &link{available: available, closed: make(chan struct{}), lost: make(chan struct{})}
}

// ended is called when the connection has ended for good.
func (l *link) ended() {
	if !l.closeRequested.Load() {
		close(l.lost)
	}
	close(l.closed)
}

// Lost returns a channel that is closed when the connection has ended for good although Close was
// not called, for example because the server refused a message. Then nothing works any more, and
// the connection can't be recovered.
func (l *link) Lost() <-chan struct{} { return l.lost }

// Close ends the connection. It sends pending messages first.
func (l *link) Close() {
	l.closeRequested.Store(true)
	_ = l.conn.FlushTimeout(closeLimit) // fails if the server has already gone
	l.conn.Close()
	<-l.closed
}

// open connects to the server.
func (s *Server) open() (*connection, error) {
	c := &connection{link: newLink(s.Available), node: s.node, streams: map[string]js.Stream{}, log: s.log}
	var err error
	if c.conn, err = s.connect(nats.ClosedHandler(func(*nats.Conn) { c.ended() })); err != nil {
		return nil, err
	}
	if c.js, err = js.New(c.conn, js.WithDefaultTimeout(callLimit)); err != nil {
		c.Close()
		return nil, fmt.Errorf("use JetStream: %w", err)
	}
	return c, nil
}

// OpenStore connects to the server, and creates or updates the streams. Close the Store before the
// server.
func (s *Server) OpenStore(ctx context.Context) (*Store, error) {
	c, err := s.open()
	if err != nil {
		return nil, err
	}
	st := &Store{connection: c, limits: s.limits}
	if err := st.makeStreams(ctx); err != nil {
		st.Close()
		return nil, s.Diagnose(err)
	}
	st.Records = &Records{store: st, epoch: epochOf(st.streams[recordStream].CachedInfo())}
	st.Queue = &Queue{
		store: st, prefix: strings.ToLower(rand.Text()[:prefixLength]),
		leases: map[grid.LeaseID]*queueEntry{}, lanes: laneTable{},
	}
	st.Events = &Events{store: st, taken: poll.NewSignal(), epoch: epochOf(st.streams[eventStream].CachedInfo())}
	st.Logs = &Logs{store: st}
	st.Bundles = &Objects{store: st, bucket: bundleBucket, setting: bundleBucket}
	st.Artifacts = &Objects{store: st, bucket: artifactBucket, setting: artifactBucket}
	st.Calls = &Calls{store: st}
	st.orphanPurger = &orphanPurger{
		store: st, offset: map[string]int{}, batch: subjectPage, maxSubjects: maxSubjects, crowded: map[string]bool{},
	}
	st.Events.quota = newQuota(st, eventStream, "events", "events", s.limits.EventBytes)
	st.Artifacts.quota = newQuota(st, artifactBucket, artifactBucket, artifactBucket, s.limits.ArtifactBytes)
	if err := st.Queue.load(ctx); err != nil {
		st.Close()
		return nil, s.Diagnose(err)
	}
	if s.Listens() {
		if st.callServer, err = openCallServer(st, s); err != nil {
			st.Close()
			return nil, err
		}
	}
	return st, nil
}

// Bundle opens the content of a bundle. It returns ErrNotFound if there is none.
func (s *Store) Bundle(ctx context.Context, digest string) (io.ReadCloser, error) {
	return s.Bundles.Open(ctx, digest)
}

// PutArtifacts stores the artifacts of one run of a trial.
func (s *Store) PutArtifacts(ctx context.Context, id grid.TrialID, run string, r io.Reader) error {
	return s.Artifacts.Put(ctx, id.ArtifactName(run), r)
}

// Close ends the connection.
func (s *Store) Close() {
	s.closeRequested.Store(true) // what is lost from here on is not reported
	if s.callServer != nil {
		s.callServer.close()
	}
	s.connection.Close()
}

// whileAvailable returns a context that also ends, with the cause, when the server can't be written
// or closes.
func (l *link) whileAvailable(ctx context.Context) (context.Context, func()) {
	available := l.available()
	guarded, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(available, func() { cancel(context.Cause(available)) })
	return guarded, func() {
		stop()
		cancel(nil)
	}
}

// withTimeout is whileAvailable for one call: the context also ends after callLimit if the caller
// has set no deadline.
func (l *link) withTimeout(ctx context.Context) (context.Context, func()) {
	guarded, stop := l.whileAvailable(ctx)
	if _, ok := ctx.Deadline(); ok {
		return guarded, stop
	}
	timed, cancel := context.WithTimeout(guarded, callLimit)
	return timed, func() {
		cancel()
		stop()
	}
}

// explain adds a verb phrase to an error, and replaces a bare cancellation by its cause.
func (l *link) explain(ctx context.Context, verb string, err error) error {
	if errors.Is(err, nats.ErrConnectionClosed) {
		err = ErrClosed
	}
	canceled := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if cause := context.Cause(ctx); cause != nil && canceled {
		err = cause
	}
	return fmt.Errorf("%s: %w", verb, err)
}

// publish stores one message, and returns its sequence once it is on disk. opts may carry a message
// ID or an expected sequence.
func (s *connection) publish(ctx context.Context, msg *nats.Msg, opts ...js.PublishOpt) (uint64, error) {
	ctx, stop := s.withTimeout(ctx)
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

// Ping requests a message from the server, to find out whether it answers.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.lastMessage(ctx, recordStream, probeSubject)
	if errors.Is(err, ErrNotFound) {
		return nil // Probe has not been called yet
	}
	return err
}

// Probe writes a message to the server's disk and reads it back.
func (s *Store) Probe(ctx context.Context) error {
	seq, err := s.publish(ctx, &nats.Msg{Subject: probeSubject})
	if err != nil {
		return err
	}
	last, err := s.lastMessage(ctx, recordStream, probeSubject)
	if err != nil {
		return err
	}
	if last.Sequence < seq { // a later one belongs to another Probe
		return fmt.Errorf("the store returned message %d instead of message %d", last.Sequence, seq)
	}
	return nil
}

// IsUnavailable reports whether an operation failed because the server can't be reached, or can't
// write at the moment. Such an operation may be retried until it succeeds.
func IsUnavailable(err error) bool {
	for _, passing := range []error{
		ErrDisk, ErrNoMaster, errBusy, errStarting, errConsumerLost,
		nats.ErrReconnectBufExceeded, nats.ErrDisconnected, nats.ErrNoResponders, nats.ErrTimeout,
		js.ErrNoStreamResponse, js.ErrJetStreamNotEnabled, context.DeadlineExceeded,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// Codes of the nats-server errors that are handled here.
const (
	codeWrongLast   js.ErrorCode = 10071 // the subject's last message is another one
	codeStoreFailed js.ErrorCode = 10077 // the write was refused; the description says why
)

func hasCode(err error, code js.ErrorCode) bool {
	api, ok := errors.AsType[*js.APIError](err)
	return ok && api.ErrorCode == code
}
