package jetstream

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/jetstream/natsd"
)

// TestLongNamesAreRefused looks for and stores things whose names are longer than any that is made: each is refused, and the
// connection, which is the master's only one, goes on.
func TestLongNamesAreRefused(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	ctx := t.Context()
	for _, n := range []int{1100, 4000, 4080, 5000, 40_000, 2 << 20} {
		long := strings.Repeat("a", n)
		for what, err := range map[string]error{
			"has":     second(s.Bundles.Has(ctx, long)),
			"put":     s.Bundles.Put(ctx, long, strings.NewReader("x"), nil),
			"open":    second(s.Bundles.Open(ctx, long)),
			"delete":  s.Bundles.Delete(ctx, long),
			"list":    second(s.Artifacts.List(ctx, long+"/")),
			"load":    second(s.Records.Load(ctx, grid.SweepID(long))),
			"number":  second(s.Records.NextNumber(ctx, long)),
			"create":  second(s.Records.Create(ctx, sweep(long))),
			"purge":   s.Events.PurgeSweep(ctx, grid.SweepID(long)),
			"publish": second(s.Events.Publish(ctx, batch(long, 0, 1))),
			"slashes": second(s.Artifacts.Has(ctx, strings.Repeat("a/", n))),
			"escapes": second(s.Bundles.Has(ctx, strings.Repeat("é", n/2))),
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
		t.Errorf("after it: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestLostConnectionIsTold has the server close a connection for good: the store says so, and one that is closed does not.
func TestLostConnectionIsTold(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	_ = s.conn.Publish(strings.Repeat("a", 2*natsd.MaxControlLine), nil) // fails or not, as fast as the server is
	select {
	case <-s.Lost():
	case <-time.After(time.Minute):
		t.Fatal("nobody is told that the connection is gone")
	}
	other := open(t, t.TempDir(), Limits{})
	other.Close()
	select {
	case <-other.Lost():
		t.Error("a store that was closed says that it is lost")
	default:
	}
}

// TestForgottenDuringItsHandshake forgets a node right after it has been asked whether it is known, when its connection can't be found
// to be ended yet: it gets none all the same.
func TestForgottenDuringItsHandshake(t *testing.T) {
	l := newLab(t)
	var asked atomic.Int32
	l.peer = func(node grid.NodeID) (grid.NodeID, error) {
		switch asked.Add(1) {
		case 1: // of its certificate
		case 2:
			l.server.Kick(node)
		default:
			return "", errors.New("forgotten")
		}
		return node, nil
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	if link, err := Connect(ctx, l.remote("w")); err == nil {
		link.Close()
		t.Error("the node has a connection")
	}
	if n := asked.Load(); n < 3 {
		t.Errorf("got %d questions whether the node is known, want 3", n)
	}
	if nodes := l.server.Connections(); len(nodes) != 0 {
		t.Errorf("got connections of %v, want none", nodes)
	}
}

// TestUploadsOfOneName lets uploads of one object end in each order while it is there already: what is left can be read.
func TestUploadsOfOneName(t *testing.T) {
	content := strings.Repeat("x", 2*splitBytes+7)
	for _, c := range []struct {
		name  string
		there bool
		order []int
	}{
		{"first comes first", false, []int{0, 1, 2}}, {"last comes first", false, []int{2, 1, 0}},
		{"beside a stored one", true, []int{1, 0, 2}}, {"beside a stored one, backwards", true, []int{2, 1, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t, t.TempDir(), Limits{})
			if c.there {
				if err := s.Bundles.Put(t.Context(), "d", strings.NewReader(content), nil); err != nil {
					t.Fatal(err)
				}
			}
			var readers []*held
			var done []chan error
			for range c.order {
				r := &held{rest: strings.NewReader(content), at: make(chan struct{}), gate: make(chan struct{})}
				ended := make(chan error, 1)
				go func() { ended <- s.Bundles.Put(context.Background(), "d", r, nil) }()
				<-r.at // its first chunks are stored
				readers, done = append(readers, r), append(done, ended)
			}
			for _, i := range c.order {
				close(readers[i].gate)
				if err := <-done[i]; err != nil {
					t.Fatal(err)
				}
				readable(t, s, "d", content)
			}
			info, err := s.streamInfo(t.Context(), bundleBucket)
			if err != nil || info.State.Msgs != 4 {
				t.Errorf("messages in the bucket: got %d, %v; want three chunks and a description", info.State.Msgs, err)
			}
		})
	}
}

// TestDeleteBesideAnUpload removes an object while it is uploaded once more: the upload's is there in the end.
func TestDeleteBesideAnUpload(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	content := strings.Repeat("y", 2*splitBytes)
	if err := s.Bundles.Put(t.Context(), "d", strings.NewReader(content), nil); err != nil {
		t.Fatal(err)
	}
	r := &held{rest: strings.NewReader(content), at: make(chan struct{}), gate: make(chan struct{})}
	ended := make(chan error, 1)
	go func() { ended <- s.Bundles.Put(context.Background(), "d", r, nil) }()
	<-r.at
	if err := s.Bundles.Delete(t.Context(), "d"); err != nil {
		t.Fatal(err)
	}
	close(r.gate)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	readable(t, s, "d", content)
}

func readable(t *testing.T, s *Store, name, want string) {
	t.Helper()
	r, err := s.Bundles.Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || string(got) != want {
		t.Errorf("got %d bytes, %v; want the %d that were stored", len(got), err, len(want))
	}
}

// held gives a chunk and a half, and the rest once the gate is open.
type held struct {
	rest     io.Reader
	given    int
	once     sync.Once
	at, gate chan struct{}
}

func (h *held) Read(p []byte) (int, error) {
	if h.given >= splitBytes+splitBytes/2 {
		h.once.Do(func() { close(h.at) })
		<-h.gate
	}
	n, err := h.rest.Read(p[:min(len(p), splitBytes/4)])
	h.given += n
	return n, err
}

// TestMetricsAreTheNodesOwn has nodes tell metrics: each for its own runs, and nothing else.
func TestMetricsAreTheNodesOwn(t *testing.T) {
	l := newLab(t)
	told := make(chan *grid.Batch, 10)
	defer l.store.Calls.HandleMetrics(func(b *grid.Batch) { told <- b })()
	w := l.connect("a")
	metrics := func(run string) grid.Event {
		return grid.Event{Kind: grid.Metrics, Index: 1, Attempt: 1, Run: run, Time: 1, Metrics: grid.Metric{"x": []byte("1")}}
	}
	for _, b := range []*grid.Batch{
		{V: 1, Sweep: "s-1", Node: "b", Events: []grid.Event{metrics("b.1.1")}},
		{V: 1, Sweep: "s-1", Node: "a", Events: []grid.Event{metrics("b.1.1"), {Kind: grid.Finished, Run: "a.1.1", Result: &grid.Result{}}}},
		{V: 99, Sweep: "s-1", Node: "a", Events: []grid.Event{metrics("a.1.1")}},
		{V: 1, Sweep: "s-1", Node: "a", Events: []grid.Event{metrics("a.1.2"), {Kind: grid.Fenced, Run: "a.1.2"}}},
	} {
		if err := w.SendMetrics(b); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case b := <-told:
		if len(b.Events) != 1 || b.Events[0].Run != "a.1.2" {
			t.Errorf("got %+v, want the metrics of the node's own run alone", b)
		}
	case <-time.After(time.Minute):
		t.Fatal("nothing was told")
	}
	if info, err := l.store.streamInfo(t.Context(), eventStream); err != nil || info.State.Msgs != 0 {
		t.Errorf("stored events: %d, %v; want none", info.State.Msgs, err)
	}
}
