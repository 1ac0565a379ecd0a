package jetstream

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
	"mlfnode/grid/printable"
	"mlfnode/jetstream/natsd"
	"mlfnode/node/poll"
)

// ConnectConfig says how a node reaches the Server of its master.
type ConnectConfig struct {
	Node grid.NodeID
	// Addresses returns where the master may be, as HOST:PORT, the likeliest first. It is called on
	// each attempt to connect.
	Addresses func() []string
	TLS       *tls.Config // with the node's certificate
	Logger    *slog.Logger
	// Connected is called when the connection has been established (true) or lost (false); may be
	// nil.
	Connected func(bool)
	// CertificateRefused is called each time the master rejects the node's certificate, because it
	// has expired by the master's clock or for another reason; may be nil.
	CertificateRefused func(expired bool)
}

const (
	// redialInterval is the pause between two attempts to reach the master, with jitter so that a
	// restarted one is not overrun.
	redialInterval = 200 * time.Millisecond
	redialJitter   = 100 * time.Millisecond
)

// MasterClient is how a node calls its master, over the network or in the master's own process. Its
// methods may be called by several goroutines at once.
type MasterClient struct {
	*link
	node       grid.NodeID
	calls      *Calls // of a master in this process; nil for one that is reached by the link
	log        *slog.Logger
	unanswered unansweredCalls

	readyLanes    *observers[string]
	recordChanges *observers[struct{}]
}

// LocalClient returns the MasterClient of a node in the master's process.
func (c *Calls) LocalClient(node grid.NodeID) *MasterClient {
	s := c.store
	return &MasterClient{
		node: node, calls: c, log: s.log, link: s.link,
		readyLanes: &s.Queue.ready, recordChanges: &s.Records.changed,
	}
}

// Connect returns a MasterClient once the master has been reached, or an error when ctx ends. Later
// it reconnects by itself whenever the connection is lost; calls in between fail, and WatchRecords
// continues where it stopped.
func Connect(ctx context.Context, r ConnectConfig) (*MasterClient, error) {
	closing, end := context.WithCancelCause(context.Background()) // ends with Close
	var connection natsd.Availability                             // when it is lost, calls that wait for an answer fail
	connection.Begin(closing)
	c := &MasterClient{
		link: newLink(connection.Current), node: r.Node, log: r.Logger.With("component", "jetstream"),
		readyLanes: &observers[string]{}, recordChanges: &observers[struct{}]{},
	}
	connected := r.Connected
	if connected == nil {
		connected = func(bool) {}
	}
	var once sync.Once
	reached := make(chan struct{})
	up := func(*nats.Conn) {
		connection.End(ErrNoMaster)
		connection.Begin(closing)
		once.Do(func() { close(reached) })
		connected(true)
		c.recordChanges.notify(struct{}{})
	}
	conn, err := nats.Connect("nats://master",
		nats.SetCustomDialer(&dialer{ConnectConfig: r, ctx: closing}), nats.Name(string(r.Node)),
		nats.CustomInboxPrefix(inbox(r.Node)), nats.SyncQueueLen(inboxMessages),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(redialInterval),
		nats.ReconnectJitter(redialJitter, redialJitter), nats.ReconnectBufSize(-1), nats.Timeout(dialLimit),
		nats.PingInterval(natsd.PingInterval), nats.MaxPingsOutstanding(natsd.MaxPings), nats.DontRandomize(),
		nats.IgnoreAuthErrorAbort(), nats.ConnectHandler(up), nats.ReconnectHandler(up),
		nats.DisconnectErrHandler(func(*nats.Conn, error) {
			connection.End(ErrNoMaster)
			connected(false)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			c.log.Debug("nats client", "err", err)
		}),
		nats.ClosedHandler(func(*nats.Conn) { end(ErrClosed); c.ended() }))
	if err != nil {
		end(ErrClosed)
		return nil, fmt.Errorf("connect to the master: %w", err)
	}
	c.conn = conn
	if _, err := conn.Subscribe(inbox(c.node)+"."+hintToken, func(m *nats.Msg) {
		var h wireHints
		if err := json.Unmarshal(m.Data, &h); err != nil {
			return // from another version
		}
		for _, lane := range h.Lanes {
			c.readyLanes.notify(lane)
		}
		if h.Records {
			c.recordChanges.notify(struct{}{})
		}
	}); err != nil {
		c.Close()
		return nil, fmt.Errorf("listen to the master: %w", err)
	}
	select {
	case <-reached:
		return c, nil
	case <-ctx.Done():
		c.Close()
		return nil, fmt.Errorf("reach the master: %w", context.Cause(ctx))
	}
}

