package trust

import (
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"mlfnode/node/durable"
)

// nodeLifetime is the validity of a node's certificate. The certificate is renewed after two thirds
// of it, so a machine may be off for the last third before it needs a token again. The year is also
// named in node/config/config.go (CertificateLife), docs/clusters.md and docs/ARCHITECTURE.md.
const nodeLifetime = 365 * 24 * time.Hour

// issuedAt returns the time when a node's certificate was issued.
func issuedAt(cert *x509.Certificate) time.Time { return cert.NotBefore.Add(clockSlack) }

// RenewalDue returns the time from which the master renews a node's certificate: two thirds of its
// validity have passed.
func RenewalDue(cert *x509.Certificate) time.Time {
	issued := issuedAt(cert)
	return issued.Add(cert.NotAfter.Sub(issued) / 3 * 2)
}

// renewable reports whether a certificate should be renewed: its renewal is due, or it was issued
// by a clock that was fast and is not valid yet.
func renewable(cert *x509.Certificate, now time.Time) bool {
	return now.Before(cert.NotBefore) || !now.Before(RenewalDue(cert))
}

// Renewal is the master's answer to a RenewalRequest.
type Renewal struct {
	Certificate []byte   `json:"certificate,omitempty"` // DER; empty if the node's certificate is not due for renewal
	CAs         [][]byte `json:"cas,omitempty"`         // DER; all CAs that the node must trust
}

// RenewalRequest is a node's request for a new certificate.
type RenewalRequest struct {
	Trusts []string `json:"trusts,omitempty"` // pins of the CAs on the node's disk
}

// RenewalRequest returns the request with the CAs that the node has.
func (id *Identity) RenewalRequest() RenewalRequest {
	return RenewalRequest{Trusts: newIssuers(id.Trusted(), nil).pins}
}

// Renew issues a new certificate for the key of the given one, if that is due for renewal or
// another CA issues by now, and returns the trusted CAs. If the answer is lost, the node asks
// again. Renew returns ErrUnknownNode for a node that was forgotten.
func (a *Authority) Renew(shown *x509.Certificate, ask RenewalRequest) (Renewal, error) {
	node, role, err := nodeOf(shown)
	if err != nil {
		return Renewal{}, err
	}
	if err := a.Known(node, shown); err != nil {
		return Renewal{}, err
	}
	by := a.issuers.Load()
	// The registry has the CA that issued the node's certificate, and the newest one that the node
	// trusts.
	record := a.nodes.all()[string(node)]
	ca, newest := record.CA, record.Trusts
	if issuer := by.cas.issuer(shown); issuer != nil {
		ca = PinOf(issuer).String()
	}
	if pin := PinOf(by.cas.newest()).String(); slices.Contains(ask.Trusts, pin) {
		newest = pin
	}
	if a.named(ca) != a.named(record.CA) || a.named(newest) != a.named(record.Trusts) {
		if err := a.edit(node, func(r *nodeRecord) { r.CA, r.Trusts = ca, newest }); err != nil {
			return Renewal{}, err
		}
	}
	r := Renewal{CAs: by.cas.raw()}
	if renewable(shown, a.clock()) || shown.CheckSignatureFrom(by.cas[0]) != nil {
		// Known has checked the type
		r.Certificate, err = a.signNode(by, node, role, shown.PublicKey.(*ecdsa.PublicKey))
	}
	return r, err
}

// RenewSelf renews the master's own certificate if that is due or another CA issues by now. Later
// connections use the new one.
func (a *Authority) RenewSelf(id *Identity) error {
	a.joining.Lock() // no step of a rotation may write the same files
	defer a.joining.Unlock()
	for range 2 { // the second round records the result of the first
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

// Renew applies the master's answer, on disk and to later connections. It reports whether the
// certificate or the CAs have changed.
func (id *Identity) Renew(dir string, r Renewal) (renewed bool, err error) {
	now := id.current()
	cas, der := now.CAs, r.Certificate
	if len(r.CAs) > 0 { // a master that does not know rotations sends none
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
	// Each file is a separate change, and others may write to the folder in between: the CAs are
	// valid for the old and the new certificate.
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

// Expires returns the end of the validity of the node's certificate.
func (id *Identity) Expires() time.Time { return id.Leaf().NotAfter }

// Expired reports whether the node's certificate has expired, so that joining again requires a
// token.
func (id *Identity) Expired() bool { return id.now().After(id.Expires()) }

// Lifetime returns the total validity of the node's certificate.
func (id *Identity) Lifetime() time.Duration { return id.Expires().Sub(issuedAt(id.Leaf())) }
