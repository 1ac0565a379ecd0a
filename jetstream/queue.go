package jetstream

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
)

const (
	// AckWait is how long a lease of a node that stands alone stays with a worker that does not renew it. A live worker renews each
	// quarter of it. In a cluster the queue never gives a lease to a second node by itself: the master knows better who is there,
	// and takes leases back.
	AckWait        = 10 * time.Second
	clusterAckWait = 10 * 24 * time.Hour
	// maxLeased bounds the leases of one shape in the hands of workers. The default, 1,000, would cap a large cluster.
	maxLeased = 1 << 16
	// pullGrace is how long a pull waits for the answer: it comes at once unless the machine is badly overloaded.
	pullGrace = 2 * time.Second
	// pullLag is how long a consumer may take to learn of a stored lease, pullRecent how long after a wake that is reckoned with.
	pullLag    = 10 * time.Millisecond
	pullRecent = 50 * time.Millisecond
	// wakePause is the shortest time between two wake calls of a shape in a cluster. With many nodes it is longer, wakeCost for
	// each: every call goes to all of them, and those that have room then ask the queue.
	wakePause = 10 * time.Millisecond
	wakeCost  = 250 * time.Microsecond
	// maxWoken bounds the shapes of which it is remembered when a lease came, beside those of the last moment.
	maxWoken = 1024
	// presentPage is how many leases one request of Present brings.
	presentPage = 1000
)

// The versions of leases on the wire are the levels of the nodes that may run their trials. Older nodes leave leases of newer versions.
const leaseVersion = grid.LevelFeatures

// Lease is the right to run the trials [Lo,Hi) of a sweep.
type Lease struct {
	Sweep   grid.SweepID
	Lo, Hi  int64
	Attempt int
	Shape   string // names the queue: leases of one shape need the same resources
	ID      grid.LeaseID
	// Snapshot is the number of the stored snapshot from which the trial goes on, 0 for none. What attempts up to Bad have left in
	// their folders on nodes can't be read.
	Snapshot, Bad int

	// Level is that of the nodes that may take the lease, see grid.Sweep.Level; 0 stands for grid.LevelPlain.
	Level int

	// Quiet is set where no attempt of the lease needs to be told of before it begins: no node has died under its trials.
	Quiet bool

	Updates int           // number of the sweep's updates when this was leased: a worker that knows fewer must not run it with older files
	Avoid   []grid.NodeID // nodes that are to leave it to others, if others take it
	// Elsewhere is set where a node that is not to be avoided could run it: those that are give it back until that is not so any more.
	Elsewhere bool
}

// wireLease is a lease in the stream. The shape is in the subject.
type wireLease struct {
	V       int          `json:"v"`
	Sweep   grid.SweepID `json:"s"`
	Lo      int64        `json:"l"`
	Hi      int64        `json:"h"`
	Attempt int          `json:"a"`
	ID      grid.LeaseID `json:"n,omitempty"`
	Updates int          `json:"u,omitempty"`

	Snapshot int           `json:"p,omitempty"`
	Bad      int           `json:"b,omitempty"`
	Avoid    []grid.NodeID `json:"x,omitempty"`

	Elsewhere bool `json:"w,omitempty"`
	Quiet     bool `json:"q,omitempty"`
}

// Queue is the lease queue: a work-queue stream with one subject and one shared consumer for each shape.
//
//	published ──Pull──► held ──Ack──► gone
//	    ▲                │
//	    └─ Return, or (standing alone) AckWait without Renew
//
// It is not synced to disk: after a crash leases may be missing, which the reconciler makes good. Its consumers are made when
// first used. Those of a cluster are kept in files, so that workers go on with their leases when the master has restarted; what
// they had last may be delivered once more then. Those of a single node live in memory.
type Queue struct {
	store *Store
	life  string        // of this process, in the IDs of its leases
	count atomic.Uint64 // of those

	mu     sync.Mutex
	shapes map[string]bool      // consumers that are known to exist
	woken  map[string]time.Time // when a lease last came, by shape
	calls  map[string]*wakeCall
	nodes  int // that are woken
}

// wakeCall is what has been said about one shape.
type wakeCall struct {
	last time.Time
	soon bool // another one goes out when the pause is over
}

