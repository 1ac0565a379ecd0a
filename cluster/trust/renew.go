package trust

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"mlfnode/node/durable"
)

// nodeLifetime is how long a node's certificate is good. It is renewed after two thirds of that, so a machine may be off for the last third
// before it needs a token again.
const nodeLifetime = 365 * 24 * time.Hour

// issuedAt is when a node's certificate was made.
func issuedAt(cert *x509.Certificate) time.Time { return cert.NotBefore.Add(clockSlack) }

// renewalDue is when a certificate has been good for two thirds of its life.
func renewalDue(cert *x509.Certificate) time.Time {
	issued := issuedAt(cert)
	return issued.Add(cert.NotAfter.Sub(issued) / 3 * 2)
}

// renewable reports whether a certificate is to be renewed: its time has come, or it was made by a clock that was ahead and is good only
// later.
func renewable(cert *x509.Certificate, now time.Time) bool {
	return now.Before(cert.NotBefore) || !now.Before(renewalDue(cert))
}

// Renewal is the master's answer to a node that asks for a new certificate.
type Renewal struct {
	Certificate []byte `json:"certificate,omitempty"` // DER; empty while the one that the node has is good for long
}

// SetLifetime has certificates be good for another time than a year.
func (a *Authority) SetLifetime(d time.Duration) { a.lifetime = d }

// Renew gives the node that has shown a certificate a new one for the same key, once that is due. The node asks again when the answer is
// lost. ErrUnknownNode is for a node that was forgotten.
func (a *Authority) Renew(shown *x509.Certificate) (Renewal, error) {
	node, role, err := nodeOf(shown)
	if err != nil {
		return Renewal{}, err
	}
	if err := a.Known(node, shown); err != nil {
		return Renewal{}, err
	}
	if !renewable(shown, a.clock()) {
		return Renewal{}, nil
	}
	der, err := a.signNode(node, role, shown.PublicKey.(*ecdsa.PublicKey)) // as Known has checked
	return Renewal{Certificate: der}, err
}

// RenewSelf renews the master's own certificate once that is due. Connections from then on show the new one.
func (a *Authority) RenewSelf(id *Identity) error {
	r, err := a.Renew(id.Leaf())
	if err != nil {
		return err
	}
	_, err = id.Renew(a.dir, r)
	return err
}

// Renew takes over the master's answer, on disk and for the connections from then on. It reports whether there was a new certificate.
func (id *Identity) Renew(dir string, r Renewal) (renewed bool, err error) {
	if len(r.Certificate) == 0 {
		return false, nil
	}
	now := id.current()
	next, err := newIdentity(r.Certificate, now.CA, now.Cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		return false, err
	}
	if next.Node != now.Node || next.Role != now.Role {
		return false, errors.New("the master sent the certificate of another node")
	}
	if err := verify([]*x509.Certificate{next.Leaf()}, next.CA, x509.ExtKeyUsageClientAuth, id.now()); err != nil {
		return false, fmt.Errorf("the new certificate can't be used: %w", err)
	}
	// The key and the CA stay, so this one file is the whole change, and others may write to the folder meanwhile.
	if err := durable.WriteFile(filepath.Join(dir, nodeCertFile), certPEM(r.Certificate), 0o600); err != nil {
		return false, err
	}
	id.renewed.Store(next)
	return true, nil
}

// Expires is when the node's certificate ends.
func (id *Identity) Expires() time.Time { return id.Leaf().NotAfter }

// Expired reports whether the node's certificate has ended, so that it takes a token to join again.
func (id *Identity) Expired() bool { return id.now().After(id.Expires()) }

// Lifetime is how long the node's certificate is good in all.
func (id *Identity) Lifetime() time.Duration { return id.Expires().Sub(issuedAt(id.Leaf())) }
