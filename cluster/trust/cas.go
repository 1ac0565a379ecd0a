package trust

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"mlfnode/node/durable"
)

// CAs are the certificate authorities that a cluster trusts, with the one that issues certificates
// first. There is one, and a second one during a rotation of the CA.
type CAs []*x509.Certificate

// mostCAs bounds the CAs that are accepted.
const mostCAs = 4

// parseCAs parses certificates in DER form.
func parseCAs(raw [][]byte) (CAs, error) {
	var cas CAs
	for _, der := range raw {
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, err
		}
		cas = append(cas, ca)
	}
	return cas, cas.check()
}

// decodeCAs parses certificates in PEM form.
func decodeCAs(text []byte) (CAs, error) {
	var raw [][]byte
	for len(text) > 0 {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != pemCertificate {
			return nil, errors.New("it does not contain certificates in PEM form")
		}
		raw, text = append(raw, block.Bytes), rest
	}
	return parseCAs(raw)
}

func readCAs(path string) (CAs, error) {
	b, _, err := readRegular(path)
	return decoded(path, b, err, decodeCAs)
}

func (c CAs) check() error {
	if len(c) == 0 || len(c) > mostCAs {
		return fmt.Errorf("a cluster has 1 to %d CAs, and this one has %d", mostCAs, len(c))
	}
	for _, ca := range c {
		if !ca.IsCA {
			return errors.New("one of the certificates is not a CA's")
		}
	}
	return nil
}

func (c CAs) pem() []byte {
	var text []byte
	for _, ca := range c {
		text = append(text, certPEM(ca.Raw)...)
	}
	return text
}

func (c CAs) raw() [][]byte {
	var all [][]byte
	for _, ca := range c {
		all = append(all, ca.Raw)
	}
	return all
}

func (c CAs) equal(other CAs) bool {
	return slices.EqualFunc(c, other, func(a, b *x509.Certificate) bool { return a.Equal(b) })
}

// share reports whether the two have a CA in common.
func (c CAs) share(other CAs) bool {
	return slices.ContainsFunc(c, func(ca *x509.Certificate) bool { return slices.ContainsFunc(other, ca.Equal) })
}

// issuer returns the CA that has signed a certificate, or nil.
func (c CAs) issuer(cert *x509.Certificate) *x509.Certificate {
	for _, ca := range c {
		if cert.CheckSignatureFrom(ca) == nil {
			return ca
		}
	}
	return nil
}

// newest returns the CA that was created last: each one has a later date than those before it.
func (c CAs) newest() *x509.Certificate {
	return slices.MaxFunc(c, func(a, b *x509.Certificate) int { return a.NotBefore.Compare(b.NotBefore) })
}

// Pool returns the CAs as an x509.CertPool.
func (c CAs) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, ca := range c {
		pool.AddCert(ca)
	}
	return pool
}

// ID returns an identifier of the CAs in their order. It is never 0.
func (c CAs) ID() uint64 {
	h := sha256.New()
	for _, ca := range c {
		h.Write(ca.Raw)
	}
	return max(binary.BigEndian.Uint64(h.Sum(nil)), 1)
}

// Client returns a configuration to dial a master of the cluster without a certificate, for people
// and for programs that ask which cluster a master belongs to. A master sends its cluster's CAs
// with its certificate. If they differ from the known ones, learn is called with them once the
// master is verified, and they are trusted from then on. learn may be nil.
func (c CAs) Client(learn func(CAs)) *tls.Config {
	var known atomic.Pointer[CAs]
	known.Store(&c)
	return client(nil, func(s tls.ConnectionState) error {
		now, sent := *known.Load(), sentCAs(s)
		if err := verifyMaster(s, now, nil); err != nil {
			return err
		}
		if learn != nil && !sent.equal(now) && sent.check() == nil && sent.issuer(s.PeerCertificates[0]) != nil {
			known.Store(&sent)
			learn(sent)
		}
		return nil
	})
}

// sentCAs returns the CAs that a server has sent. They are those of its cluster only if the
// server's own certificate is valid.
func sentCAs(s tls.ConnectionState) CAs {
	var cas CAs
	for _, cert := range s.PeerCertificates {
		if cert.IsCA {
			cas = append(cas, cert)
		}
	}
	return cas
}

// loadCluster returns the permanent identifier of the cluster, the pin of its first CA. It has a
// file of its own once that CA may be gone.
func loadCluster(dir string, cas CAs) (Pin, error) {
	path := filepath.Join(dir, clusterFile)
	if missing(path) {
		return PinOf(cas[0]), nil
	}
	b, _, err := readRegular(path)
	return decoded(path, b, err, func(b []byte) (Pin, error) { return parsePin(strings.TrimSpace(string(b))) })
}

// saveCluster stores that pin.
func saveCluster(dir string, pin Pin) error {
	return durable.WriteFile(filepath.Join(dir, clusterFile), []byte(pin.String()+"\n"), 0o600)
}

func parsePin(text string) (Pin, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(Pin{}) {
		return Pin{}, errors.New("it is not the hash of a CA")
	}
	return Pin(b), nil
}

// readKeys reads private keys that writeKeys wrote.
func readKeys(path string) ([]*ecdsa.PrivateKey, error) {
	b, err := readPrivate(path)
	return decoded(path, b, err, func(text []byte) ([]*ecdsa.PrivateKey, error) {
		var keys []*ecdsa.PrivateKey
		for len(text) > 0 || len(keys) == 0 {
			block, rest := pem.Decode(text)
			if block == nil {
				return nil, errors.New("it does not contain private keys in PEM form")
			}
			key, err := parseKey(pem.EncodeToMemory(block))
			if err != nil {
				return nil, err
			}
			keys, text = append(keys, key), rest
		}
		return keys, nil
	})
}

func writeKeys(path string, keys []*ecdsa.PrivateKey) error {
	var text []byte
	for _, key := range keys {
		one, err := keyPEM(key)
		if err != nil {
			return err
		}
		text = append(text, one...)
	}
	return durable.WriteFile(path, text, 0o600)
}

// keyOf returns the key of a CA, or nil.
func keyOf(ca *x509.Certificate, keys []*ecdsa.PrivateKey) *ecdsa.PrivateKey {
	for _, key := range keys {
		if key.PublicKey.Equal(ca.PublicKey) {
			return key
		}
	}
	return nil
}
