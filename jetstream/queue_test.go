package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	js "github.com/nats-io/nats.go/jetstream"

	"mlfnode/grid"
)

func lease(shape string, lo int64) Lease {
	return Lease{Sweep: "a-1", Lo: lo, Hi: lo + 10, Attempt: 1, Shape: shape}
}

func mustPublish(t testing.TB, q *Queue, l Lease) uint64 {
	t.Helper()
	seq, err := q.Publish(t.Context(), l)
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	return seq
}

// testNode is the node that takes leases in tests.
const testNode = grid.NodeID("n")

func mustTake(t testing.TB, q *Queue, shape string, n, want int) []GrantedLease {
	t.Helper()
	held := q.grant(testNode, shape, n, leaseVersion)
	if len(held) != want {
		t.Fatalf("take of %d: got %d, want %d", n, len(held), want)
	}
	return held
}

func mustReturn(t testing.TB, q *Queue, h GrantedLease) {
	t.Helper()
	if err := q.acknowledge(t.Context(), testNode, h.ID); err != nil {
		t.Errorf("return: %v", err)
	}
}

func listedSequences(t testing.TB, q *Queue) []uint64 {
	t.Helper()
	all, err := q.List(t.Context())
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	var seqs []uint64
	for _, l := range all {
		if l.Shape == "" || l.Hi <= l.Lo {
			t.Fatalf("list: got a lease without content: %+v", l)
		}
		seqs = append(seqs, l.Seq)
	}
	return seqs
}

func TestQueue(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir(), Limits{}).Queue
	ctx := t.Context()
	mustTake(t, q, "p-1_c1.5", 1, 0)
	first := mustPublish(t, q, lease("p-1_c1.5", 0))
	second := mustPublish(t, q, lease("p-1_c1.5", 10))
	other := mustPublish(t, q, lease("big", 20))
	held := mustTake(t, q, "p-1_c1.5", 5, 2)
	got, want := held[0].Lease, lease("p-1_c1.5", 0)
	if want.ID, want.Level = got.ID, grid.LevelPlain; !cmp.Equal(got, want) || got.ID == "" || got.ID == held[1].ID {
		t.Errorf("lease: got %+v, want %+v with an ID of its own", got, want)
	}
	if held[0].Seq != first || held[0].Deliveries != 1 {
		t.Errorf("held: got sequence %d, deliveries %d; want %d, 1", held[0].Seq, held[0].Deliveries, first)
	}
	if diff := cmp.Diff([]uint64{first, second, other}, listedSequences(t, q)); diff != "" {
		t.Errorf("list with held leases (-want +got):\n%s", diff)
	}
	mustReturn(t, q, held[0])
	if diff := cmp.Diff([]uint64{second, other}, listedSequences(t, q)); diff != "" {
		t.Errorf("list after return (-want +got):\n%s", diff)
	}
	big := mustTake(t, q, "big", 1, 1)[0]
	for range 2 {
		if err := q.Delete(ctx, big.ID); err != nil {
			t.Error(err)
		}
	}
	if left := listedSequences(t, q); !slices.Equal(left, []uint64{second}) || big.Seq != other {
		t.Errorf("after delete: got %v, want %d alone", left, second)
	}
	mustTake(t, q, "big", 1, 0)
}

func TestPostponedLeaseReturns(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir(), Limits{}).Queue
	woken := make(chan string, 4)
	defer q.NotifyReady(func(shape string) { woken <- shape })()
	mustPublish(t, q, lease("a b", 0))
	if got := <-woken; got != "a b" {
		t.Errorf("notified of %q, want %q", got, "a b")
	}
	h := mustTake(t, q, "a b", 1, 1)[0]
	if err := q.postpone(testNode, h.ID, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	<-woken
	if again := mustTake(t, q, "a b", 1, 1)[0]; again.Deliveries != 2 || again.Seq != h.Seq {
		t.Errorf("postponed lease: got sequence %d, deliveries %d; want %d, 2", again.Seq, again.Deliveries, h.Seq)
	}
}

