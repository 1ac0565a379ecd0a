package jetstream

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"mlfnode/grid"
)

// TestMasterClient takes one lease through its life over a connection.
func TestMasterClient(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	ctx := t.Context()
	if _, err := l.store.Records.Create(ctx, sweep("a-1")); err != nil {
		t.Fatal(err)
	}
	w := l.connect("w")
	if r, err := w.Record(ctx, "a-1"); err != nil || r.Sweep.ID != "a-1" || r.Rev != 1 {
		t.Errorf("record: got %+v, %v", r, err)
	}
	if _, err := w.Record(ctx, "b-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("record that does not exist: got %v, want ErrNotFound", err)
	}
	woken := make(chan string, 1)
	defer w.NotifyReady(func(lane string) { woken <- lane })()
	mustPublish(t, l.store.Queue, lease("c1", 0))
	if lane := <-woken; lane != "c1" {
		t.Errorf("notified of %s, want c1", lane)
	}
	held, err := w.TakeLeases(ctx, "c1", 1)
	if err != nil || len(held) != 1 || held[0].Lo != 0 || held[0].Hi != 10 || held[0].Seq == 0 || held[0].ID == "" ||
		held[0].Shape != "c1" {
		t.Fatalf("lease: got %+v, %v", held, err)
	}
	b := batch("a-1", 0, 1)
	b.Node, b.Events[0].Run = "w", "w.1.1"
	if err := w.PublishEvents(ctx, b); err != nil {
		t.Errorf("events: %v", err)
	}
	if first, last, err := w.PublishOutput(ctx, "a-1",
		[]Chunk{{Run: "w.1.1", Stream: 1, Data: make([]byte, 2*splitBytes)}}); err != nil || last <= first {
		t.Errorf("output: got %d to %d, %v", first, last, err)
	}
	if err := w.ReturnLease(ctx, &held[0]); err != nil {
		t.Errorf("return: %v", err)
	}
	if _, events := collect(t, l.store, 1, 1); events != 1 {
		t.Errorf("events: got %d, want 1", events)
	}
	if left := listedSequences(t, l.store.Queue); len(left) != 0 {
		t.Errorf("leases: got %v, want none", left)
	}
}

// TestHeartbeats checks that the master learns which node calls, and that the caller gets the
// directives.
func TestHeartbeats(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	stop := l.store.Calls.HandleHeartbeats(func(node grid.NodeID, b *Heartbeat) Directives {
		return Directives{Stop: []grid.LeaseID{b.Leases[0].ID}, Reason: string(node)}
	})
	for node, beat := range map[string]func(context.Context, Heartbeat) (Directives,
		error){"w": l.connect("w").SendHeartbeat, "m": l.store.Calls.LocalClient("m").SendHeartbeat} {
		o, err := beat(t.Context(), Heartbeat{Leases: []HeldLease{{ID: "x"}}})
		if err != nil || len(o.Stop) != 1 || o.Stop[0] != "x" || o.Reason != node {
			t.Errorf("heartbeat of %s: got %+v, %v", node, o, err)
		}
	}
	stop()
	if _, err := l.connect("w").SendHeartbeat(t.Context(), Heartbeat{}); !IsUnavailable(err) {
		t.Errorf("heartbeat to a master that is not ready yet: got %v", err)
	}
}