// request makes a call. It returns immediately when the connection is lost.
func (c *MasterClient) request(ctx context.Context, verb string, m *nats.Msg) ([]byte, error) {
	if len(m.Data) > maxPayload-4096 { // headers share the limit
		return nil, ErrTooLarge
	}
	if c.calls != nil {
		data, err := c.calls.handle(ctx, m, c.node, verb)
		if err != nil {
			return nil, fmt.Errorf("ask the master for %s: %w", verb, err)
		}
		return data, nil
	}
	ctx, stop := c.withTimeout(ctx)
	defer stop()
	m.Subject = callSubject(c.node, verb)
	answer, err := c.conn.RequestMsgWithContext(ctx, m)
	if errors.Is(err, nats.ErrNoResponders) && c.unanswered.add(time.Now()) {
		c.log.Warn("master does not answer calls of this version; " +
			"update its mlfnode: mlfnode up, or mlfnode restart on it")
	}
	if err == nil {
		c.unanswered.reset()
		err = errorOf(answer)
	}
	if err != nil {
		return nil, c.explain(ctx, "ask the master for "+verb, err)
	}
	return answer.Data, nil
}

// unansweredLimit is how long a master that accepts connections may take until it answers calls.
// One that takes longer probably runs an older version.
const unansweredLimit = 15 * time.Second

// unansweredCalls measures for how long calls have found no listener. The zero value is ready to
// use.
type unansweredCalls struct {
	since atomic.Int64 // nanoseconds since 1970; 0 after an answer, -1 after add has returned true
}

// add records an unanswered call. It returns true once, when calls have been unanswered for
// unansweredLimit.
func (s *unansweredCalls) add(now time.Time) bool {
	since := s.since.Load()
	if since == 0 {
		s.since.CompareAndSwap(0, now.UnixNano())
		return false
	}
	return since > 0 && now.UnixNano()-since >= int64(unansweredLimit) && s.since.CompareAndSwap(since, -1)
}

// reset records an answer.
func (s *unansweredCalls) reset() {
	if s.since.Load() != 0 {
		s.since.Store(0)
	}
}

// masterError is an error that the master has returned.
type masterError struct {
	text string
	kind error // one of wireErrors, nil if it is unknown
}

func (r *masterError) Error() string { return r.text }
func (r *masterError) Unwrap() error { return r.kind }

// errorOf returns the error that an answer stands for, nil for none.
func errorOf(m *nats.Msg) error {
	name := m.Header.Get(errorHeader)
	if name == "" {
		return nil
	}
	r := &masterError{text: printable.Clip(printable.Line(m.Data), maxErrorText)}
	for _, p := range wireErrors {
		if p.name == name {
			r.kind = p.err
		}
	}
	return r
}

// maxErrorText bounds the text of a masterError.
const maxErrorText = 1024

// requestJSON makes a call whose content and answer are JSON.
func requestJSON[T any](ctx context.Context, c *MasterClient, verb string, content any) (answer T, err error) {
	data, err := json.Marshal(content)
	if err != nil {
		return answer, fmt.Errorf("encode a call for %s: %w", verb, err)
	}
	return requestAnswer[T](ctx, c, verb, &nats.Msg{Data: data})
}

