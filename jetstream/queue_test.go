package jetstream

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

// mustPull pulls until there are as many as wanted: a lease can be pulled a moment after it was acknowledged, not at once.
func mustPull(t testing.TB, q *Queue, shape string, n, want int) []*Held {
	t.Helper()
	held, err := q.Pull(t.Context(), shape, n)
	for deadline := time.Now().Add(10 * time.Second); err == nil && len(held) < want && time.Now().Before(deadline); {
		var more []*Held
		more, err = q.Pull(t.Context(), shape, n-len(held))
		held = append(held, more...)
	}
	if err != nil || len(held) != want {
		t.Fatalf("pull of %d: got %d, %v; want %d", n, len(held), err, want)
	}
	return held
}

func present(t testing.TB, q *Queue) []uint64 {
	t.Helper()
	all, err := q.Present(t.Context())
	if err != nil {
		t.Fatalf("present: %v", err)
	}
	var seqs []uint64
	for _, l := range all {
		if l.Shape == "" || l.Hi <= l.Lo {
			t.Fatalf("present: got a lease without content: %+v", l)
		}
		seqs = append(seqs, l.Seq)
	}
	return seqs
}

func TestQueue(t *testing.T) {
	q := open(t, t.TempDir(), Limits{}).Queue
	ctx := t.Context()
	mustPull(t, q, "p-1_c1.5", 1, 0)
	first := mustPublish(t, q, lease("p-1_c1.5", 0))
	second := mustPublish(t, q, lease("p-1_c1.5", 10))
	other := mustPublish(t, q, lease("big", 20))
	held := mustPull(t, q, "p-1_c1.5", 5, 2)
	got, want := held[0].Lease, lease("p-1_c1.5", 0)
	if want.ID = got.ID; !cmp.Equal(got, want) || got.ID == "" || got.ID == held[1].ID {
		t.Errorf("lease: got %+v, want %+v with an ID of its own", got, want)
	}
	if held[0].Seq != first || held[0].Deliveries != 1 {
		t.Errorf("held: got sequence %d, deliveries %d; want %d, 1", held[0].Seq, held[0].Deliveries, first)
	}
	if diff := cmp.Diff([]uint64{first, second, other}, present(t, q)); diff != "" {
		t.Errorf("held leases are present (-want +got):\n%s", diff)
	}
	if err := held[0].Ack(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]uint64{second, other}, present(t, q)); diff != "" {
		t.Errorf("present after ack (-want +got):\n%s", diff)
	}
	if err := held[1].Renew(); err != nil {
		t.Error(err)
	}
	if err := q.Delete(ctx, other); err != nil {
		t.Error(err)
	}
	if err := q.Delete(ctx, other); err != nil {
		t.Errorf("second delete: got %v, want nil", err)
	}
	mustPull(t, q, "big", 1, 0)
}

func TestReturnedLeaseComesAtOnce(t *testing.T) {
	q := open(t, t.TempDir(), Limits{}).Queue
	woken := make(chan string, 4)
	stop, err := q.Wake(func(shape string) { woken <- shape })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	mustPublish(t, q, lease("a b", 0))
	if got := <-woken; got != "a b" {
		t.Errorf("woken for %q, want %q", got, "a b")
	}
	h := mustPull(t, q, "a b", 1, 1)[0]
	if err := h.Return(); err != nil {
		t.Fatal(err)
	}
	<-woken
	if again := mustPull(t, q, "a b", 1, 1)[0]; again.Deliveries != 2 || again.Seq != h.Seq {
		t.Errorf("returned lease: got sequence %d, deliveries %d; want %d, 2", again.Seq, again.Deliveries, h.Seq)
	}
}

func TestPurgeForgetsHeldLeases(t *testing.T) {
	q := open(t, t.TempDir(), Limits{}).Queue
	var last uint64
	for i := range 10 {
		last = mustPublish(t, q, lease("s", int64(i)))
	}
	mustPull(t, q, "s", 4, 4)
	if err := q.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := present(t, q); len(left) != 0 {
		t.Errorf("present: got %v, want none", left)
	}
	mustPull(t, q, "s", 1, 0)
	if seq := mustPublish(t, q, lease("s", 99)); seq <= last || seq < uint64(time.Now().Add(-time.Minute).UnixMicro()) {
		t.Errorf("sequence after purge: got %d, want one from the clock", seq)
	}
	if h := mustPull(t, q, "s", 5, 1)[0]; h.Lo != 99 {
		t.Errorf("got lease of %d, want 99", h.Lo)
	}
}

func TestPresentWithManyLeases(t *testing.T) {
	q := open(t, t.TempDir(), Limits{}).Queue
	var want []uint64
	for i := range 2*presentPage + 5 {
		want = append(want, mustPublish(t, q, lease(fmt.Sprint("s", i%3), int64(i))))
	}
	if got := present(t, q); !slices.Equal(got, want) {
		t.Errorf("got %d sequences, want %d", len(got), len(want))
	}
}

