package jetstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"mlfnode/grid"
	"mlfnode/jetstream/natsd"
)

// authority signs certificates for the nodes of a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t, pool: x509.NewCertPool()}
	a.cert, a.key = a.sign("ca", nil)
	a.pool.AddCert(a.cert)
	return a
}

func (a *authority) sign(name string, by *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: by == nil, BasicConstraintsValid: true, DNSNames: []string{"master"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	signer := key
	if by == nil {
		by = c
	} else {
		signer = a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, by, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return parsed, key
}

func (a *authority) tls(name string) *tls.Config {
	cert, key := a.sign(name, a.cert)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool, RootCAs: a.pool, ServerName: "master",
	}
}

// lab is a server that listens, with its own store.
type lab struct {
	*authority
	dir    string
	server *Server
	store  *Store
	port   int
	limits Limits
	logTo  io.Writer                              // nil is the test's output
	peer   func(grid.NodeID) (grid.NodeID, error) // nil lets every node in that is not banned
}

func newLab(t *testing.T) *lab {
	return newLabOf(t, Limits{})
}

func newLabOf(t *testing.T, limits Limits) *lab {
	l := &lab{authority: newAuthority(t), dir: t.TempDir(), limits: limits}
	l.start()
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *lab) logger() *slog.Logger {
	if l.logTo != nil {
		return slog.New(slog.NewTextHandler(l.logTo, nil))
	}
	return slog.New(slog.NewTextHandler(l.t.Output(), nil))
}

func (l *lab) start() {
	l.t.Helper()
	var err error
	l.server, err = Start(Config{Dir: l.dir, Node: "m", Logger: l.logger(), Limits: l.limits, Listen: &natsd.Listen{
		Host: "127.0.0.1", Port: l.port, TLS: l.tls("m"),
		Peer: func(s tls.ConnectionState) (grid.NodeID, error) {
			name := s.PeerCertificates[0].Subject.CommonName
			if strings.HasPrefix(name, "banned") {
				return "", errors.New("banned")
			}
			if l.peer != nil {
				return l.peer(grid.NodeID(name))
			}
			return grid.NodeID(name), nil
		},
	}})
	if err != nil {
		l.t.Fatal(err)
	}
	l.port = l.server.Addr().(*net.TCPAddr).Port
	if l.store, err = l.server.OpenStore(context.Background()); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) stop() {
	l.store.Close()
	l.server.Close()
}

func (l *lab) remote(name string) ConnectConfig {
	return ConnectConfig{Node: grid.NodeID(name), TLS: l.tls(name), Logger: l.logger(), Addresses: func() []string {
		return []string{fmt.Sprintf("127.0.0.1:%d", l.port)}
	}}
}

func (l *lab) connect(name string) *MasterClient {
	l.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	s, err := Connect(ctx, l.remote(name))
	if err != nil {
		l.t.Fatalf("connect %s: %v", name, err)
	}
	l.t.Cleanup(s.Close)
	return s
}

// TestLink takes one lease through its life over a connection.
func TestLink(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	if _, err := l.store.Records.Create(ctx, sweep("a-1")); err != nil {
		t.Fatal(err)
	}
	w := l.connect("w")
	if r, err := w.Record(ctx, "a-1"); err != nil || r.Sweep.ID != "a-1" || r.Rev != 1 {
		t.Errorf("record: got %+v, %v", r, err)
	}
	if _, err := w.Record(ctx, "b-1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("record that is not there: got %v, want ErrNotFound", err)
	}
	woken := make(chan string, 1)
	defer w.NotifyReady(func(lane string) { woken <- lane })()
	mustPublish(t, l.store.Queue, lease("c1", 0))
	if lane := <-woken; lane != "c1" {
		t.Errorf("woken for %s, want c1", lane)
	}
	held, err := w.TakeLeases(ctx, "c1", 1)
	if err != nil || len(held) != 1 || held[0].Lo != 0 || held[0].Hi != 10 || held[0].Seq == 0 || held[0].ID == "" || held[0].Shape != "c1" {
		t.Fatalf("lease: got %+v, %v", held, err)
	}
	b := batch("a-1", 0, 1)
	b.Node, b.Events[0].Run = "w", "w.1.1"
	if err := w.PublishEvents(ctx, b); err != nil {
		t.Errorf("events: %v", err)
	}
	if first, last, err := w.PublishOutput(ctx, "a-1", []Chunk{{Run: "w.1.1", Stream: 1, Data: make([]byte, 2*splitBytes)}}); err != nil || last <= first {
		t.Errorf("output: got %d to %d, %v", first, last, err)
	}
	if err := w.ReturnLease(ctx, &held[0]); err != nil {
		t.Errorf("return: %v", err)
	}
	if _, events := collect(t, l.store, 1, 1); events != 1 {
		t.Errorf("events: got %d, want 1", events)
	}
	if left := present(t, l.store.Queue); len(left) != 0 {
		t.Errorf("leases: got %v, want none", left)
	}
}

// TestBeats brings the caller's name to the master, and the orders back.
func TestBeats(t *testing.T) {
	l := newLab(t)
	stop := l.store.Calls.HandleHeartbeats(func(node grid.NodeID, b *Heartbeat) Directives {
		return Directives{Stop: []grid.LeaseID{b.Leases[0].ID}, Reason: string(node)}
	})
	for node, beat := range map[string]func(context.Context, Heartbeat) (Directives, error){"w": l.connect("w").SendHeartbeat, "m": l.store.Calls.LocalClient("m").SendHeartbeat} {
		o, err := beat(t.Context(), Heartbeat{Leases: []HeldLease{{ID: "x"}}})
		if err != nil || len(o.Stop) != 1 || o.Stop[0] != "x" || o.Reason != node {
			t.Errorf("beat of %s: got %+v, %v", node, o, err)
		}
	}
	stop()
	if _, err := l.connect("w").SendHeartbeat(t.Context(), Heartbeat{}); !IsUnavailable(err) {
		t.Errorf("beat to a master that does not work yet: got %v", err)
	}
}

// TestNodesAreHeldToTheirOwn has a node try what it may not, with a plain NATS client: each is refused, and nothing is stored.
func TestNodesAreHeldToTheirOwn(t *testing.T) {
	l := newLab(t)
	if _, err := l.store.Records.Create(t.Context(), sweep("a-1")); err != nil {
		t.Fatal(err)
	}
	refused := make(chan error, 64)
	nc, err := nats.Connect("nats://master", nats.SetCustomDialer(&dialer{ConnectConfig: l.remote("b"), ctx: t.Context()}),
		nats.CustomInboxPrefix("_INBOX.b"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
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
		eventSubject("a", "a-1"), eventSubject("", "a-1"), logSubject("a", "a-1"), recordSubject("a-1"), numberSubject("p"), leaseSubject("c1"),
		callSubject("a", callHeartbeat), eventSubject("b", "a-1"), logSubject("b", "a-1"), "mlf.wake.x", "mlf.metric.b.a-1", metaSubject(artifactBucket, "a-1/0/b.1.1"),
		"$JS.API.STREAM.INFO.events", "$JS.API.DIRECT.GET.records.mlf.sweep.a-1", "$JS.API.CONSUMER.CREATE.records.x", "$JS.API.CONSUMER.MSG.NEXT.leases.shape_c1",
		"$JS.ACK.leases.shape_c1.1.1.1.1.0", metaSubject(artifactBucket, "a-1/0/a.1.1"), dataSubject(artifactBucket, "a-1/0/a.1.1") + ".u",
		metaSubject(bundleBucket, "x"), "_INBOX.a.x", "$JS.API.STREAM.DELETE.events", "$JS.API.STREAM.PURGE.events",
		"$JS.API.STREAM.CREATE.mine", "$JS.API.STREAM.UPDATE.records", "$JS.API.STREAM.MSG.DELETE.leases", "$JS.API.STREAM.MSG.GET.events",
		"$JS.API.DIRECT.GET.events", "$JS.API.DIRECT.GET.artifacts.x", "$JS.API.DIRECT.GET.logs", "$JS.API.CONSUMER.CREATE.events.x.mlf.event.>",
		"$JS.API.CONSUMER.CREATE.logs.x", "$JS.API.CONSUMER.CREATE.leases.x", "$JS.API.CONSUMER.DURABLE.CREATE.leases.x",
		"$JS.API.CONSUMER.DELETE.leases.shape_c1", "$JS.API.CONSUMER.MSG.NEXT.events.x", "$JS.API.ACCOUNT.PURGE.$G", "$SYS.REQ.SERVER.PING",
	} {
		if err := nc.Publish(subject, []byte("{}")); err != nil {
			t.Errorf("publish %s: %v", subject, err)
		}
		expect("publish " + subject)
	}
	for _, subject := range []string{">", "mlf.>", "mlf.wake.*", "mlf.call.b.>", "_INBOX.>", "_INBOX.a.>", "$SYS.>", "mlf.event.*.*", "mlf.sweep.*", "mlf.call.>", "$JS.>"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Errorf("subscribe %s: %v", subject, err)
		}
		expect("subscribe " + subject)
	}
	if _, last, err := l.store.Events.Bounds(t.Context()); err != nil || last != 0 {
		t.Errorf("events: got %d, %v; want none", last, err)
	}
}

// TestForgedContentIsSkipped has the stream hold what a node may not have written, however it got there.
func TestForgedContentIsSkipped(t *testing.T) {
	l := newLab(t)
	forged := batch("a-1", 0, 1)
	forged.Node, forged.Events[0].Run = "a", "b.1.1" // a run of another node
	if _, err := l.store.Events.Publish(t.Context(), forged); err != nil {
		t.Fatal(err)
	}
	fence := batch("a-1", 1, 1)
	fence.Node, fence.Events[0] = "a", grid.Event{Kind: grid.Fenced, Run: "a.1.1"}
	if _, err := l.store.Events.Publish(t.Context(), fence); err != nil {
		t.Fatal(err)
	}
	if _, err := l.store.js.Publish(t.Context(), eventSubject("b", "a-1"), []byte(`{"v":1,"s":"a-1","n":"a","e":[{"k":"started","r":"a.1.1"}]}`)); err != nil {
		t.Fatal(err)
	}
	if _, events := collect(t, l.store, 1, 3); events != 0 {
		t.Errorf("got %d events, want none", events)
	}
	_, _, err := packAll([]Chunk{{Run: "a.1.1", Data: []byte("lie")}, {Run: "w.1.1", Data: []byte("true")}}, func(data []byte) (uint64, error) {
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
	l := newLab(t)
	ctx, stop := context.WithTimeout(t.Context(), time.Second)
	defer stop()
	if s, err := Connect(ctx, l.remote("banned")); err == nil {
		s.Close()
		t.Error("a node that may not come in was let in")
	}
}

// TestRemoteOutlivesTheServer restarts the server under a reader and a call that waits.
func TestRemoteOutlivesTheServer(t *testing.T) {
	l := newLab(t)
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
		t.Errorf("a call that waited: got %v after %v, want an error at once", err, time.Since(began))
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

// TestDisconnections tells the master of a node whose connection ends.
func TestDisconnections(t *testing.T) {
	l := newLab(t)
	gone := make(chan grid.NodeID, 4)
	stop, err := l.server.Disconnections(func(node grid.NodeID) { gone <- node })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w, err := Connect(ctx, l.remote("w"))
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
		t.Error("nobody told")
	}
}

// TestLeasesTravelWhole has a node take a lease of which everything is set, over a connection and in the master's process.
func TestLeasesTravelWhole(t *testing.T) {
	l := newLab(t)
	for name, link := range map[string]*MasterClient{"w": l.connect("w"), "m": l.store.Calls.LocalClient("m")} {
		want := Lease{
			Sweep: "a-1", Lo: 3, Hi: 9, Attempt: 2, Shape: "c1", ID: l.store.Queue.NewID(), Snapshot: 4, Bad: 1, Level: leaseVersion, Quiet: true,
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

// TestSilenceOfTheMasterIsReportedOnce holds that a master that is only starting is not taken for one of an older version.
func TestSilenceOfTheMasterIsReportedOnce(t *testing.T) {
	var s unansweredCalls
	at := time.Unix(1000, 0)
	for _, step := range []struct {
		after  time.Duration
		answer bool
		want   bool
	}{
		{0, false, false}, {unansweredLimit - 1, false, false}, {1, true, false}, {unansweredLimit, false, false},
		{unansweredLimit, false, true}, {unansweredLimit, false, false}, {0, true, false}, {1, false, false}, {unansweredLimit, false, true},
	} {
		at = at.Add(step.after)
		if step.answer {
			s.reset()
		} else if got := s.add(at); got != step.want {
			t.Errorf("at %v: got %v, want %v", at, got, step.want)
		}
	}
}
