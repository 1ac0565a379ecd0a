package trust

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
)

// said is what one end of a connection observed: its peer, what it read, and its error.
type said struct {
	node grid.NodeID
	role grid.NodeRole
	peer error
	read string
	err  error
}

// meet makes a real connection over loopback. The client sends "hello" and the server "welcome"
// once they trust each other.
func meet(t *testing.T, server, client *tls.Config) (atServer, atClient said) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	served := make(chan said, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			served <- said{err: err}
			return
		}
		served <- talk(tls.Server(c, server), "welcome", len("hello"))
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	atClient = talk(tls.Client(c, client), "hello", len("welcome"))
	return <-served, atClient
}

func talk(c *tls.Conn, word string, want int) (s said) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if s.err = c.Handshake(); s.err != nil {
		return s
	}
	s.node, s.role, s.peer = PeerOf(c.ConnectionState())
	if _, s.err = io.WriteString(c, word); s.err != nil {
		return s
	}
	b := make([]byte, want)
	n, err := io.ReadFull(c, b)
	s.read, s.err = string(b[:n]), err
	return s
}

func wantTalk(t *testing.T, what string, server, client said) {
	t.Helper()
	if server.err != nil || client.err != nil || server.read != "hello" || client.read != "welcome" {
		t.Errorf("%s: got %v at the server, %v at the client, want them to talk", what, server.err, client.err)
	}
}

// wantSilence checks that the server refused the connection and that no data was transferred.
func wantSilence(t *testing.T, what string, server, client said) {
	t.Helper()
	if server.err == nil || client.err == nil || server.read != "" || client.read != "" {
		t.Errorf("%s: got %+v at the server, %+v at the client, want them not to talk", what, server, client)
	}
}

func TestPeers(t *testing.T) {
	a, master, _ := newAuthority(t)
	w1, dir := mustJoin(t, a, "w1")
	loaded, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	for what, server := range map[string]*tls.Config{"api": master.APIServer(a.Known),
		"nats": master.NATSServer(a.Known), "open": master.APIServer(nil)} {
		for _, id := range []*Identity{w1, loaded, master} {
			s, c := meet(t, server, id.Client())
			wantTalk(t, what, s, c)
			if s.node != id.Node || s.role != id.Role || s.peer != nil || c.node != "master" || c.role != grid.Master ||
				c.peer != nil {
				t.Errorf("%s: got %s %s and %s %s, want %s and master", what, s.node, s.role, c.node, c.role, id.Node)
			}
		}
		s, c := meet(t, server, a.Pin().Client())
		if what == "nats" {
			wantSilence(t, "nats without a certificate", s, c)
			continue
		}
		wantTalk(t, what+" without a certificate", s, c)
		wantErr(t, what, s.peer, ErrNoCertificate)
	}
}

func TestOldVersionsOfTLS(t *testing.T) {
	a, master, _ := newAuthority(t)
	old := a.Pin().Client()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	s, c := meet(t, master.APIServer(nil), old)
	wantSilence(t, "TLS 1.2 client", s, c)
	server := master.APIServer(nil)
	server.MinVersion, server.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	s, c = meet(t, server, a.Pin().Client())
	wantSilence(t, "TLS 1.2 server", s, c)
}

// TestWrongCA checks that a server of another cluster never receives a token or a certificate from
// the client, even if the server sends the pinned CA as well.
func TestWrongCA(t *testing.T) {
	a, master, _ := newAuthority(t)
	_, evil, _ := newAuthority(t)
	w1, _ := mustJoin(t, a, "w1")
	withOurCA := *evil
	withOurCA.Cert.Certificate = [][]byte{evil.Leaf().Raw, a.CA().Raw}
	onlyCA := *evil
	onlyCA.Cert.Certificate = [][]byte{evil.Leaf().Raw}
	for what, server := range map[string]*Identity{"its CA": evil, "our CA": &withOurCA, "no CA": &onlyCA} {
		for who, client := range map[string]*tls.Config{"pin": a.Pin().Client(), "node": w1.Client()} {
			cfg := server.APIServer(nil)
			cfg.ClientAuth = tls.RequestClientCert
			s, c := meet(t, cfg, client)
			wantSilence(t, what+", "+who, s, c)
			wantErr(t, what+", "+who, c.err, ErrWrongCA)
			if s.peer != nil {
				t.Errorf("%s, %s: the server came as far as to look at its peer", what, who)
			}
		}
	}
	// The same in the other direction: nodes of the other cluster are rejected.
	for what, server := range map[string]*tls.Config{"api": master.APIServer(nil), "nats": master.NATSServer(nil)} {
		cfg := evil.Client()
		cfg.VerifyConnection = nil
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate,
			error) {
			return &evil.Cert, nil
		}
		s, c := meet(t, server, cfg)
		wantSilence(t, what+", another cluster's node", s, c)
	}
}

// TestWorkerIsNoMaster checks that a worker's certificate is valid only for clients.
func TestWorkerIsNoMaster(t *testing.T) {
	a, _, _ := newAuthority(t)
	w1, _ := mustJoin(t, a, "w1")
	w2, _ := mustJoin(t, a, "w2")
	for who, client := range map[string]*tls.Config{"pin": a.Pin().Client(), "node": w2.Client()} {
		s, c := meet(t, w1.APIServer(nil), client)
		wantSilence(t, who, s, c)
		wantText(t, who, c.err, "w1 is a worker, and no master")
	}
}

