package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// checkOwnName checks whether other nodes can use this host's name.
func checkOwnName(ctx context.Context, advertise string) Finding {
	name, err := os.Hostname()
	if err != nil {
		return bad("own name", err.Error(), "sudo hostnamectl set-hostname NAME")
	}
	addresses, err := lookup(ctx, name)
	return judgeOwnName(name, addresses, err, advertise)
}

func judgeOwnName(name string, addresses []string, err error, advertise string) Finding {
	cure := "set `advertise:` in node.yaml to the address that other hosts reach this one at (ip addr)"
	switch {
	case advertise != "":
		return fine("own name", fmt.Sprintf("others use %s", advertise))
	case err != nil:
		return warn("own name", fmt.Sprintf("the host name %s has no address", name),
			cure+", or put the name into /etc/hosts")
	case allLoopback(addresses):
		return warn("own name", fmt.Sprintf("the host name %s means %s, which no other host can reach", name,
			strings.Join(addresses, ", ")), cure)
	}
	return fine("own name", fmt.Sprintf("%s is %s", name, strings.Join(addresses, ", ")))
}

func lookup(ctx context.Context, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return net.DefaultResolver.LookupHost(ctx, name)
}

func allLoopback(addresses []string) bool {
	for _, a := range addresses {
		if ip := net.ParseIP(a); ip == nil || !ip.IsLoopback() {
			return false
		}
	}
	return len(addresses) > 0
}

func checkSeedName(ctx context.Context, seed string) Finding {
	addresses, err := lookup(ctx, seed)
	return judgeSeedName(seed, addresses, err)
}

func judgeSeedName(name string, addresses []string, err error) Finding {
	cure := fmt.Sprintf("give its address instead of its name, or put a line `ADDRESS %s` into /etc/hosts", name)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && !dns.IsNotFound:
		return bad("seed name", fmt.Sprintf("the master's name %s could not be looked up: %s", name, dns.Err),
			"see this host's name server (/etc/resolv.conf), or "+cure)
	case err != nil:
		return bad("seed name", fmt.Sprintf("the master's name %s has no address: %v", name, err), cure)
	}
	return fine("seed name", fmt.Sprintf("%s is %s", name, strings.Join(addresses, ", ")))
}

// checkMasterPorts connects to the master's ports.
func (h Host) checkMasterPorts(ctx context.Context) []Finding {
	checks := []func() Finding{
		func() Finding {
			return judgePortOfMaster("master's api", h.seedAddress(h.Ports.API),
				h.handshake(ctx, h.seedAddress(h.Ports.API)))
		},
		func() Finding {
			return judgePortOfMaster("master's nats", h.seedAddress(h.Ports.NATS),
				h.handshake(ctx, h.seedAddress(h.Ports.NATS)))
		},
		func() Finding {
			c, err := dial(ctx, "tcp", h.seedAddress(h.Ports.Gossip))
			if err == nil {
				c.Close()
			}
			return judgePortOfMaster("master's gossip", h.seedAddress(h.Ports.Gossip), err)
		},
		func() Finding {
			return judgeDatagram(h.seedAddress(h.Ports.Gossip), sendDatagram(ctx, h.seedAddress(h.Ports.Gossip)))
		},
	}
	found := make([]Finding, len(checks))
	done := make(chan struct{})
	for i, check := range checks {
		go func() { found[i] = check(); done <- struct{}{} }()
	}
	for range checks {
		<-done
	}
	return found
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: checkTimeout}
	return d.DialContext(ctx, network, address)
}

// errSilent is the error of a port that accepts connections and sends nothing.
var errSilent = errors.New("silent")

// handshake makes a TLS connection. It sends nothing secret.
func (m RemoteMaster) handshake(ctx context.Context, address string) error {
	raw, err := dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(checkTimeout)); err != nil {
		return err
	}
	// Names are not verified, because certificates contain the names of nodes, not of hosts. The
	// chain is verified if this host has the cluster's CA.
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12,
		VerifyConnection: m.verify})
	err = c.HandshakeContext(ctx)
	var alert *net.OpError
	switch timeout := net.Error(nil); {
	case errors.As(err, &alert) && alert.Op == "remote error":
		// crypto/tls does not mark an alert from the peer in any better way
		return nil // it speaks TLS and requires a client certificate
	case errors.As(err, &timeout) && timeout.Timeout():
		return errSilent
	}
	return err
}

