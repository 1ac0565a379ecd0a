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

// Admit decides about a node whose certificate is valid; on the master that is Authority.Known.
type Admit func(node grid.NodeID, cert *x509.Certificate) error

// APIServer is for a listener that serves nodes and people: a peer may show no certificate, but one that it shows has to be a
// node's and pass admit, which may be nil. The configuration may be shared.
func (id *Identity) APIServer(admit Admit) *tls.Config {
	cfg := id.server(tls.VerifyClientCertIfGiven, admit)
	cfg.NextProtos = []string{"h2", "http/1.1"} // over HTTP/1.1 a browser has six connections, which six event streams would keep busy
	return cfg
}

// NATSServer is for a listener that serves nodes only. The configuration may be shared.
func (id *Identity) NATSServer(admit Admit) *tls.Config {
	return id.server(tls.RequireAndVerifyClientCert, admit)
}

func (id *Identity) server(auth tls.ClientAuthType, admit Admit) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       id.Clock,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &id.current().Cert, nil // with the CA, which joining machines know by its hash
		},
		ClientAuth:             auth,
		ClientCAs:              poolOf(id.CA),
		SessionTicketsDisabled: true, // each connection is judged anew
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 && auth == tls.VerifyClientCertIfGiven {
				return nil
			}
			if err := verify(s.PeerCertificates, id.CA, x509.ExtKeyUsageClientAuth, id.now()); err != nil {
				return err
			}
			node, _, err := PeerOf(s)
			if err != nil || admit == nil {
				return err
			}
			return admit(node, s.PeerCertificates[0])
		},
	}
}

// Client is for a node that dials a master of its cluster; it shows its certificate to nobody else.
func (id *Identity) Client() *tls.Config {
	cfg := client(id.Clock, func(s tls.ConnectionState) error { return verifyMaster(s, id.CA, id.now()) })
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.current().Cert, nil }
	return cfg
}

func (id *Identity) now() time.Time {
	if id.Clock == nil {
		return time.Now()
	}
	return id.Clock()
}

// Client is for people and for machines that join: they show no certificate, and dial only a master of the pinned cluster.
// Nothing of theirs is sent before that is certain.
func (p Pin) Client() *tls.Config {
	return client(nil, func(s tls.ConnectionState) error {
		ca, err := p.CA(s)
		if err != nil {
			return err
		}
		return verifyMaster(s, ca, time.Now())
	})
}

// CA finds the pinned CA among the certificates that a server has sent, or returns ErrWrongCA.
func (p Pin) CA(s tls.ConnectionState) (*x509.Certificate, error) {
	for _, c := range s.PeerCertificates {
		if PinOf(c) == p && c.IsCA {
			return c, nil
		}
	}
	return nil, fmt.Errorf("the %w than the token's or the context's", ErrWrongCA)
}

// client leaves it to check who the server is: the verification of the standard library is about host names, which we don't
// have.
func client(clock func() time.Time, check func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		Time:               clock,
		InsecureSkipVerify: true, // VerifyConnection does it, on every connection
		VerifyConnection:   check,
	}
}

// PeerOf gives the node at the other end of a connection that was made with a configuration of this package. It returns
// ErrNoCertificate for a peer that showed none.
func PeerOf(s tls.ConnectionState) (grid.NodeID, NodeRole, error) {
	if len(s.PeerCertificates) == 0 {
		return "", "", ErrNoCertificate
	}
	return nodeOf(s.PeerCertificates[0])
}

func verifyMaster(s tls.ConnectionState, ca *x509.Certificate, now time.Time) error {
	if err := verify(s.PeerCertificates, ca, x509.ExtKeyUsageAny, now); err != nil {
		return err
	}
	node, role, err := PeerOf(s)
	switch {
	case err != nil:
		return err
	case role != Master:
		return fmt.Errorf("%s is a %s, and no master; name the machine that runs mlfnode master", node, role)
	case !slices.Contains(s.PeerCertificates[0].ExtKeyUsage, x509.ExtKeyUsageServerAuth):
		return fmt.Errorf("the certificate of %s is not for serving", node)
	}
	return nil
}

// verify checks that the CA has signed the first certificate, for this usage and for this time.
func verify(certs []*x509.Certificate, ca *x509.Certificate, usage x509.ExtKeyUsage, now time.Time) error {
	if len(certs) == 0 {
		return ErrNoCertificate
	}
	_, err := certs[0].Verify(x509.VerifyOptions{Roots: poolOf(ca), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("the certificate of the peer is good from %s to %s, and this machine's clock says %s; check the clocks: %w",
			certs[0].NotBefore.Format(time.DateTime), certs[0].NotAfter.Format(time.DateTime), now.UTC().Format(time.DateTime), err)
	case errors.As(err, &invalid):
		return fmt.Errorf("the certificate of the peer is not for this: %w", err)
	}
	return fmt.Errorf("the %w: %w", ErrWrongCA, err)
}

func poolOf(ca *x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	return pool
}
