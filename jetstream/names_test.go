package jetstream

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"mlfnode/grid"
)

func TestTokens(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "text")
		k := token(s)
		for i := range len(k) {
			if !plain(k[i]) && k[i] != '=' {
				t.Fatalf("token %q of %q", k, s)
			}
		}
		if got := untoken(k); got != s || k == "" {
			t.Fatalf("got %q back from %q, want %q", got, k, s)
		}
		if got := convertParts(tokens(s), ".", "/", untoken); got != s {
			t.Fatalf("got %q back, want %q", got, s)
		}
	})
}

// TestLongNamesAreRefused loads and stores objects with names longer than any real one: each call
// is refused, and the connection, which is the master's only one, survives.
func TestLongNamesAreRefused(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	for _, n := range []int{1100, 4000, 4080, 5000, 40_000, 2 << 20} {
		long := strings.Repeat("a", n)
		for what, err := range map[string]error{
			"has":     errorOnly(s.Bundles.Has(ctx, long)),
			"put":     s.Bundles.Put(ctx, long, strings.NewReader("x")),
			"open":    errorOnly(s.Bundles.Open(ctx, long)),
			"delete":  s.Bundles.Delete(ctx, long),
			"list":    errorOnly(s.Artifacts.List(ctx, long+"/")),
			"load":    errorOnly(s.Records.Load(ctx, grid.SweepID(long))),
			"number":  errorOnly(s.Records.NextNumber(ctx, long)),
			"create":  errorOnly(s.Records.Create(ctx, sweep(long))),
			"purge":   s.Events.PurgeSweep(ctx, grid.SweepID(long)),
			"publish": errorOnly(s.Events.Publish(ctx, batch(long, 0, 1))),
			"slashes": errorOnly(s.Artifacts.Has(ctx, strings.Repeat("a/", n))),
			"escapes": errorOnly(s.Bundles.Has(ctx, strings.Repeat("é", n/2))),
		} {
			if !errors.Is(err, ErrName) {
				t.Errorf("%s with a name of %d bytes: got %v, want ErrName", what, n, err)
			}
		}
	}
	select {
	case <-s.Lost():
		t.Fatal("the connection to the store is gone")
	default:
	}
	if _, err := s.Records.Create(ctx, sweep("a-1")); err != nil {
		t.Errorf("create afterwards: %v", err)
	}
}

func errorOnly[T any](_ T, err error) error { return err }
