package shim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/poll"
	"mlfnode/node/private"
)

// controlConn is the agent's control connection to one shim.
type controlConn struct {
	shim    shimProcess
	info    shimInfo
	log     *slog.Logger
	conn    frameConn
	slots   slotConns
	adopted map[uint64]*adoptedRun // runs of an earlier agent, by id; set by connect

	ended chan struct{} // closed when the connection has ended
	// cleared is closed when the connection has ended and nothing of the shim is left, or another
	// agent is in charge of it.
	cleared chan struct{}

	mu         sync.Mutex
	lossReason string // why runs are lost when the connection ends
	leaving    bool   // this agent ends the connection
	quitting   bool   // the shim was asked to end
}

// Why a run was lost.
const (
	shimDied  = "its shim died"
	shimTaken = "another node agent took its shim over"
)

// errRefuses means that a shim has refused for good.
var errRefuses = errors.New("it refused")

// connect introduces this agent to a shim, its own or that of an earlier agent, and waits for the
// answer until ctx ends.
func connect(ctx context.Context, client *Client, p shimDir, own bool) (*controlConn, error) {
	conn, err := p.dial()
	if err != nil {
		return nil, err
	}
	l := &controlConn{
		shim: shimProcess{dir: p, token: client.o.Token}, log: client.log.With("shim", p.id),
		conn: frameConn{UnixConn: conn}, adopted: map[uint64]*adoptedRun{},
		ended: make(chan struct{}), cleared: make(chan struct{}), lossReason: shimDied,
	}
	r := bufio.NewReader(conn)
	if err := l.handshake(ctx, r, own); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	for i := range l.info.Runs {
		h := &l.info.Runs[i]
		l.adopted[h.ID] = &adoptedRun{control: l, client: client, info: *h, done: make(chan struct{})}
		if h.Outcome != nil {
			l.adopted[h.ID].finish(*h.Outcome)
		}
	}
	go l.readLoop(r)
	return l, nil
}

// handshake sends the hello and waits for the answer.
func (l *controlConn) handshake(ctx context.Context, r *bufio.Reader, own bool) error {
	if !private.IsOwn(l.conn.UnixConn) {
		return fmt.Errorf("%w: the socket belongs to another user", errRefuses)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Now()) })
	defer func() {
		stop()
		_ = l.conn.SetReadDeadline(time.Time{})
	}()
	hello := &message{Kind: kindHello, V: version, Oldest: oldest, Token: l.shim.token, Own: own}
	if err := l.conn.send(hello); err != nil {
		return err
	}
	m, err := readFrame(r)
	switch {
	case err != nil:
		return err
	case m.Kind == kindRefused:
		return fmt.Errorf("%w: %s", errRefuses, m.Reason)
	case m.Kind != kindWelcome || m.Info == nil || m.V < oldest || m.Oldest > version:
		return fmt.Errorf("%w: %w", errRefuses, errFrame)
	}
	l.info = *m.Info
	return l.shim.dir.load(processFile, &l.shim.processRecord)
}

// readLoop reads what the shim sends until the connection ends. Then it removes what is left of the
// shim.
func (l *controlConn) readLoop(r *bufio.Reader) {
	for {
		m, err := readFrame(r)
		if err != nil {
			break
		}
		switch m.Kind {
		case kindEnded:
			if k := l.adopted[m.ID]; k != nil && m.Outcome != nil {
				k.finish(*m.Outcome)
			}
		case kindGone:
			l.slots.forwardGone(m)
		case kindTaken:
			l.mu.Lock()
			l.lossReason, l.leaving = shimTaken, true
			l.mu.Unlock()
		}
	}
	l.mu.Lock()
	leaving := l.leaving
	l.mu.Unlock()
	l.conn.Close()
	l.slots.closeAll()
	close(l.ended)
	if !leaving && !l.endedByItself() {
		l.log.Warn("the shim died; its runs are lost")
	}
	if !leaving {
		// Without a deadline: nothing of the shim may run on once its runs count as lost.
		if err := l.shim.remove(context.Background(), l.log); err != nil {
			l.log.Warn("not everything of a dead shim could be removed", "err", err)
		}
	}
	close(l.cleared)
}

// endedByItself reports whether the shim was asked to end or had nothing more to do.
func (l *controlConn) endedByItself() bool {
	l.mu.Lock()
	quitting := l.quitting
	l.mu.Unlock()
	if quitting {
		return true
	}
	for _, k := range l.adopted {
		if !k.collected.Load() {
			return false
		}
	}
	return len(l.adopted) > 0 || len(l.info.Runs) == 0 && !l.slots.everUsed()
}

func (l *controlConn) isDead() bool { return poll.Closed(l.ended) }

// lost is the outcome of a run whose shim is no longer ours. It waits until nothing of the run is
// left here.
func (l *controlConn) lost(began time.Time) executor.Outcome {
	<-l.cleared
	l.mu.Lock()
	defer l.mu.Unlock()
	class := grid.ClassLost
	if l.lossReason == shimDied {
		class = grid.ClassNode
	}
	return lostOutcome(class, l.lossReason, began)
}

// died reports whether the shim died while it was ours. It waits until nothing of the shim is left.
func (l *controlConn) died() bool {
	<-l.cleared
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lossReason == shimDied && !l.leaving && !l.quitting
}

// leave ends the connections and nothing else.
func (l *controlConn) leave() {
	l.mu.Lock()
	l.leaving = true
	l.mu.Unlock()
	l.conn.Close()
	<-l.cleared
}

// quitTimeout is how long a shim may take to stop what it runs beyond the longest grace, which
// depends on the attempts.
const quitTimeout = time.Minute

// quit makes the shim stop everything and waits for its end.
func (l *controlConn) quit() error {
	l.mu.Lock()
	l.quitting = true
	l.mu.Unlock()
	if err := l.conn.send(&message{Kind: kindQuit}); err != nil && !l.isDead() {
		l.log.Debug("shim could not be asked to end", "err", err)
		l.conn.Close()
	}
	select {
	case <-l.cleared:
		return nil
	case <-time.After(quitTimeout):
		l.shim.kill()
	}
	<-l.cleared
	return fmt.Errorf("shim %d had to be killed", l.shim.dir.id)
}

// runByName finds a run that an earlier shim or agent has begun.
func (l *controlConn) runByName(name string) *adoptedRun {
	for _, k := range l.adopted {
		if k.info.Name == name {
			return k
		}
	}
	return nil
}
