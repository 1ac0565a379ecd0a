package cluster

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"mlfnode/grid"
)

const (
	// rememberDead and rememberLeft are how long members are listed after their end, so that people see what went away.
	rememberDead = time.Hour
	rememberLeft = 10 * time.Minute
	// maxEnded bounds how many of those are listed; the oldest go first.
	maxEnded = 1000
)

// table is what this node knows of the members. It is brought up to date by one goroutine, from pictures of memberlist's state.
type table struct {
	self grid.NodeID

	mu       sync.Mutex
	records  map[grid.NodeID]*record
	pending  []*detail // arrived since the last picture
	watchers map[int]*watcher
	next     int
}

type record struct {
	Member
	detail *detail
}

// watcher is someone who is told of changes.
type watcher struct {
	fn  func(Member)
	met bool // it was told of all members
}

func newTable(self grid.NodeID) *table {
	return &table{self: self, records: map[grid.NodeID]*record{}, watchers: map[int]*watcher{}}
}

// full lists a record with its details.
func (r *record) full() Member {
	m := r.Member
	m.Roles = slices.Clone(m.Roles)
	m.later(r.detail)
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
	t.forgetLocked(now)
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

// details lists the records to pass on, those of this node aside.
func (t *table) details() []*detail {
	t.mu.Lock()
	defer t.mu.Unlock()
	var all []*detail
	for _, r := range t.records {
		if r.detail != nil && r.Node != t.self && r.There() {
			all = append(all, r.detail)
		}
	}
	return all
}

// receive keeps records until the next picture shows whom they are about: a node and its details may arrive together.
func (t *table) receive(all []*detail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pending = append(t.pending, all[:min(len(all), maxMembers-len(t.pending))]...)
}

// apply takes a picture over and returns the members whose state changed or that live another life.
func (t *table) apply(picture []*memberlist.Node, now time.Time) (changed []Member) {
	t.mu.Lock()
	defer t.mu.Unlock()
	seen := map[grid.NodeID]bool{}
	for _, n := range picture {
		seen[grid.NodeID(n.Name)] = true
		if t.meetLocked(n, now) {
			changed = append(changed, t.records[grid.NodeID(n.Name)].full())
		}
	}
	for name, r := range t.records {
		if !seen[name] && r.There() { // memberlist forgets the dead after half a minute
			r.State, r.Since = Dead, now
			changed = append(changed, r.full())
		}
	}
	for _, d := range t.pending {
		t.takeLocked(d)
	}
	t.pending = nil
	t.forgetLocked(now)
	slices.SortFunc(changed, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return changed
}

var states = map[memberlist.NodeStateType]State{
	memberlist.StateAlive: Alive, memberlist.StateSuspect: Suspect, memberlist.StateDead: Dead, memberlist.StateLeft: Left,
}

// meetLocked reports whether a node is new, is in another state or lives another life.
func (t *table) meetLocked(n *memberlist.Node, now time.Time) bool {
	name, state := grid.NodeID(n.Name), states[n.State]
	self, started := decodeMeta(n.Meta)
	r := t.records[name]
	switch {
	case r == nil && len(t.records) >= maxMembers:
		return false
	case r == nil:
		r = &record{}
		t.records[name] = r
	}
	reborn := !started.IsZero() && !started.Equal(r.Started)
	if reborn {
		r.detail = nil
	}
	changed := reborn || r.State != state
	since := r.Since
	if changed {
		since = now
	}
	r.Member = Member{
		Self: self, Node: name, Address: n.Addr.String(), Port: int(n.Port), State: state, Since: since, Started: started,
	}
	return changed
}

// takeLocked keeps a record that is newer than what is known of the same life.
func (t *table) takeLocked(d *detail) {
	r := t.records[d.Node]
	switch {
	case r == nil, !r.Started.IsZero() && r.Started.UnixMilli() != d.Started:
	case r.detail != nil && r.detail.Started == d.Started && d.Serial <= r.detail.Serial:
	case r.detail != nil && d.Started < r.detail.Started:
	default:
		r.detail = d
	}
}

// forgetLocked drops members that ended long ago, and the oldest when there are too many.
func (t *table) forgetLocked(now time.Time) {
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
