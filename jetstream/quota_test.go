package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"mlfnode/grid"
)

// storeUntilRefused stores until a call is refused, and returns how much was stored.
func storeUntilRefused(t *testing.T, store func(i int) (bytes int, err error)) int {
	t.Helper()
	all := 0
	for i := range 10_000 {
		n, err := store(i)
		if errors.Is(err, ErrFull) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all += n
	}
	t.Fatal("nothing is refused")
	return 0
}

// TestNodeCannotFillTheStore lets one node store as many events and artifacts as it can: the other
// one has room for its share, and the first one continues once something has been removed.
func TestNodeCannotFillTheStore(t *testing.T) {
	t.Parallel()
	const limit = 8 << 20
	l := newTestServerLimited(t, Limits{EventBytes: limit, ArtifactBytes: limit})
	ctx := t.Context()
	for _, id := range []string{"a-1", "b-1"} {
		if _, err := l.store.Records.Create(ctx, sweep(id)); err != nil {
			t.Fatal(err)
		}
	}
	kinds := map[string]struct {
		put    func(ctx context.Context, link *MasterClient, id string, i int) (int, error)
		remove func() error
	}{
		"events": {func(ctx context.Context, link *MasterClient, id string, i int) (int, error) {
			b := batch(id, i, 1)
			b.Node, b.Events[0].Run = link.node, fmt.Sprint(link.node, ".1.", i)
			b.Events[0].Result.Reason = strings.Repeat("x", 30_000)
			return 30_000, link.PublishEvents(ctx, b)
		}, func() error { return l.store.Events.PurgeSweep(ctx, "b-1") }},
		"artifacts": {func(ctx context.Context, link *MasterClient, id string, i int) (int, error) {
			trial := grid.TrialID{Sweep: grid.SweepID(id), Index: int64(i)}
			run := fmt.Sprint(link.node, ".1.", i)
			return 40_000, l.store.PutArtifactsOf(ctx, link.node, trial, run,
				strings.NewReader(strings.Repeat("x", 40_000)))
		}, func() error { return l.store.Artifacts.DeleteAll(ctx, "b-1/") }},
	}
	a, b := l.connect("a"), l.connect("b")
	for name, k := range kinds {
		if got := storeUntilRefused(t, func(i int) (int, error) { return k.put(ctx, b, "b-1", i) }); got < limit*8/10 {
			t.Errorf("%s: node b was refused after %d bytes of %d", name, got, limit)
		}
		if got := storeUntilRefused(t,
			func(i int) (int, error) { return k.put(ctx, a, "a-1", i) }); got < limit/reserveFraction/8 {
			t.Errorf("%s: node a had room for %d bytes beside a node that stores all it can", name, got)
		}
		all, err := l.store.Usage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range all {
			if u.Name == name && (!u.NearlyFull() || !slices.Equal(u.OverShare, []grid.NodeID{"a", "b"})) {
				t.Errorf("%s: got %+v, want both nodes to wait", name, u)
			}
		}
	}
	for _, k := range kinds {
		if err := k.remove(); err != nil {
			t.Fatal(err)
		}
		retryUntilOK(t, func() error { return errorOnly(k.put(ctx, b, "b-1", 20_000)) })
	}
}

// TestIdleNodesReserveNoRoom lets one node store among many idle ones in a nearly full stream: it
// gets most of what is left, and continues while as much is removed as it stores. Nodes that start
// later have room.
func TestIdleNodesReserveNoRoom(t *testing.T) {
	t.Parallel()
	const limit, piece = 100 << 20, 10_000
	l := newTestServerLimited(t, Limits{ArtifactBytes: limit})
	for i := range 30 {
		l.connect(fmt.Sprint("idle", i))
	}
	s := l.store.Artifacts.quota
	s.bytes, s.refreshed = limit-limit/reserveFraction, time.Now().Add(time.Hour) // no node refreshes the count
	fill := func(node grid.NodeID) int {
		return storeUntilRefused(t, func(int) (int, error) { return piece, s.reserve(t.Context(), node, piece) })
	}
	if got := fill("busy"); got < limit/reserveFraction*65/100 || got > limit/reserveFraction*8/10 {
		t.Errorf("the busy node was refused after %d bytes of a reserve of %d", got, limit/reserveFraction)
	}
	for i := range 2 {
		if got, want := fill(grid.NodeID(fmt.Sprint("idle", i))), limit/reserveFraction/31-piece; got < want {
			t.Errorf("node %d had room for %d bytes, want %d", i, got, want)
		}
	}
	for range 100 { // old artifacts are removed
		s.bytes -= limit / reserveFraction / 4
		s.scaleUsed()
		if got := fill("busy"); got < limit/reserveFraction/20 {
			t.Fatalf("the busy node had room for %d bytes after something was removed", got)
		}
	}
}

// TestSlowStoreBlocksOneCaller lets requests for the size of a stream go unanswered. At first
// callers wait as long as their contexts allow, and a failure is not an answer. Once there is an
// answer, a single caller asks and the others continue.
func TestSlowStoreBlocksOneCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 1000
		s := newQuota(&Store{}, "", "events", "events", limit)
		answers := make(chan error)
		asks := 0
		s.storedBytes = func(ctx context.Context) (int64, error) {
			asks++ // by one caller at a time
			select {
			case err := <-answers:
				return 95 * limit / 100, err
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		}
		taken := make(chan error, 3)
		take := func(ctx context.Context) {
			go func() { taken <- s.reserve(ctx, "n", 1) }()
			synctest.Wait()
		}
		take(t.Context())
		ctx, stop := context.WithCancel(t.Context())
		take(ctx)
		stop()
		if err := <-taken; !errors.Is(err, context.Canceled) || asks != 1 {
			t.Errorf("a caller that left: got %v after %d requests", err, asks)
		}
		failed := errors.New("no answer")
		answers <- failed
		if err := <-taken; !errors.Is(err, failed) {
			t.Errorf("the caller that asked: got %v", err)
		}
		take(t.Context())
		answers <- nil
		if err := <-taken; err != nil || asks != 2 {
			t.Errorf("after a failure: got %v after %d requests, want an answer to the second", err, asks)
		}
		time.Sleep(refreshInterval)
		take(t.Context())
		take(t.Context())
		if err := <-taken; err != nil || asks != 3 {
			t.Errorf("while another caller asks: got %v after %d requests", err, asks)
		}
		answers <- nil
		if err := <-taken; err != nil || s.bytes != 95*limit/100+2 {
			t.Errorf("the caller that asks: got %v, and %d bytes; want the answer and what was stored since", err,
				s.bytes)
		}
	})
}
