package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// serving returns a host whose master answers on all ports of this machine.
func serving(t *testing.T) Host {
	t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(t.Output(), "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	api := s.Listener.Addr().(*net.TCPAddr).Port
	gossip := listenPort(t, func(c net.Conn) { c.Close() })
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: gossip})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return Host{
		RemoteMaster: RemoteMaster{Seed: "127.0.0.1", Roots: roots}, Ports: Ports{API: api, NATS: api, Gossip: gossip},
	}
}

// listenPort serves connections with fn and returns the port.
func listenPort(t *testing.T, fn func(net.Conn)) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go fn(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func TestReach(t *testing.T) {
	h := serving(t)
	for _, f := range h.checkMasterPorts(t.Context()) {
		want(t, f, OK, "", "")
	}
	h.Roots = x509.NewCertPool()
	want(t, h.checkMasterPorts(t.Context())[0], Bad, "another cluster", "mlfnode token")
	h.Roots = nil
	found := h.checkMaster(t.Context())
	want(t, found[0], OK, "agrees", "")
}

func TestReachRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	h := Host{RemoteMaster: RemoteMaster{Seed: "127.0.0.1"}, Ports: Ports{API: port, NATS: port, Gossip: port}}
	found := h.checkMasterPorts(t.Context())
	for _, f := range found[:3] {
		want(t, f, Bad, "refuses connections", "mlfnode service status")
	}
	want(t, found[3], Warn, "refuses datagrams", "/udp")
	want(t, h.checkMaster(t.Context())[0], Warn, "does not report its time", "reaching")
}

func TestReachNoTLS(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	silent := listenPort(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	closing := listenPort(t, func(c net.Conn) { c.Close() })
	h := Host{RemoteMaster: RemoteMaster{Seed: "127.0.0.1"},
		Ports: Ports{API: plain.Listener.Addr().(*net.TCPAddr).Port, NATS: silent, Gossip: closing}}
	found := h.checkMasterPorts(t.Context())
	want(t, found[0], Bad, "not with TLS", "ss -ltnp")
	want(t, found[1], Bad, "says nothing", "may hang")
	h.Ports.API = closing
	want(t, h.checkMasterPorts(t.Context())[0], Bad, "not with TLS", "ss -ltnp")
}

// TestReachWantsCertificate connects to a port that responds only to clients with a certificate, as
// NATS does.
func TestReachWantsCertificate(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(t.Output(), "", 0)
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}
	s.StartTLS()
	t.Cleanup(s.Close)
	if err := (Host{}).handshake(t.Context(), s.Listener.Addr().String()); err != nil {
		t.Errorf("got %v, want TLS to be seen", err)
	}
}

const inside = "MLF_TEST_INSIDE_NAMESPACE"

// TestReachSilence tries addresses that do not answer, in a network namespace whose route leads
// nowhere.
func TestReachSilence(t *testing.T) {
	if os.Getenv(inside) == "" {
		outside(t)
		return
	}
	for _, line := range []string{"link set lo up", "link add void type veth peer name end",
		"addr add 10.9.9.1/24 dev void",
		"link set void up", "link set end up", "neigh add 10.9.9.2 lladdr 02:00:00:00:00:02 dev void nud permanent"} {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v %s", line, err, out)
		}
	}
	h := Host{RemoteMaster: RemoteMaster{Seed: "10.9.9.2"}, Ports: DefaultPorts()}
	for _, f := range h.checkMasterPorts(t.Context())[:3] {
		want(t, f, Bad, "a firewall drops what is sent", "ping 10.9.9.2; if that answers, on 10.9.9.2: ufw allow 742")
	}
	h.Seed = "10.8.8.8"
	for _, f := range h.checkMasterPorts(t.Context())[:3] {
		want(t, f, Bad, "no way leads to 10.8.8.8", "ip route get 10.8.8.8")
	}
}

// outside runs the test again in a namespace of its own.
func outside(t *testing.T) {
	for _, program := range []string{"unshare", "ip"} {
		if _, err := exec.LookPath(program); err != nil || os.Getuid() != 0 {
			if os.Getenv("CI") == "true" {
				t.Fatalf("a network namespace needs root, unshare and ip: %v", err)
			}
			t.Skip("left out: a network namespace needs root, unshare and ip")
		}
	}
	c := exec.Command("unshare", "--net", os.Args[0], "-test.run", "^TestReachSilence$", "-test.v")
	c.Env = append(os.Environ(), inside+"=yes")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("in the namespace: %v\n%s", err, out)
	}
}
