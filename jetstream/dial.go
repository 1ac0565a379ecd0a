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
	// dialLimit bounds an attempt to connect to one address; dialStagger is the delay before the
	// next address is tried as well.
	dialLimit   = 3 * time.Second
	dialStagger = 250 * time.Millisecond
)

// dialer connects nats.go to the current address of the master. It does the TLS handshake itself,
// to learn whether the master accepts the certificate.
type dialer struct {
	ConnectConfig
	ctx context.Context // of the client: nats.go passes none
}

// Dial implements nats.CustomDialer. The address that nats.go passes is a placeholder.
//
// It connects to the first address at which the master answers. It tries them concurrently,
// with staggered starts: neither an address that swallows packets nor one at which another service
// answers keeps the node from the rest (RFC 8305 does the same for the addresses of one host).
func (d *dialer) Dial(string, string) (net.Conn, error) {
	addresses := d.Addresses()
	ctx, stop := context.WithCancel(d.ctx)
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
			go func(address string) { // ends with ctx at the latest, and is awaited below
				conn, err := d.dialOne(ctx, address)
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

// dialOne connects to one address, at which the master must present its certificate.
func (d *dialer) dialOne(ctx context.Context, address string) (net.Conn, error) {
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
	return &certificateConn{conn, d.CertificateRefused}, nil
}

// SkipTLSHandshake tells nats.go that Dial has done the handshake.
func (d *dialer) SkipTLSHandshake() bool { return true }

// certificateConn is a connection that reports when the other side rejects the certificate, which
// TLS 1.3 reports at the first read after the handshake.
type certificateConn struct {
	net.Conn
	refused func(expired bool)
}

// Read implements net.Conn.
func (j *certificateConn) Read(p []byte) (int, error) {
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
