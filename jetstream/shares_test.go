package jetstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"mlfnode/grid"
)

// flood has a node store until it is refused, and gives how much it has stored.
func flood(t *testing.T, store func(i int) (bytes int, err error)) int {
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

// TestOneNodeDoesNotFillTheStore has one node store all that it can, of events and of artifacts: the other one has room for its share,
// and the first one goes on once something was removed.
func TestOneNodeDoesNotFillTheStore(t *testing.T) {
	const limit = 4 << 20
	l := newLabOf(t, Limits{EventBytes: limit, ArtifactBytes: limit})
	ctx := t.Context()
	for _, id := range []string{"a-1", "b-1"} {
		if _, err := l.store.Records.Create(ctx, sweep(id)); err != nil {
			t.Fatal(err)
		}
	}
	kinds := map[string]struct {
		put    func(ctx context.Context, link *Link, id string, i int) (int, error)
		remove func() error
	}{
		"events": {func(ctx context.Context, link *Link, id string, i int) (int, error) {
			b := batch(id, i, 1)
			b.Node, b.Events[0].Run = link.node, fmt.Sprint(link.node, ".1.", i)
			b.Events[0].Result.Reason = strings.Repeat("x", 30_000)
			return 30_000, link.Events(ctx, b)
		}, func() error { return l.store.Events.PurgeSweep(ctx, "b-1") }},
		"artifacts": {func(ctx context.Context, link *Link, id string, i int) (int, error) {
			trial := grid.TrialID{Sweep: grid.SweepID(id), Index: int64(i)}
			run := fmt.Sprint(link.node, ".1.", i)
			return 40_000, l.store.PutArtifactsOf(ctx, link.node, trial, run, strings.NewReader(strings.Repeat("x", 40_000)))
		}, func() error { return l.store.Artifacts.DeleteAll(ctx, "b-1/") }},
	}
	a, b := l.connect("a"), l.connect("b")
	for name, k := range kinds {
		if got := flood(t, func(i int) (int, error) { return k.put(ctx, b, "b-1", i) }); got < limit*8/10 {
			t.Errorf("%s: node b was refused after %d bytes of %d", name, got, limit)
		}
		if got := flood(t, func(i int) (int, error) { return k.put(ctx, a, "a-1", i) }); got < limit/reserved/4 {
			t.Errorf("%s: node a had room for %d bytes beside a node that stores without end", name, got)
		}
		all, err := l.store.Usage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range all {
			if u.Name == name && (!u.Tight() || !slices.Equal(u.Waiting, []grid.NodeID{"a", "b"})) {
				t.Errorf("%s: got %+v, want both nodes to wait", name, u)
			}
		}
	}
	for _, k := range kinds {
		if err := k.remove(); err != nil {
			t.Fatal(err)
		}
		insist(t, func() error { return second(k.put(ctx, b, "b-1", 20_000)) })
	}
}
