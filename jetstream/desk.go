package jetstream

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/time/rate"

	"mlfnode/grid"
)

const (
	// maxCalls bounds the calls of one node, and of all nodes, that are worked on at a time. What is beyond gets errBusy: a node makes
	// three at a time at most.
	maxCalls    = 8
	maxAllCalls = 1024
	// deskCalls and deskBytes bound the calls that wait to be looked at. What is beyond is dropped; whoever gets no answer asks again.
	deskCalls = 16 << 10
	deskBytes = 64 << 20
	// quickRate is how many bytes of calls that are answered one after the other a node may send in a second, each with quickCost on top: a
	// beat has some hundred bytes for each lease.
	quickRate = 8 << 20
	quickCost = 8 << 10
	// callRate is how many calls of any kind a node may send in a second, and callBurst how many at
	// one time. It is much more than nodes make, which wait for answers; one that sends more would
	// fill what waits, for all nodes. So its calls are dropped, its connection is ended, and it stays
	// out for barTime, which begins once in cutInterval at most: calls that it sent before may still
	// wait. cutNews is how often that is logged.
	callRate    = 16 << 10
	callBurst   = 8 << 10
	cutInterval = 100 * time.Millisecond
	cutNews     = time.Minute
	// hintPause is the shortest time between two rounds of hints. With many nodes it is longer, hintCost for each: those that have room
	// ask for leases then.
	hintPause = 10 * time.Millisecond
	hintCost  = 250 * time.Microsecond
)

// The headers of calls.
const (
	errorHeader = "Mlf-Error" // of an answer: which error its body is about
	sweepHeader = "Mlf-Sweep" // of output
)

var (
	// errBusy is the answer to a node that asks too much at one time.
	errBusy = errors.New("the master is busy")
	// errRefused is the answer to a call that a node of this version does not make.
	errRefused = errors.New("the master refuses the call")
)

// passed are the errors that keep their meaning on their way to a node, by their names on the wire.
var passed = [...]struct {
	name string
	err  error
}{
	{"full", ErrFull}, {"disk", ErrDisk}, {"too_large", ErrTooLarge}, {"not_found", ErrNotFound}, {"name", ErrName}, {"busy", errBusy},
	{"starting", errStarting}, {"refused", errRefused}, {"not_held", errNotHeld},
}

// desk answers the calls of nodes that come over connections. It has a connection of its own, so that no node can end the store's.
type desk struct {
	calls  *Calls
	server *Server
	conn   *nats.Conn
	ctx    context.Context // of what is worked on; ends with close
	stop   context.CancelFunc
	work   sync.WaitGroup
	undo   []func()
	kick   chan struct{} // holds a token when there is something to hint at

	mu    sync.Mutex
	busy  map[grid.NodeID]int        // calls that are worked on
	rates map[grid.NodeID]*callRates // of nodes that have called lately
	all   int
	lanes map[string]bool // to hint at
	moved bool            // records have changed

	closed bool // no further call is worked on
}

// callRates bound what one node sends.
type callRates struct {
	calls *rate.Limiter // of all kinds
	quick *rate.Limiter // bytes of those that are answered one after the other
	cut   rate.Sometimes
	news  rate.Sometimes
	used  time.Time // guarded by desk.mu
}

// rateAge is after how long without a call nothing of a node's rates tells any more: they are full again, and what was logged may be
// logged again.
const rateAge = 2 * cutNews

func openDesk(st *Store, s *Server) (*desk, error) {
	d := &desk{
		calls: st.Calls, server: s, busy: map[grid.NodeID]int{}, rates: map[grid.NodeID]*callRates{}, lanes: map[string]bool{}, kick: make(chan struct{}, 1),
	}
	var err error
	if d.conn, err = s.connect(); err != nil {
		return nil, err
	}
	d.ctx, d.stop = context.WithCancel(context.Background()) // ends with close
	sub, err := d.conn.Subscribe(callSubjects, d.receive)
	if err == nil {
		err = sub.SetPendingLimits(deskCalls, deskBytes)
	}
	if err == nil {
		err = d.conn.Flush()
	}
	if err != nil {
		d.conn.Close()
		d.stop()
		return nil, fmt.Errorf("listen for calls: %w", err)
	}
	d.undo = append(d.undo, st.Queue.NotifyReady(func(lane string) { d.hint(func() { d.lanes[lane] = true }) }),
		st.Records.moved.add(func(struct{}) { d.hint(func() { d.moved = true }) }))
	d.work.Go(d.hintNodes)
	return d, nil
}

func (d *desk) close() {
	for _, undo := range d.undo {
		undo()
	}
	d.conn.Close() // no call comes in any more
	d.stop()
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.work.Wait()
}