// TestLeasePostponedTwice postpones a lease twice, as a node does when the answer to the first call
// is lost: the lease returns once.
func TestLeasePostponedTwice(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir(), Limits{}).Queue
	woken := make(chan string, 4)
	mustPublish(t, q, lease("s", 0))
	h := mustTake(t, q, "s", 1, 1)[0]
	defer q.NotifyReady(func(shape string) { woken <- shape })()
	for _, delay := range []time.Duration{10 * time.Millisecond, 200 * time.Millisecond} {
		if err := q.postpone(testNode, h.ID, delay); err != nil {
			t.Fatal(err)
		}
	}
	<-woken
	mustTake(t, q, "s", 1, 1) // by the same node
	select {
	case <-woken:
		t.Error("the lease is available although it is taken")
	case <-time.After(500 * time.Millisecond):
	}
	mustTake(t, q, "s", 1, 0)
	if err := q.postpone(testNode, h.ID, 0); err != nil {
		t.Fatal(err)
	}
	<-woken
}

// TestLeaseOfAnEarlierMasterIsPostponed starts a master while a node holds a lease, and then
// postpones the lease: another node can take it, and no other node can return it.
func TestLeaseOfAnEarlierMasterIsPostponed(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	mustPublish(t, l.store.Queue, lease("s", 0))
	h := mustTake(t, l.store.Queue, "s", 1, 1)[0]
	l.stop()
	l.start()
	woken := make(chan string, 4)
	defer l.store.Queue.NotifyReady(func(shape string) { woken <- shape })()
	if err := l.store.Queue.postpone(testNode, h.ID, 100*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := l.store.Queue.acknowledge(t.Context(), "other", h.ID); !errors.Is(err, errNotHeld) {
		t.Errorf("acknowledged by another node: got %v", err)
	}
	select {
	case <-woken:
	case <-time.After(time.Minute):
		t.Fatal("the lease does not return")
	}
	mustTake(t, l.store.Queue, "s", 1, 1)
}

// TestDeleteStored stores a lease that this process does not know, as after a Publish without an
// answer: the lease can be deleted.
func TestDeleteStored(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	known := mustPublish(t, s.Queue, lease("s", 0))
	putRaw(t, s, leaseSubject("s"), `{"v":1,"s":"a-1","l":10,"h":20,"a":1,"n":"x.1.y"}`)
	all, err := s.Queue.List(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("got %v, %v; want two leases", all, err)
	}
	for range 2 {
		if err := s.Queue.DeleteStored(t.Context(), &all[1]); err != nil {
			t.Error(err)
		}
	}
	if left := listedSequences(t, s.Queue); !slices.Equal(left, []uint64{known}) {
		t.Errorf("leases: got %v, want the other one", left)
	}
	mustTake(t, s.Queue, "s", 2, 1)
}

// TestLeasesForNewerNodes lets a node of an older version ask first: it gets the leases that it can
// run, and the rest stays for others.
func TestLeasesForNewerNodes(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir(), Limits{}).Queue
	for i, level := range []int{leaseVersion, grid.LevelPlain, leaseVersion} {
		l := lease("s", int64(i))
		l.Level = level
		mustPublish(t, q, l)
	}
	if held := q.grant("older", "s", 3, leaseVersion-1); len(held) != 1 || held[0].Lo != 1 {
		t.Errorf("an older node took %+v, want the plain one", held)
	}
	if held := mustTake(t, q, "s", 3, 2); held[0].Deliveries != 1 || held[0].Lo != 0 {
		t.Errorf("got %+v, want the first one, never granted", held[0])
	}
}

func TestPurgeForgetsHeldLeases(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir(), Limits{}).Queue
	var last uint64
	for i := range 10 {
		last = mustPublish(t, q, lease("s", int64(i)))
	}
	mustTake(t, q, "s", 4, 4)
	if err := q.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := listedSequences(t, q); len(left) != 0 {
		t.Errorf("list: got %v, want none", left)
	}
	mustTake(t, q, "s", 1, 0)
	if seq := mustPublish(t, q, lease("s", 99)); seq <= last || seq < uint64(time.Now().Add(-time.Minute).UnixMicro()) {
		t.Errorf("sequence after purge: got %d, want one from the clock", seq)
	}
	if h := mustTake(t, q, "s", 5, 1)[0]; h.Lo != 99 {
		t.Errorf("got lease of %d, want 99", h.Lo)
	}
}

