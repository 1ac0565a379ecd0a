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

// Trust is what the certificate of the master must chain to; nil where this host has not joined yet.
type Trust = *x509.CertPool

// ownName looks whether other nodes could use this host's name.
func (h Host) ownName(ctx context.Context) Finding {
	name, err := os.Hostname()
	if err != nil {
		return bad("own name", err.Error(), "sudo hostnamectl set-hostname NAME")
	}
	addresses, err := lookup(ctx, name)
	return judgeOwnName(name, addresses, err, h.Advertise)
}

func judgeOwnName(name string, addresses []string, err error, advertise string) Finding {
	cure := "set `advertise:` in node.yaml to the address that other hosts reach this one at (ip addr)"
	switch {
	case advertise != "":
		return fine("own name", fmt.Sprintf("others are told %s", advertise))
	case err != nil:
		return warn("own name", fmt.Sprintf("the host name %s has no address", name), cure+", or put the name into /etc/hosts")
	case allLoopback(addresses):
		return warn("own name", fmt.Sprintf("the host name %s means %s, which no other host can reach", name, strings.Join(addresses, ", ")), cure)
	}
	return fine("own name", fmt.Sprintf("%s is %s", name, strings.Join(addresses, ", ")))
}

func lookup(ctx context.Context, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
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

func (h Host) seedName(ctx context.Context) Finding {
	addresses, err := lookup(ctx, h.Seed)
	return judgeSeedName(h.Seed, addresses, err)
}

func judgeSeedName(name string, addresses []string, err error) Finding {
	cure := fmt.Sprintf("give its address instead of its name, or put a line `ADDRESS %s` into /etc/hosts", name)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && !dns.IsNotFound:
		return bad("seed name", fmt.Sprintf("the master's name %s could not be looked up: %s", name, dns.Err), "see this host's name server (/etc/resolv.conf), or "+cure)
	case err != nil:
		return bad("seed name", fmt.Sprintf("the master's name %s has no address: %v", name, err), cure)
	}
	return fine("seed name", fmt.Sprintf("%s is %s", name, strings.Join(addresses, ", ")))
}

// reach tries the master's ports.
func (h Host) reach(ctx context.Context) []Finding {
	looks := []func() Finding{
		func() Finding { return judgeReach("master's api", h.at(h.Ports.API), h.greet(ctx, h.at(h.Ports.API))) },
		func() Finding {
			return judgeReach("master's nats", h.at(h.Ports.NATS), h.greet(ctx, h.at(h.Ports.NATS)))
		},
		func() Finding {
			c, err := dial(ctx, "tcp", h.at(h.Ports.Gossip))
			if err == nil {
				c.Close()
			}
			return judgeReach("master's gossip", h.at(h.Ports.Gossip), err)
		},
		func() Finding { return judgeDatagram(h.at(h.Ports.Gossip), datagram(ctx, h.at(h.Ports.Gossip))) },
	}
	found := make([]Finding, len(looks))
	done := make(chan struct{})
	for i, look := range looks {
		go func() { found[i] = look(); done <- struct{}{} }()
	}
	for range looks {
		<-done
	}
	return found
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: checkTime}
	return d.DialContext(ctx, network, address)
}

// errSilent is found where a port takes connections and says nothing.
var errSilent = errors.New("silent")

// greet makes a TLS connection. What it sends is public.
func (h Host) greet(ctx context.Context, address string) error {
	raw, err := dial(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer raw.Close()
	if err := raw.SetDeadline(time.Now().Add(checkTime)); err != nil {
		return err
	}
	// Names are not verified: certificates carry the names of nodes, not of hosts. The chain is, where there is something to
	// verify it with.
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, VerifyConnection: h.verify})
	err = c.HandshakeContext(ctx)
	var alert *net.OpError
	switch timeout := net.Error(nil); {
	case errors.As(err, &alert) && alert.Op == "remote error": // crypto/tls has no better mark for an alert of the other side
		return nil // it speaks TLS, and wants to know who we are
	case errors.As(err, &timeout) && timeout.Timeout():
		return errSilent
	}
	return err
}

