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

// listPage is how many leases one request of List returns.
const listPage = 1000

// leaseVersion is the newest version of leases on the wire that this node may take. Versions are
// the levels of the nodes that may run the trials: older nodes leave leases of newer versions
// alone.
const leaseVersion = grid.NewestLevel

// Lease is the right to run the trials [Lo,Hi) of a sweep.
type Lease struct {
	Sweep   grid.SweepID `json:"s"`
	Lo      int64        `json:"l"`
	Hi      int64        `json:"h"`
	Attempt int          `json:"a"`
	Shape   string       `json:"-"` // names the lane: leases of one shape need the same resources
	ID      grid.LeaseID `json:"n,omitempty"`
	// Snapshot is the number of the stored snapshot that the trial resumes from, 0 for none. What
	// attempts up to Bad have left in their folders on nodes can't be read.
	Snapshot int `json:"p,omitempty"`
	Bad      int `json:"b,omitempty"`

	// Level is the lowest level of a node that may take the lease, see grid.Sweep.Level; 0 stands
	// for grid.LevelPlain.
	Level int `json:"v"`

	// Quiet is set if attempts need not be announced before they begin: no node has died while it
	// ran these trials.
	Quiet bool `json:"q,omitempty"`

	// Updates is the sweep's number of updates: a worker that knows fewer must not run the lease
	// with older files.
	Updates int           `json:"u,omitempty"`
	Avoid   []grid.NodeID `json:"x,omitempty"` // nodes that leave it to others, if others take it
	// Elsewhere is set if a node outside Avoid could run it: nodes in Avoid return the lease as
	// long as this is so.
	Elsewhere bool `json:"w,omitempty"`
}

// Queue is the lease queue: what the master has leased and no node has finished.
//
//	published ──grant──► granted ──acknowledge──► gone
//	    ▲                   │
//	    └──── postpone ─────┘
//
// It belongs to the master: nodes take leases through Calls, and name them by their IDs. Each lease
// is a message of a stream that is not synced to disk: after a crash some may be missing, which the
// reconciler makes up for. Which node holds which lease is known in memory only, so leases that an
// earlier process has stored count as granted until the master deletes them: none is ever held by
// two nodes.
type Queue struct {
	store  *Store
	prefix string        // of this process, in the IDs of its leases
	count  atomic.Uint64 // of those
	ready  observers[string]

	mu     sync.Mutex
	leases map[grid.LeaseID]*queueEntry
	lanes  laneTable
}

// GrantedLease is a lease that has been granted to a node.
type GrantedLease struct {
	Lease
	Seq        uint64 `json:"seq"` // of the message in the stream
	Deliveries int    `json:"d"`   // how often it was granted
}

// queueEntry is a lease in the queue.
type queueEntry struct {
	GrantedLease
	node      grid.NodeID // the holder; "" if there is none, or it is unknown
	granted   bool        // a node holds it
	postponed bool        // it is granted, and returns to the queue after a delay
}