// requestAnswer makes a call whose answer is JSON.
func requestAnswer[T any](ctx context.Context, c *MasterClient, verb string, m *nats.Msg) (answer T, err error) {
	data, err := c.request(ctx, verb, m)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return answer, fmt.Errorf("read the answer for %s: %w", verb, err)
	}
	return answer, nil
}

// WatchRecords calls fn with every existing record, then with Synced, then with every change, until
// ctx ends. fn must be quick.
func (c *MasterClient) WatchRecords(ctx context.Context, fn func(Change)) error {
	changed := poll.NewSignal()
	defer c.recordChanges.add(func(struct{}) { changed.Set() })()
	timer := time.NewTimer(0)
	defer timer.Stop()
	seen := &watchState{client: c, known: map[grid.SweepID]bool{}}
	for synced := false; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.closed:
			return ErrClosed
		case <-changed:
		case <-timer.C:
		}
		pause := watchInterval
		switch err := seen.fetchChanges(ctx, fn); {
		case err != nil:
			c.log.Debug("records can't be read yet", "err", err)
			pause = readRetry
		case !synced:
			synced = true
			fn(Change{Synced: true})
		}
		timer.Reset(pause)
	}
}

// watchInterval is how often records are requested without a hint.
const watchInterval = 10 * time.Second

// watchState is the progress of WatchRecords.
type watchState struct {
	client *MasterClient
	epoch  string // of the records; "" before the first page
	after  uint64 // the last sequence seen
	// known are the sweeps that were reported. The value is false if a new epoch of the records has
	// not named the sweep yet.
	known map[grid.SweepID]bool
}

// fetchChanges reports the records that have changed since the last call. If the master has
// restored its store, whose sequences go back then, it reports all records, and the removal of
// those that are gone.
func (w *watchState) fetchChanges(ctx context.Context, fn func(Change)) error {
	for {
		data, err := w.client.request(ctx, callSweeps, &nats.Msg{Data: binary.AppendUvarint(nil, w.after)})
		if err != nil {
			return err
		}
		page, err := decodePage(data, w.client.log)
		if err != nil {
			return err
		}
		if begun := w.epoch != ""; page.epoch != w.epoch {
			w.epoch, w.after = page.epoch, 0
			for id := range w.known {
				w.known[id] = false
			}
			if begun { // the page does not begin at the start of the new epoch
				continue
			}
		}
		for _, change := range page.changes {
			if w.known[change.ID] = true; change.Deleted {
				delete(w.known, change.ID)
			}
			fn(change)
		}
		if page.more && page.last > w.after {
			w.after = page.last
			continue
		}
		for id, named := range w.known {
			if !named {
				delete(w.known, id)
				fn(Change{ID: id, Deleted: true})
			}
		}
		return nil
	}
}

// Record returns the record of a sweep, or ErrNotFound.
func (c *MasterClient) Record(ctx context.Context, id grid.SweepID) (Record, error) {
	data, err := c.request(ctx, callSweep, &nats.Msg{Data: []byte(id)})
	if err != nil {
		return Record{}, err
	}
	rev, n := binary.Uvarint(data)
	if n <= 0 {
		return Record{}, errCorrupt
	}
	return decodeRecord(data[n:], rev)
}

// NotifyReady calls fn whenever there may be a lease of a lane to take, until stop is called. fn
// must not block.
func (c *MasterClient) NotifyReady(fn func(lane string)) (stop func()) { return c.readyLanes.add(fn) }

// TakeLeases takes up to n leases of a lane that are available now and not reserved for nodes of
// newer versions. It is not an error if there are none.
func (c *MasterClient) TakeLeases(ctx context.Context, lane string, n int) ([]GrantedLease, error) {
	granted, err := requestJSON[[]GrantedLease](ctx, c, callTake, takeCall{Lane: lane, N: n, Level: leaseVersion})
	for i := range granted {
		granted[i].Shape = lane
	}
	return granted, err
}

