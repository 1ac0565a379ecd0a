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
	"strings"
	"sync"
	"testing"
	"time"

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
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour),
		IsCA:     by == nil, BasicConstraintsValid: true, DNSNames: []string{"master"},
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

func (a *authority) tlsConfig(name string) *tls.Config {
	cert, key := a.sign(name, a.cert)
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: a.pool, RootCAs: a.pool, ServerName: "master",
	}
}

// testServer is a listening server with its store.
type testServer struct {
	*authority
	dir       string
	server    *Server
	store     *Store
	port      int
	limits    Limits
	logOutput io.Writer                              // nil means the test's output
	peer      func(grid.NodeID) (grid.NodeID, error) // nil admits every node that is not banned
}

func newTestServer(t *testing.T) *testServer {
	return newTestServerLimited(t, Limits{})
}

func newTestServerLimited(t *testing.T, limits Limits) *testServer {
	l := &testServer{authority: newAuthority(t), dir: t.TempDir(), limits: limits}
	l.start()
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *testServer) logger() *slog.Logger {
	if l.logOutput != nil {
		return slog.New(slog.NewTextHandler(l.logOutput, nil))
	}
	return slog.New(slog.NewTextHandler(l.t.Output(), nil))
}

func (l *testServer) start() {
	l.t.Helper()
	var err error
	l.server, err = Start(Config{Dir: l.dir, Node: "m", Logger: l.logger(), Limits: l.limits, Listen: &natsd.Listen{
		Host: "127.0.0.1", Port: l.port, TLS: l.tlsConfig("m"),
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
	if l.port == 0 { // clients read it when the server restarts
		l.port = l.server.Addr().(*net.TCPAddr).Port
	}
	if l.store, err = l.server.OpenStore(context.Background()); err != nil {
		l.t.Fatal(err)
	}
}

func (l *testServer) stop() {
	l.store.Close()
	l.server.Close()
}

func (l *testServer) connectConfig(name string) ConnectConfig {
	return ConnectConfig{Node: grid.NodeID(name), TLS: l.tlsConfig(name), Logger: l.logger(),
		Addresses: func() []string {
			return []string{fmt.Sprintf("127.0.0.1:%d", l.port)}
		}}
}

func (l *testServer) connect(name string) *MasterClient {
	l.t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	defer stop()
	s, err := Connect(ctx, l.connectConfig(name))
	if err != nil {
		l.t.Fatalf("connect %s: %v", name, err)
	}
	l.t.Cleanup(s.Close)
	return s
}

// natsClient connects a plain NATS client with a node's certificate.
func (l *testServer) natsClient(node string, opts ...nats.Option) *nats.Conn {
	l.t.Helper()
	opts = append([]nats.Option{
		nats.SetCustomDialer(&dialer{ConnectConfig: l.connectConfig(node), ctx: l.t.Context()}), nats.NoReconnect(),
		nats.CustomInboxPrefix(inbox(grid.NodeID(node))),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), nats.Timeout(time.Minute),
	}, opts...)
	nc, err := nats.Connect("nats://master", opts...)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(nc.Close)
	return nc
}

// syncBuffer is a strings.Builder that several goroutines may write to.
type syncBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *syncBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *syncBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