func newQueue(s *Store) (*Queue, error) {
	q := &Queue{store: s, life: strings.ToLower(rand.Text()[:lifeLength]), shapes: map[string]bool{}, woken: map[string]time.Time{}, calls: map[string]*wakeCall{}}
	_, err := q.Wake(func(shape string) { // ends with the connection
		q.mu.Lock()
		defer q.mu.Unlock()
		if len(q.woken) >= maxWoken { // what was not pulled for is not recent
			maps.DeleteFunc(q.woken, func(_ string, at time.Time) bool { return time.Since(at) > pullRecent })
		}
		q.woken[shape] = time.Now()
	})
	return q, err
}

// EnsureShape makes the consumer of a shape if there is none. Nodes leave that to the master.
func (q *Queue) EnsureShape(ctx context.Context, shape string) error {
	if q.store.remote || q.known(shape) {
		return nil
	}
	ctx, stop := q.store.limited(ctx)
	defer stop()
	wait := AckWait
	if q.store.shared {
		wait = clusterAckWait
	}
	_, err := q.store.js.CreateOrUpdateConsumer(ctx, leaseStream, js.ConsumerConfig{
		Durable: leaseConsumer(shape), FilterSubject: leaseSubject(shape), AckPolicy: js.AckExplicitPolicy, AckWait: wait,
		MaxAckPending: maxLeased, MaxDeliver: -1, MemoryStorage: !q.store.shared, Replicas: 1,
		InactiveThreshold: 0, // stays until RemoveUnused or Purge
	})
	if err != nil {
		return q.store.explain(ctx, "open the lease queue "+shape, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.shapes[shape] = true
	return nil
}

func (q *Queue) known(shape string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.shapes[shape]
}

func (q *Queue) forget(shape string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.shapes, shape)
}

// lifeLength is how many random characters, of 5 bits each, name a process.
const lifeLength = 10

// NewID gives an ID that no lease has had.
func (q *Queue) NewID() grid.LeaseID {
	return grid.LeaseID(q.life + "." + strconv.FormatUint(q.count.Add(1), 36))
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
	data, err := json.Marshal(wireLease{V: max(l.Level, grid.LevelPlain), Sweep: l.Sweep, Lo: l.Lo, Hi: l.Hi, Attempt: l.Attempt, ID: l.ID, Updates: l.Updates, Snapshot: l.Snapshot, Bad: l.Bad, Avoid: l.Avoid, Elsewhere: l.Elsewhere, Quiet: l.Quiet})
	if err != nil {
		return 0, fmt.Errorf("encode a lease: %w", err)
	}
	seq, err := q.store.publish(ctx, &nats.Msg{Subject: leaseSubject(l.Shape), Data: data})
	if err != nil {
		return 0, fmt.Errorf("publish a lease: %w", err)
	}
	q.wake(l.Shape)
	return seq, nil
}

// wake tells workers that there is a lease. It is a hint: who misses it looks again later. In a cluster each call goes to every
// node, so there are not many in a row: the first goes out at once, and one for all that follow after a pause.
func (q *Queue) wake(shape string) {
	if !q.store.shared && !q.store.remote {
		q.call(shape)
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.calls[shape]
	if c == nil {
		c = &wakeCall{}
		q.calls[shape] = c
	}
	left := max(wakePause, time.Duration(q.nodes)*wakeCost) - time.Since(c.last)
	switch {
	case c.soon:
	case left <= 0:
		c.last = time.Now()
		q.call(shape)
	default:
		c.soon = true
		time.AfterFunc(left, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			c.soon, c.last = false, time.Now()
			q.call(shape)
		})
	}
}

// Nodes tells the queue how many nodes listen for leases.
func (q *Queue) Nodes(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nodes = n
}

func (q *Queue) call(shape string) { _ = q.store.conn.Publish(wakeSubject(shape), nil) }

// Wake calls fn whenever a lease has been put into a queue or returned, until stop is called. fn must not block.
func (q *Queue) Wake(fn func(shape string)) (stop func(), err error) {
	sub, err := q.store.conn.Subscribe(wakeSubjects, func(m *nats.Msg) { fn(lastToken(m.Subject)) })
	if err != nil {
		return nil, fmt.Errorf("listen for leases: %w", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil
}