// TestPermissionsOfNodes lets a node try what it may not do, with a plain NATS client: each attempt
// is refused, and nothing is stored.
func TestPermissionsOfNodes(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	if _, err := l.store.Records.Create(t.Context(), sweep("a-1")); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 64)
	nc, err := nats.Connect("nats://master",
		nats.SetCustomDialer(&dialer{ConnectConfig: l.connectConfig("b"), ctx: t.Context()}),
		nats.CustomInboxPrefix("_INBOX.b"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			refused <- err
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	expect := func(what string) {
		t.Helper()
		_ = nc.Flush()
		select {
		case err := <-refused:
			if !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
				t.Errorf("%s: got %v, want a violation", what, err)
			}
		case <-time.After(time.Minute):
			t.Errorf("%s was not refused", what)
		}
	}
	for _, subject := range []string{
		eventSubject("a", "a-1"), eventSubject("", "a-1"), logSubject("a", "a-1"), recordSubject("a-1"),
		numberSubject("p"), leaseSubject("c1"),
		callSubject("a", callHeartbeat), eventSubject("b", "a-1"), logSubject("b", "a-1"), "mlf.wake.x",
		"mlf.metric.b.a-1", metaSubject(artifactBucket, "a-1/0/b.1.1"),
		"$JS.API.STREAM.INFO.events", "$JS.API.DIRECT.GET.records.mlf.sweep.a-1", "$JS.API.CONSUMER.CREATE.records.x",
		"$JS.API.CONSUMER.MSG.NEXT.leases.shape_c1",
		"$JS.ACK.leases.shape_c1.1.1.1.1.0", metaSubject(artifactBucket, "a-1/0/a.1.1"),
		dataSubject(artifactBucket, "a-1/0/a.1.1") + ".u",
		metaSubject(bundleBucket, "x"), "_INBOX.a.x", "$JS.API.STREAM.DELETE.events", "$JS.API.STREAM.PURGE.events",
		"$JS.API.STREAM.CREATE.mine", "$JS.API.STREAM.UPDATE.records", "$JS.API.STREAM.MSG.DELETE.leases",
		"$JS.API.STREAM.MSG.GET.events",
		"$JS.API.DIRECT.GET.events", "$JS.API.DIRECT.GET.artifacts.x", "$JS.API.DIRECT.GET.logs",
		"$JS.API.CONSUMER.CREATE.events.x.mlf.event.>",
		"$JS.API.CONSUMER.CREATE.logs.x", "$JS.API.CONSUMER.CREATE.leases.x",
		"$JS.API.CONSUMER.DURABLE.CREATE.leases.x",
		"$JS.API.CONSUMER.DELETE.leases.shape_c1", "$JS.API.CONSUMER.MSG.NEXT.events.x", "$JS.API.ACCOUNT.PURGE.$G",
		"$SYS.REQ.SERVER.PING",
	} {
		if err := nc.Publish(subject, []byte("{}")); err != nil {
			t.Errorf("publish %s: %v", subject, err)
		}
		expect("publish " + subject)
	}
	for _, subject := range []string{">", "mlf.>", "mlf.wake.*", "mlf.call.b.>", "_INBOX.>", "_INBOX.a.>", "$SYS.>",
		"mlf.event.*.*", "mlf.sweep.*", "mlf.call.>", "$JS.>"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Errorf("subscribe %s: %v", subject, err)
		}
		expect("subscribe " + subject)
	}
	if _, last, err := l.store.Events.Bounds(t.Context()); err != nil || last != 0 {
		t.Errorf("events: got %d, %v; want none", last, err)
	}
}

// TestForgedContentIsSkipped stores content that no node may write, as if it had got past the
// checks.
func TestForgedContentIsSkipped(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	forged := batch("a-1", 0, 1)
	forged.Node, forged.Events[0].Run = "a", "b.1.1" // a run of another node
	if _, err := l.store.Events.Publish(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	decided := batch("a-1", 1, 3) // what only the master decides
	decided.Node, decided.V = "a", grid.RangeVersion
	decided.Events[0] = grid.Event{Kind: grid.Fenced, Run: "a.1.1"}
	decided.Events[1] = grid.Event{Kind: grid.Reopened, Index: 1, Run: "a.1.1", Time: 1}
	decided.Events[2] = grid.Event{Kind: grid.ReopenedRange, End: 5, Run: "a.1.1", Time: 1}
	if _, err := l.store.Events.Publish(t.Context(), decided); err != nil {
		t.Fatal(err)
	}
	if _, err := l.store.js.Publish(t.Context(), eventSubject("b", "a-1"),
		[]byte(`{"v":1,"s":"a-1","n":"a","e":[{"k":"started","r":"a.1.1"}]}`)); err != nil {
		t.Fatal(err)
	}
	if _, events := collect(t, l.store, 1, 3); events != 0 {
		t.Errorf("got %d events, want none", events)
	}
	_, _, err := packAll([]Chunk{{Run: "a.1.1", Data: []byte("lie")}, {Run: "w.1.1", Data: []byte("true")}},
		func(data []byte) (uint64, error) {
			return l.store.Logs.publishMessage(t.Context(), "w", "a-1", data)
		})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = l.store.Logs.Read(t.Context(), "a-1", LogRange{}, func(_ uint64, chunks []Chunk) error {
		for _, c := range chunks {
			got = append(got, string(c.Data))
		}
		return nil
	})
	if err != nil || len(got) != 1 || got[0] != "true" {
		t.Errorf("output: got %q, %v; want the node's own only", got, err)
	}
}

func TestBannedNodeIsRefused(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if s, err := Connect(ctx, l.connectConfig("banned")); err == nil {
		s.Close()
		t.Error("a banned node was admitted")
	}
}

// TestClientReconnects restarts the server while a reader reads and a call waits.
func TestClientReconnects(t *testing.T) {
	l := newTestServer(t)
	w := l.connect("w")
	changes := make(chan grid.SweepID, 16)
	var watching sync.WaitGroup
	watch := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		watching.Go(func() {
			_ = w.WatchRecords(ctx, func(c Change) {
				if !c.Synced {
					changes <- c.ID
				}
			})
		})
		return func() { cancel(); watching.Wait() }
	}
	stop := watch()
	put := func(id string) {
		t.Helper()
		if _, err := l.store.Records.Create(t.Context(), sweep(id)); err != nil {
			t.Fatal(err)
		}
	}
	want := func(id grid.SweepID) {
		t.Helper()
		select {
		case got := <-changes:
			if got != id {
				t.Fatalf("watch: got %s, want %s", got, id)
			}
		case <-time.After(time.Minute):
			t.Fatalf("watch: %s did not come", id)
		}
	}
	put("a-1")
	want("a-1")
	asked, served := make(chan error, 1), make(chan struct{})
	began := time.Now()
	defer l.store.Calls.HandleKeyring(func(grid.NodeID) [][]byte { <-served; return nil })()
	go func() {
		_, err := w.Keyring(t.Context())
		asked <- err
	}()
	l.server.Kick("nobody") // has no connection
	l.server.Kick("w")
	if err := <-asked; err == nil || time.Since(began) > callLimit/2 {
		t.Errorf("a call that waited: got %v after %v, want an error immediately", err, time.Since(began))
	}
	close(served)
	stop()
	stop = watch()
	want("a-1")
	l.stop()
	l.start()
	put("a-2")
	want("a-2")
	stop()
}