// load reads the leases that an earlier process has stored, and deletes the consumers of an earlier
// version's queue.
func (q *Queue) load(ctx context.Context) error {
	ctx, stop := q.store.withTimeout(ctx)
	defer stop()
	str := q.store.streams[leaseStream]
	names := str.ConsumerNames(ctx)
	for name := range names.Name() {
		_ = str.DeleteConsumer(ctx, name) // a consumer that stays does no harm
	}
	stored, err := q.List(ctx)
	if err = cmp.Or(names.Err(), err); err != nil {
		return q.store.explain(ctx, "load leases", err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range stored {
		entry := &queueEntry{GrantedLease: GrantedLease{Lease: l.Lease, Seq: l.Seq, Deliveries: 1}}
		q.leases[l.ID] = entry
		q.lanes.markGranted(entry, "")
	}
	return nil
}

// prefixLength and secretLength are how many random characters, of 5 bits each, identify a process
// and one of its leases.
const (
	prefixLength = 10
	secretLength = 8
)

// NewID returns an ID that no lease has had and nobody can guess: whoever names it was granted the
// lease.
func (q *Queue) NewID() grid.LeaseID {
	number, secret := strconv.FormatUint(q.count.Add(1), 36), strings.ToLower(rand.Text()[:secretLength])
	return grid.LeaseID(q.prefix + "." + number + "." + secret)
}

// Publish adds a lease to its queue, under a new ID if it has none, and notifies workers.
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
	added := &queueEntry{GrantedLease: GrantedLease{Lease: l, Seq: seq}}
	q.mu.Lock()
	q.leases[l.ID] = added
	lane := q.lanes.of(l.Shape)
	lane.ready[l.Sweep] = append(lane.ready[l.Sweep], added)
	q.mu.Unlock()
	q.ready.notify(l.Shape)
	return seq, nil
}

// grant grants up to n leases of a shape to a node of the level.
func (q *Queue) grant(node grid.NodeID, shape string, n, level int) []GrantedLease {
	q.mu.Lock()
	defer q.mu.Unlock()
	granted := []GrantedLease{}
	for lane := q.lanes[shape]; lane != nil && len(granted) < n; {
		l := lane.pop(level)
		if l == nil {
			break
		}
		l.Deliveries++
		q.lanes.markGranted(l, node)
		granted = append(granted, l.GrantedLease)
	}
	return granted
}

// errNotHeld is returned for a lease that the calling node does not hold.
var errNotHeld = errors.New("the node does not hold the lease")

// find returns a lease of a node, nil if there is none with this ID. Only the holder knows the ID,
// so a lease that an earlier process has stored belongs to the node that names it.
func (q *Queue) find(node grid.NodeID, id grid.LeaseID) (*queueEntry, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.leases[id]
	if l != nil && l.node != "" && l.node != node {
		return nil, errNotHeld
	}
	if l != nil && l.granted {
		l.node = node
	}
	return l, nil
}

// acknowledge removes a lease of a node from the queue and from the disk. It is not an error if it
// has gone.
func (q *Queue) acknowledge(ctx context.Context, node grid.NodeID, id grid.LeaseID) error {
	if l, err := q.find(node, id); l == nil {
		return err
	}
	return q.Delete(ctx, id)
}

// maxPostpone bounds how long a node can keep a lease from all nodes.
const maxPostpone = 10 * time.Second

// postpone returns a lease of a node to the queue after d. A repeated call while it waits has no
// effect.
func (q *Queue) postpone(node grid.NodeID, id grid.LeaseID, d time.Duration) error {
	l, err := q.find(node, id)
	if l == nil || err != nil {
		return errNotHeld
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if l.postponed {
		return nil
	}
	l.postponed = true
	time.AfterFunc(min(max(d, 0), maxPostpone), func() {
		q.mu.Lock()
		l.postponed = false
		again := q.leases[id] == l && l.granted && l.node == node
		if again {
			q.lanes.unmarkGranted(l)
			l.node = ""
			lane := q.lanes.of(l.Shape)
			lane.ready[l.Sweep] = slices.Insert(lane.ready[l.Sweep], 0, l)
		}
		q.mu.Unlock()
		if again {
			q.ready.notify(l.Shape)
		}
	})
	return nil
}

// WasGranted reports whether a node has ever taken the lease.
func (q *Queue) WasGranted(id grid.LeaseID) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.leases[id]
	return l == nil || l.Deliveries > 0
}

// Withdraw removes a lease from the queue unless a node holds it. It reports whether it did.
func (q *Queue) Withdraw(ctx context.Context, id grid.LeaseID) (bool, error) {
	q.mu.Lock()
	l := q.leases[id]
	waits := l != nil && q.lanes.removeReady(l)
	q.mu.Unlock()
	if !waits {
		return false, nil
	}
	return true, q.Delete(ctx, id)
}

// Delete removes a lease from the queue, held or not; it is not an error if it has gone. From here
// on no node gets it, even if its message can't be removed.
func (q *Queue) Delete(ctx context.Context, id grid.LeaseID) error {
	q.mu.Lock()
	l := q.leases[id]
	if l == nil {
		q.mu.Unlock()
		return nil
	}
	q.lanes.removeReady(l)
	q.lanes.unmarkGranted(l)
	q.mu.Unlock()
	if err := q.deleteMessage(ctx, l.Seq); err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.leases, id)
	return nil
}

