package jetstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"mlfnode/grid"
	"mlfnode/jetstream/natsd"
)

// createLease creates a record, and a lease held by node a.
func (l *testServer) createLease() GrantedLease {
	l.t.Helper()
	if _, err := l.store.Records.Create(l.t.Context(), sweep("a-1")); err != nil {
		l.t.Fatal(err)
	}
	mustPublish(l.t, l.store.Queue, lease("c1", 0))
	return l.store.Queue.grant("a", "c1", 1, leaseVersion)[0]
}

// checkUntouched checks that what createLease created is unchanged, and that nothing else is
// stored.
func (l *testServer) checkUntouched(h *GrantedLease) {
	l.t.Helper()
	if r, err := l.store.Records.Load(l.t.Context(), "a-1"); err != nil || r.Rev != 1 {
		l.t.Errorf("record: got %+v, %v; want it as it was", r, err)
	}
	for _, stream := range []string{eventStream, logStream, artifactBucket, bundleBucket} {
		if info, err := l.store.streamInfo(l.t.Context(), stream); err != nil || info.State.Msgs != 0 {
			l.t.Errorf("%s: got %d messages, %v; want none", stream, info.State.Msgs, err)
		}
	}
	if left := listedSequences(l.t, l.store.Queue); len(left) != 1 || left[0] != h.Seq {
		l.t.Errorf("leases: got %v, want that of node a", left)
	}
	if got := l.store.Queue.leases[h.ID]; got == nil || got.node != "a" || got.Deliveries != 1 {
		l.t.Errorf("holder: got %+v", got)
	}
}

