package jetstream

import (
	"context"
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
	"mlfnode/node/poll"
)

const (
	// maxNodeCalls and maxAllCalls bound the calls of one node, and of all nodes, that are handled
	// at a time. Further calls get errBusy: a node makes at most three at a time.
	maxNodeCalls = 8
	maxAllCalls  = 1024
	// maxPendingCalls and maxPendingBytes bound the calls that wait to be received. Further calls
	// are dropped; a node that gets no answer calls again.
	maxPendingCalls = 16 << 10
	maxPendingBytes = 64 << 20
	// inlineRate is how many bytes of inline calls, which are answered one after the other, a node
	// may send in a second, with inlineCost added to each: a heartbeat has some hundred bytes for
	// each lease.
	inlineRate = 8 << 20
	inlineCost = 8 << 10
	// callRate is how many calls of any kind a node may send in a second, and callBurst how many at
	// once. It is far more than a node sends that waits for answers. Without this limit, one node
	// could fill the queue of waiting calls for all nodes. The calls of a node above it are
	// dropped, its connection is closed, and the node is blocked for a while, once in a
	// blockInterval at most: earlier calls may still wait. blockLogInterval is how often that is
	// logged.
	callRate         = 16 << 10
	callBurst        = 8 << 10
	blockInterval    = 100 * time.Millisecond
	blockLogInterval = time.Minute
	// hintPause is the shortest time between two rounds of hints. It grows by hintNodePause for
	// each node: with many nodes, those that have room ask for leases anyway.
	hintPause     = 10 * time.Millisecond
	hintNodePause = 250 * time.Microsecond
)

// The headers of calls and answers.
const (
	errorHeader = "Mlf-Error" // of an answer: the kind of the error in the body
	sweepHeader = "Mlf-Sweep" // of output
)

var (
	// errBusy is the answer to a node that makes too many calls at once.
	errBusy = errors.New("the master is busy")
	// errWithheld is the answer to a node that asks for leases that it must not have.
	errWithheld = errors.New("the node gets no trials of this lane")
	// errRefused is the answer to a call that a node of this version does not make.
	errRefused = errors.New("the master refuses the call")
)

// wireErrors are the errors that keep their identity on their way to a node, by their names on the
// wire.
var wireErrors = [...]wireError{
	{"full", ErrFull}, {"disk", ErrDisk}, {"too_large", ErrTooLarge}, {"not_found", ErrNotFound}, {"name", ErrName},
	{"busy", errBusy}, {"withheld", errWithheld}, {"starting", errStarting}, {"refused", errRefused},
	{"not_held", errNotHeld},
}

type wireError struct {
	name string
	err  error
}

// callServer receives the calls of nodes from their connections, and sends hints to nodes. It has a
// connection of its own, so that no node can end the store's.
type callServer struct {
	calls       *Calls
	server      *Server
	conn        *nats.Conn
	ctx         context.Context // of the calls in progress; ends with close
	stop        context.CancelFunc
	background  sync.WaitGroup
	unsubscribe []func()
	hints       hintQueue

	mu            sync.Mutex
	inProgress    map[grid.NodeID]int        // calls in progress
	rates         map[grid.NodeID]*callRates // of nodes that have called recently
	allInProgress int
	closed        bool // no further call is admitted
}

// callRates limit what one node sends.
type callRates struct {
	calls       *rate.Limiter // all calls
	inlineBytes *rate.Limiter // bytes of inline calls
	block       rate.Sometimes
	blockLog    rate.Sometimes
	lastCall    time.Time // guarded by callServer.mu
}

// rateAge is the time without a call after which a node's rates are discarded: the limiters are
// full again, and warnings are due again.
const rateAge = 2 * blockLogInterval

func openCallServer(st *Store, s *Server) (*callServer, error) {
	c := &callServer{
		calls: st.Calls, server: s, inProgress: map[grid.NodeID]int{}, rates: map[grid.NodeID]*callRates{},
		hints: hintQueue{pending: poll.NewSignal(), lanes: map[string]bool{}},
	}
	var err error
	if c.conn, err = s.connect(); err != nil {
		return nil, err
	}
	c.ctx, c.stop = context.WithCancel(context.Background()) // ends with close
	sub, err := c.conn.Subscribe(callSubjects, c.receive)
	if err == nil {
		err = sub.SetPendingLimits(maxPendingCalls, maxPendingBytes)
	}
	if err == nil {
		err = c.conn.Flush()
	}
	if err != nil {
		c.conn.Close()
		c.stop()
		return nil, fmt.Errorf("listen for calls: %w", err)
	}
	c.unsubscribe = append(c.unsubscribe,
		st.Queue.NotifyReady(func(lane string) { c.hints.add(func(h *hintQueue) { h.lanes[lane] = true }) }),
		st.Records.changed.add(func(struct{}) { c.hints.add(func(h *hintQueue) { h.records = true }) }))
	c.background.Go(c.sendHints)
	return c, nil
}

func (c *callServer) close() {
	for _, undo := range c.unsubscribe {
		undo()
	}
	c.conn.Close() // no further call arrives
	c.stop()
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.background.Wait()
}

