package monitor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
)

// topic is a subject that a client of the event stream subscribes to.
type topic struct {
	kind  string // overview, nodes, sweep or trial
	sweep grid.SweepID
	index int64
}

// hub sends changes to the clients of the event stream. One goroutine reads all subscribed topics
// at most four times a second, whatever happens and however many clients there are; it runs while
// there are clients. For each client the hub keeps only the states that are still to be sent: a
// slow client gets the newest state of each key, and costs no more memory than a fast one.
type hub struct {
	observe func(context.Context, topic, *rates) (map[string]observed, error)
	applied func() uint64
	changed func() <-chan struct{}
	log     *slog.Logger

	mu      sync.Mutex
	clients map[*eventClient]struct{}
	topics  map[topic]*topicClients
	stop    func() // ends the goroutine and waits for it; nil while there is none
	kick    chan struct{}
}

// topicClients holds the clients and the last states of a topic.
type topicClients struct {
	clients map[*eventClient]struct{}
	states  map[string]*topicState // nil until the first read
}

// topicState is a state as it was last sent. It is immutable.
type topicState struct {
	key, name string
	id        uint64 // the last event of the store that it includes
	data      []byte
}

// eventClient is one stream.
type eventClient struct {
	principal string
	topics    []topic
	last      uint64                 // the last id that it had seen when it joined
	pending   map[string]*topicState // by key; guarded by hub.mu
	wake      chan struct{}
}

const (
	hubInterval = 250 * time.Millisecond // between two rounds
	hubSlow     = time.Second            // between two rounds while only loads and rates change
)

func newHub(o *observer) *hub {
	return &hub{
		observe: o.observe, applied: func() uint64 { return o.history.Applied() }, changed: o.master.Changed,
		log:     o.log,
		clients: map[*eventClient]struct{}{}, topics: map[topic]*topicClients{}, kick: make(chan struct{}, 1),
	}
}

// join adds a client that has seen the states up to id last. States that may have changed since are
// sent immediately.
func (h *hub) join(principal string, topics []topic, last uint64) (*eventClient, error) {
	if last > h.applied() {
		last = 0 // the id is of another store
	}
	c := &eventClient{principal: principal, topics: topics, last: last, pending: map[string]*topicState{},
		wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.checkLimitsLocked(c); err != nil {
		return nil, err
	}
	h.clients[c] = struct{}{}
	for _, t := range topics {
		w := h.topics[t]
		if w == nil {
			w = &topicClients{clients: map[*eventClient]struct{}{}}
			h.topics[t] = w
		}
		w.clients[c] = struct{}{}
		for _, s := range w.states {
			c.enqueue(s)
		}
	}
	if h.stop == nil {
		h.startLocked()
	}
	select {
	case h.kick <- struct{}{}:
	default:
	}
	return c, nil
}

// checkLimitsLocked returns an error if the client would exceed a limit.
func (h *hub) checkLimitsLocked(c *eventClient) error {
	own, more := 0, 0
	for other := range h.clients {
		if other.principal == c.principal {
			own++
		}
	}
	for _, t := range c.topics {
		if h.topics[t] == nil {
			more++
		}
	}
	switch {
	case len(h.clients) >= maxEventStreams:
		return tooManyStreams("too many event streams are open")
	case own >= maxEventsOfOne:
		return tooManyStreams("this token has too many event streams open")
	case len(h.topics)+more > maxAllTopics:
		return tooManyStreams("the event streams have too many topics")
	}
	return nil
}

func (h *hub) startLocked() {
	ctx, cancel := context.WithCancel(context.Background()) // ends with the last client
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.run(ctx)
	}()
	h.stop = func() {
		cancel()
		<-ended
	}
}

