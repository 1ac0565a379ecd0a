package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
	"mlfnode/node/poll"
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
	started  time.Time
	departed atomic.Bool // the node left or closed: it announces nothing more

	mu      sync.Mutex
	self    Self
	serial  uint64      // grows with each change
	sent    Self        // what was announced last
	leaving bool        // the node is about to leave
	changed poll.Signal // something is not announced
}

// detail returns the record of this node, for others to pass on.
func (p *publishedState) detail(node grid.NodeID) *detail {
	p.mu.Lock()
	defer p.mu.Unlock()
	return newDetail(node, p.started, p.self, p.serial)
}

// update changes what this node announces.
func (p *publishedState) update(change func(*Self)) {
	p.mu.Lock()
	change(&p.self)
	p.self.Reason = cut(p.self.Reason, maxReason)
	p.serial++
	p.mu.Unlock()
	p.changed.Set()
}

// setLeaving makes the metadata say that this node is about to leave.
func (p *publishedState) setLeaving() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leaving = true
}

// meta returns the metadata of this node, of at most limit bytes.
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
	encode := func(s Self) []byte { return encodeMeta(s, p.started, false, memberlist.MetaMaxSize) }
	return bytes.Equal(encode(a), encode(b))
}

// run announces changes: the first immediately, those that follow within the pace together.
func (p *publishedState) run(ctx context.Context, ml *memberlist.Memberlist, log *slog.Logger) {
	for last := (time.Time{}); ; {
		select {
		case <-ctx.Done():
			return
		case <-p.changed:
		}
		if !p.awaitTurn(ctx, last, ml.NumMembers) {
			return
		}
		last = time.Now()
		if any, _ := p.unannounced(); !any || p.departed.Load() {
			continue
		}
		p.mu.Lock()
		p.sent = p.self
		p.mu.Unlock()
		// An error says that nobody was there to hear it in time. Those that come later ask.
		if err := ml.UpdateNode(pace); err != nil {
			log.Debug("announcement not passed on yet", "err", err)
		}
	}
}

// awaitTurn waits until this node may announce again. A change in the meantime may make that
// urgent.
func (p *publishedState) awaitTurn(ctx context.Context, last time.Time, members func() int) bool {
	for {
		wait := pace
		if any, urgent := p.unannounced(); !any {
			return ctx.Err() == nil
		} else if !urgent {
			wait = max(pace, time.Duration(members())*share)
		}
		left := time.Until(last.Add(wait))
		if left <= 0 {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-p.changed:
		case <-time.After(left):
			return true
		}
	}
}