// receive receives a call. It answers inline calls itself, since they never wait, and others in a
// goroutine.
func (c *callServer) receive(m *nats.Msg) {
	node := nodeOf(m.Subject)
	rates := c.ratesFor(node)
	if !rates.calls.Allow() {
		rates.block.Do(func() {
			rates.blockLog.Do(func() {
				c.calls.store.log.Warn("node sends too many calls; it is blocked for a while", "node", node)
			})
			c.server.Block(node)
		})
		return
	}
	verb := lastToken(m.Subject)
	if m.Reply != "" && !strings.HasPrefix(m.Reply, inbox(node)+".") {
		c.calls.store.log.Debug("call requests its answer in another node's inbox", "verb", verb, "node", node)
		return
	}
	switch verb {
	case callHeartbeat, callKeyring, callMetrics, callTake, callPostpone:
		if !rates.inlineBytes.AllowN(time.Now(), len(m.Data)+inlineCost) {
			c.answer(m, nil, errBusy)
			return
		}
		c.respond(m, node, verb)
		return
	}
	if !c.admit(node) {
		c.answer(m, nil, errBusy)
		return
	}
	go func() {
		defer c.release(node)
		c.respond(m, node, verb)
	}()
}

// ratesFor returns the rates of a node.
func (c *callServer) ratesFor(node grid.NodeID) *callRates {
	c.mu.Lock()
	defer c.mu.Unlock()
	r, now := c.rates[node], time.Now()
	if r == nil {
		maps.DeleteFunc(c.rates, func(_ grid.NodeID, r *callRates) bool { return now.Sub(r.lastCall) > rateAge })
		r = &callRates{
			calls: rate.NewLimiter(callRate, callBurst), inlineBytes: rate.NewLimiter(inlineRate, inlineRate),
			block: rate.Sometimes{Interval: blockInterval}, blockLog: rate.Sometimes{Interval: blockLogInterval},
		}
		c.rates[node] = r
	}
	r.lastCall = now
	return r
}

// admit reports whether one more call of a node may be handled. If so, release must follow.
func (c *callServer) admit(node grid.NodeID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.inProgress[node] >= maxNodeCalls || c.allInProgress >= maxAllCalls {
		return false
	}
	c.inProgress[node]++
	c.allInProgress++
	c.background.Add(1)
	return true
}

func (c *callServer) release(node grid.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.allInProgress--
	if c.inProgress[node]--; c.inProgress[node] == 0 {
		delete(c.inProgress, node)
	}
	c.background.Done()
}

// respond handles a call and answers it.
func (c *callServer) respond(m *nats.Msg, node grid.NodeID, verb string) {
	data, err := c.calls.handle(c.ctx, m, node, verb)
	c.answer(m, data, err)
}

func (c *callServer) answer(m *nats.Msg, data []byte, err error) {
	if m.Reply == "" {
		return
	}
	a := &nats.Msg{Subject: m.Reply, Data: data}
	if err != nil {
		name := "other"
		if i := slices.IndexFunc(wireErrors[:], func(w wireError) bool { return errors.Is(err, w.err) }); i >= 0 {
			name = wireErrors[i].name
		} else if IsUnavailable(err) {
			name = "busy"
		}
		a.Data, a.Header = []byte(err.Error()), nats.Header{errorHeader: {name}}
	}
	if err := c.conn.PublishMsg(a); err != nil {
		c.calls.store.log.Debug("call could not be answered", "subject", m.Subject, "err", err)
	}
}

// hintQueue holds the hints that are to be sent.
type hintQueue struct {
	pending poll.Signal // there are some

	mu      sync.Mutex
	lanes   map[string]bool // with new leases
	records bool            // whether records have changed
}

// add changes what is to be sent soon.
func (h *hintQueue) add(change func(*hintQueue)) {
	h.mu.Lock()
	change(h)
	h.mu.Unlock()
	h.pending.Set()
}

// take returns what is to be sent now.
func (h *hintQueue) take() wireHints {
	h.mu.Lock()
	defer h.mu.Unlock()
	hints := wireHints{Lanes: slices.Collect(maps.Keys(h.lanes)), Records: h.records}
	clear(h.lanes)
	h.records = false
	return hints
}

// wireHints is what nodes are told without asking: the lanes with new leases, and whether records
// have changed. A lost one does no harm: nodes ask from time to time.
type wireHints struct {
	Lanes   []string `json:"lanes,omitempty"`
	Records bool     `json:"records,omitempty"`
}

// sendHints sends hints until the callServer closes: the first immediately, and those that follow
// within the pause together.
func (c *callServer) sendHints() {
	for {
		select {
		case <-c.hints.pending:
		case <-c.ctx.Done():
			return
		}
		nodes := slices.Sorted(maps.Keys(c.server.Connections()))
		data, err := json.Marshal(c.hints.take())
		for _, node := range nodes {
			if err == nil {
				err = c.conn.Publish(inbox(node)+"."+hintToken, data)
			}
		}
		if err != nil {
			c.calls.store.log.Debug("hints could not be sent", "err", err)
		}
		if !poll.Sleep(c.ctx, max(hintPause, time.Duration(len(nodes))*hintNodePause)) {
			return
		}
	}
}
