package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
	"mlfnode/node/poll"
)

const (
	// maxPendingCalls and maxPendingBytes bound the calls that wait to be received. Further calls
	// are dropped; a node that gets no answer calls again.
	maxPendingCalls = 16 << 10
	maxPendingBytes = 64 << 20
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
	background  sync.WaitGroup // of the hints
	unsubscribe []func()
	hints       hintQueue
	limits      callLimits
}

func openCallServer(st *Store, s *Server) (*callServer, error) {
	c := &callServer{
		calls: st.Calls, server: s,
		limits: callLimits{inProgress: map[grid.NodeID]int{}, rates: map[grid.NodeID]*callRates{}},
		hints:  hintQueue{pending: poll.NewSignal(), lanes: map[string]bool{}},
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
	c.limits.close()
	c.background.Wait()
}

// receive receives a call. It answers inline calls itself, since they never wait, and others in a
// goroutine.
func (c *callServer) receive(m *nats.Msg) {
	node := nodeOf(m.Subject)
	rates := c.limits.ratesFor(node)
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
	if !c.limits.admit(node) {
		c.answer(m, nil, errBusy)
		return
	}
	go func() {
		defer c.limits.release(node)
		c.respond(m, node, verb)
	}()
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
