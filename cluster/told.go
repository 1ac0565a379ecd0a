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
	// share is what a member waits more, for each member, when only its number of running attempts changed: all of them
	// together say that about ten times a second, which each node passes on within 20 kB/s, half of what it may send.
	share = 100 * time.Millisecond
)

// told is what this node tells.
type told struct {
	started time.Time

	mu      sync.Mutex
	self    Self
	serial  uint64        // grows with each change
	sent    Self          // what was announced last
	changed chan struct{} // one token while something is not announced
}

func newTold(s Self) *told {
	return &told{self: s, sent: s, serial: 1, started: time.Now().Truncate(time.Millisecond), changed: make(chan struct{}, 1)}
}

func (t *told) change(fn func(*Self)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fn(&t.self)
	t.self.Reason = cut(t.self.Reason, maxReason)
	t.serial++
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

// detail is the record of this node, to be passed on.
func (t *told) detail(node grid.NodeID) *detail {
	s, serial := t.now()
	return newDetail(node, t.started, s, serial)
}

func (t *told) now() (Self, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.self, t.serial
}

// meta is what memberlist announces, and is asked for by it.
func (t *told) meta(limit int) []byte {
	s, _ := t.now()
	return encodeMeta(s, t.started, limit)
}

// news reports whether something is not announced, and whether others decide by it.
func (t *told) news() (any, urgent bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, sent := t.self, t.sent
	any = !t.sameLocked(now, sent)
	now.Running, sent.Running = 0, 0
	return any, !t.sameLocked(now, sent)
}

func (t *told) sameLocked(a, b Self) bool {
	return bytes.Equal(encodeMeta(a, t.started, memberlist.MetaMaxSize), encodeMeta(b, t.started, memberlist.MetaMaxSize))
}

func (t *told) announced() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent = t.self
}

// tell announces changes: the first at once, those that follow within the pace as one.
func (c *Cluster) tell() {
	for last := (time.Time{}); ; {
		select {
		case <-c.life.Done():
			return
		case <-c.told.changed:
		}
		if !c.until(last) {
			return
		}
		last = time.Now()
		c.announce()
	}
}

// until waits for the moment when this node may speak again. What changes meanwhile may make it urgent.
func (c *Cluster) until(last time.Time) bool {
	for {
		wait := pace
		if any, urgent := c.told.news(); !any {
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
		case <-c.told.changed:
		case <-time.After(left):
			return true
		}
	}
}

func (c *Cluster) announce() {
	any, _ := c.told.news()
	if !any || c.departed() {
		return
	}
	c.told.announced()
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

// rest waits, unless the context ends before.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
