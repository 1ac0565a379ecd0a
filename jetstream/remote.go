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
)

// ConnectConfig says how a node reaches the Server of its master.
type ConnectConfig struct {
	Node grid.NodeID
	// Addresses gives where the master may be, as HOST:PORT, the likeliest first. It is asked with each try to connect.
	Addresses func() []string
	TLS       *tls.Config // with the node's certificate
	Logger    *slog.Logger
	// Connected is called with each change of the connection, false first when it ends; may be nil.
	Connected func(bool)
	// Refused is called each time that the master does not take the node's certificate, because it has expired by the master's clock or for
	// another reason; may be nil.
	CertificateRefused func(expired bool)
}

const (
	// redialInterval is the pause between two tries to reach the master, with some jitter so that a restarted one is not overrun.
	redialInterval = 200 * time.Millisecond
	redialJitter   = 100 * time.Millisecond
)

// MasterClient is how a node calls its master, over the network or in the master's own process. All calls may be made from many goroutines.
type MasterClient struct {
	node    grid.NodeID
	calls   *Calls // of the master, for a node in its process; the other fields are for those that are elsewhere then
	log     *slog.Logger
	conn    *nats.Conn
	life    func() context.Context
	gone    chan struct{} // closed when the connection has ended for good
	asked   atomic.Bool   // Close was called
	lost    chan struct{} // closed when the connection has ended for good without Close
	unheard silence

	lanes   *listeners[string]
	records *listeners[struct{}]
}

// LocalClient gives the MasterClient of a node of this process.
func (c *Calls) LocalClient(node grid.NodeID) *MasterClient {
	s := c.store
	return &MasterClient{node: node, calls: c, log: s.log, gone: s.gone, lost: s.lost, lanes: &s.Queue.wakings, records: &s.Records.moved}
}

// Connect opens a MasterClient. It waits until the master has been reached, or ctx ends. Later the connection comes back by itself whenever it
// was lost; calls in between fail, and Watch goes on where it stopped.
func Connect(ctx context.Context, r ConnectConfig) (*MasterClient, error) {
	line := newLine()
	l := &MasterClient{
		node: r.Node, log: r.Logger.With("component", "jetstream"), life: line.life, gone: make(chan struct{}), lost: make(chan struct{}),
		lanes: &listeners[string]{}, records: &listeners[struct{}]{},
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
		l.records.tell(struct{}{})
	}
	conn, err := nats.Connect("nats://master", nats.SetCustomDialer(&dialer{ConnectConfig: r, life: line.closing}), nats.Name(string(r.Node)),
		nats.CustomInboxPrefix(inbox(r.Node)), nats.SyncQueueLen(inboxMessages),
		nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(redialInterval),
		nats.ReconnectJitter(redialJitter, redialJitter), nats.ReconnectBufSize(-1), nats.Timeout(dialLimit),
		nats.PingInterval(natsd.PingInterval), nats.MaxPingsOutstanding(natsd.MaxPings), nats.DontRandomize(),
		nats.IgnoreAuthErrorAbort(), nats.ConnectHandler(up), nats.ReconnectHandler(up),
		nats.DisconnectErrHandler(func(*nats.Conn, error) {
			line.lost(ErrNoMaster)
			told(false)
		}),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { l.log.Debug("nats client", "err", err) }),
		nats.ClosedHandler(func(*nats.Conn) { line.close(); l.ended() }))
	if err != nil {
		line.close()
		return nil, fmt.Errorf("connect to the master: %w", err)
	}
	l.conn = conn
	if err := l.open(ctx, reached); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (l *MasterClient) open(ctx context.Context, reached <-chan struct{}) error {
	if _, err := l.conn.Subscribe(inbox(l.node)+"."+hints, l.hear); err != nil {
		return fmt.Errorf("listen to the master: %w", err)
	}
	select {
	case <-reached:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("reach the master: %w", context.Cause(ctx))
	}
}