func TestListManyLeases(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir(), Limits{}).Queue
	var want []uint64
	for i := range 2*listPage + 5 {
		want = append(want, mustPublish(t, q, lease(fmt.Sprint("s", i%3), int64(i))))
	}
	if got := listedSequences(t, q); !slices.Equal(got, want) {
		t.Errorf("got %d sequences, want %d", len(got), len(want))
	}
}

// TestWorkersShareAQueue lets four workers take 500 leases and postpone some: each lease ends with
// exactly one acknowledgement.
func TestWorkersShareAQueue(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir(), Limits{}).Queue
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	const leases = 500
	wake := make(chan struct{}, 1)
	defer q.NotifyReady(func(string) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})()
	var acked [leases]atomic.Int32
	var done atomic.Int32
	all := make(chan struct{})
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				takeAll(t, q, func(lo int64) {
					acked[lo].Add(1)
					if done.Add(1) == leases {
						close(all)
					}
				})
				select {
				case <-all:
					return
				case <-wake:
				case <-tick.C:
				case <-ctx.Done():
					t.Error("leases are left")
					return
				}
			}
		})
	}
	for i := range int64(leases) {
		mustPublish(t, q, Lease{Sweep: grid.SweepID("a-1"), Lo: i, Hi: i + 1, Shape: "s"})
	}
	workers.Wait()
	for i := range acked {
		if n := acked[i].Load(); n != 1 {
			t.Errorf("lease %d was acknowledged %d times, want once", i, n)
		}
	}
}

// takeAll takes leases until there are none; it postpones every seventh one the first time.
func takeAll(t *testing.T, q *Queue, acked func(lo int64)) {
	for {
		held := q.grant(testNode, "s", 2, leaseVersion)
		if len(held) == 0 {
			return
		}
		for _, h := range held {
			if h.Lo%7 == 0 && h.Deliveries == 1 {
				if err := q.postpone(testNode, h.ID, 0); err != nil {
					t.Errorf("postpone: %v", err)
				}
				continue
			}
			mustReturn(t, q, h)
			acked(h.Lo)
		}
	}
}

// TestLeasesOfAnEarlierMaster starts a master with leases that its predecessor has stored, granted
// or not: no node can take them, and the node that holds one returns it by its ID. What only an
// earlier version's queue needed is removed.
func TestLeasesOfAnEarlierMaster(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	mustPublish(t, l.store.Queue, lease("s", 0))
	mustPublish(t, l.store.Queue, lease("s", 10))
	first := mustTake(t, l.store.Queue, "s", 1, 1)[0]
	config := js.ConsumerConfig{Durable: "shape_s", FilterSubject: leaseSubject("s"), AckPolicy: js.AckExplicitPolicy}
	if _, err := l.store.js.CreateOrUpdateConsumer(t.Context(), leaseStream, config); err != nil {
		t.Fatal(err)
	}
	l.stop()
	l.start()
	q := l.store.Queue
	if info, err := l.store.streamInfo(t.Context(), leaseStream); err != nil || info.State.Consumers != 0 {
		t.Errorf("got %d consumers, %v; want none", info.State.Consumers, err)
	}
	mustTake(t, q, "s", 1, 0)
	if err := q.acknowledge(t.Context(), testNode, "another"); err != nil {
		t.Error(err)
	}
	if left := listedSequences(t, q); len(left) != 2 || !q.WasGranted(first.ID) {
		t.Fatalf("leases: got %v, want both", left)
	}
	mustReturn(t, q, first)
	if left := listedSequences(t, q); len(left) != 1 || left[0] == first.Seq {
		t.Errorf("leases: got %v, want the other one", left)
	}
	mustReturn(t, q, first) // it is no longer there
}

