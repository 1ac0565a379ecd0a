package jetstream

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
)

// presentPage is how many leases one request of List brings.
const presentPage = 1000

// The versions of leases on the wire are the levels of the nodes that may run their trials. Older nodes leave leases of newer versions.
const leaseVersion = grid.LevelLong

// Lease is the right to run the trials [Lo,Hi) of a sweep.
type Lease struct {
	Sweep   grid.SweepID `json:"s"`
	Lo      int64        `json:"l"`
	Hi      int64        `json:"h"`
	Attempt int          `json:"a"`
	Shape   string       `json:"-"` // names the queue: leases of one shape need the same resources
	ID      grid.LeaseID `json:"n,omitempty"`
	// Snapshot is the number of the stored snapshot from which the trial goes on, 0 for none. What attempts up to Bad have left in
	// their folders on nodes can't be read.
	Snapshot int `json:"p,omitempty"`
	Bad      int `json:"b,omitempty"`

	// Level is that of the nodes that may take the lease, see grid.Sweep.Level; 0 stands for grid.LevelPlain.
	Level int `json:"v"`

	// Quiet is set where no attempt of the lease needs to be told of before it begins: no node has died under its trials.
	Quiet bool `json:"q,omitempty"`

	Updates int           `json:"u,omitempty"` // number of the sweep's updates when this was leased: a worker that knows fewer must not run it with older files
	Avoid   []grid.NodeID `json:"x,omitempty"` // nodes that are to leave it to others, if others take it
	// Elsewhere is set where a node that is not to be avoided could run it: those that are give it back until that is not so any more.
	Elsewhere bool `json:"w,omitempty"`
}

// Queue is the lease queue: what the master has leased and nobody has brought to an end.
//
//	published ──take──► handed out ──acknowledge──► gone
//	    ▲                   │
//	    └──── postpone ─────┘
//
// It is the master's: nodes take leases through Calls, by the lease's ID. Each lease is a message of a stream that is not synced to disk:
// after a crash some may be missing, which the reconciler makes good. Who has which is known in memory only, so those that an earlier
// process has stored count as handed out until the master takes them back: none is ever in the hands of two nodes.
type Queue struct {
	store   *Store
	life    string        // of this process, in the IDs of its leases
	count   atomic.Uint64 // of those
	wakings listeners[string]

	mu     sync.Mutex
	leases map[grid.LeaseID]*queued
	lanes  map[string]*laneQueue // by shape; those of which a lease is ready or taken
}

// GrantedLease is a lease in the hands of a node.
type GrantedLease struct {
	Lease
	Seq        uint64 `json:"seq"` // in the stream
	Deliveries int    `json:"d"`   // how often it was taken
}

// queued is a lease in the queue.
type queued struct {
	GrantedLease
	node  grid.NodeID // that has it; "" for none, or for one that is not known
	taken bool        // by a node
	waits bool        // it is postponed
}

func newQueue(s *Store) *Queue {
	return &Queue{
		store: s, life: strings.ToLower(rand.Text()[:lifeLength]), leases: map[grid.LeaseID]*queued{}, lanes: map[string]*laneQueue{},
	}
}

