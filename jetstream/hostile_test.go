package jetstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
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

// TestNodeCannotPlantLongNames has a node store artifacts under names that are as long as its connection allows: the master reads
// what is there, and its own connection goes on.
func TestNodeCannotPlantLongNames(t *testing.T) {
	l := newLab(t)
	for _, n := range []int{900, 1000, 1200, 3900} {
		nc, err := nats.Connect("nats://master", nats.SetCustomDialer(&dialer{Remote: l.remote("evil"), life: t.Context()}), nats.NoReconnect(),
			nats.CustomInboxPrefix("_INBOX.evil"))
		if err != nil {
			t.Fatal(err)
		}
		name := "a-1/0/evil." + strings.Repeat("x", n)
		_, _ = nc.RequestMsg(&nats.Msg{
			Subject: metaSubject(artifactBucket, name), Header: nats.Header{objectHeader: {`{"v":1,"size":1,"sha256":"00","upload":"u"}`}},
		}, time.Second)
		nc.Close()
	}
	list, err := l.store.Artifacts.List(t.Context(), "a-1/")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range list {
		r, err := l.store.Artifacts.Open(t.Context(), o.Name)
		if err == nil {
			r.Close()
		}
	}
	if err := l.store.Artifacts.DeleteAll(t.Context(), "a-1/"); err != nil {
		t.Error(err)
	}
	select {
	case <-l.store.Lost():
		t.Error("the master's connection is gone")
	default:
	}
}

// TestLostConnectionIsTold has the server close a connection for good: the store says so, and one that is closed does not.
func TestLostConnectionIsTold(t *testing.T) {
	s := open(t, t.TempDir(), Limits{})
	_ = s.conn.Publish(strings.Repeat("a", 2*controlLine), nil) // fails or not, as fast as the server is
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

// TestForgottenDuringItsHandshake forgets a node right after its handshake has asked whether it is known, when its connection can't be
// found to be ended yet: it gets none all the same.
func TestForgottenDuringItsHandshake(t *testing.T) {
	l := newLab(t)
	var forgotten atomic.Bool
	peer := l.server.gate.listen.Peer
	l.server.gate.listen.Peer = func(s tls.ConnectionState) (grid.NodeID, error) {
		node, err := peer(s)
		if forgotten.Swap(true) {
			return "", errors.New("forgotten")
		}
		l.server.Kick(node)
		return node, err
	}
	conn, err := (&dialer{Remote: l.remote("w"), life: t.Context()}).Dial("", "")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1024)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %d bytes from the server, %v, want that the connection ends", n, err)
	}
}

// TestAcceptBacksOff has a listener that fails to take connections for a while, as when no file is left.
func TestAcceptBacksOff(t *testing.T) {
	said := &lineCounter{}
	socket := &fullOfFiles{left: 6, ended: make(chan struct{})}
	g := &gate{
		log: slog.New(slog.NewTextHandler(said, nil)), socket: socket, room: make(chan struct{}, 1), ending: make(chan struct{}),
		open: map[net.Conn]grid.NodeID{},
	}
	begun := time.Now()
	g.serve()
	if took := time.Since(begun); took < 5*acceptPause {
		t.Errorf("six failures in a row took %v: there is no pause between them", took)
	}
	if said.n != 1 {
		t.Errorf("got %d lines of log for one shortage, want 1", said.n)
	}
}

// fullOfFiles fails some times, and is closed then.
type fullOfFiles struct {
	left  int
	ended chan struct{}
}

func (f *fullOfFiles) Accept() (net.Conn, error) {
	if f.left--; f.left < 0 {
		return nil, net.ErrClosed
	}
	return nil, errors.New("accept: too many open files")
}
func (f *fullOfFiles) Close() error   { return nil }
func (f *fullOfFiles) Addr() net.Addr { return &net.TCPAddr{} }

type lineCounter struct{ n int }

func (l *lineCounter) Write(p []byte) (int, error) {
	l.n += strings.Count(string(p), "\n")
	return len(p), nil
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
			info, err := s.info(t.Context(), bundleBucket)
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

// TestProgressIsTheNodesOwn has nodes tell metrics: each for its own runs, and nothing else.
func TestProgressIsTheNodesOwn(t *testing.T) {
	l := newLab(t)
	told := make(chan *grid.Batch, 10)
	stop, err := l.store.Progress.Serve(func(b *grid.Batch) { told <- b })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	s := l.connect("a")
	metrics := func(run string) grid.Event {
		return grid.Event{Kind: grid.Metrics, Index: 1, Attempt: 1, Run: run, Time: 1, Metrics: grid.Metric{"x": []byte("1")}}
	}
	for _, b := range []*grid.Batch{
		{V: 1, Sweep: "s-1", Node: "b", Events: []grid.Event{metrics("b.1.1")}},
		{V: 1, Sweep: "s-1", Node: "a", Events: []grid.Event{metrics("b.1.1"), {Kind: grid.Finished, Run: "a.1.1", Result: &grid.Result{}}}},
		{V: 99, Sweep: "s-1", Node: "a", Events: []grid.Event{metrics("a.1.1")}},
		{V: 1, Sweep: "s-1", Node: "a", Events: []grid.Event{metrics("a.1.2"), {Kind: grid.Fenced, Run: "a.1.2"}}},
	} {
		if err := s.Progress.Publish(b); err != nil {
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
	if info, err := l.store.info(t.Context(), eventStream); err != nil || info.State.Msgs != 0 {
		t.Errorf("stored events: %d, %v; want none", info.State.Msgs, err)
	}
}