// TestWithdraw withdraws leases that no node holds, and no others.
func TestWithdraw(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir(), Limits{}).Queue
	mustPublish(t, q, lease("s", 0))
	held := mustTake(t, q, "s", 1, 1)[0]
	l := lease("s", 10)
	l.ID = q.NewID()
	mustPublish(t, q, l)
	for _, c := range []struct {
		id   grid.LeaseID
		want bool
	}{{held.ID, false}, {l.ID, true}, {l.ID, false}, {"another", false}} {
		if got, err := q.Withdraw(t.Context(), c.id); got != c.want || err != nil {
			t.Errorf("withdraw %s: got %v, %v; want %v", c.id, got, err, c.want)
		}
	}
	mustTake(t, q, "s", 1, 0)
	if left := listedSequences(t, q); !slices.Equal(left, []uint64{held.Seq}) {
		t.Errorf("leases: got %v, want that of the node", left)
	}
}

// TestOnlyTheHolderReturnsALease lets another node return and postpone a lease.
func TestOnlyTheHolderReturnsALease(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir(), Limits{}).Queue
	mustPublish(t, q, lease("s", 0))
	h := mustTake(t, q, "s", 1, 1)[0]
	if err := q.acknowledge(t.Context(), "other", h.ID); !errors.Is(err, errNotHeld) {
		t.Errorf("acknowledged by another node: got %v", err)
	}
	if err := q.postpone("other", h.ID, 0); !errors.Is(err, errNotHeld) {
		t.Errorf("postponed by another node: got %v", err)
	}
	if left := listedSequences(t, q); len(left) != 1 {
		t.Errorf("leases: got %v, want the one", left)
	}
}

// TestCompetingTakes lets many nodes request each lease. Those that get none must not delay the
// next one.
func TestCompetingTakes(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	const rounds, burst = 40, 5
	got := make(chan GrantedLease, burst)
	var pulling sync.WaitGroup
	defer pulling.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for i := range 8 {
		w := l.connect(fmt.Sprint("w", i))
		pulling.Go(func() {
			for ctx.Err() == nil {
				held, _ := w.TakeLeases(ctx, "s", 1)
				for i := range held {
					if err := w.ReturnLease(ctx, &held[i]); err != nil {
						t.Error(err)
					}
					got <- held[i]
				}
			}
		})
	}
	for range rounds {
		for i := range burst {
			mustPublish(t, l.store.Queue, lease("s", int64(i)))
		}
		for range burst {
			select {
			case <-got:
			case <-time.After(time.Minute):
				t.Fatal("a lease was granted to no node")
			}
		}
	}
	if left := listedSequences(t, l.store.Queue); len(left) > 0 {
		t.Errorf("leases: got %v, want none", left)
	}
}

// TestSweepsShareALane takes leases of two sweeps: the sweep with fewer granted leases goes first,
// whatever was queued first, also after leases return.
func TestSweepsShareALane(t *testing.T) {
	t.Parallel()
	q := open(t, t.TempDir(), Limits{}).Queue
	put := func(sweep grid.SweepID, n int) {
		for i := range n {
			l := lease("s", int64(i))
			l.Sweep = sweep
			mustPublish(t, q, l)
		}
	}
	taken := func(n int) (order string) {
		for _, h := range mustTake(t, q, "s", n, n) {
			order += string(h.Sweep)
		}
		return order
	}
	put("a", 6)
	first := mustTake(t, q, "s", 3, 3)
	put("b", 4)
	if got := taken(4); got != "bbba" {
		t.Errorf("three of a are taken: got %s, want bbba", got)
	}
	for _, h := range first {
		mustReturn(t, q, h)
	}
	if got := taken(2); got != "aa" {
		t.Errorf("one of a and three of b are taken: got %s, want aa", got)
	}
	put("b", 1)
	if got := taken(1); got != "b" || len(mustTake(t, q, "s", 9, 1)) != 1 {
		t.Errorf("three of each are taken: got %s, want the older lease, of b", got)
	}
}