// load takes over what an earlier process has stored. The queue of an earlier version had consumers.
func (q *Queue) load(ctx context.Context) error {
	ctx, stop := q.store.limited(ctx)
	defer stop()
	str := q.store.streams[leaseStream]
	names := str.ConsumerNames(ctx)
	for name := range names.Name() {
		_ = str.DeleteConsumer(ctx, name) // does no harm where it stays
	}
	stored, err := q.List(ctx)
	if err = cmp.Or(names.Err(), err); err != nil {
		return q.store.explain(ctx, "load leases", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range stored {
		held := &queued{GrantedLease: GrantedLease{Lease: l.Lease, Seq: l.Seq, Deliveries: 1}}
		q.leases[l.ID] = held
		q.hand(held, "")
	}
	return nil
}

// lifeLength and secretLength are how many random characters, of 5 bits each, name a process and one of its leases.
const (
	lifeLength   = 10
	secretLength = 8
)

// NewID gives an ID that no lease has had, and that nobody guesses: who names it was handed the lease.
func (q *Queue) NewID() grid.LeaseID {
	return grid.LeaseID(q.life + "." + strconv.FormatUint(q.count.Add(1), 36) + "." + strings.ToLower(rand.Text()[:secretLength]))
}

// idOf gives the ID of a lease that was read: one of an older master is named by its sequence.
func idOf(id grid.LeaseID, seq uint64) grid.LeaseID {
	if id == "" {
		return grid.LeaseID("#" + strconv.FormatUint(seq, 10))
	}
	return id
}

// Publish puts a lease into its queue, under a new ID if it has none, and wakes workers.
func (q *Queue) Publish(ctx context.Context, l Lease) (uint64, error) {
	if l.ID == "" {
		l.ID = q.NewID()
	}
	l.Level = max(l.Level, grid.LevelPlain)
	data, err := json.Marshal(l)
	if err != nil {
		return 0, fmt.Errorf("encode a lease: %w", err)
	}
	seq, err := q.store.publish(ctx, &nats.Msg{Subject: leaseSubject(l.Shape), Data: data})
	if err != nil {
		return 0, fmt.Errorf("publish a lease: %w", err)
	}
	added := &queued{GrantedLease: GrantedLease{Lease: l, Seq: seq}}
	q.mu.Lock()
	q.leases[l.ID] = added
	q.lane(l.Shape).put(added)
	q.mu.Unlock()
	q.wakings.tell(l.Shape)
	return seq, nil
}

// take hands up to n leases that are there now, and that nodes of a level may have, out to a node.
func (q *Queue) take(node grid.NodeID, shape string, n, level int) []GrantedLease {
	q.mu.Lock()
	defer q.mu.Unlock()
	held := []GrantedLease{}
	for lane := q.lanes[shape]; lane != nil && len(held) < n; {
		l := lane.next(level)
		if l == nil {
			break
		}
		l.Deliveries++
		q.hand(l, node)
		held = append(held, l.GrantedLease)
	}
	return held
}

// errNotHeld says that a lease is not in the hands of the node that says so.
var errNotHeld = errors.New("the node does not hold the lease")

// held gives a lease of a node; nil when there is none with this ID, which its holder alone knows:
// so one that an earlier process has stored is in the hands of whoever names it.
func (q *Queue) held(node grid.NodeID, id grid.LeaseID) (*queued, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.leases[id]
	if l != nil && l.node != "" && l.node != node {
		return nil, errNotHeld
	}
	if l != nil && l.taken {
		l.node = node
	}
	return l, nil
}

// acknowledge takes a lease of a node out of the queue, on the disk as well. It is no error when it has gone.
func (q *Queue) acknowledge(ctx context.Context, node grid.NodeID, id grid.LeaseID) error {
	if l, err := q.held(node, id); l == nil {
		return err
	}
	return q.Delete(ctx, id)
}

// maxPostpone bounds how long a node keeps a lease out of everybody's hands.
const maxPostpone = 10 * time.Second

// postpone gives a lease of a node to the next one that asks after a while. Saying so again while
// it waits changes nothing.
func (q *Queue) postpone(node grid.NodeID, id grid.LeaseID, d time.Duration) error {
	l, err := q.held(node, id)
	if l == nil || err != nil {
		return errNotHeld
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if l.waits {
		return nil
	}
	l.waits = true
	time.AfterFunc(min(max(d, 0), maxPostpone), func() {
		q.mu.Lock()
		l.waits = false
		again := q.leases[id] == l && l.taken && l.node == node
		if again {
			q.takeBack(l)
			l.node = ""
			q.lane(l.Shape).putFirst(l)
		}
		q.mu.Unlock()
		if again {
			q.wakings.tell(l.Shape)
		}
	})
	return nil
}

// WasGranted reports whether a node has ever taken a lease.
func (q *Queue) WasGranted(id grid.LeaseID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.leases[id]
	return l == nil || l.Deliveries > 0
}

// Withdraw takes a lease out of the queue unless a node has it. It reports whether it did so.
func (q *Queue) Withdraw(ctx context.Context, id grid.LeaseID) (bool, error) {
	q.mu.Lock()
	l := q.leases[id]
	waits := l != nil && q.unready(l)
	q.mu.Unlock()
	if !waits {
		return false, nil
	}
	return true, q.Delete(ctx, id)
}

// Delete takes a lease out of the queue, held or not; it is no error when it has gone. No node takes it from here on, also when its message
// can't be removed.
func (q *Queue) Delete(ctx context.Context, id grid.LeaseID) error {
	q.mu.Lock()
	l := q.leases[id]
	if l == nil {
		q.mu.Unlock()
		return nil
	}
	q.unready(l)
	q.takeBack(l)
	q.mu.Unlock()
	if err := q.deleteMessage(ctx, l.Seq); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.leases, id)
	return nil
}

// DeleteStored takes a lease out of the queue that List has listed, also one that this process
// has not noted: it could not see whether its Publish came to the stream.
func (q *Queue) DeleteStored(ctx context.Context, l *QueuedLease) error {
	if err := q.Delete(ctx, l.ID); err != nil {
		return err
	}
	return q.deleteMessage(ctx, l.Seq)
}

// deleteMessage removes a lease from the stream; it is no error when it has gone.
func (q *Queue) deleteMessage(ctx context.Context, seq uint64) error {
	ctx, stop := q.store.limited(ctx)
	defer stop()
	err := q.store.streams[leaseStream].DeleteMsg(ctx, seq)
	if err != nil && !errors.Is(err, js.ErrMsgNotFound) && !errors.Is(err, js.ErrMsgDeleteUnsuccessful) {
		return q.store.explain(ctx, "delete a lease", err)
	}
	return nil
}

// unready lets no node take a lease any more. It reports whether one could have. Locked.
func (q *Queue) unready(l *queued) bool {
	lane := q.lanes[l.Shape]
	if lane == nil || !lane.remove(l) {
		return false
	}
	l.Deliveries = max(l.Deliveries, 1)
	q.forgetEmpty(l.Shape)
	return true
}

// lane gives the leases of a shape. Locked.
func (q *Queue) lane(shape string) *laneQueue {
	if q.lanes[shape] == nil {
		q.lanes[shape] = &laneQueue{ready: map[grid.SweepID][]*queued{}, taken: map[grid.SweepID]int{}}
	}
	return q.lanes[shape]
}

func (q *Queue) forgetEmpty(shape string) {
	if l := q.lanes[shape]; len(l.ready) == 0 && len(l.taken) == 0 {
		delete(q.lanes, shape)
	}
}

// hand notes that a node has a lease, and takeBack that it has it no more. Locked.
func (q *Queue) hand(l *queued, node grid.NodeID) {
	l.node, l.taken = node, true
	q.lane(l.Shape).taken[l.Sweep]++
}

func (q *Queue) takeBack(l *queued) {
	if !l.taken {
		return
	}
	l.taken = false
	lane := q.lanes[l.Shape]
	if lane.taken[l.Sweep]--; lane.taken[l.Sweep] == 0 {
		delete(lane.taken, l.Sweep)
	}
	q.forgetEmpty(l.Shape)
}

// laneQueue are the leases of one shape. The sweep of which nodes have the fewest leases goes first: sweeps share the nodes evenly,
// whatever was put into the queue before.
type laneQueue struct {
	ready map[grid.SweepID][]*queued // in the order in which they are taken; none is empty
	taken map[grid.SweepID]int       // leases that nodes have
}

func (l *laneQueue) put(q *queued)      { l.ready[q.Sweep] = append(l.ready[q.Sweep], q) }
func (l *laneQueue) putFirst(q *queued) { l.ready[q.Sweep] = slices.Insert(l.ready[q.Sweep], 0, q) }

// next takes the lease out that a node of a level is to take first; nil when there is none. Of
// equal sweeps the oldest lease goes first.
func (l *laneQueue) next(level int) *queued {
	var first *queued
	for sweep, ready := range l.ready {
		i := slices.IndexFunc(ready, func(q *queued) bool { return q.Level <= level })
		if i < 0 {
			continue
		}
		if first == nil || cmp.Or(cmp.Compare(l.taken[sweep], l.taken[first.Sweep]), cmp.Compare(ready[i].Seq, first.Seq)) < 0 {
			first = ready[i]
		}
	}
	if first != nil {
		l.remove(first)
	}
	return first
}

// remove reports whether the lease was ready.
func (l *laneQueue) remove(q *queued) bool {
	ready := l.ready[q.Sweep]
	i := slices.Index(ready, q)
	switch {
	case i < 0:
		return false
	case len(ready) == 1:
		delete(l.ready, q.Sweep)
	case i == 0:
		l.ready[q.Sweep] = ready[1:]
	default:
		l.ready[q.Sweep] = slices.Delete(ready, i, i+1)
	}
	return true
}

// NotifyReady calls fn whenever a lease has been put into a queue or returned, until stop is called. fn must not block.
func (q *Queue) NotifyReady(fn func(shape string)) (stop func()) { return q.wakings.add(fn) }

// listeners are told of something. The zero value is ready to use.
type listeners[T any] struct {
	mu  sync.Mutex
	ids int
	fns map[int]func(T)
}

func (l *listeners[T]) add(fn func(T)) (stop func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fns == nil {
		l.fns = map[int]func(T){}
	}
	l.ids++
	id := l.ids
	l.fns[id] = fn
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.fns, id)
	}
}

func (l *listeners[T]) tell(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, fn := range l.fns {
		fn(v)
	}
}
