package shim

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/process"
	"mlfnode/node/poll"
	"mlfnode/node/private"
)

// controlConn is the agent's control connection to one shim.
type controlConn struct {
	dir     shimDir
	token   string
	process processRecord // the process of the shim
	info    shimInfo
	log     *slog.Logger
	conn    *net.UnixConn

	ended chan struct{} // closed when the connection has ended
	// cleared is closed when the connection has ended and nothing of the shim is left, or another
	// agent is in charge of it.
	cleared chan struct{}

	mu         sync.Mutex
	buf        []byte
	slots      map[uint64]*slotConn
	lastSlot   uint64                 // number of the newest slot
	adopted    map[uint64]*adoptedRun // runs of an earlier agent, by id
	lossReason string                 // why runs are lost when the connection ends
	leaving    bool                   // this agent ends the connection
	quitting   bool                   // the shim was asked to end
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
	token, log := client.o.Token, client.log
	conn, err := p.dial()
	if err != nil {
		return nil, err
	}
	l := &controlConn{
		dir: p, token: token, log: log.With("shim", p.id), conn: conn, lossReason: shimDied,
		ended: make(chan struct{}), cleared: make(chan struct{}), slots: map[uint64]*slotConn{},
		adopted: map[uint64]*adoptedRun{},
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
	if !private.IsOwn(l.conn) {
		return fmt.Errorf("%w: the socket belongs to another user", errRefuses)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Now()) })
	defer func() {
		stop()
		_ = l.conn.SetReadDeadline(time.Time{})
	}()
	if err := l.send(&message{Kind: kindHello, V: version, Oldest: oldest, Token: l.token, Own: own}); err != nil {
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
	return l.dir.load(processFile, &l.process)
}

func (l *controlConn) send(m *message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	buf, err := appendFrame(l.buf[:0], m)
	if err != nil {
		return err
	}
	l.buf = buf
	_ = l.conn.SetWriteDeadline(time.Now().Add(sendTimeout))
	_, err = l.conn.Write(buf)
	return err
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
			if k := l.runByID(m.ID); k != nil && m.Outcome != nil {
				k.finish(*m.Outcome)
			}
		case kindGone:
			l.slotGone(m)
		case kindTaken:
			l.mu.Lock()
			l.lossReason, l.leaving = shimTaken, true
			l.mu.Unlock()
		}
	}
	leaving := l.closeAll()
	if !leaving && !l.endedByItself() {
		l.log.Warn("the shim died; its runs are lost")
	}
	if !leaving {
		// Without a deadline: nothing of the shim may run on once its runs count as lost.
		if err := removeDead(context.Background(), l.dir, l.process, l.token, l.log); err != nil {
			l.log.Warn("not everything of a dead shim could be removed", "err", err)
		}
	}
	close(l.cleared)
}

// slotGone passes on what the shim says about a slot whose connection has ended.
func (l *controlConn) slotGone(m *message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.slots[m.Slot]; s != nil {
		select {
		case s.gone <- m:
		default: // it is sent once
		}
	}
}

// closeAll closes all connections to the shim and reports whether this agent meant to leave it.
func (l *controlConn) closeAll() (leaving bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn.Close()
	for _, s := range l.slots {
		s.conn.Close()
	}
	close(l.ended)
	return l.leaving
}

// endedByItself reports whether the shim was asked to end or had nothing more to do.
func (l *controlConn) endedByItself() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.quitting {
		return true
	}
	for _, k := range l.adopted {
		if !k.collected {
			return false
		}
	}
	return len(l.adopted) > 0 || len(l.info.Runs) == 0 && l.lastSlot == 0
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
	if err := l.send(&message{Kind: kindQuit}); err != nil && !l.isDead() {
		l.log.Debug("shim could not be asked to end", "err", err)
		l.conn.Close()
	}
	select {
	case <-l.cleared:
		return nil
	case <-time.After(quitTimeout):
		l.process.kill()
	}
	<-l.cleared
	return fmt.Errorf("shim %d had to be killed", l.dir.id)
}

func (l *controlConn) runByID(id uint64) *adoptedRun {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.adopted[id]
}

// runByName finds a run that an earlier shim or agent has begun.
func (l *controlConn) runByName(name string) *adoptedRun {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.adopted {
		if k.info.Name == name {
			return k
		}
	}
	return nil
}

const (
	endPoll = 5 * time.Millisecond
	// endTimeout is how long a shim whose socket is closed may take to stop what it runs and end by
	// itself.
	endTimeout = 30 * time.Second
)

// removeDead waits for the end of a shim that no longer answers, kills it if necessary, and removes
// it with everything that it ran.
func removeDead(ctx context.Context, p shimDir, self processRecord, token string, log *slog.Logger) error {
	limit := time.Now().Add(endTimeout)
	err := poll.Until(ctx, endPoll, func() (bool, error) {
		alive := self.Alive()
		if alive && time.Now().After(limit) {
			log.Warn("the shim does not end; it is killed")
			self.kill()
		}
		return !alive, nil
	})
	if err != nil {
		return err
	}
	dead := process.DeadAgent{Token: p.token(token), Cgroups: self.Cgroups, Strays: p.strays()}
	if _, err := process.Reap(ctx, dead, log); err != nil {
		return err
	}
	return os.RemoveAll(p.path)
}
