package cluster

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
	"mlfnode/node/poll"
)

const (
	// rememberDead and rememberLeft are how long members stay listed after their end, so that
	// people see what went away.
	rememberDead = time.Hour
	rememberLeft = 10 * time.Minute
	// maxEnded bounds how many of those are listed; the oldest are dropped first.
	maxEnded = 1000
)

// table is what this node knows of the members. The events of memberlist update it, some with the
// lock of memberlist held.
type table struct {
	self grid.NodeID
	wake poll.Signal // set when there may be news for the watchers

	mu       sync.Mutex
	records  map[grid.NodeID]*record
	watchers map[int]*watcher
	next     int
}

type record struct {
	Member
	detail *detail

	shown   State     // what the watchers know
	shownAs time.Time // the life that they know
}

// watcher is called with each change.
type watcher struct {
	fn  func(Member)
	met bool // it has been called with all members
}

func newTable(self grid.NodeID) *table {
	return &table{self: self, wake: poll.NewSignal(), records: map[grid.NodeID]*record{}, watchers: map[int]*watcher{}}
}

// full returns the member with its details.
func (r *record) full() Member {
	m := r.Member
	m.Roles = slices.Clone(m.Roles)
	if d := r.detail; d != nil { // it may be older than the rest
		m.Load, m.Inventory, m.Labels = d.Load, d.Inventory, d.Labels
		if cut(d.Reason, len(m.Reason)) == m.Reason && m.Reason != "" {
			m.Reason = d.Reason
		}
	}
	return m
}

func (t *table) find(node grid.NodeID) (Member, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, ok := t.records[node]
	if !ok {
		return Member{}, false
	}
	return r.full(), true
}

func (t *table) members(now time.Time) []Member {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pruneLocked(now)
	return t.listLocked()
}

func (t *table) listLocked() []Member {
	list := make([]Member, 0, len(t.records))
	for _, r := range t.records {
		list = append(list, r.full())
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return list
}

// details returns the records to pass on, except that of this node. A record of a member that has
// left says only that.
func (t *table) details() []*detail {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*detail
	for _, r := range t.records {
		switch {
		case r.Node == t.self:
		case r.State == Left:
			d := &detail{Node: r.Node, Started: r.Started.UnixMilli(), Left: true}
			d.encode()
			all = append(all, d)
		case r.detail != nil && r.There():
			all = append(all, r.detail)
		}
	}
	return all
}

// receive keeps the records that are newer than those of the same agents in the table.
func (t *table) receive(all []*detail) {
	defer t.wake.Set()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, d := range all {
		r := t.records[d.Node]
		switch {
		case r == nil, !r.Started.IsZero() && r.Started.UnixMilli() != d.Started:
		case d.Left:
			if r.State == Dead {
				r.State = Left
			}
		case r.detail != nil && r.detail.Started == d.Started && d.Serial <= r.detail.Serial:
		case r.detail != nil && d.Started < r.detail.Started:
		default:
			r.detail = d
		}
	}
}

// update records what memberlist knows of a node, after an event.
func (t *table) update(n *memberlist.Node, state State, now time.Time) {
	defer t.wake.Set()
	t.mu.Lock()
	defer t.mu.Unlock()
	name := grid.NodeID(n.Name)
	self, started, leaving := decodeMeta(n.Meta)
	if state == Dead && leaving {
		state = Left
	}
	r := t.records[name]
	if r == nil {
		if t.pruneLocked(now); len(t.records) >= maxMembers {
			return
		}
		r = &record{}
		t.records[name] = r
	}
	since := r.Since
	reborn := !started.IsZero() && !started.Equal(r.Started)
	if reborn {
		r.detail = nil
	}
	if reborn || r.State != state {
		since = now
	}
	r.Member = Member{
		Self: self, Node: name, Address: n.Addr.String(), Port: int(n.Port), State: state,
		Since: since, Started: started,
	}
}

// probed records whether a member that is not known to have ended could be reached. memberlist does
// not report whom it suspects, so a member is shown as suspect when its probe goes unanswered over
// UDP and no connection to it can be opened either.
func (t *table) probed(node grid.NodeID, reached bool, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, from, to := t.records[node], Alive, Suspect
	if reached {
		from, to = Suspect, Alive
	}
	if r != nil && r.State == from {
		r.State, r.Since = to, now
		t.wake.Set()
	}
}

// changes returns the members whose state or agent has changed since the last call.
func (t *table) changes() (changed []Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.records {
		if r.shown != r.State || !r.shownAs.Equal(r.Started) {
			r.shown, r.shownAs = r.State, r.Started
			changed = append(changed, r.full())
		}
	}
	slices.SortFunc(changed, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return changed
}

// pruneLocked drops members that ended long ago, and the oldest when there are too many.
func (t *table) pruneLocked(now time.Time) {
	var ended []*record
	for name, r := range t.records {
		age := now.Sub(r.Since)
		if r.State == Dead && age > rememberDead || r.State == Left && age > rememberLeft && name != t.self {
			delete(t.records, name)
		} else if !r.There() && name != t.self {
			ended = append(ended, r)
		}
	}
	if len(ended) <= maxEnded {
		return
	}
	slices.SortFunc(ended, func(a, b *record) int { return b.Since.Compare(a.Since) })
	for _, r := range ended[maxEnded:] {
		delete(t.records, r.Node)
	}
}

func (t *table) watch(fn func(Member)) (stop func()) {
	defer t.wake.Set()
	t.mu.Lock()
	defer t.mu.Unlock()
	id := t.next
	t.next++
	t.watchers[id] = &watcher{fn: fn}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.watchers, id)
	}
}

// run passes changes of members to the watchers and to the log until the context ends.
func (t *table) run(ctx context.Context, log *slog.Logger) {
	for {
		changed := t.changes()
		for _, m := range changed {
			level := slog.LevelInfo
			switch m.State {
			case Suspect:
				level = slog.LevelDebug
			case Dead:
				level = slog.LevelWarn
			}
			log.Log(ctx, level, "member is "+string(m.State), "node", m.Node, "address", m.Address)
		}
		t.deliver(changed)
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		}
	}
}

// deliver calls the watchers, without the lock: they may ask for members.
func (t *table) deliver(changed []Member) {
	t.mu.Lock()
	ids := slices.Sorted(maps.Keys(t.watchers))
	t.mu.Unlock()
	for _, id := range ids {
		t.mu.Lock()
		w, news := t.watchers[id], changed
		if w != nil && !w.met {
			w.met, news = true, t.listLocked()
		}
		t.mu.Unlock()
		for _, m := range news {
			if w != nil {
				w.fn(m)
			}
		}
	}
}