// leave removes a client. The last one ends the goroutine.
func (h *hub) leave(c *eventClient) {
	h.mu.Lock()
	delete(h.clients, c)
	for _, t := range c.topics {
		w := h.topics[t]
		delete(w.clients, c)
		if len(w.clients) == 0 {
			delete(h.topics, t)
		}
	}
	var stop func()
	if len(h.clients) == 0 {
		stop, h.stop = h.stop, nil
	}
	h.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// drain returns the states that are still to be sent to a client, in the order of their ids: a
// client that is cut off in the middle has everything before its last id.
func (h *hub) drain(c *eventClient) []*topicState {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*topicState, 0, len(c.pending))
	for _, s := range c.pending {
		all = append(all, s)
	}
	clear(c.pending)
	slices.SortFunc(all, func(a, b *topicState) int {
		return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.key, b.key))
	})
	return all
}

// enqueue marks a state as still to be sent, unless the client has seen a later one. The caller
// holds hub.mu.
func (c *eventClient) enqueue(s *topicState) {
	if s.id < c.last {
		return
	}
	c.pending[s.key] = s
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (h *hub) run(ctx context.Context) {
	rates := &rates{marks: map[grid.SweepID][2]sample{}}
	tick, slow := time.NewTicker(hubInterval), time.NewTicker(hubSlow)
	defer tick.Stop()
	defer slow.Stop()
	for {
		moved := h.changed()
		rates.prune(time.Now())
		h.refresh(ctx, h.topicsToRead(false), rates)
		for waiting := true; waiting; { // new clients are not kept waiting
			select {
			case <-tick.C:
				waiting = false
			case <-h.kick:
				h.refresh(ctx, h.topicsToRead(true), rates)
			case <-ctx.Done():
				return
			}
		}
		for waiting := true; waiting; {
			select {
			case <-moved:
				waiting = false
			case <-slow.C:
				waiting = false
			case <-h.kick:
				h.refresh(ctx, h.topicsToRead(true), rates)
			case <-ctx.Done():
				return
			}
		}
	}
}

// topicsToRead returns the topics that have clients or, if fresh, those of them that have not been
// read yet.
func (h *hub) topicsToRead(fresh bool) []topic {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []topic
	for t, w := range h.topics {
		if !fresh || w.states == nil {
			all = append(all, t)
		}
	}
	return all
}

// refresh reads topics and enqueues changes for their clients.
func (h *hub) refresh(ctx context.Context, topics []topic, rates *rates) {
	for _, t := range topics {
		id := h.applied() // before the read: the state may be newer than its id, never older
		now, err := h.observeSafely(ctx, t, rates)
		if err != nil {
			if ctx.Err() == nil {
				h.log.Debug("a topic can't be read", "topic", t.kind, "sweep", t.sweep, "err", err)
			}
			continue // the next round is soon
		}
		h.publish(t, id, now)
	}
}

// observeSafely reads a topic. The HTTP server recovers panics of requests only, so a panic in the
// hub's goroutine would terminate the node.
func (h *hub) observeSafely(ctx context.Context, t topic, rates *rates) (states map[string]observed, err error) {
	defer func() {
		if r := recover(); r != nil {
			h.log.Error("panic while reading a topic", "topic", t.kind, "sweep", t.sweep, "panic", r,
				"stack", string(debug.Stack()))
			err = errPanicked
		}
	}()
	return h.observe(ctx, t, rates)
}

var errPanicked = errors.New("panic while reading a topic")

func (h *hub) publish(t topic, id uint64, now map[string]observed) {
	h.mu.Lock()
	defer h.mu.Unlock()
	w := h.topics[t]
	if w == nil {
		return // its last client has left
	}
	if w.states == nil {
		w.states = map[string]*topicState{}
	}
	for key, v := range now {
		data, err := json.Marshal(v.value)
		if err != nil {
			continue // these types always marshal
		}
		if old := w.states[key]; old != nil && bytes.Equal(old.data, data) {
			continue
		}
		s := &topicState{key: key, name: v.name, id: id, data: data}
		w.states[key] = s
		for c := range w.clients {
			c.enqueue(s)
		}
	}
	for key := range w.states {
		if _, ok := now[key]; !ok {
			delete(w.states, key)
		}
	}
}

// clientCount returns the number of clients.
func (h *hub) clientCount() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.clients)
}