func (h Host) verify(s tls.ConnectionState) error {
	if h.Roots == nil {
		return nil
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: h.Roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err
}

func judgeReach(name, address string, err error) Finding {
	host, port, _ := net.SplitHostPort(address)
	var plain tls.RecordHeaderError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var timeout net.Error
	switch {
	case err == nil:
		return fine(name, address+" answers")
	case errors.Is(err, errSilent):
		return bad(name, address+" takes connections and says nothing", "on "+host+" the master may hang (mlfnode service status), or a proxy stands before it: give the master's own address")
	case errors.As(err, &plain), errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return bad(name, address+" answers, and not with TLS: another program has that port, or a proxy stands in between",
			"on "+host+": ss -ltnp 'sport = :"+port+"'; and compare `ports:` in node.yaml on both hosts")
	case errors.As(err, &authority):
		return bad(name, address+" shows the certificate of another cluster", "if the master was set up again, join again with a token that it prints: mlfnode token")
	case errors.As(err, &invalid):
		return bad(name, address+": "+invalid.Error(), "compare the clocks of both hosts: timedatectl")
	case errors.Is(err, syscall.ECONNREFUSED):
		return bad(name, address+" refuses connections: nothing listens there, or a firewall rejects", "on "+host+": mlfnode service status; then compare `ports:` and `bind:` in node.yaml; then "+open(port, "tcp"))
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return bad(name, "no way leads to "+address+": "+err.Error(), "ip route get "+host+"; a network or VPN may be down, or the address wrong")
	case errors.As(err, &timeout) && timeout.Timeout():
		return bad(name, address+" does not answer: a firewall drops what is sent, or the host is down", "ping "+host+"; if that answers, on "+host+": "+open(port, "tcp"))
	}
	return bad(name, address+": "+err.Error(), "try: curl -kv https://"+address)
}

// open gives the lines that open a port in the usual firewalls.
func open(port, network string) string {
	return fmt.Sprintf("ufw allow %[1]s/%[2]s, or firewall-cmd --permanent --add-port=%[1]s/%[2]s && firewall-cmd --reload, or iptables -I INPUT -p %[2]s --dport %[1]s -j ACCEPT", port, network)
}

// refusalTime is how long the refusal of a datagram is waited for.
const refusalTime = 500 * time.Millisecond

// datagram sends one that no node takes for gossip, and waits whether it is refused. Silence is all that there is to hope for.
func datagram(ctx context.Context, address string) error {
	c, err := dial(ctx, "udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(refusalTime)); err != nil {
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
		return warn("master's gossip, udp", address+" refuses datagrams: "+err.Error(), "deaths are then noticed by TCP alone, later; on "+host+": "+open(port, "udp"))
	}
	return fine("master's gossip, udp", address+" does not refuse datagrams")
}

// ErrSameHost is what Host.Back returns when the master takes this host for its own, so that there is no way to try.
var ErrSameHost = errors.New("the master is on this host")

// back has the master try this host.
func (h Host) back(ctx context.Context) []Finding {
	if h.Back == nil {
		return nil
	}
	found := make([]Finding, 0, 2)
	port := strconv.Itoa(h.Ports.Gossip)
	for _, network := range []string{"tcp", "udp"} {
		ctx, cancel := context.WithTimeout(ctx, 2*checkTime)
		found = append(found, judgeBack(network, port, h.Back(ctx, network, port)))
		cancel()
	}
	return found
}

func judgeBack(network, port string, err error) Finding {
	name := "back from master, " + network
	switch {
	case err == nil:
		return fine(name, "the master reaches port "+port)
	case errors.Is(err, ErrSameHost):
		return fine(name, "not tried: it is this host that answers as the master")
	}
	cause := "the master does not reach port " + port + " of this host: " + err.Error()
	cure := "on this host: " + open(port, network) + "; behind NAT set `advertise:` in node.yaml"
	if network == "udp" {
		return warn(name, cause, cure)
	}
	return bad(name, cause, cure)
}