// forge returns an identity with a modified certificate that the CA itself has signed.
func forge(t *testing.T, a *Authority, change func(*x509.Certificate)) *Identity {
	t.Helper()
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: newSerial(), NotBefore: a.clock().Add(-time.Hour), NotAfter: a.clock().Add(time.Hour),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:                  []*url.URL{nodeURI("master", grid.Master)},
	}
	change(c)
	der, err := x509.CreateCertificate(rand.Reader, c, a.CA(), &key.PublicKey, a.issuers.Load().keys[0])
	if err != nil {
		t.Fatal(err)
	}
	return identityOf(t, der, a.CA(), key)
}

func identityOf(t *testing.T, der []byte, ca *x509.Certificate, key *ecdsa.PrivateKey) *Identity {
	t.Helper()
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Identity{CAs: CAs{ca},
		Cert: tls.Certificate{Certificate: [][]byte{der, ca.Raw}, PrivateKey: key, Leaf: leaf}}
}

// TestCertificatesThatAreNotGood uses certificates that the CA has signed but that are invalid, at
// either end of a connection.
func TestCertificatesThatAreNotGood(t *testing.T) {
	a, master, h := newAuthority(t)
	uri := func(texts ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, text := range texts {
				u, err := url.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				c.URIs = append(c.URIs, u)
			}
		}
	}
	identifier := "mlfnode://node/master?role=master"
	for what, change := range map[string]func(*x509.Certificate){
		"no name":        func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"master"} },
		"two names":      uri(identifier, "mlfnode://node/w1?role=worker"),
		"another role":   uri("mlfnode://node/master?role=root"),
		"no role":        uri("mlfnode://node/master"),
		"two roles":      uri("mlfnode://node/master?role=worker&role=master"),
		"more":           uri(identifier + "&x=y"),
		"a fragment":     uri(identifier + "#x"),
		"a user":         uri("mlfnode://x@node/master?role=master"),
		"another scheme": uri("spiffe://node/master?role=master"),
		"another host":   uri("mlfnode://nodes/master?role=master"),
		"a path":         uri("mlfnode://node/a/master?role=master"),
		"escapes":        uri("mlfnode://node/m%61ster?role=master"),
		"no node":        uri("mlfnode://node/?role=master"),
		"expired":        func(c *x509.Certificate) { c.NotAfter = h.clock().Add(-time.Minute) },
		"from tomorrow": func(c *x509.Certificate) {
			c.NotBefore = h.clock().Add(time.Hour)
			c.NotAfter = c.NotBefore.Add(time.Hour)
		},
		"for mail": func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageEmailProtection} },
	} {
		id := forge(t, a, change)
		s, c := meet(t, id.APIServer(nil), a.Pin().Client())
		wantSilence(t, "server, "+what, s, c)
		client := a.Pin().Client()
		client.Certificates = []tls.Certificate{id.Cert}
		for _, server := range []*tls.Config{master.APIServer(nil), master.NATSServer(nil)} {
			s, c = meet(t, server, client)
			wantSilence(t, "client, "+what, s, c)
		}
	}
	onlyClient := forge(t, a, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] })
	s, c := meet(t, onlyClient.APIServer(nil), a.Pin().Client())
	wantSilence(t, "not for serving", s, c)
	good := forge(t, a, func(*x509.Certificate) {})
	s, c = meet(t, good.APIServer(nil), a.Pin().Client())
	wantTalk(t, "good", s, c)
	wantErr(t, "but not the registered key", a.Known("master", good.Leaf()), ErrUnknownNode)
}

// TestForgottenPeer checks that a forgotten node is rejected at its next connection.
func TestForgottenPeer(t *testing.T) {
	a, master, _ := newAuthority(t)
	w1, _ := mustJoin(t, a, "w1")
	server := master.NATSServer(a.Known)
	s, c := meet(t, server, w1.Client())
	wantTalk(t, "before", s, c)
	wantErr(t, "forget", a.Forget("w1"), nil)
	s, c = meet(t, server, w1.Client())
	wantSilence(t, "after", s, c)
	wantErr(t, "after", s.err, ErrUnknownNode)
}

// TestClocks checks that a clock that is off by hours does no harm, and that one that is off by
// more is reported as the cause.
func TestClocks(t *testing.T) {
	a, master, h := newAuthority(t)
	w1, _ := mustJoin(t, a, "w1")
	w1.Clock = func() time.Time { return h.clock().Add(-23 * time.Hour) }
	s, c := meet(t, master.NATSServer(nil), w1.Client())
	wantTalk(t, "23 hours behind", s, c)
	w1.Clock = func() time.Time { return h.clock().Add(-48 * time.Hour) }
	s, c = meet(t, master.NATSServer(nil), w1.Client())
	wantSilence(t, "two days behind", s, c)
	wantText(t, "two days behind", c.err, "check the clocks")
}

func TestPinnedCA(t *testing.T) {
	a, master, _ := newAuthority(t)
	other, _, _ := newAuthority(t)
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{master.Leaf(), a.CA()}}
	if ca, err := a.Pin().CA(state); err != nil || !ca.Equal(a.CA()) {
		t.Errorf("got %v, want the CA", err)
	}
	_, err := other.Pin().CA(state)
	wantErr(t, "another", err, ErrWrongCA)
	_, err = PinOf(master.Leaf()).CA(state) // the hash of a certificate that is not a CA
	wantErr(t, "a leaf", err, ErrWrongCA)
	if len(a.Pin().String()) != 64 || strings.ToLower(a.Pin().String()) != a.Pin().String() {
		t.Errorf("got pin %s", a.Pin())
	}
	if err := verifyMaster(tls.ConnectionState{}, a.CAs(), nil); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("got %v from a server without a certificate", err)
	}
}