func (m RemoteMaster) verify(s tls.ConnectionState) error {
	if m.Roots == nil {
		return nil
	}
	intermediates := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: m.Roots, Intermediates: intermediates,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

func judgePortOfMaster(name, address string, err error) Finding {
	host, port, _ := net.SplitHostPort(address)
	var plain tls.RecordHeaderError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var timeout net.Error
	switch {
	case err == nil:
		return fine(name, address+" answers")
	case errors.Is(err, errSilent):
		return bad(name, address+" takes connections and says nothing", "on "+host+
			" the master may hang (mlfnode service status), or a proxy stands before it: give the master's own address")
	case errors.As(err, &plain), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return bad(name, address+
			" answers, and not with TLS: another program has that port, or a proxy stands in between",
			"on "+host+": ss -ltnp 'sport = :"+port+"'; and compare `ports:` in node.yaml on both hosts")
	case errors.As(err, &authority):
		return bad(name, address+" shows the certificate of another cluster",
			"if the master was set up again, join again with a token that it prints: mlfnode token")
	case errors.As(err, &invalid):
		return bad(name, address+": "+invalid.Error(), "compare the clocks of both hosts: timedatectl")
	case errors.Is(err, syscall.ECONNREFUSED):
		return bad(name, address+" refuses connections: nothing listens there, or a firewall rejects", "on "+host+
			": mlfnode service status; then compare `ports:` and `bind:` in node.yaml; then "+openPort(port, "tcp"))
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return bad(name, "no way leads to "+address+": "+err.Error(),
			"ip route get "+host+"; a network or VPN may be down, or the address wrong")
	case errors.As(err, &timeout) && timeout.Timeout():
		return bad(name, address+" does not answer: a firewall drops what is sent, or the host is down",
			"ping "+host+"; if that answers, on "+host+": "+openPort(port, "tcp"))
	}
	return bad(name, address+": "+err.Error(), "try: curl -kv https://"+address)
}

// openPort returns the commands that open a port in the usual firewalls.
func openPort(port, network string) string {
	return fmt.Sprintf(
		"ufw allow %[1]s/%[2]s, or firewall-cmd --permanent --add-port=%[1]s/%[2]s && firewall-cmd --reload, or iptables -I INPUT -p %[2]s --dport %[1]s -j ACCEPT",
		port, network)
}

// refusalTimeout is how long sendDatagram waits for a refusal.
const refusalTimeout = 500 * time.Millisecond

// sendDatagram sends a datagram that no node mistakes for gossip, and returns an error if it is
// refused. No answer is the best possible result.
func sendDatagram(ctx context.Context, address string) error {
	c, err := dial(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(refusalTimeout)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("doctor")); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 64))
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func judgeDatagram(address string, err error) Finding {
	host, port, _ := net.SplitHostPort(address)
	if err != nil {
		return warn("master's gossip, udp", address+" refuses datagrams: "+err.Error(),
			"deaths are then noticed by TCP alone, later; on "+host+": "+openPort(port, "udp"))
	}
	return fine("master's gossip, udp", address+" does not refuse datagrams")
}

// ErrSameHost is returned by RemoteMaster.DialBack if the master runs on this host, so that nothing
// is tried.
var ErrSameHost = errors.New("the master is on this host")

// checkDialBack makes the master connect to the gossip port of this host.
func (m RemoteMaster) checkDialBack(ctx context.Context, gossip int) []Finding {
	if m.DialBack == nil {
		return nil
	}
	found := make([]Finding, 0, 2)
	port := strconv.Itoa(gossip)
	for _, network := range []string{"tcp", "udp"} {
		ctx, cancel := context.WithTimeout(ctx, 2*checkTimeout)
		found = append(found, judgeDialBack(network, port, m.DialBack(ctx, network, port)))
		cancel()
	}
	return found
}

func judgeDialBack(network, port string, err error) Finding {
	name := "back from master, " + network
	switch {
	case err == nil:
		return fine(name, "the master reaches port "+port)
	case errors.Is(err, ErrSameHost):
		return fine(name, "not tried: it is this host that answers as the master")
	}
	cause := "the master does not reach port " + port + " of this host: " + err.Error()
	cure := "on this host: " + openPort(port, network) + "; behind NAT set `advertise:` in node.yaml"
	if network == "udp" {
		return warn(name, cause, cure)
	}
	return bad(name, cause, cure)
}
