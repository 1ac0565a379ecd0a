package cluster

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
)

const (
	// pace is the shortest time between two messages about this node to all others.
	pace = time.Second
	// share is how much longer a member waits, for each member, when only its number of running
	// attempts changed: all of them together announce that about ten times a second, which each
	// node passes on within 20 kB/s, half of what it may send.
	share = 100 * time.Millisecond
)

// publishedState is the state that this node announces.
type publishedState struct {
	started time.Time

	mu      sync.Mutex
	self    Self
	serial  uint64        // grows with each change
	sent    Self          // what was announced last
	leaving bool          // the node is about to leave
	changed chan struct{} // one token while something is not announced
}

func newPublishedState(s Self) *publishedState {
	return &publishedState{self: s, sent: s, serial: 1, started: time.Now().Truncate(time.Millisecond), changed: make(chan struct{}, 1)}
}

func (p *publishedState) change(fn func(*Self)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn(&p.self)
	p.self.Reason = cut(p.self.Reason, maxReason)
	p.serial++
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// leave makes the metadata of the node say that it is leaving.
func (p *publishedState) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving = true
}

// detail returns the record of this node, for others to pass on.
func (p *publishedState) detail(node grid.NodeID) *detail {
	p.mu.Lock()
	defer p.mu.Unlock()
	return newDetail(node, p.started, p.self, p.serial)
}

// meta returns the metadata that memberlist announces.
func (p *publishedState) meta(limit int) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return encodeMeta(p.self, p.started, p.leaving, limit)
}

// unannounced reports whether a change is not announced yet, and whether others decide by it.
func (p *publishedState) unannounced() (any, urgent bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, sent := p.self, p.sent
	any = !p.sameLocked(now, sent)
	now.Running, sent.Running = 0, 0
	return any, !p.sameLocked(now, sent)
}

func (p *publishedState) sameLocked(a, b Self) bool {
	return bytes.Equal(encodeMeta(a, p.started, false, memberlist.MetaMaxSize), encodeMeta(b, p.started, false, memberlist.MetaMaxSize))
}

func (p *publishedState) announced() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent = p.self
}

// publish announces changes: the first at once, those that follow within the pace together.
func (c *Cluster) publish() {
	for last := (time.Time{}); ; {
		select {
		case <-c.life.Done():
			return
		case <-c.published.changed:
		}
		if !c.awaitTurn(last) {
			return
		}
		last = time.Now()
		c.announce()
	}
}

// awaitTurn waits until this node may announce again. A change in the meantime may make that
// urgent.
func (c *Cluster) awaitTurn(last time.Time) bool {
	for {
		wait := pace
		if any, urgent := c.published.unannounced(); !any {
			return c.life.Err() == nil
		} else if !urgent {
			wait = max(pace, time.Duration(c.ml.NumMembers())*share)
		}
		left := time.Until(last.Add(wait))
		if left <= 0 {
			return true
		}
		select {
		case <-c.life.Done():
			return false
		case <-c.published.changed:
		case <-time.After(left):
			return true
		}
	}
}

func (c *Cluster) announce() {
	any, _ := c.published.unannounced()
	if !any || c.departed() {
		return
	}
	c.published.announced()
	// An error says that nobody was there to hear it in time. Those that come later ask.
	if err := c.ml.UpdateNode(pace); err != nil {
		c.log.Debug("announcement not passed on yet", "err", err)
	}
}

func (c *Cluster) departed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// sleep waits, unless the context ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