// receive takes a call. What need not wait is answered here, the rest beside the calls that follow.
func (d *desk) receive(m *nats.Msg) {
	node := writer(m.Subject)
	rates := d.ratesOf(node)
	if !rates.calls.Allow() {
		rates.cut.Do(func() { d.cut(node, rates) })
		return
	}
	verb := lastToken(m.Subject)
	if m.Reply != "" && !strings.HasPrefix(m.Reply, inbox(node)+".") {
		d.calls.store.log.Debug("call wants its answer elsewhere", "verb", verb, "node", node)
		return
	}
	switch verb {
	case callBeat, callKeyring, callMetrics, callTake, callPostpone:
		if !rates.quick.AllowN(time.Now(), len(m.Data)+quickCost) {
			d.answer(m, nil, errBusy)
			return
		}
		d.respond(m, node, verb)
		return
	}
	if !d.begin(node) {
		d.answer(m, nil, errBusy)
		return
	}
	go func() {
		defer d.end(node)
		d.respond(m, node, verb)
	}()
}

// ratesOf gives the rates of a node.
func (d *desk) ratesOf(node grid.NodeID) *callRates {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, now := d.rates[node], time.Now()
	if r == nil {
		maps.DeleteFunc(d.rates, func(_ grid.NodeID, r *callRates) bool { return now.Sub(r.used) > rateAge })
		r = &callRates{
			calls: rate.NewLimiter(callRate, callBurst), quick: rate.NewLimiter(quickRate, quickRate),
			cut: rate.Sometimes{Interval: cutInterval}, news: rate.Sometimes{Interval: cutNews},
		}
		d.rates[node] = r
	}
	r.used = now
	return r
}

// cut ends the connection of a node that sends calls without end, which may come back after a while.
func (d *desk) cut(node grid.NodeID, r *callRates) {
	r.news.Do(func() {
		d.calls.store.log.Warn("node sends calls without end; it is kept out for a while", "node", node)
	})
	d.server.Block(node)
}

// begin reports whether a further call of a node may be worked on.
func (d *desk) begin(node grid.NodeID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.busy[node] >= maxCalls || d.all >= maxAllCalls {
		return false
	}
	d.busy[node]++
	d.all++
	d.work.Add(1)
	return true
}

func (d *desk) end(node grid.NodeID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all--
	if d.busy[node]--; d.busy[node] == 0 {
		delete(d.busy, node)
	}
	d.work.Done()
}

// respond answers a call.
func (d *desk) respond(m *nats.Msg, node grid.NodeID, verb string) {
	data, err := d.calls.handle(d.ctx, m, node, verb)
	d.answer(m, data, err)
}

func (d *desk) answer(m *nats.Msg, data []byte, err error) {
	if m.Reply == "" {
		return
	}
	a := &nats.Msg{Subject: m.Reply, Data: data}
	if err != nil {
		a.Data, a.Header = []byte(err.Error()), nats.Header{errorHeader: {nameOf(err)}}
	}
	if err := d.conn.PublishMsg(a); err != nil {
		d.calls.store.log.Debug("call could not be answered", "subject", m.Subject, "err", err)
	}
}

func nameOf(err error) string {
	for _, p := range passed {
		if errors.Is(err, p.err) {
			return p.name
		}
	}
	if IsUnavailable(err) {
		return "busy"
	}
	return "other"
}

// The contents of calls and answers that have no type of their own.
type (
	takeCall struct {
		Lane string `json:"lane"`
		N    int    `json:"n"`
		// Level is that of the node: leases of newer ones are not for it.
		Level int `json:"level"`
	}
	leaseCall struct {
		ID    grid.LeaseID  `json:"id"`
		Delay time.Duration `json:"delay,omitempty"`
	}
	storedAt struct {
		Seq uint64 `json:"seq"`
		// Unknown says that nothing was stored, since the sweep has no record. It is no error, so that
		// nodes of earlier versions don't send the same again for ever.
		Unknown bool `json:"unknown,omitempty"`
	}
)

