package trust

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/grid"
)

// Issuer issues the certificates of a cluster's nodes, and rotates its CA. Callers reach it through
// the Authority.
type Issuer struct {
	dir      string
	clock    func() time.Time
	cluster  Pin           // of the first CA
	lifetime time.Duration // of node certificates
	issuers  atomic.Pointer[issuers]
	joining  sync.Mutex // serializes joins and steps of a rotation, from their checks to their records
}

// SetLifetime changes the validity of new certificates, which is a year by default.
func (i *Issuer) SetLifetime(d time.Duration) { i.lifetime = d }

// CA returns the certificate of the CA that issues certificates.
func (i *Issuer) CA() *x509.Certificate { return i.CAs()[0] }

// Pin returns the hash by which others identify this CA.
func (i *Issuer) Pin() Pin { return PinOf(i.CA()) }

// CAs returns the trusted CAs; the first one issues certificates.
func (i *Issuer) CAs() CAs { return i.issuers.Load().cas }

// issuers holds the CAs and keys with which an Authority signs certificates. It is immutable.
type issuers struct {
	cas  CAs
	keys []*ecdsa.PrivateKey
	pins []string // pins of cas
}

func newIssuers(cas CAs, keys []*ecdsa.PrivateKey) *issuers {
	i := &issuers{cas: cas, keys: keys}
	for _, ca := range cas {
		i.pins = append(i.pins, PinOf(ca).String())
	}
	return i
}

// loadIssuers reads the CAs and their keys, and removes keys that a kill has left behind.
func loadIssuers(dir string) (*issuers, error) {
	cas, err := readCAs(filepath.Join(dir, caCertFile))
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, caKeyFile)
	if missing(path) {
		return nil, fmt.Errorf("%s is missing, so this machine can't be the master of its cluster; "+
			"restore the file from a backup, or use another state folder to found a new cluster", path)
	}
	keys, err := readKeys(path)
	if err != nil {
		return nil, err
	}
	i := newIssuers(cas, keys)
	if keyOf(cas[0], keys) == nil || keyOf(cas.newest(), keys) == nil {
		return nil, fmt.Errorf("%s and %s in %s don't belong together; restore both from a backup", caCertFile,
			caKeyFile, dir)
	}
	return i.prune(dir)
}

// prune removes keys without a CA from the disk.
func (i *issuers) prune(dir string) (*issuers, error) {
	var needed []*ecdsa.PrivateKey
	for _, ca := range i.cas {
		if key := keyOf(ca, i.keys); key != nil {
			needed = append(needed, key)
		}
	}
	if len(needed) == len(i.keys) {
		return i, nil
	}
	return newIssuers(i.cas, needed), writeKeys(filepath.Join(dir, caKeyFile), needed)
}

// signNode returns a certificate for a node. Only a master's certificate is valid for servers.
func (i *Issuer) signNode(by *issuers, node grid.NodeID, role grid.NodeRole, key *ecdsa.PublicKey) ([]byte, error) {
	usage, names := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, []string(nil)
	if role == grid.Master {
		usage, names = append(usage, x509.ExtKeyUsageServerAuth), []string{ServerName}
	}
	now := i.clock()
	end := now.Add(i.lifetime)
	ca := by.cas[0]
	if end.After(ca.NotAfter) {
		end = ca.NotAfter
	}
	t := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: string(node)},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              end,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usage,
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{nodeURI(node, role)},
		DNSNames:              names,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, ca, key, keyOf(ca, by.keys))
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", node, err)
	}
	return der, nil
}