// TestPublishedLeaseCanBePulled publishes and pulls at once: a lease whose publish has returned must rarely be missed, or a
// woken worker goes back to sleep on it until it looks again. On a machine under heavy load it can happen.
func TestPublishedLeaseCanBePulled(t *testing.T) {
	q := open(t, t.TempDir(), Limits{}).Queue
	missed := 0
	const rounds = 5000
	for i := range int64(rounds) {
		mustPublish(t, q, lease("s", i))
		held, err := q.Pull(t.Context(), "s", 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(held) == 0 {
			missed++
			held = mustPull(t, q, "s", 1, 1)
		}
		if err := held[0].Ack(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if missed > rounds/100 {
		t.Errorf("missed %d leases of %d, want one in a hundred at most", missed, rounds)
	}
}

// TestWorkersShareAQueue lets four workers take 500 leases, returning some: each lease ends with exactly one acknowledgement.
func TestWorkersShareAQueue(t *testing.T) {
	q := open(t, t.TempDir(), Limits{}).Queue
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	const leases = 500
	wake := make(chan struct{}, 1)
	unsubscribe, err := q.Wake(func(string) {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer unsubscribe()
	var acked [leases]atomic.Int32
	var done atomic.Int32
	all := make(chan struct{})
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				work(ctx, t, q, func(lo int64) {
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

// work takes leases until there are none; every seventh goes back the first time.
func work(ctx context.Context, t *testing.T, q *Queue, acked func(lo int64)) {
	for {
		held, err := q.Pull(ctx, "s", 2)
		if err != nil && ctx.Err() == nil {
			t.Errorf("pull: %v", err)
		}
		if len(held) == 0 {
			return
		}
		for _, h := range held {
			if h.Lo%7 == 0 && h.Deliveries == 1 {
				if err := h.Return(); err != nil {
					t.Errorf("return: %v", err)
				}
				continue
			}
			if err := h.Ack(ctx); err != nil {
				t.Errorf("ack: %v", err)
			}
			acked(h.Lo)
		}
	}
}

// TestRestoredLease hands a held lease to the next process of its worker by its ticket.
func TestRestoredLease(t *testing.T) {
	q := open(t, t.TempDir(), Limits{}).Queue
	mustPublish(t, q, lease("s", 0))
	first := mustPull(t, q, "s", 1, 1)[0]
	h := q.Restore(first.Ticket())
	if !cmp.Equal(h.Lease, first.Lease) || h.Seq != first.Seq || h.Deliveries != first.Deliveries {
		t.Errorf("restored: got %+v, want %+v", h, first)
	}
	if err := h.Renew(); err != nil {
		t.Errorf("renew: %v", err)
	}
	if err := h.Ack(t.Context()); err != nil {
		t.Errorf("acknowledge: %v", err)
	}
	if left := present(t, q); len(left) > 0 {
		t.Errorf("leases after the acknowledgement: got %v, want none", left)
	}
	if err := q.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Renew(); err != nil {
		t.Errorf("renew a lease that is gone: %v", err)
	}
}

// TestCompetingPulls has many ask for each lease. Those who get nothing must not stand in the way of who asks next.
func TestCompetingPulls(t *testing.T) {
	l := newLab(t)
	if err := l.store.Queue.EnsureShape(t.Context(), "s"); err != nil {
		t.Fatal(err)
	}
	const rounds, burst = 40, 5
	got := make(chan *Held, burst)
	var pulling sync.WaitGroup
	defer pulling.Wait()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for i := range 8 {
		w := l.connect(fmt.Sprint("w", i))
		pulling.Go(func() {
			for ctx.Err() == nil {
				held, _ := w.Queue.Pull(ctx, "s", 1)
				for _, h := range held {
					got <- h
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
			case h := <-got:
				if err := h.Ack(t.Context()); err != nil {
					t.Error(err)
				}
			case <-time.After(AckWait / 2):
				t.Fatal("a lease went to nobody")
			}
		}
	}
}

// TestWakesOfManyNodes publishes leases in a row: the first wakes at once, and what follows wakes seldom when many nodes listen.
func TestWakesOfManyNodes(t *testing.T) {
	l := newLab(t)
	q := l.store.Queue
	q.Nodes(4000) // a second
	woken := make(chan time.Time, 100)
	stop, err := q.Wake(func(string) { woken <- time.Now() })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	begin := time.Now()
	for i := range 20 {
		mustPublish(t, q, lease("s", int64(i)))
	}
	first, second := <-woken, <-woken
	if first.Sub(begin) > time.Second/2 || second.Sub(begin) < time.Second {
		t.Errorf("woken after %v and %v, want at once and after a second", first.Sub(begin), second.Sub(begin))
	}
}

// TestUnusedShapesAreRemoved removes the consumers that nobody needs, and no others. A shape that was removed is there again when it is used.
func TestUnusedShapesAreRemoved(t *testing.T) {
	l := newLab(t)
	q := l.store.Queue
	for _, shape := range []string{"used", "over", "held", "waits"} {
		if err := q.EnsureShape(t.Context(), shape); err != nil {
			t.Fatal(err)
		}
	}
	mustPublish(t, q, lease("held", 0))
	mustPublish(t, q, lease("waits", 0))
	held := mustPull(t, q, "held", 1, 1)[0]
	remove := func(want ...string) {
		t.Helper()
		removed, err := q.RemoveUnused(t.Context(), func(shape string) bool { return shape == "used" })
		if slices.Sort(removed); err != nil || !slices.Equal(removed, want) {
			t.Errorf("removed: got %q, %v; want %q", removed, err, want)
		}
	}
	remove("over")
	remove()
	if err := held.Ack(t.Context()); err != nil {
		t.Fatal(err)
	}
	remove("held")
	mustPublish(t, q, lease("over", 7))
	if got := mustPull(t, q, "over", 1, 1)[0]; got.Lo != 7 {
		t.Errorf("got %+v of a shape that was removed before", got)
	}
}