// hear takes a hint of the master.
func (l *MasterClient) hear(m *nats.Msg) {
	var h wireHints
	if err := json.Unmarshal(m.Data, &h); err != nil {
		return // of another version
	}
	for _, lane := range h.Lanes {
		l.lanes.tell(lane)
	}
	if h.Records {
		l.records.tell(struct{}{})
	}
}

// ended is called when the connection has ended for good.
func (l *MasterClient) ended() {
	if !l.asked.Load() {
		close(l.lost)
	}
	close(l.gone)
}

// Lost is closed when the connection has ended for good although nobody closed it. Nothing brings it back.
func (l *MasterClient) Lost() <-chan struct{} { return l.lost }

// Close ends the connection. What was sent without an answer is passed on first.
func (l *MasterClient) Close() {
	l.asked.Store(true)
	_ = l.conn.FlushTimeout(closeLimit) // a master that is gone already makes this fail
	l.conn.Close()
	<-l.gone
}

// ask makes a call, which ends at once when the connection does.
func (l *MasterClient) ask(ctx context.Context, verb string, m *nats.Msg) ([]byte, error) {
	if len(m.Data) > maxPayload-4096 { // headers share the limit
		return nil, ErrTooLarge
	}
	if l.calls != nil {
		data, err := l.calls.handle(ctx, m, l.node, verb)
		if err != nil {
			return nil, fmt.Errorf("ask the master for %s: %w", verb, err)
		}
		return data, nil
	}
	life := l.life()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(life, func() { cancel(context.Cause(life)) })()
	if _, ok := ctx.Deadline(); !ok {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, callLimit)
		defer stop()
	}
	m.Subject = callSubject(l.node, verb)
	answer, err := l.conn.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrConnectionClosed):
		err = ErrClosed
	case errors.Is(err, nats.ErrNoResponders):
		if l.unheard.lasts(time.Now()) {
			l.log.Warn("master does not answer calls of this version; update its mlfnode: mlfnode up, or mlfnode restart on it")
		}
	case err != nil && context.Cause(ctx) != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		err = context.Cause(ctx)
	}
	if err == nil {
		l.unheard.ends()
		err = refusalOf(answer)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the master for %s: %w", verb, err)
	}
	return answer.Data, nil
}

// listenLimit is how long a master that accepts connections may take until it answers calls. One that takes longer is
// probably of an older version.
const listenLimit = 15 * time.Second

// silence is how long nobody has listened to calls. The zero value is no silence.
type silence struct {
	since atomic.Int64 // nanoseconds since 1970; 0 while somebody listens, -1 after lasts has returned true
}

// lasts notes that nobody listened. It returns true once, when that has gone on for listenLimit.
func (s *silence) lasts(now time.Time) bool {
	since := s.since.Load()
	if since == 0 {
		s.since.CompareAndSwap(0, now.UnixNano())
		return false
	}
	return since > 0 && now.UnixNano()-since >= int64(listenLimit) && s.since.CompareAndSwap(since, -1)
}

// ends notes an answer.
func (s *silence) ends() {
	if s.since.Load() != 0 {
		s.since.Store(0)
	}
}

// refusal is an error of the master.
type refusal struct {
	text string
	kind error // of which it is, nil for none that is known
}

func (r *refusal) Error() string { return r.text }
func (r *refusal) Unwrap() error { return r.kind }

// refusalOf gives the error that an answer stands for.
func refusalOf(m *nats.Msg) error {
	name := m.Header.Get(errorHeader)
	if name == "" {
		return nil
	}
	r := &refusal{text: printable.Clip(printable.Line(m.Data), maxRefusal)}
	for _, p := range passed {
		if p.name == name {
			r.kind = p.err
		}
	}
	return r
}

// maxRefusal bounds the text of a refusal.
const maxRefusal = 1024