// TestDisconnections checks that the master learns of a node whose connection ends.
func TestDisconnections(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	gone := make(chan grid.NodeID, 4)
	defer l.server.Disconnections(func(node grid.NodeID) { gone <- node })()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w, err := Connect(ctx, l.connectConfig("w"))
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	select {
	case node := <-gone:
		if node != "w" {
			t.Errorf("got %s, want w", node)
		}
	case <-ctx.Done():
		t.Error("the disconnection was not reported")
	}
}

// TestLeaseFieldsReachTheNode takes a lease with every field set, over a connection and in the
// master's process.
func TestLeaseFieldsReachTheNode(t *testing.T) {
	t.Parallel()
	l := newTestServer(t)
	for name, link := range map[string]*MasterClient{"w": l.connect("w"), "m": l.store.Calls.LocalClient("m")} {
		want := Lease{
			Sweep: "a-1", Lo: 3, Hi: 9, Attempt: 2, Shape: "c1", ID: l.store.Queue.NewID(), Snapshot: 4, Bad: 1,
			Level: leaseVersion, Quiet: true,
			Updates: 5, Avoid: []grid.NodeID{"x"}, Elsewhere: true,
		}
		for v, i := reflect.ValueOf(want), 0; i < v.NumField(); i++ {
			if v.Field(i).IsZero() {
				t.Fatalf("%s is not set here", v.Type().Field(i).Name)
			}
		}
		seq := mustPublish(t, l.store.Queue, want)
		got, err := link.TakeLeases(t.Context(), "c1", 1)
		if diff := cmp.Diff([]GrantedLease{{Lease: want, Seq: seq, Deliveries: 1}}, got); err != nil || diff != "" {
			t.Errorf("%s took, %v (-want +got):\n%s", name, err, diff)
		}
	}
}

// TestUnansweredCallsAreReportedOnce checks that a master that is still starting is not taken for
// an older version.
func TestUnansweredCallsAreReportedOnce(t *testing.T) {
	t.Parallel()
	var s unansweredCalls
	at := time.Unix(1000, 0)
	for _, step := range []struct {
		after  time.Duration
		answer bool
		want   bool
	}{
		{0, false, false}, {unansweredLimit - 1, false, false}, {1, true, false}, {unansweredLimit, false, false},
		{unansweredLimit, false, true}, {unansweredLimit, false, false}, {0, true, false}, {1, false, false},
		{unansweredLimit, false, true},
	} {
		at = at.Add(step.after)
		if step.answer {
			s.reset()
		} else if got := s.add(at); got != step.want {
			t.Errorf("at %v: got %v, want %v", at, got, step.want)
		}
	}
}