// DeleteStored removes a lease that List has returned, even one that this process does not know: it
// could not see whether its Publish reached the stream.
func (q *Queue) DeleteStored(ctx context.Context, l *QueuedLease) error {
	if err := q.Delete(ctx, l.ID); err != nil {
		return err
	}
	return q.deleteMessage(ctx, l.Seq)
}

// deleteMessage removes a lease from the stream; it is not an error if it has gone.
func (q *Queue) deleteMessage(ctx context.Context, seq uint64) error {
	ctx, stop := q.store.withTimeout(ctx)
	defer stop()
	err := q.store.streams[leaseStream].DeleteMsg(ctx, seq)
	if err != nil && !errors.Is(err, js.ErrMsgNotFound) && !errors.Is(err, js.ErrMsgDeleteUnsuccessful) {
		return q.store.explain(ctx, "delete a lease", err)
	}
	return nil
}

// laneTable holds the lanes of which a lease is ready or granted, by their shapes. The Queue's lock
// guards it.
type laneTable map[string]*laneQueue

// removeReady keeps a lease from being granted. It reports whether it could have been.
func (t laneTable) removeReady(l *queueEntry) bool {
	lane := t[l.Shape]
	if lane == nil || !lane.remove(l) {
		return false
	}
	l.Deliveries = max(l.Deliveries, 1)
	t.removeIfEmpty(l.Shape)
	return true
}

// of returns the lane of a shape.
func (t laneTable) of(shape string) *laneQueue {
	if t[shape] == nil {
		t[shape] = &laneQueue{ready: map[grid.SweepID][]*queueEntry{}, granted: map[grid.SweepID]int{}}
	}
	return t[shape]
}

func (t laneTable) removeIfEmpty(shape string) {
	if l := t[shape]; len(l.ready) == 0 && len(l.granted) == 0 {
		delete(t, shape)
	}
}

// markGranted records that a node holds a lease, and unmarkGranted that none does.
func (t laneTable) markGranted(l *queueEntry, node grid.NodeID) {
	l.node, l.granted = node, true
	t.of(l.Shape).granted[l.Sweep]++
}

func (t laneTable) unmarkGranted(l *queueEntry) {
	if !l.granted {
		return
	}
	l.granted = false
	lane := t[l.Shape]
	if lane.granted[l.Sweep]--; lane.granted[l.Sweep] == 0 {
		delete(lane.granted, l.Sweep)
	}
	t.removeIfEmpty(l.Shape)
}

// laneQueue holds the leases of one shape. The sweep with the fewest granted leases goes first:
// sweeps share the nodes evenly, whatever was queued earlier.
type laneQueue struct {
	ready   map[grid.SweepID][]*queueEntry // in the order in which they are granted; no list is empty
	granted map[grid.SweepID]int           // numbers of granted leases
}

// pop removes and returns the lease that a node of the level gets first, nil if there is none. Of
// equal sweeps, the oldest lease goes first.
func (l *laneQueue) pop(level int) *queueEntry {
	var first *queueEntry
	for sweep, ready := range l.ready {
		i := slices.IndexFunc(ready, func(q *queueEntry) bool { return q.Level <= level })
		if i < 0 {
			continue
		}
		if first == nil ||
			cmp.Or(cmp.Compare(l.granted[sweep], l.granted[first.Sweep]), cmp.Compare(ready[i].Seq, first.Seq)) < 0 {
			first = ready[i]
		}
	}
	if first != nil {
		l.remove(first)
	}
	return first
}

// remove removes a lease, and reports whether it was ready.
func (l *laneQueue) remove(q *queueEntry) bool {
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

// NotifyReady calls fn whenever a lease has been added to a queue or has returned to it, until stop
// is called. fn must not block.
func (q *Queue) NotifyReady(fn func(shape string)) (stop func()) { return q.ready.add(fn) }
