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

// nodeLifetime is how long a node's certificate is good. It is renewed after two thirds of that, so
// a machine may be off for the last third before it needs a token again.
const nodeLifetime = 365 * 24 * time.Hour

// issuedAt is when a node's certificate was made.
func issuedAt(cert *x509.Certificate) time.Time { return cert.NotBefore.Add(clockSlack) }

// renewalDue is when a certificate has been good for two thirds of its life.
func renewalDue(cert *x509.Certificate) time.Time {
	issued := issuedAt(cert)
	return issued.Add(cert.NotAfter.Sub(issued) / 3 * 2)
}

// renewable reports whether a certificate is to be renewed: its time has come, or it was made by a
// clock that was ahead and is good only later.
func renewable(cert *x509.Certificate, now time.Time) bool {
	return now.Before(cert.NotBefore) || !now.Before(renewalDue(cert))
}

// Renewal is the master's answer to a node that asks for a new certificate.
type Renewal struct {
	Certificate []byte   `json:"certificate,omitempty"` // DER; empty while the one that the node has is good for long
	CAs         [][]byte `json:"cas,omitempty"`         // DER; all that the node is to trust
}

// RenewalRequest is what a node says that asks for a new certificate.
type RenewalRequest struct {
	Trusts []string `json:"trusts,omitempty"` // pins of the CAs that it has on its disk
}

// RenewalRequest says what the node has.
func (id *Identity) RenewalRequest() RenewalRequest {
	return RenewalRequest{Trusts: newIssuers(id.Trusted(), nil).pins}
}

// SetLifetime has certificates be good for another time than a year.
func (a *Authority) SetLifetime(d time.Duration) { a.lifetime = d }

// Renew gives the node that has shown a certificate a new one for the same key, once that is due or
// another CA issues, and says which CAs are trusted. The node asks again when the answer is lost.
// ErrUnknownNode is for a node that was forgotten.
func (a *Authority) Renew(shown *x509.Certificate, ask RenewalRequest) (Renewal, error) {
	node, role, err := nodeOf(shown)
	if err != nil {
		return Renewal{}, err
	}
	if err := a.Known(node, shown); err != nil {
		return Renewal{}, err
	}
	by := a.issuers.Load()
	if err := a.noteCAs(node, shown, ask.Trusts, by); err != nil {
		return Renewal{}, err
	}
	r := Renewal{CAs: by.cas.raw()}
	if renewable(shown, a.clock()) || shown.CheckSignatureFrom(by.cas[0]) != nil {
		r.Certificate, err = a.signNode(by, node, role, shown.PublicKey.(*ecdsa.PublicKey)) // as Known has checked
	}
	return r, err
}

// RenewSelf renews the master's own certificate once that is due or another CA issues. Connections
// from then on show the new one.
func (a *Authority) RenewSelf(id *Identity) error {
	a.joining.Lock() // no step of a rotation may write the same files
	defer a.joining.Unlock()
	for range 2 { // the second time records what the first one gave
		r, err := a.Renew(id.Leaf(), id.RenewalRequest())
		if err != nil {
			return err
		}
		if renewed, err := id.Renew(a.dir, r); err != nil || !renewed {
			return err
		}
	}
	return nil
}

// Renew takes over the master's answer, on disk and for the connections from then on. It reports
// whether there was a new certificate, or other CAs.
func (id *Identity) Renew(dir string, r Renewal) (renewed bool, err error) {
	now := id.current()
	cas, der := now.CAs, r.Certificate
	if len(r.CAs) > 0 { // a master that knows no rotations sends none
		if cas, err = parseCAs(r.CAs); err != nil {
			return false, fmt.Errorf("read the CAs that the master sent: %w", err)
		}
	}
	if der == nil {
		if cas.equal(now.CAs) {
			return false, nil
		}
		der = now.Leaf().Raw
	}
	next, err := newIdentity(der, cas, now.Cluster, now.Cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		return false, err
	}
	if next.Node != now.Node || next.Role != now.Role {
		return false, errors.New("the master sent the certificate of another node")
	}
	if err := verify([]*x509.Certificate{next.Leaf()}, next.CAs, x509.ExtKeyUsageClientAuth, id.now()); err != nil {
		return false, fmt.Errorf("the new certificate can't be used: %w", err)
	}
	// Each file is a change of its own, and others may write to the folder meanwhile: the CAs are
	// good for the certificates of before and after.
	if !cas.equal(now.CAs) {
		if cas.issuer(now.Leaf()) == nil {
			return false, errors.New("the master sent CAs of which none has signed this node's certificate")
		}
		if err := next.saveCAs(dir); err != nil {
			return false, err
		}
	}
	if r.Certificate != nil {
		if err := durable.WriteFile(filepath.Join(dir, nodeCertFile), certPEM(r.Certificate), 0o600); err != nil {
			return false, err
		}
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