// handle does what a node asks for, whether over a connection or in this process.
func (c *Calls) handle(ctx context.Context, m *nats.Msg, node grid.NodeID, verb string) ([]byte, error) {
	switch verb {
	case callBeat:
		return handle(m, func(b *Heartbeat) (any, error) { return c.beat(node, b) })
	case callKeyring:
		return handle(m, func(*struct{}) (any, error) { return c.keys(node) })
	case callMetrics:
		return handle(m, func(b *grid.Batch) (any, error) { c.tell(node, b); return nil, nil })
	case callTake:
		return handle(m, func(t *takeCall) (any, error) {
			return c.lease(node, t), nil
		})
	case callReturn:
		return handle(m, func(l *leaseCall) (any, error) { return nil, c.store.Queue.acknowledge(ctx, node, l.ID) })
	case callPostpone:
		return handle(m, func(l *leaseCall) (any, error) { return nil, c.store.Queue.postpone(node, l.ID, l.Delay) })
	case callEvents:
		if listed(m.Data) >= splitEvents {
			return nil, fmt.Errorf("%w: too many events", errRefused)
		}
		b, err := decodeBatch(m.Data)
		if b.V > grid.EventVersion { // its node keeps them until the master can read them
			return nil, fmt.Errorf("%w: %w", errRefused, tooNew(b))
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errRefused, err)
		}
		if b.Node != node {
			return nil, fmt.Errorf("%w: %s reports in the name of %.100q", errRefused, node, b.Node)
		}
		return c.stored(ctx, b.Sweep, func() (uint64, error) { return c.events(ctx, b, m.Data) })
	case callOutput:
		sweep := grid.SweepID(m.Header.Get(sweepHeader))
		return c.stored(ctx, sweep, func() (uint64, error) { return c.output(ctx, node, sweep, m.Data) })
	case callSweeps:
		after, n := binary.Uvarint(m.Data)
		if n <= 0 {
			return nil, fmt.Errorf("%w: %w", errRefused, errFrame)
		}
		return c.store.Records.page(ctx, after)
	case callSweep:
		return c.store.Records.raw(ctx, grid.SweepID(m.Data))
	}
	return nil, fmt.Errorf("%w: %.100q is not known; update the master's mlfnode", errRefused, verb)
}

// stored answers a report on a sweep, which put stores. A sweep without a record was removed, or is gone since the store was restored:
// what would be stored of it would belong to nothing. The records are those of the store itself, so a master that has just started
// knows all of them.
func (c *Calls) stored(ctx context.Context, sweep grid.SweepID, put func() (uint64, error)) ([]byte, error) {
	known, err := c.store.Records.known(ctx, sweep)
	if err != nil {
		return nil, err
	}
	if !known {
		return json.Marshal(storedAt{Unknown: true})
	}
	seq, err := put()
	if err != nil {
		return nil, err
	}
	return json.Marshal(storedAt{Seq: seq})
}

// handle decodes a call and encodes its answer.
func handle[T any](m *nats.Msg, fn func(*T) (any, error)) ([]byte, error) {
	ask := new(T)
	if err := json.Unmarshal(m.Data, ask); err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	answer, err := fn(ask)
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

// maxTaken bounds the leases of one call.
const maxTaken = 64

// events stores a batch of a node.
func (c *Calls) events(ctx context.Context, b *grid.Batch, data []byte) (uint64, error) {
	shares := c.store.eventShares
	if err := shares.take(ctx, b.Node, int64(len(data))); err != nil {
		return 0, err
	}
	seq, err := c.store.Events.accept(ctx, b, b.Node, b.Sweep, data)
	if err != nil {
		shares.giveBack(b.Node, int64(len(data)))
	}
	return seq, err
}

// output stores a message of chunks of a node: of its own runs only.
func (c *Calls) output(ctx context.Context, node grid.NodeID, sweep grid.SweepID, data []byte) (uint64, error) {
	chunks, err := decodeChunks(data)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errRefused, err)
	}
	for i := range chunks {
		if !writes(node, chunks[i].Run) {
			return 0, fmt.Errorf("%w: it is of the run %.100q of another node", errRefused, chunks[i].Run)
		}
	}
	return c.store.Logs.put(ctx, node, sweep, data)
}

// hint has nodes told something soon.
func (d *desk) hint(note func()) {
	d.mu.Lock()
	note()
	d.mu.Unlock()
	select {
	case d.kick <- struct{}{}:
	default:
	}
}

// wireHints is what nodes are told unasked: in which lanes leases have come, and whether records have changed. One that is lost does no
// harm: nodes ask from time to time.
type wireHints struct {
	Lanes   []string `json:"lanes,omitempty"`
	Records bool     `json:"records,omitempty"`
}

// hintNodes gives hints until the desk closes: the first at once, and those that follow after a pause together.
func (d *desk) hintNodes() {
	for {
		select {
		case <-d.kick:
		case <-d.ctx.Done():
			return
		}
		nodes := slices.Sorted(maps.Keys(d.server.Connections()))
		d.mu.Lock()
		h := wireHints{Records: d.moved}
		for lane := range d.lanes {
			h.Lanes = append(h.Lanes, lane)
		}
		clear(d.lanes)
		d.moved = false
		d.mu.Unlock()
		data, err := json.Marshal(h)
		for _, node := range nodes {
			if err == nil {
				err = d.conn.Publish(inbox(node)+"."+hints, data)
			}
		}
		if err != nil {
			d.calls.store.log.Debug("nodes could not be told", "err", err)
		}
		pause := time.NewTimer(max(hintPause, time.Duration(len(nodes))*hintCost))
		select {
		case <-pause.C:
		case <-d.ctx.Done():
			pause.Stop()
			return
		}
	}
}