// call makes a call whose content and answer are JSON.
func call[T any](ctx context.Context, l *MasterClient, verb string, content any) (answer T, err error) {
	data, err := json.Marshal(content)
	if err != nil {
		return answer, fmt.Errorf("encode a call for %s: %w", verb, err)
	}
	got, err := l.ask(ctx, verb, &nats.Msg{Data: data})
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(got, &answer); err != nil {
		return answer, fmt.Errorf("read the answer for %s: %w", verb, err)
	}
	return answer, nil
}

// post sends what is not answered.
func (l *MasterClient) post(verb string, content any) error {
	data, err := json.Marshal(content)
	if err != nil {
		return fmt.Errorf("encode %s: %w", verb, err)
	}
	if l.calls != nil {
		_, err := l.calls.handle(context.Background(), &nats.Msg{Data: data}, l.node, verb) // nothing waits
		return err
	}
	if len(data) > maxPayload {
		return ErrTooLarge
	}
	if err := l.conn.Publish(callSubject(l.node, verb), data); err != nil {
		return fmt.Errorf("tell %s: %w", verb, err)
	}
	return nil
}

// WatchRecords reports every existing record, then Synced, then every change, until ctx ends. fn must be quick.
func (l *MasterClient) WatchRecords(ctx context.Context, fn func(Change)) error {
	moved := make(chan struct{}, 1)
	defer l.records.add(func(struct{}) {
		select {
		case moved <- struct{}{}:
		default:
		}
	})()
	again := time.NewTimer(0)
	defer again.Stop()
	seen := &seenRecords{known: map[grid.SweepID]bool{}}
	for synced := false; ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.gone:
			return ErrClosed
		case <-moved:
		case <-again.C:
		}
		pause := watchInterval
		switch err := l.changes(ctx, seen, fn); {
		case err != nil:
			l.log.Debug("records can't be read yet", "err", err)
			pause = tailRetry
		case !synced:
			synced = true
			fn(Change{Synced: true})
		}
		again.Reset(pause)
	}
}

// watchInterval is how often records are asked for without a hint.
const watchInterval = 10 * time.Second

// seenRecords is how far a Watch has come.
type seenRecords struct {
	life  string // of the records; "" at first
	after uint64 // last sequence
	// known are the sweeps that were reported: false for those that the records have not named
	// since their life is another one.
	known map[grid.SweepID]bool
}

// changes reports the records that have changed since the last call. When the master has restored
// its store, which counts from a lower sequence then, that is all that it has and the removal of
// what it has no more.
func (l *MasterClient) changes(ctx context.Context, seen *seenRecords, fn func(Change)) error {
	for {
		data, err := l.ask(ctx, callSweeps, &nats.Msg{Data: binary.AppendUvarint(nil, seen.after)})
		if err != nil {
			return err
		}
		page, err := readPage(data, l.log)
		if err != nil {
			return err
		}
		if begun := seen.life != ""; page.life != seen.life {
			seen.life, seen.after = page.life, 0
			for id := range seen.known {
				seen.known[id] = false
			}
			if begun { // it is not what comes first
				continue
			}
		}
		for _, c := range page.changes {
			if seen.known[c.ID] = true; c.Deleted {
				delete(seen.known, c.ID)
			}
			fn(c)
		}
		if page.more && page.last > seen.after {
			seen.after = page.last
			continue
		}
		for id, named := range seen.known {
			if !named {
				delete(seen.known, id)
				fn(Change{ID: id, Deleted: true})
			}
		}
		return nil
	}
}

// Record gives the record of a sweep, or ErrNotFound.
func (l *MasterClient) Record(ctx context.Context, id grid.SweepID) (Record, error) {
	data, err := l.ask(ctx, callSweep, &nats.Msg{Data: []byte(id)})
	if err != nil {
		return Record{}, err
	}
	rev, n := binary.Uvarint(data)
	if n <= 0 {
		return Record{}, errFrame
	}
	return decodeRecord(data[n:], rev)
}

// NotifyReady calls fn whenever a lease of a lane may be there to take, until stop is called. fn must not block.
func (l *MasterClient) NotifyReady(fn func(lane string)) (stop func()) { return l.lanes.add(fn) }

