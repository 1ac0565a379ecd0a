package master

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// listed gives an axis of n values of 1 kB each, numbered from a first one.
func listed(first, n int) grid.Axis {
	a := grid.Axis{Key: "text"}
	for i := range n {
		a.Values = append(a.Values, grid.Value{Text: fmt.Sprintf("%05d", first+i) + strings.Repeat("x", 1019)})
	}
	return a
}

// listing has a submission list n values of 1 kB.
func listing(t *testing.T, n int) func(*api.Submit) {
	return func(s *api.Submit) {
		var err error
		if s.Space, err = grid.NewSpace([]grid.Axis{listed(0, n)}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExtendMakesNoLongSweep extends a sweep, of which nodes of earlier versions may run trials, by more values than its record may list
// as it is: it is refused, so that they can still read the record. A sweep that is a long one from the start can be extended so.
func TestExtendMakesNoLongSweep(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	id := c.submit(1, listing(t, 300))
	add := func(ctx context.Context, id grid.SweepID, first, n int) error {
		_, added, err := c.Extend(ctx, id, api.Extend{Axes: []grid.Axis{listed(first, n)}})
		if err == nil && added != int64(n) {
			t.Errorf("extend %s by %d values: got %d points", id, n, added)
		}
		return err
	}
	stored := func(id grid.SweepID, points int64, long bool, level int) {
		t.Helper()
		r, err := c.store.Records.Load(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if s := r.Sweep; s.Space.Count() != points || s.Long != long || s.Level() != level {
			t.Errorf("%s: got %d points, long: %v, level %d; want %d, %v, %d", id, s.Space.Count(), s.Long, s.Level(), points, long, level)
		}
	}
	if err := add(t.Context(), id, 300, 100); err != nil {
		t.Error(err)
	}
	for _, ctx := range []context.Context{t.Context(), DryRun(t.Context())} {
		err := add(ctx, id, 400, 200)
		if e := (*api.Error)(nil); !errors.As(err, &e) || e.Status != http.StatusRequestEntityTooLarge || !strings.Contains(e.Hint, "submit a new sweep") || !strings.Contains(e.Hint, "sweep over its lines") {
			t.Errorf("got %v, want it refused as too large with what to do", err)
		}
	}
	stored(id, 400, false, grid.LevelPlain)

	long := c.submit(1, listing(t, 600))
	if err := add(t.Context(), long, 600, 50); err != nil {
		t.Error(err)
	}
	stored(long, 650, true, grid.LevelLong)
}

// TestDrawsOfLargeRecords draws points of a sweep of an earlier version, which stored records of long lists as they are: the lists stay
// as they are, and so does the form of the record.
func TestDrawsOfLargeRecords(t *testing.T) {
	t.Parallel()
	c := start(t, 1)
	s := points(t, "t-9", 1)
	space, err := grid.NewSpace([]grid.Axis{listed(0, 600)}, nil)
	if err == nil {
		s.Space, err = space.Sampled(grid.Sample{Size: 2, Seed: 1}, false)
	}
	if err == nil {
		_, err = c.store.Records.Create(t.Context(), s)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, added, err := c.Extend(t.Context(), s.ID, api.Extend{Draw: 3})
	if err != nil || added != 3 || r.Sweep.Long {
		t.Errorf("got %d points, %v; want 3 in a record that is not a long one", added, err)
	}
}
