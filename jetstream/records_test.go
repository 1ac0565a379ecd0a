package jetstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

func TestRecords(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	rev, err := s.Records.Create(ctx, sweep("chainer-1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Records.Create(ctx, sweep("chainer-1")); !errors.Is(err, ErrExists) {
		t.Errorf("second create: got %v, want ErrExists", err)
	}
	w := sweep("chainer-1")
	w.State = grid.SweepPaused
	rev2, err := s.Records.Update(ctx, &Record{Sweep: w, Rev: rev})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Records.Update(ctx, &Record{Sweep: w, Rev: rev}); !errors.Is(err, ErrConflict) {
		t.Errorf("update of an old revision: got %v, want ErrConflict", err)
	}
	got, err := s.Records.Load(ctx, "chainer-1")
	if err != nil || got.Rev != rev2 || got.Sweep.State != grid.SweepPaused {
		t.Errorf("load: got %+v, %v; want revision %d, paused", got, err, rev2)
	}
	if _, err := s.Records.Load(ctx, "nope-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("load of nothing: got %v, want ErrNotFound", err)
	}
	if err := s.Records.Delete(ctx, "chainer-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Records.Load(ctx, "chainer-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("load after delete: got %v, want ErrNotFound", err)
	}
	if err := s.Records.Delete(ctx, "chainer-1"); err != nil {
		t.Errorf("second delete: got %v, want nil", err)
	}
	if all, err := s.Records.All(ctx); err != nil || len(all) != 0 {
		t.Errorf("all after delete: got %d records, %v; want none", len(all), err)
	}
	if _, err := s.Records.Create(ctx, sweep("chainer-1")); err != nil {
		t.Errorf("create after delete: got %v, want nil", err)
	}
}

func TestRecordTooLarge(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	w := sweep("big-1")
	w.Environ = []string{"X=" + strings.Repeat("x", maxPayload)}
	if _, err := s.Records.Create(t.Context(), w); !errors.Is(err, ErrTooLarge) {
		t.Errorf("create: got %v, want ErrTooLarge", err)
	}
}

// longSweep returns a sweep with n values of 37 characters each, drawn from a small alphabet like
// that of the names of molecules.
func longSweep(t *testing.T, id string, n int) *grid.Sweep {
	t.Helper()
	a := space.Axis{Key: "smiles", Values: make([]space.Value, n)}
	random := rand.New(rand.NewPCG(1, 2))
	for i := range a.Values {
		var b strings.Builder
		fmt.Fprintf(&b, "%d", i)
		for b.Len() < 37 {
			b.WriteString([...]string{"C", "CC", "c1ccccc1", "O", "N", "(=O)", "[C@@H]", "C(C)", "Cl",
				"S"}[random.IntN(10)])
		}
		a.Values[i] = space.Value{Text: b.String()}
	}
	points, err := space.New([]space.Axis{a}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := sweep(id)
	if err := s.SetSpace(points); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestLongRecord stores a sweep whose axis has more text than fits in a message. The master and
// nodes can read it, even after an update; a record that is garbled, or too large when unpacked, is
// left out.
func TestLongRecord(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	records := l.store.Records
	long := longSweep(t, "long-1", 40_000)
	if text, err := json.Marshal(long); err != nil || len(text) < maxPayload*5/4 || !long.Long {
		t.Fatalf("got %d bytes, %v, long: %v; want more than a message may have", len(text), err, long.Long)
	}
	rev, err := records.Create(t.Context(), long)
	if err != nil {
		t.Fatal(err)
	}
	long.Priority, long.Bundle = 7, "ab"
	if _, err := records.Update(t.Context(), &Record{Sweep: long, Rev: rev}); err != nil {
		t.Fatal(err)
	}
	want, err := long.Space.At(39_999)
	if err != nil {
		t.Fatal(err)
	}
	whole := func(who string, got *grid.Sweep) {
		t.Helper()
		if p, err := got.Space.At(39_999); err != nil || !reflect.DeepEqual(p, want) || got.Priority != 7 || !got.Long {
			t.Errorf("%s reads priority %d, last point %v, %v; want 7, %v", who, got.Priority, p, err, want)
		}
	}
	r, err := records.Load(t.Context(), "long-1")
	if err != nil {
		t.Fatal(err)
	}
	whole("the master", r.Sweep)
	if named, err := records.Bundles(t.Context()); err != nil || !named["ab"] {
		t.Errorf("bundles that records name: got %v, %v; want that of the long one", named, err)
	}
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	putRaw(t, l.store, recordSubject("bomb-1"),
		string(z.EncodeAll([]byte(`{"v":1,"id":"bomb-1","project":"`+strings.Repeat("x", 4*maxText)+`"}`), nil)))
	putRaw(t, l.store, recordSubject("torn-1"), zstdMagic+"torn")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	seen := map[grid.SweepID]*grid.Sweep{}
	err = l.connect("w").WatchRecords(ctx, func(c Change) {
		if c.Synced {
			stop()
		} else {
			seen[c.ID] = c.Record.Sweep
		}
	})
	if !errors.Is(err, context.Canceled) || len(seen) != 1 || seen["long-1"] == nil {
		t.Fatalf("a node sees %d sweeps, %v; want one", len(seen), err)
	}
	whole("a node", seen["long-1"])
	if _, err := records.Create(t.Context(), longSweep(t, "longer-1", 300_000)); !errors.Is(err, ErrTooLarge) ||
		!strings.Contains(err.Error(), "sweep over its lines") {
		t.Errorf("a record that is too long even so: got %v, want ErrTooLarge", err)
	}
}

func TestNumbersAreNeverUsedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := open(t, dir, Limits{})
	results := make(chan int)
	for range 4 {
		go func() {
			for range 5 {
				n, err := s.Records.NextNumber(t.Context(), "my project.x")
				if err != nil {
					t.Errorf("number: %v", err)
				}
				results <- n
			}
		}()
	}
	seen := map[int]bool{}
	for range 20 {
		n := <-results
		if seen[n] || n < 1 || n > 20 {
			t.Errorf("got number %d, want each of 1 to 20 once", n)
		}
		seen[n] = true
	}
	if n, err := s.Records.NextNumber(t.Context(), "other"); n != 1 || err != nil {
		t.Errorf("other project: got %d, %v; want 1", n, err)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	ctx, stop := context.WithCancel(t.Context())
	for _, id := range []string{"a-1", "a.b c-2"} {
		if _, err := s.Records.Create(ctx, sweep(id)); err != nil {
			t.Fatal(err)
		}
	}
	changes := make(chan string, 16)
	done := make(chan error, 1)
	go func() {
		done <- s.Records.Watch(ctx, 0, func(c Change) {
			changes <- fmt.Sprintf("%s %v %v", c.ID, c.Deleted, c.Synced)
		})
	}()
	var got []string
	take := func(n int) {
		for range n {
			got = append(got, <-changes)
		}
	}
	take(3)
	if _, err := s.Records.Create(ctx, sweep("c-3")); err != nil {
		t.Fatal(err)
	}
	if err := s.Records.Delete(ctx, "a-1"); err != nil {
		t.Fatal(err)
	}
	take(2)
	want := []string{"a-1 false false", "a.b c-2 false false", " false true", "c-3 false false", "a-1 true false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	stop()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v, want canceled", err)
	}
}

// TestWatchAfter reports only the records that have changed after a revision.
func TestWatchAfter(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var revs []uint64
	for _, id := range []string{"a-1", "a-2", "a-3"} {
		rev, err := s.Records.Create(ctx, sweep(id))
		if err != nil {
			t.Fatal(err)
		}
		revs = append(revs, rev)
	}
	for after, want := range map[uint64]string{revs[2]: "[]", revs[1]: "[a-3]", 0: "[a-1 a-2 a-3]"} {
		var got []string
		watching, stop := context.WithCancel(ctx)
		err := s.Records.Watch(watching, after, func(c Change) {
			if c.Synced {
				stop()
				return
			}
			got = append(got, string(c.ID))
		})
		if !errors.Is(err, context.Canceled) || fmt.Sprint(got) != want {
			t.Errorf("after %d: got %v, %v, want %s", after, got, err, want)
		}
		stop()
	}
}

func TestWatchEmptyStore(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	ctx, stop := context.WithCancel(t.Context())
	err := s.Records.Watch(ctx, 0, func(c Change) {
		if !c.Synced {
			t.Errorf("got %+v, want Synced", c)
		}
		stop()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("watch ended with %v, want canceled", err)
	}
}

// TestRecordLanes stores the requirements of trials in further lanes, next to a sweep whose own
// fields older programs read as before.
func TestRecordLanes(t *testing.T) {
	t.Parallel()
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	w := sweep("a-1")
	w.Task.Resources = grid.Resources{CPUs: grid.One}
	rev, err := s.Records.Create(ctx, w)
	if err != nil {
		t.Fatal(err)
	}
	more := grid.Resources{CPUs: grid.One, Memory: 2 << 30}
	lane := grid.LaneOf(0, more, "")
	lanes := map[grid.Lane]grid.Resources{lane: more, "broken": {}}
	if _, err := s.Records.Update(ctx, &Record{Sweep: w, Rev: rev, Lanes: lanes}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Records.Load(ctx, "a-1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lanes, got.Lanes); diff != "" {
		t.Errorf("lanes (-want +got):\n%s", diff)
	}
	want := map[grid.Lane]grid.Resources{lane: more, w.Lane(): w.Task.Resources}
	if diff := cmp.Diff(want, got.AllLanes()); diff != "" {
		t.Errorf("all lanes (-want +got):\n%s", diff)
	}
	for i := range MaxLanes {
		lanes[grid.Lane(fmt.Sprint(i))] = more
	}
	if _, err := s.Records.Update(ctx, &got); err == nil {
		got.Lanes = lanes
		if _, err = s.Records.Update(ctx, &got); err == nil {
			t.Error("a record with too many lanes was stored")
		}
	}
}