// TakeLeases takes up to n leases of a lane that are there now, and that are not left to nodes of newer
// versions; none is no error.
func (l *MasterClient) TakeLeases(ctx context.Context, lane string, n int) ([]GrantedLease, error) {
	held, err := call[[]GrantedLease](ctx, l, callTake, takeCall{Lane: lane, N: n, Level: leaseVersion})
	for i := range held {
		held[i].Shape = lane
	}
	return held, err
}

// ReturnLease gives back a lease that is done with: everything about it is reported.
func (l *MasterClient) ReturnLease(ctx context.Context, h *GrantedLease) error {
	_, err := call[any](ctx, l, callReturn, leaseCall{ID: h.ID})
	return err
}

// PostponeLease leaves a lease to whoever takes it after a while.
func (l *MasterClient) PostponeLease(ctx context.Context, h *GrantedLease, d time.Duration) error {
	_, err := call[any](ctx, l, callPostpone, leaseCall{ID: h.ID, Delay: d})
	return err
}

// ErrUnknownSweep is returned by MasterClient.PublishEvents and MasterClient.PublishOutput when the master has no record of the sweep, and will have none: it was
// removed, or is gone since the store was restored. Nothing is stored then.
var ErrUnknownSweep = errors.New("the master has no record of the sweep")

// PublishEvents stores a batch. Storing the same one again is harmless. It returns when the batch is on the master's disk, or ErrUnknownSweep.
func (l *MasterClient) PublishEvents(ctx context.Context, b *grid.Batch) error {
	if l.calls != nil { // the node is the master's own
		switch known, err := l.calls.store.Records.known(ctx, b.Sweep); {
		case err != nil:
			return err
		case !known:
			return ErrUnknownSweep
		}
		_, err := l.calls.store.Events.Publish(ctx, b)
		return err
	}
	_, err := split(b, func(_ *grid.Batch, data []byte) (uint64, error) {
		return l.send(ctx, callEvents, &nats.Msg{Data: data})
	})
	return err
}

// PublishOutput stores chunks of a sweep, and gives the sequences of the first and the last message once all are on the master's disk. It
// may return ErrUnknownSweep.
func (l *MasterClient) PublishOutput(ctx context.Context, sweep grid.SweepID, chunks []Chunk) (first, last uint64, err error) {
	header := nats.Header{sweepHeader: {string(sweep)}}
	return packAll(chunks, func(data []byte) (uint64, error) {
		return l.send(ctx, callOutput, &nats.Msg{Header: header, Data: data})
	})
}

// send reports something that is stored, and gives its sequence.
func (l *MasterClient) send(ctx context.Context, verb string, m *nats.Msg) (uint64, error) {
	data, err := l.ask(ctx, verb, m)
	if err != nil {
		return 0, err
	}
	var s storedAt
	if err := json.Unmarshal(data, &s); err != nil {
		return 0, fmt.Errorf("read the answer for %s: %w", verb, err)
	}
	if s.Unknown {
		return 0, ErrUnknownSweep
	}
	return s.Seq, nil
}

// SendMetrics tells the metrics of running attempts of one sweep, without waiting for the master.
func (l *MasterClient) SendMetrics(b *grid.Batch) error { return l.post(callMetrics, b) }

// SendHeartbeat sends a heartbeat and returns the master's directives.
func (l *MasterClient) SendHeartbeat(ctx context.Context, b Heartbeat) (Directives, error) {
	b.V = wireVersion
	return call[Directives](ctx, l, callBeat, b)
}

// Keyring asks for the gossip keys, the primary first.
func (l *MasterClient) Keyring(ctx context.Context) ([][]byte, error) {
	return call[[][]byte](ctx, l, callKeyring, struct{}{})
}

// ErrNoMaster is what calls get while there is no connection.
var ErrNoMaster = errors.New("there is no connection to the master")

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
		l.cut(ErrNoMaster)
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