// TestCallsOfOtherNodesAreRefused lets node b make calls about what belongs to another node, or to
// none.
func TestCallsOfOtherNodesAreRefused(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	h := l.createLease()
	nc := l.natsClient("b")
	theirs, ours := fmt.Sprintf(`{"id":%q,"seq":%d}`, h.ID, h.Seq), batch("a-1", 0, 1)
	ours.Node = "a"
	events, err := json.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	chunk := appendChunk([]byte{chunkVersion}, &Chunk{Run: "a.1.1", Stream: 1, Data: []byte("lie")}, nil)
	for name, c := range map[string]struct {
		verb string
		data []byte
	}{
		"return":               {callReturn, []byte(theirs)},
		"return of anything":   {callReturn, fmt.Appendf(nil, `{"id":"x","seq":%d}`, h.Seq)},
		"postpone":             {callPostpone, []byte(theirs)},
		"events":               {callEvents, events},
		"output":               {callOutput, chunk},
		"garbled output":       {callOutput, []byte{chunkVersion, 255, 255}},
		"events without sense": {callEvents, []byte("[]")},
		"a long lane":          {callTake, fmt.Appendf(nil, `{"lane":%q}`, strings.Repeat("x", 4*maxSubject))},
		"a long sweep":         {callSweep, []byte(strings.Repeat("x", 4*maxSubject))},
		"an unknown verb":      {"unheard", nil},
	} {
		m := &nats.Msg{Subject: callSubject("b", c.verb), Data: c.data, Header: nats.Header{sweepHeader: {"a-1"}}}
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		answer, err := nc.RequestMsgWithContext(ctx, m)
		stop()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := errorOf(answer); err == nil && name != "return of anything" && name != "a long lane" {
			t.Errorf("%s: got %q, want a refusal", name, answer.Data)
		}
	}
	for i := range 100 { // no lane is created
		if _, err := nc.Request(callSubject("b", callTake), fmt.Appendf(nil, `{"lane":"x%d","n":%d}`, i, i-50),
			time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.store.Queue.lanes); n != 1 {
		t.Errorf("got %d lanes, want that of the lease alone", n)
	}
	l.checkUntouched(&h)
}

// TestAnswersGoToTheCaller lets a node request answers on the inbox of another: the calls are
// ignored.
func TestAnswersGoToTheCaller(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	h := l.createLease()
	var mu sync.Mutex
	got := map[string]int{}
	sub, err := l.store.conn.Subscribe(">", func(m *nats.Msg) {
		mu.Lock()
		defer mu.Unlock()
		got[m.Subject]++
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	nc := l.natsClient("b")
	targets := []string{
		recordSubject("a-1"), numberSubject("p"), eventSubject("a", "a-1"), eventSubject("", "a-1"), leaseSubject("c1"),
		callSubject("a", callHeartbeat),
		"_INBOX.a.x", "_INBOX.bb.x", "_INBOX.b", "$JS.API.STREAM.DELETE.events",
	}
	for _, target := range targets {
		for _, verb := range []string{callTake, callSweeps, callKeyring, "unheard"} {
			if err := nc.PublishRequest(callSubject("b", verb), target, []byte("{}")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := nc.Request(callSubject("b", callSweeps), []byte("{}"), time.Minute); err != nil { // after the others
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, target := range targets {
		if got[target] > 0 {
			t.Errorf("%s got %d answers", target, got[target])
		}
	}
	l.checkUntouched(&h)
}

// FuzzCalls lets a node make any call with any content: the master keeps working, and nothing of
// node a changes.
func FuzzCalls(f *testing.F) {
	for _, verb := range []string{callHeartbeat, callKeyring, callSweeps, callSweep, callTake, callReturn, callPostpone,
		callOutput, callMetrics} {
		f.Add(verb, "a-1", []byte(`{"id":"#1","seq":1,"lane":"c1","n":9,"after":0}`))
	}
	f.Add(callOutput, "a-1", appendChunk([]byte{chunkVersion}, &Chunk{Run: "a.1.1", Data: []byte("x")}, nil))
	f.Add(callEvents, "", []byte(`{"v":1,"s":"a-1","n":"a","e":[{"k":"finished","r":"a.1.1"}]}`))
	f.Add(callReturn, "", []byte(`{"seq":1}`))
	f.Fuzz(func(t *testing.T, verb, sweep string, data []byte) {
		l := newTestServer(t)
		h := l.createLease()
		_, _ = l.store.Calls.handle(t.Context(),
			&nats.Msg{Subject: callSubject("b", token(verb)), Data: data,
				Header: nats.Header{sweepHeader: {sweep}}}, "b", verb)
		if got := l.store.Queue.leases[h.ID]; got == nil || got.node != "a" {
			t.Errorf("holder: got %+v", got)
		}
		if left := listedSequences(t, l.store.Queue); len(left) != 1 {
			t.Errorf("leases: got %v, want one", left)
		}
		own := 0
		err := l.store.Logs.Read(t.Context(), "a-1", LogRange{}, func(_ uint64, chunks []Chunk) error {
			for _, c := range chunks {
				if !mayWrite("b", c.Run) {
					own++
				}
			}
			return nil
		})
		if err != nil || own > 0 {
			t.Errorf("output of others: %d, %v", own, err)
		}
	})
}

// FuzzPage decodes pages of records, valid and invalid ones.
func FuzzPage(f *testing.F) {
	f.Add([]byte{0, 0})
	f.Add([]byte{1, 1, 'x', 7, 3, 'a', '.', 'b', 0, 2, '{', '}'})
	f.Fuzz(func(t *testing.T, page []byte) {
		if p, err := decodePage(page, (&testServer{authority: &authority{t: t}}).logger()); (err == nil) != (p != nil) {
			t.Errorf("got %+v and %v", p, err)
		}
	})
}

// TestRecordsOnSeveralPages stores more records than fit one answer, including large ones, one that
// is removed, and one that changes later.
func TestRecordsOnSeveralPages(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	const n = 300
	for i := range n {
		s := sweep(fmt.Sprint("a-", i+1))
		if i%50 == 0 {
			s.Environ = []string{"X=" + strings.Repeat("x", maxPayload-16<<10)}
		}
		if _, err := l.store.Records.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.store.Records.Delete(t.Context(), "a-7"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	changes := make(chan Change, 2*n)
	var watching sync.WaitGroup
	watching.Go(func() { _ = l.connect("w").WatchRecords(ctx, func(c Change) { changes <- c }) })
	known, deleted := map[grid.SweepID]uint64{}, 0
	for c := range changes {
		if c.Synced {
			break
		}
		if known[c.ID] = c.Record.Rev; c.Deleted {
			deleted++
		}
	}
	if len(known) != n || deleted != 1 {
		t.Errorf("got %d records, %d of them removed; want %d and 1", len(known), deleted, n)
	}
	r, err := l.store.Records.Load(t.Context(), "a-9")
	if err == nil {
		_, err = l.store.Records.Update(t.Context(), &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	if c := <-changes; c.ID != "a-9" || c.Record.Rev <= known["a-9"] {
		t.Errorf("change: got %+v", c)
	}
	stop()
	watching.Wait()
}

// TestNodeHasOneConnection opens many connections with one certificate: the newest stays, and
// memory does not grow with them.
func TestNodeHasOneConnection(t *testing.T) {
	l := newTestServer(t)
	gone := make(chan grid.NodeID, 256)
	defer l.server.Disconnections(func(node grid.NodeID) { gone <- node })()
	l.store.Calls.HandleHeartbeats(func(grid.NodeID, *Heartbeat) Directives { return Directives{Reason: "heard"} })
	before := heapSize()
	const n = 200
	var all []*nats.Conn
	for range n {
		all = append(all, l.natsClient("b"))
	}
	limit := time.Now().Add(time.Minute)
	for l.server.Connections()["b"] > 1 && time.Now().Before(limit) {
		runtime.Gosched()
	}
	if left := l.server.Connections()["b"]; left != 1 {
		t.Errorf("connections: got %d, want 1", left)
	}
	if m, err := all[n-1].Request(callSubject("b", callHeartbeat), []byte("{}"), time.Minute); err != nil ||
		!strings.Contains(string(m.Data), "heard") {
		t.Errorf("the newest connection: got %v, %v", m, err)
	}
	if len(gone) > 0 {
		t.Errorf("%s is reported as gone", <-gone)
	}
	all[n-1].Close()
	if node := <-gone; node != "b" {
		t.Errorf("gone: got %s, want b", node)
	}
	for _, c := range all {
		c.Close()
	}
	if grown := int64(heapSize()) - int64(before); grown > 64<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
}

func heapSize() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestFloodOfLargeCalls lets a node send large calls continuously without reading answers: another
// node's heartbeats are answered, though perhaps not at the first attempt, and memory stays
// bounded.
func TestFloodOfLargeCalls(t *testing.T) {
	l := newTestServer(t)
	l.store.Calls.HandleHeartbeats(func(grid.NodeID, *Heartbeat) Directives { return Directives{} })
	w := l.connect("w")
	nc := l.natsClient("b", nats.ReconnectBufSize(-1))
	before := heapSize()
	ctx, stop := context.WithCancel(t.Context())
	var flooding sync.WaitGroup
	flooding.Go(func() {
		data := make([]byte, maxPayload)
		for i := 0; ctx.Err() == nil && nc.IsConnected(); i++ {
			verb := []string{callOutput, callEvents, callTake, callHeartbeat, callMetrics, "x"}[i%6]
			_ = nc.PublishRequest(callSubject("b", verb), "_INBOX.b.x", data)
			_ = nc.PublishRequest(callSubject("b", callSweeps), "_INBOX.b.x", []byte("{}"))
		}
	})
	most := uint64(0)
	for range 50 {
		_, err := w.SendHeartbeat(t.Context(), Heartbeat{})
		for limit := time.Now().Add(time.Minute); err != nil && time.Now().Before(limit); {
			_, err = w.SendHeartbeat(t.Context(), Heartbeat{})
		}
		if err != nil {
			t.Fatalf("heartbeat during a flood: %v", err)
		}
		most = max(most, heapSize())
	}
	stop()
	nc.Close()
	flooding.Wait()
	if grown := int64(most) - int64(before); grown > 512<<20 {
		t.Errorf("the heap has grown by %d MiB", grown>>20)
	}
}

// TestOldRatesAreDiscarded checks that the rates of nodes that disconnected long ago take no
// memory.
func TestOldRatesAreDiscarded(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	d := &l.store.callServer.limits
	past := time.Now().Add(-2 * rateAge)
	for i := range 100 {
		node := grid.NodeID(fmt.Sprint("gone", i))
		d.ratesFor(node).lastCall = past
	}
	l.connect("w")
	d.ratesFor("w")
	d.mu.Lock()
	defer d.mu.Unlock()
	if n := len(d.rates); n > 2 {
		t.Errorf("got the rates of %d nodes, want those of the current ones alone", n)
	}
}

// TestFloodOfSmallCalls lets a node send small calls as fast as it can without waiting for answers:
// its connection is closed, and another node's heartbeats are answered.
func TestFloodOfSmallCalls(t *testing.T) {
	l := newTestServer(t)
	l.store.Calls.HandleHeartbeats(func(grid.NodeID, *Heartbeat) Directives { return Directives{} })
	w := l.connect("w")
	l.store.callServer.limits.ratesFor("b").calls.SetLimit(1000) // which even a slow machine exceeds
	nc := l.natsClient("b")
	limit := time.Now().Add(3 * time.Minute)
	for subject := callSubject("b", "x"); !nc.IsClosed(); {
		if err := nc.Publish(subject, nil); err == nil && time.Now().After(limit) {
			t.Fatal("the connection of a flooding node is not closed")
		}
	}
	_, err := w.SendHeartbeat(t.Context(), Heartbeat{})
	for err != nil && time.Now().Before(limit) {
		_, err = w.SendHeartbeat(t.Context(), Heartbeat{})
	}
	if err != nil {
		t.Errorf("heartbeat during a flood: %v", err)
	}
	l.server.Block("b") // in case the first block has expired
	opts := []nats.Option{nats.SetCustomDialer(&dialer{ConnectConfig: l.connectConfig("b"), ctx: t.Context()}),
		nats.NoReconnect()}
	if again, err := nats.Connect("nats://master", opts...); err == nil {
		again.Close()
		t.Error("the node is back immediately")
	}
}

// TestLocalClientLogsErrors lets a client in the master's process fall behind: the error goes to
// the log, not to standard error.
func TestLocalClientLogsErrors(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	said := &syncBuffer{}
	l.server.log = slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	nc, err := l.server.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	sub, err := nc.SubscribeSync("x")
	if err == nil {
		err = sub.SetPendingLimits(1, -1)
	}
	if err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(time.Minute); !strings.Contains(said.String(), "slow consumer"); {
		if err := cmp.Or(nc.Publish("x", nil), nc.Flush()); err != nil || time.Now().After(limit) {
			t.Fatalf("log: got %q, %v; want a slow consumer", said, err)
		}
	}
}

// TestTooManyEventsAreRefused lets a node report more events in one message than a real node does:
// they are refused before they take memory. A decoded batch is not kept if the batch is not stored.
func TestTooManyEventsAreRefused(t *testing.T) {
	l := newTestServer(t)
	full := batch("a-1", 0, splitEvents)
	full.Node = "b"
	for i := range full.Events {
		full.Events[i].Run, full.Events[i].Image = "b.1.1", `"[,\`
	}
	data, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	if got := countElements(data); got != splitEvents-1 {
		t.Errorf("a list of %d events: got %d commas", splitEvents, got)
	}
	nc := l.natsClient("b")
	for name, data := range map[string]string{
		"events": `{"v":1,"s":"a-1","n":"b","e":[` + strings.Repeat(`{"k":""},`, 100_000) + `{}]}`,
		"zeros":  `{"v":1,"s":"a-1","n":"b","e":[` + strings.Repeat(`0,`, 400_000) + `0]}`,
	} {
		m, err := nc.Request(callSubject("b", callEvents), []byte(data), time.Minute)
		if err != nil || !errors.Is(errorOf(m), errRefused) {
			t.Errorf("%s: got %v, %v; want a refusal", name, m, err)
		}
	}
	if b, _ := decodeBatch([]byte(strings.Repeat(`{"k":`, 100_000))); cap(b.Events) > splitEvents {
		t.Errorf("got room for %d events", cap(b.Events))
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := l.store.Events.publishEncoded(ctx, full, full.Node, full.Sweep, data); err == nil {
		t.Error("a batch is stored although its call has ended")
	}
	if n := len(l.store.Events.decoded); n != 0 {
		t.Errorf("%d batches stay decoded", n)
	}
}

// TestTooManySubscriptions lets a node subscribe to its inbox again and again: its connection is
// closed, and that of a node with few subscriptions stays.
func TestTooManySubscriptions(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	w, nc := l.natsClient("w"), l.natsClient("b")
	closed := nc.StatusChanged(nats.CLOSED)
	for range natsd.MaxNodeSubscriptions + 1 {
		if _, err := nc.SubscribeSync("_INBOX.b.>"); err != nil {
			t.Fatal(err)
		}
	}
	for range natsd.MaxNodeSubscriptions {
		if _, err := w.SubscribeSync("_INBOX.w.>"); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-closed:
	case <-time.After(2 * time.Minute):
		t.Error("the connection is not closed")
	}
	if err := w.Flush(); err != nil {
		t.Errorf("a node with %d subscriptions: %v", natsd.MaxNodeSubscriptions, err)
	}
}

// TestSilentClients opens many connections that never present a certificate: they are closed, and a
// node is served in the meantime.
func TestSilentClients(t *testing.T) {
	l := newTestServer(t)
	var silent []io.Closer
	ended := make(chan error, 100)
	for range cap(ended) {
		conn, err := net.Dial("tcp", l.connectConfig("x").Addresses()[0])
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, conn)
		go func() {
			_, err := conn.Read(make([]byte, 1))
			ended <- err
		}()
	}
	if _, err := l.connect("w").Record(t.Context(), "a-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a node among silent clients: got %v", err)
	}
	limit := time.After(3 * time.Minute)
	for range silent {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a client without a certificate was answered")
			}
		case <-limit:
			t.Fatal("silent clients are not disconnected")
		}
	}
	for _, c := range silent {
		c.Close()
	}
}

// TestOlderNodeIsReported connects a node with protocol version 1: it is recognized, and the log
// says what to do.
func TestOlderNodeIsReported(t *testing.T) {
	t.Parallel()
	said := &syncBuffer{}
	l := &testServer{authority: newAuthority(t), dir: t.TempDir(), logOutput: said}
	l.start()
	defer l.stop()
	for range 8 { // natsd warns after the fifth
		nc, err := nats.Connect("nats://master",
			nats.SetCustomDialer(olderDialer{&dialer{ConnectConfig: l.connectConfig("old"),
				ctx: t.Context()}}), nats.NoReconnect())
		if err == nil {
			nc.Close()
			t.Fatal("an older node is admitted")
		}
	}
	if got := said.String(); strings.Count(got, "Update its mlfnode") != 1 || !strings.Contains(got, "node=old") {
		t.Errorf("log: got %q, want one message that says what to do", got)
	}
	l.connect("new")
}

// olderDialer does not report to nats.go that it has done the handshake.
type olderDialer struct{ d *dialer }

func (o olderDialer) Dial(network, address string) (net.Conn, error) {
	return o.d.Dial(network, address)
}

// TestNodeRemovedDuringHandshake removes a node right after the server has asked whether the node
// is known, before Kick can find its connection: the node is still refused a connection.
func TestNodeRemovedDuringHandshake(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	var asked atomic.Int32
	l.peer = func(node grid.NodeID) (grid.NodeID, error) {
		switch asked.Add(1) {
		case 1: // for its certificate
		case 2:
			l.server.Kick(node)
		default:
			return "", errors.New("forgotten")
		}
		return node, nil
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	if link, err := Connect(ctx, l.connectConfig("w")); err == nil {
		link.Close()
		t.Error("the node has a connection")
	}
	if n := asked.Load(); n < 3 {
		t.Errorf("got %d calls of Peer, want 3", n)
	}
	if nodes := l.server.Connections(); len(nodes) != 0 {
		t.Errorf("got connections of %v, want none", nodes)
	}
}

// TestMetricsOfOtherNodesAreDropped lets nodes send metrics: those of their own runs are accepted,
// and nothing else.
func TestMetricsOfOtherNodesAreDropped(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	told := make(chan *grid.Batch, 10)
	defer l.store.Calls.HandleMetrics(func(b *grid.Batch) { told <- b })()
	w := l.connect("a")
	metrics := func(run string) grid.Event {
		return grid.Event{Kind: grid.Metrics, Index: 1, Attempt: 1, Run: run, Time: 1,
			Metrics: grid.Metric{"x": []byte("1")}}
	}
	for _, b := range []*grid.Batch{
		{V: 1, Sweep: "s-1", Node: "b", Events: []grid.Event{metrics("b.1.1")}},
		{V: 1, Sweep: "s-1", Node: "a",
			Events: []grid.Event{metrics("b.1.1"), {Kind: grid.Finished, Run: "a.1.1", Result: &grid.Result{}}}},
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
		t.Fatal("no metrics arrived")
	}
	if info, err := l.store.streamInfo(t.Context(), eventStream); err != nil || info.State.Msgs != 0 {
		t.Errorf("stored events: %d, %v; want none", info.State.Msgs, err)
	}
}
