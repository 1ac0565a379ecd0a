package trust

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// Identity is what a node shows to others: its certificate with its key, and the CA by which it knows them. Once its certificate is renewed,
// the TLS configurations made of it show the new one.
type Identity struct {
	Node  grid.NodeID
	Role  NodeRole
	Cert  tls.Certificate // the node's certificate, then the CA's
	CA    *x509.Certificate
	Clock func() time.Time // for the validity of peers; nil is time.Now

	renewed *atomic.Pointer[Identity] // what came after Cert
}

// Leaf is the node's own certificate, the newest one.
func (id *Identity) Leaf() *x509.Certificate { return id.current().Cert.Leaf }

func (id *Identity) current() *Identity {
	if id.renewed != nil {
		if next := id.renewed.Load(); next != nil {
			return next
		}
	}
	return id
}

// newIdentity puts an identity together and checks that its parts belong together.
func newIdentity(der []byte, ca *x509.Certificate, key *ecdsa.PrivateKey) (*Identity, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("the node's certificate is for another key")
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("the node's certificate was not signed by the cluster's CA: %w", err)
	}
	node, role, err := nodeOf(leaf)
	if err != nil {
		return nil, err
	}
	chain := tls.Certificate{Certificate: [][]byte{der, ca.Raw}, PrivateKey: key, Leaf: leaf}
	return &Identity{Node: node, Role: role, Cert: chain, CA: ca, renewed: new(atomic.Pointer[Identity])}, nil
}

// LoadIdentity reads the identity in the folder. It returns ErrNoIdentity when there is none.
func LoadIdentity(dir string) (*Identity, error) {
	crt := filepath.Join(dir, nodeCertFile)
	if missing(crt) {
		return nil, ErrNoIdentity
	}
	leaf, err := readCert(crt)
	if err != nil {
		return nil, err
	}
	ca, err := readCert(filepath.Join(dir, caCertFile))
	if err != nil {
		return nil, err
	}
	key, err := readKey(filepath.Join(dir, nodeKeyFile))
	if err != nil {
		return nil, err
	}
	id, err := newIdentity(leaf.Raw, ca, key)
	if err != nil {
		return nil, fmt.Errorf("%s can't be used: %w; join the cluster again", dir, err)
	}
	return id, nil
}

// SaveIdentity writes the identity to the folder. A kill leaves the old one, none, or the new one, and no mixture.
func SaveIdentity(dir string, id *Identity) error { return id.save(dir, nil) }

// save also writes the keys of gossip, before the certificate that makes the rest count.
func (id *Identity) save(dir string, keys [][]byte) error {
	key, ok := id.Cert.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("save the identity of %s: its key is of another kind", id.Node)
	}
	text, err := keyPEM(key)
	if err != nil {
		return err
	}
	if err := openFolder(dir); err != nil {
		return err
	}
	crt := filepath.Join(dir, nodeCertFile)
	if old, err := LoadIdentity(dir); err != nil || PinOf(old.CA) != PinOf(id.CA) || !key.Equal(old.Cert.PrivateKey) {
		if err := durable.Remove(crt); err != nil {
			return err
		}
	}
	if err := durable.WriteFile(filepath.Join(dir, caCertFile), certPEM(id.CA.Raw), 0o600); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(dir, nodeKeyFile), text, 0o600); err != nil {
		return err
	}
	if keys != nil {
		if err := saveKeys(dir, keys); err != nil {
			return err
		}
	}
	return durable.WriteFile(crt, certPEM(id.Leaf().Raw), 0o600)
}
