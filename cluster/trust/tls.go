package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"mlfnode/grid"
)

// Admit returns an error if a node with a valid certificate is not admitted. On the master, it is
// Authority.Known.
type Admit func(node grid.NodeID, cert *x509.Certificate) error

// APIServer returns a configuration for a listener that serves nodes and people. A peer need not
// show a certificate, but a certificate must be a node's and be admitted by admit, which may be
// nil. The configuration may be shared.
func (id *Identity) APIServer(admit Admit) *tls.Config {
	cfg := id.server(tls.VerifyClientCertIfGiven, admit)
	// Over HTTP/1.1 a browser has six connections, which six event streams would keep busy.
	cfg.NextProtos = []string{"h2", "http/1.1"}
	return cfg
}

// NATSServer returns a configuration for a listener that serves only nodes. The configuration may
// be shared.
func (id *Identity) NATSServer(admit Admit) *tls.Config {
	return id.server(tls.RequireAndVerifyClientCert, admit)
}

func (id *Identity) server(auth tls.ClientAuthType, admit Admit) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       id.Clock,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &id.current().Cert, nil // includes the CAs, which joining machines recognise by a hash
		},
		ClientAuth:             auth,
		SessionTicketsDisabled: true, // each connection is checked separately
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 && auth == tls.VerifyClientCertIfGiven {
				return nil
			}
			if err := verify(s.PeerCertificates, id.Trusted(), x509.ExtKeyUsageClientAuth, id.now()); err != nil {
				return err
			}
			node, _, err := PeerOf(s)
			if err != nil || admit == nil {
				return err
			}
			return admit(node, s.PeerCertificates[0])
		},
	}
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := cfg.Clone()
		now.GetConfigForClient, now.ClientCAs = nil, id.Trusted().Pool()
		return now, nil
	}
	return cfg
}

// Client returns a configuration to dial a master of the node's cluster. The node shows its
// certificate to nobody else.
func (id *Identity) Client() *tls.Config {
	cfg := client(id.Clock, func(s tls.ConnectionState) error { return verifyMaster(s, id.Trusted(), id.Clock) })
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate,
		error) {
		return &id.current().Cert, nil
	}
	return cfg
}

func (id *Identity) now() time.Time { return timeBy(id.Clock) }

func timeBy(clock func() time.Time) time.Time {
	if clock == nil {
		return time.Now()
	}
	return clock()
}

// Client returns a configuration for people and for machines that join. They show no certificate,
// and connect only to a master of the pinned cluster: they send nothing before that is verified.
func (p Pin) Client() *tls.Config {
	return client(nil, func(s tls.ConnectionState) error {
		ca, err := p.CA(s)
		if err != nil {
			return err
		}
		return verifyMaster(s, CAs{ca}, nil)
	})
}

// CAs returns all CAs that a server has sent, if the pinned CA is among them, or ErrWrongCA. They
// are the cluster's CAs if the caller has verified the server.
func (p Pin) CAs(s tls.ConnectionState) (CAs, error) {
	if _, err := p.CA(s); err != nil {
		return nil, err
	}
	cas := sentCAs(s)
	return cas, cas.check()
}

// CA returns the pinned CA among the certificates that a server has sent, or ErrWrongCA.
func (p Pin) CA(s tls.ConnectionState) (*x509.Certificate, error) {
	for _, c := range s.PeerCertificates {
		if PinOf(c) == p && c.IsCA {
			return c, nil
		}
	}
	return nil, fmt.Errorf("the %w than the token's or the context's", ErrWrongCA)
}

// client returns a configuration that verifies the server by check alone: the standard library
// verifies host names, which certificates of nodes do not have.
func client(clock func() time.Time, check func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Time:               clock,
		InsecureSkipVerify: true, // VerifyConnection does it, on every connection
		VerifyConnection:   check,
	}
}

// PeerOf returns the node at the other end of a connection that uses a configuration of this
// package. It returns ErrNoCertificate if the peer showed no certificate.
func PeerOf(s tls.ConnectionState) (grid.NodeID, grid.NodeRole, error) {
	if len(s.PeerCertificates) == 0 {
		return "", "", ErrNoCertificate
	}
	return nodeOf(s.PeerCertificates[0])
}

func verifyMaster(s tls.ConnectionState, cas CAs, clock func() time.Time) error {
	err := verify(s.PeerCertificates, cas, x509.ExtKeyUsageAny, timeBy(clock))
	if errors.Is(err, ErrWrongCA) && cas.share(sentCAs(s)) {
		return fmt.Errorf("the %w: %w", ErrRotated, err) // anyone can send our CA, so this is a guess
	}
	if err != nil {
		return err
	}
	node, role, err := PeerOf(s)
	switch {
	case err != nil:
		return err
	case role != grid.Master:
		return fmt.Errorf("%s is a %s, and no master; name the machine that runs mlfnode master", node, role)
	case !slices.Contains(s.PeerCertificates[0].ExtKeyUsage, x509.ExtKeyUsageServerAuth):
		return fmt.Errorf("the certificate of %s is not for serving", node)
	}
	return nil
}

// verify checks that one of the CAs has signed the first certificate, and that it is valid for the
// usage at the given time.
func verify(certs []*x509.Certificate, cas CAs, usage x509.ExtKeyUsage, now time.Time) error {
	if len(certs) == 0 {
		return ErrNoCertificate
	}
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: cas.Pool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{usage}})
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf(
			"the certificate of the peer is good from %s to %s, and this machine's clock says %s; check the clocks: %w",
			certs[0].NotBefore.Format(time.DateTime), certs[0].NotAfter.Format(time.DateTime),
			now.UTC().Format(time.DateTime), err)
	case errors.As(err, &invalid):
		return fmt.Errorf("the certificate of the peer is not for this: %w", err)
	}
	return fmt.Errorf("the %w: %w", ErrWrongCA, err)
}
