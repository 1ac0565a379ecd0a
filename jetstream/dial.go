package jetstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"time"
)

const (
	// dialLimit bounds the try of one address; dialStagger is how long the next one waits for it before it is tried, too.
	dialLimit   = 3 * time.Second
	dialStagger = 250 * time.Millisecond
)

// dialer lets nats.go connect to wherever the master is at the moment. It does the TLS handshake itself, to see what the master
// thinks of it.
type dialer struct {
	ConnectConfig
	life context.Context // of the store: nats.go gives none
}

// Dial implements nats.CustomDialer; the address stands for the master and says nothing.
func (d *dialer) Dial(string, string) (net.Conn, error) { return d.first(d.Addresses()) }

// first connects to the first address at which the master answers. They are tried side by side, one after the other begun: neither an
// address that swallows packets nor one at which somebody else answers keeps the node from the others (RFC 8305 does so for the
// addresses of one host).
func (d *dialer) first(addresses []string) (net.Conn, error) {
	ctx, stop := context.WithCancel(d.life)
	defer stop()
	type try struct {
		conn net.Conn
		err  error
	}
	tried := make(chan try)
	under := 0
	next := time.NewTimer(0)
	defer next.Stop()
	refusals := []error{errors.New("no address of the master answers")}
	for under > 0 || len(addresses) > 0 {
		var turn <-chan time.Time
		if len(addresses) > 0 {
			turn = next.C
		}
		select {
		case <-turn:
			go func(address string) { // ends at the latest with ctx, which is awaited below
				conn, err := d.reach(ctx, address)
				tried <- try{conn, err}
			}(addresses[0])
			addresses, under = addresses[1:], under+1
			next.Reset(dialStagger)
		case t := <-tried:
			under--
			if t.err != nil {
				refusals = append(refusals, t.err)
				next.Reset(0)
				continue
			}
			for stop(); under > 0; under-- {
				if late := <-tried; late.err == nil {
					late.conn.Close()
				}
			}
			return t.conn, nil
		}
	}
	return nil, errors.Join(refusals...)
}

// reach connects to one address, at which the master must show its certificate.
func (d *dialer) reach(ctx context.Context, address string) (net.Conn, error) {
	ctx, stop := context.WithTimeout(ctx, dialLimit)
	defer stop()
	var n net.Dialer
	raw, err := n.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, d.TLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	return &judged{conn, d.CertificateRefused}, nil
}

// SkipTLSHandshake tells nats.go that Dial has done it.
func (d *dialer) SkipTLSHandshake() bool { return true }

// judged is a connection whose other side says, by its first word after the handshake, whether it takes the certificate.
type judged struct {
	net.Conn
	refused func(expired bool)
}

// Read implements net.Conn.
func (j *judged) Read(p []byte) (int, error) {
	n, err := j.Conn.Read(p)
	if err == nil || j.refused == nil {
		return n, err
	}
	switch text := err.Error(); { // crypto/tls exports no type for alerts over TCP
	case strings.Contains(text, "tls: bad certificate"), strings.Contains(text, "tls: unknown certificate authority"):
		j.refused(false)
	case strings.Contains(text, "tls: expired certificate"):
		j.refused(true)
	}
	return n, err
}
