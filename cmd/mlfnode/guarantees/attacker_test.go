package guarantees

import (
	"bytes"
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
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"mlfnode/cmd/mlfnode/hosts"
)

// The ports of a node, by default.
const (
	apiPort    = 7420
	natsPort   = 7421
	gossipPort = 7422
)

// attacks is a running cluster and a host of somebody who is not of it.
type attacks struct {
	*scenario
	attacker *hosts.Host
	worker   *hosts.Host // whose files the attacker has got hold of, where an attack says so
	victim   *hosts.Host // another worker
}

func newAttacks(t *testing.T) *attacks {
	t.Helper()
	a := &attacks{scenario: newScenario(t, 3, hosts.Options{})}
	a.attacker, a.worker, a.victim = a.AddHost("mallory"), a.Hosts[1], a.Hosts[2]
	a.submitWriters(a.Master, 4, 2, 10*time.Millisecond)
	a.checkAll()
	return a
}

func (a *attacks) at(h *hosts.Host, port int) string {
	return net.JoinHostPort(h.Addr, strconv.Itoa(port))
}

// trusting is TLS as an attacker speaks it: it believes anybody.
func trusting(certs ...tls.Certificate) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, Certificates: certs}
}

// stolen is the certificate of a host, from its state folder.
func (a *attacks) stolen(h *hosts.Host) tls.Certificate {
	a.t.Helper()
	dir := filepath.Join(h.StateDir(), "trust")
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "node.crt"), filepath.Join(dir, "node.key"))
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

// forged is a certificate as node host1, a master, of an authority that the attacker has made, or
// of none at all when the parent is given, which then signs although it is not an authority.
func (a *attacks) forged(parent *tls.Certificate) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	uri, err := url.Parse("mlfnode://node/host1?role=master")
	if err != nil {
		a.t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "host1"}, URIs: []*url.URL{uri},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	issuer, signer := leaf, any(key)
	var chain [][]byte
	if parent != nil {
		issuer, signer, chain = parent.Leaf, parent.PrivateKey, parent.Certificate
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, issuer, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: append([][]byte{der}, chain...), PrivateKey: key}
}

// reply is what a call of the API gave.
type reply struct {
	status int // 0: no answer at all
	body   string
	err    error
}

// call calls the master's API from the attacker's host.
func (a *attacks) call(cfg *tls.Config, bearer, method, path string, body io.Reader) reply {
	return a.request(cfg, method, path, body, func(r *http.Request) {
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
	})
}

// callLimit bounds a call of the API in an attack.
const callLimit = 20 * time.Second

func (a *attacks) request(cfg *tls.Config, method, path string, body io.Reader, change func(*http.Request)) reply {
	a.t.Helper()
	transport := &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, addr string) (net.Conn, error) {
			return a.attacker.Network.Dial(network, addr)
		}}
	ctx, stop := context.WithTimeout(a.t.Context(), callLimit)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+a.at(a.Master, apiPort), body)
	if err != nil {
		a.t.Fatal(err)
	}
	req.URL.Opaque = path // as it is, not cleaned
	change(req)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return reply{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return reply{status: resp.StatusCode, body: string(text), err: err}
}

// refused says what is wrong when a call was not refused with one of these states.
func (r reply) refused(states ...int) error {
	for _, s := range states {
		if r.status == s {
			return r.harmless()
		}
	}
	if r.status == 0 && r.err != nil {
		return nil // the connection was closed
	}
	return fmt.Errorf("got %d %s, %v; want one of %v", r.status, tail(r.body), r.err, states)
}

// harmless fails when an answer tells what is nobody's business.
func (r reply) harmless() error {
	for _, word := range []string{"goroutine ", "/home/", "/tmp/", "BEGIN "} {
		if strings.Contains(r.body, word) {
			return fmt.Errorf("the answer tells too much: %s", tail(r.body))
		}
	}
	return nil
}

// bearer is what a token's holder sends with a call.
func bearer(token string) string {
	parts := strings.SplitN(token, ".", 4)
	return parts[2] + "." + parts[3]
}

// bus connects to the master's NATS server with a certificate.
func (a *attacks) bus(cfg *tls.Config, more ...nats.Option) (*nats.Conn, error) {
	options := append([]nats.Option{
		nats.SetCustomDialer(dialFrom{a.attacker, a.at(a.Master, natsPort), cfg}), nats.NoReconnect(),
		nats.Timeout(5 * time.Second), nats.CustomInboxPrefix("_INBOX." + a.worker.Name),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // the attacks look at LastError
	}, more...)
	return nats.Connect("nats://"+a.at(a.Master, natsPort), options...)
}

type dialFrom struct {
	host *hosts.Host
	addr string
	tls  *tls.Config
}

// Dial implements nats.CustomDialer. The port speaks TLS from the first byte on.
func (d dialFrom) Dial(network, _ string) (net.Conn, error) {
	raw, err := d.host.Network.Dial(network, d.addr)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, d.tls)
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if err := conn.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, conn.SetDeadline(time.Time{})
}

// SkipTLSHandshake tells nats.go that Dial has done it.
func (d dialFrom) SkipTLSHandshake() bool { return true }

// asWorker runs fn on a connection that shows the stolen certificate, and again when the worker
// itself came back meanwhile, which ends the connection. It is good if that happens again and
// again.
func (a *attacks) asWorker(fn func(c *nats.Conn) error) error {
	for range 20 {
		c, err := a.bus(trusting(a.stolen(a.worker)))
		if err != nil {
			return fmt.Errorf("a worker is not let in: %w", err)
		}
		err = fn(c)
		c.Close()
		if !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil
}

// denied has the server say that it refuses a subject.
func denied(c *nats.Conn, subject string) error {
	if err := c.FlushTimeout(5 * time.Second); err != nil {
		return nil // it has closed the connection
	}
	switch err := c.LastError(); {
	case err == nil:
		return fmt.Errorf("the server took %s", subject)
	case strings.Contains(strings.ToLower(err.Error()), "permissions violation"):
		return nil
	default:
		return fmt.Errorf("the server took %s: %w", subject, err)
	}
}

func (a *attacks) cannotPublish(subjects ...string) error {
	var errs []error
	for _, subject := range subjects {
		errs = append(errs, a.asWorker(func(c *nats.Conn) error {
			if err := c.Publish(subject, []byte("{}")); err != nil {
				return err
			}
			return denied(c, subject)
		}))
	}
	return errors.Join(errs...)
}

func (a *attacks) cannotSubscribe(subjects ...string) error {
	var errs []error
	for _, subject := range subjects {
		errs = append(errs, a.asWorker(func(c *nats.Conn) error {
			if _, err := c.SubscribeSync(subject); err != nil {
				return err
			}
			return denied(c, subject)
		}))
	}
	return errors.Join(errs...)
}

// speaks reports what a port answers to some bytes before it closes the connection, or for a
// second.
func (a *attacks) speaks(to string, what []byte) (string, error) {
	c, err := a.attacker.Network.Dial("tcp", to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second)) // an open connection takes it
	_, _ = c.Write(what)                           // it may be closed already
	answer, _ := io.ReadAll(io.LimitReader(c, 1<<16))
	return string(answer), nil
}

// memory is the resident memory of a host's agent in bytes, after its garbage could have been
// collected.
func memory(t *testing.T, h *hosts.Host) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.Agent.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var kB int64
		if n, _ := fmt.Sscanf(string(line), "VmRSS: %d kB", &kB); n == 1 {
			return kB << 10
		}
	}
	t.Fatalf("%s has no VmRSS", h.Name)
	return 0
}