// ReturnLease returns a lease for good: everything about it has been reported.
func (c *MasterClient) ReturnLease(ctx context.Context, h *GrantedLease) error {
	_, err := requestJSON[any](ctx, c, callReturn, leaseCall{ID: h.ID})
	return err
}

// PostponeLease returns a lease to the queue, for whichever node asks first after d.
func (c *MasterClient) PostponeLease(ctx context.Context, h *GrantedLease, d time.Duration) error {
	_, err := requestJSON[any](ctx, c, callPostpone, leaseCall{ID: h.ID, Delay: d})
	return err
}

// ErrUnknownSweep is returned by MasterClient.PublishEvents and MasterClient.PublishOutput if the
// master has no record of the sweep, and will have none: the sweep was removed, or has been gone
// since the store was restored. Nothing is stored then.
var ErrUnknownSweep = errors.New("the master has no record of the sweep")

// PublishEvents stores a batch. Storing the same one again is harmless. It returns when the batch
// is on the master's disk, or ErrUnknownSweep.
func (c *MasterClient) PublishEvents(ctx context.Context, b *grid.Batch) error {
	if c.calls != nil { // the node is the master's own
		switch known, err := c.calls.store.Records.known(ctx, b.Sweep); {
		case err != nil:
			return err
		case !known:
			return ErrUnknownSweep
		}
		c.calls.store.Events.awaitReader(ctx)
		_, err := c.calls.store.Events.Publish(ctx, b)
		return err
	}
	_, err := splitBatch(b, func(_ *grid.Batch, data []byte) (uint64, error) {
		return c.report(ctx, callEvents, &nats.Msg{Data: data})
	})
	return err
}

// PublishOutput stores chunks of a sweep. It returns the sequences of the first and the last
// message once all are on the master's disk, or ErrUnknownSweep.
func (c *MasterClient) PublishOutput(
	ctx context.Context, sweep grid.SweepID, chunks []Chunk,
) (first, last uint64, err error) {
	header := nats.Header{sweepHeader: {string(sweep)}}
	return packAll(chunks, func(data []byte) (uint64, error) {
		return c.report(ctx, callOutput, &nats.Msg{Header: header, Data: data})
	})
}

// report sends a report that the master stores, and returns its sequence.
func (c *MasterClient) report(ctx context.Context, verb string, m *nats.Msg) (uint64, error) {
	s, err := requestAnswer[storedReply](ctx, c, verb, m)
	if err == nil && s.Unknown {
		err = ErrUnknownSweep
	}
	return s.Seq, err
}

// SendMetrics sends the metrics of running attempts of one sweep, without waiting for the master.
func (c *MasterClient) SendMetrics(b *grid.Batch) error {
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode metrics: %w", err)
	}
	if c.calls != nil {
		// the call does not block
		_, err := c.calls.handle(context.Background(), &nats.Msg{Data: data}, c.node, callMetrics)
		return err
	}
	if len(data) > maxPayload {
		return ErrTooLarge
	}
	if err := c.conn.Publish(callSubject(c.node, callMetrics), data); err != nil {
		return fmt.Errorf("send metrics: %w", err)
	}
	return nil
}

// SendHeartbeat sends a heartbeat and returns the master's directives.
func (c *MasterClient) SendHeartbeat(ctx context.Context, b Heartbeat) (Directives, error) {
	b.V = wireVersion
	return requestJSON[Directives](ctx, c, callHeartbeat, b)
}

// Keyring returns the gossip keys, the primary first.
func (c *MasterClient) Keyring(ctx context.Context) ([][]byte, error) {
	return requestJSON[[][]byte](ctx, c, callKeyring, struct{}{})
}

// ErrNoMaster is returned by calls while there is no connection.
var ErrNoMaster = errors.New("there is no connection to the master")
