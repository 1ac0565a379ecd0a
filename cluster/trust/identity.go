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

// Identity is a node's certificate with its key, and the CAs by which the node verifies others. TLS
// configurations that were created from an Identity follow renewals of its certificate and changes
// of its CAs.
type Identity struct {
	Node    grid.NodeID
	Role    grid.NodeRole
	Cert    tls.Certificate // the node's certificate, then those of the CAs
	CAs     CAs
	Cluster Pin              // pin of the cluster's first CA: identifies the cluster, whatever CA it has
	Clock   func() time.Time // for the validity of peers; nil means time.Now

	renewed *atomic.Pointer[Identity] // replaces Cert and CAs after a renewal
}

// Leaf returns the node's current certificate.
func (id *Identity) Leaf() *x509.Certificate { return id.current().Cert.Leaf }

// Trusted returns the CAs that the node trusts now.
func (id *Identity) Trusted() CAs { return id.current().CAs }

func (id *Identity) current() *Identity {
	if id.renewed != nil {
		if next := id.renewed.Load(); next != nil {
			return next
		}
	}
	return id
}

// newIdentity returns an identity after checking that its parts belong together.
func newIdentity(der []byte, cas CAs, cluster Pin, key *ecdsa.PrivateKey) (*Identity, error) {
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, errors.New("the node's certificate is for another key")
	}
	if cas.issuer(leaf) == nil {
		return nil, errors.New("the node's certificate was not signed by the cluster's CA")
	}
	node, role, err := nodeOf(leaf)
	if err != nil {
		return nil, err
	}
	chain := tls.Certificate{Certificate: append([][]byte{der}, cas.raw()...), PrivateKey: key, Leaf: leaf}
	return &Identity{Node: node, Role: role, Cert: chain, CAs: cas, Cluster: cluster,
		renewed: new(atomic.Pointer[Identity])}, nil
}

// LoadIdentity reads the identity in the folder. It returns ErrNoIdentity if there is none.
func LoadIdentity(dir string) (*Identity, error) {
	crt := filepath.Join(dir, nodeCertFile)
	if missing(crt) {
		return nil, ErrNoIdentity
	}
	leaf, err := readCert(crt)
	if err != nil {
		return nil, err
	}
	cas, err := readCAs(filepath.Join(dir, caCertFile))
	if err != nil {
		return nil, err
	}
	cluster, err := loadCluster(dir, cas)
	if err != nil {
		return nil, err
	}
	key, err := readKey(filepath.Join(dir, nodeKeyFile))
	if err != nil {
		return nil, err
	}
	id, err := newIdentity(leaf.Raw, cas, cluster, key)
	if err != nil {
		return nil, fmt.Errorf("%s can't be used: %w; join the cluster again", dir, err)
	}
	return id, nil
}

// SaveIdentity writes the identity to the folder. After a kill, the folder holds the old identity,
// none, or the new one, but never a mixture.
func SaveIdentity(dir string, id *Identity) error { return id.save(dir, nil) }

// save also writes the gossip keys, before the certificate that makes the rest valid.
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
	if old, err := LoadIdentity(dir); err != nil || old.Cluster != id.Cluster || !old.CAs.equal(id.CAs) ||
		!key.Equal(old.Cert.PrivateKey) {
		if err := durable.Remove(crt); err != nil {
			return err
		}
	}
	if err := id.saveCAs(dir); err != nil {
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

// saveCAs writes the CAs. It writes the cluster's identifier first, which has a file of its own
// unless it is the pin of the only CA.
func (id *Identity) saveCAs(dir string) error {
	keep := durable.Remove
	if len(id.CAs) > 1 || PinOf(id.CAs[0]) != id.Cluster {
		keep = func(string) error { return saveCluster(dir, id.Cluster) }
	}
	if err := keep(filepath.Join(dir, clusterFile)); err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, caCertFile), id.CAs.pem(), 0o600)
}
