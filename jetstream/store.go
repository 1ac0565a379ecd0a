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

	node           grid.NodeID // the writer of what this store publishes
	conn           *nats.Conn
	js             js.JetStream
	streams        map[string]js.Stream // by name; filled by open
	log            *slog.Logger
	limits         Limits
	available      func() context.Context
	closed         chan struct{} // closed when the connection has ended for good
	closeRequested atomic.Bool   // Close was called
	lost           chan struct{} // closed when the connection has ended for good, but not by Close
	callServer     *callServer   // nil unless the Server listens

	eventQuota, artifactQuota *quota // bound what each node stores

	purging          sync.Mutex
	purgeOffset      map[string]int  // where the next PurgeOrphans begins, by filter
	purgePage        int             // how many subjects PurgeOrphans checks at once
	maxPurgeSubjects uint64          // PurgeOrphans skips a stream with more
	crowded          map[string]bool // streams that were skipped last
}

// connectionClosed is called when the connection has ended for good.
func (s *Store) connectionClosed() {
	if !s.closeRequested.Load() {
		close(s.lost)
	}
	close(s.closed)
}

// Lost returns a channel that is closed when the connection has ended for good although Close was
// not called, for example because the server refused a message. Then nothing works any more, and
// the Store can't recover.
func (s *Store) Lost() <-chan struct{} { return s.lost }

// OpenStore connects to the server, and creates or updates the streams. Close the Store before the
// server.
func (s *Server) OpenStore(ctx context.Context) (*Store, error) {
	st := &Store{
		node: s.node, streams: map[string]js.Stream{}, log: s.log, limits: s.limits, available: s.Available,
		closed: make(chan struct{}), lost: make(chan struct{}),
		purgeOffset: map[string]int{}, purgePage: subjectPage, maxPurgeSubjects: maxSubjects, crowded: map[string]bool{},
	}
	conn, err := s.connect(nats.ClosedHandler(func(*nats.Conn) { st.connectionClosed() }))
	if err != nil {
		return nil, err
	}
	st.conn = conn
	if err := st.open(ctx); err != nil {
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

func (s *Store) open(ctx context.Context) error {
	var err error
	if s.js, err = js.New(s.conn, js.WithDefaultTimeout(callLimit)); err != nil {
		return fmt.Errorf("use JetStream: %w", err)
	}
	if err := s.makeStreams(ctx); err != nil {
		return err
	}
	s.openParts()
	return s.Queue.load(ctx)
}

// openParts gives each kind of content its type.
func (s *Store) openParts() {
	s.Records = &Records{store: s, epoch: epochOf(s.streams[recordStream].CachedInfo())}
	s.Queue = newQueue(s)
	s.Events = &Events{store: s, epoch: epochOf(s.streams[eventStream].CachedInfo())}
	s.Logs = &Logs{store: s}
	s.Bundles = &Objects{store: s, bucket: bundleBucket, setting: bundleBucket}
	s.Artifacts = &Objects{store: s, bucket: artifactBucket, setting: artifactBucket}
	s.Calls = &Calls{store: s}
	s.eventQuota = newQuota(s, eventStream, "events", "events", s.limits.EventBytes)
	s.artifactQuota = newQuota(s, artifactBucket, artifactBucket, artifactBucket, s.limits.ArtifactBytes)
}

// Bundle opens the content of a bundle. It returns ErrNotFound if there is none.
func (s *Store) Bundle(ctx context.Context, digest string) (io.ReadCloser, error) {
	return s.Bundles.Open(ctx, digest)
}

// PutArtifacts stores the artifacts of one run of a trial.
func (s *Store) PutArtifacts(ctx context.Context, id grid.TrialID, run string, r io.Reader) error {
	return s.Artifacts.Put(ctx, id.ArtifactName(run), r, nil)
}

// Close ends the connection.
func (s *Store) Close() {
	s.closeRequested.Store(true)
	if s.callServer != nil {
		s.callServer.close()
	}
	_ = s.conn.FlushTimeout(closeLimit) // fails if the server has already gone
	s.conn.Close()
	<-s.closed
}

// whileAvailable returns a context that also ends, with the cause, when the server can't be written
// or closes.
func (s *Store) whileAvailable(ctx context.Context) (context.Context, func()) {
	available := s.available()
	guarded, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(available, func() { cancel(context.Cause(available)) })
	return guarded, func() {
		stop()
		cancel(nil)
	}
}

// withTimeout is whileAvailable for one call: the context also ends after callLimit if the caller
// has set no deadline.
func (s *Store) withTimeout(ctx context.Context) (context.Context, func()) {
	guarded, stop := s.whileAvailable(ctx)
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
func (s *Store) explain(ctx context.Context, verb string, err error) error {
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
func (s *Store) publish(ctx context.Context, msg *nats.Msg, opts ...js.PublishOpt) (uint64, error) {
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
	var api *js.APIError
	return errors.As(err, &api) && api.ErrorCode == code
}
