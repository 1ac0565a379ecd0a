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
	"mlfnode/node/private"
)

// link is the agent's control connection to one shim.
type link struct {
	place place
	token string
	self  processRecord // which process the shim is
	hold  holdings
	log   *slog.Logger
	conn  *net.UnixConn

	ended chan struct{} // closed when the connection has ended
	// cleared is closed when after that nothing of the shim is left, or when it is another agent's affair.
	cleared chan struct{}

	mu      sync.Mutex
	buf     []byte
	slots   map[uint64]*slotLine
	last    uint64           // number of the newest slot
	kept    map[uint64]*kept // of an earlier agent, by run
	why     string           // what became of runs when the connection ended
	leaving bool             // the connection is ours to end
	asked   bool             // the shim's end is our wish
}

// Why a run was lost.
const (
	shimDied  = "its shim died"
	shimTaken = "another node agent took its shim over"
)

// errRefuses is a shim's answer that is final.
var errRefuses = errors.New("it refuses")

// connect introduces this agent to a shim, its own or that of an earlier agent, and waits for its answer until ctx ends.
func (client *Client) connect(ctx context.Context, p place, own bool) (*link, error) {
	token, log := client.o.Token, client.log
	conn, err := p.dial()
	if err != nil {
		return nil, err
	}
	l := &link{
		place: p, token: token, log: log.With("shim", p.id), conn: conn, why: shimDied,
		ended: make(chan struct{}), cleared: make(chan struct{}), slots: map[uint64]*slotLine{}, kept: map[uint64]*kept{},
	}
	r := bufio.NewReader(conn)
	if err := l.introduce(ctx, r, own); err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	for i := range l.hold.Runs {
		h := &l.hold.Runs[i]
		l.kept[h.ID] = &kept{link: l, client: client, held: *h, over: make(chan struct{})}
		if h.Outcome != nil {
			l.kept[h.ID].end(*h.Outcome)
		}
	}
	go l.listen(r)
	return l, nil
}

// introduce says hello and waits for the answer.
func (l *link) introduce(ctx context.Context, r *bufio.Reader, own bool) error {
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
	case m.Kind != kindWelcome || m.Hold == nil || m.V < oldest || m.Oldest > version:
		return fmt.Errorf("%w: %w", errRefuses, errFrame)
	}
	l.hold = *m.Hold
	return l.place.load(processFile, &l.self)
}

func (l *link) send(m *message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	buf, err := appendFrame(l.buf[:0], m)
	if err != nil {
		return err
	}
	l.buf = buf
	_ = l.conn.SetWriteDeadline(time.Now().Add(sendTime))
	_, err = l.conn.Write(buf)
	return err
}

// listen hears what the shim says until the connection ends; then it sees to what is left.
func (l *link) listen(r *bufio.Reader) {
	for {
		m, err := readFrame(r)
		if err != nil {
			break
		}
		switch m.Kind {
		case kindEnded:
			if k := l.keptRun(m.ID); k != nil && m.Outcome != nil {
				k.end(*m.Outcome)
			}
		case kindGone:
			l.slotGone(m)
		case kindTaken:
			l.mu.Lock()
			l.why, l.leaving = shimTaken, true
			l.mu.Unlock()
		}
	}
	leaving := l.hangUp()
	if !leaving && !l.finished() {
		l.log.Warn("the shim died; what it ran is lost")
	}
	if !leaving {
		// Without a deadline: nothing of the shim may run on when its runs are called lost.
		if err := clear(context.Background(), l.place, l.self, l.token, l.log); err != nil {
			l.log.Warn("not everything of a dead shim could be removed", "err", err)
		}
	}
	close(l.cleared)
}

// slotGone passes on what the shim says of a slot whose connection has ended.
func (l *link) slotGone(m *message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.slots[m.Slot]; s != nil {
		select {
		case s.gone <- m:
		default: // it is said once
		}
	}
}

// hangUp ends all connections to the shim and reports whether that was our own wish.
func (l *link) hangUp() (leaving bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn.Close()
	for _, s := range l.slots {
		s.conn.Close()
	}
	close(l.ended)
	return l.leaving
}

// finished reports whether the shim was asked to end or had nothing more to do: then it ended by itself.
func (l *link) finished() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked {
		return true
	}
	for _, k := range l.kept {
		if !k.collected {
			return false
		}
	}
	return len(l.kept) > 0 || len(l.hold.Runs) == 0 && l.last == 0
}

func (l *link) isDead() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// lost is the outcome of a run whose shim is no longer ours. It waits until nothing of it runs here.
func (l *link) lost(began time.Time) executor.Outcome {
	<-l.cleared
	l.mu.Lock()
	defer l.mu.Unlock()
	class := grid.ClassLost
	if l.why == shimDied {
		class = grid.ClassNode
	}
	return lostOutcome(class, l.why, began)
}

// died reports, once nothing of the shim is left, whether it died while it was ours.
func (l *link) died() bool {
	<-l.cleared
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why == shimDied && !l.leaving && !l.asked
}

// leave ends the connections and nothing else.
func (l *link) leave() {
	l.mu.Lock()
	l.leaving = true
	l.mu.Unlock()
	l.conn.Close()
	<-l.cleared
}

// quitTime bounds how long a shim may take to stop what it runs beyond the longest grace, which is each attempt's own.
const quitTime = time.Minute

// quit has the shim stop everything and waits for its end.
func (l *link) quit() error {
	l.mu.Lock()
	l.asked = true
	l.mu.Unlock()
	if err := l.send(&message{Kind: kindQuit}); err != nil && !l.isDead() {
		l.log.Debug("shim could not be asked to end", "err", err)
		l.conn.Close()
	}
	limit := time.NewTimer(quitTime)
	defer limit.Stop()
	select {
	case <-l.cleared:
		return nil
	case <-limit.C:
		l.self.kill()
	}
	<-l.cleared
	return fmt.Errorf("shim %d had to be killed", l.place.id)
}

func (l *link) keptRun(id uint64) *kept {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.kept[id]
}

// keptNamed finds a run of an earlier shim or agent.
func (l *link) keptNamed(name string) *kept {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.kept {
		if k.held.Name == name {
			return k
		}
	}
	return nil
}

const (
	endLook = 5 * time.Millisecond
	// endTime is how long a shim whose socket is closed may take to stop what it runs and end by itself.
	endTime = 30 * time.Second
)

// clear sees a shim that does not answer any more out of the world, with what it ran.
func clear(ctx context.Context, p place, self processRecord, token string, log *slog.Logger) error {
	limit := time.Now().Add(endTime)
	tick := time.NewTicker(endLook)
	defer tick.Stop()
	for self.alive() {
		if time.Now().After(limit) {
			log.Warn("the shim does not end; it is killed")
			self.kill()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	dead := process.Dead{Token: p.token(token), Cgroups: self.Cgroups, Strays: p.strays()}
	if _, err := process.Reap(ctx, dead, log); err != nil {
		return err
	}
	return os.RemoveAll(p.dir)
}
