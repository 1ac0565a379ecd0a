package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"time"

	"mlfnode/grid"
)

const (
	caLifetime = 20 * 365 * 24 * time.Hour // longer than any cluster
	clockSlack = 24 * time.Hour            // certificates are backdated, for machines whose clock is slow
)

// The types of PEM blocks in the files of this package.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// Pin is the SHA-256 of a CA certificate's DER form. It suffices to recognise the cluster without
// trusting anybody.
type Pin [sha256.Size]byte

// PinOf returns the pin of a CA.
func PinOf(ca *x509.Certificate) Pin { return sha256.Sum256(ca.Raw) }

// String returns the pin in hexadecimal digits.
func (p Pin) String() string { return hex.EncodeToString(p[:]) }

func newKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, nil
}

// newSerial returns 127 random bits, which RFC 5280 allows (20 octets, positive).
func newSerial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b) // never fails
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

// signCA returns the certificate of a new authority. Its name is random, so that a node can
// distinguish clusters.
func signCA(key *ecdsa.PrivateKey, now time.Time) ([]byte, error) {
	serial := newSerial()
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: fmt.Sprintf("mlfnode cluster %.8x", serial.Bytes())},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	return x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
}

// ServerName is the host name in the certificates of all masters, and of no other nodes. Programs
// that do not know pins verify a master by this name and the file ca.crt.
const ServerName = "mlfnode"

func nodeURI(node grid.NodeID, role grid.NodeRole) *url.URL {
	return &url.URL{Scheme: "mlfnode", Host: "node", Path: "/" + string(node), RawQuery: "role=" + string(role)}
}

// nodeOf returns the name and the role in a node's certificate.
func nodeOf(cert *x509.Certificate) (grid.NodeID, grid.NodeRole, error) {
	if len(cert.URIs) != 1 || len(cert.URIs[0].Path) < 2 {
		return "", "", fmt.Errorf("the certificate %.80q names no node", cert.Subject.CommonName)
	}
	u := cert.URIs[0]
	node := grid.NodeID(u.Path[1:])
	for _, role := range []grid.NodeRole{grid.Master, grid.Worker} {
		if u.String() == nodeURI(node, role).String() && CheckNodeName(node) == nil && !cert.IsCA {
			return node, role, nil
		}
	}
	return "", "", fmt.Errorf("the certificate %.80q names no node", cert.Subject.CommonName)
}

// fingerprint returns the SHA-256 of a public key, in hexadecimal digits.
func fingerprint(key *ecdsa.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "" // a key that is not on its curve, which no certificate holds
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

// parseKey parses a single private key that this package wrote as PEM.
func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemKey || len(rest) > 0 {
		return nil, errors.New("it does not contain one private key in PEM form")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("it holds no private key")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("it holds a key of another kind")
	}
	return key, nil
}

// readCert reads a certificate, which is public.
func readCert(path string) (*x509.Certificate, error) {
	b, _, err := readRegular(path)
	return decoded(path, b, err, func(text []byte) (*x509.Certificate, error) {
		block, rest := pem.Decode(text)
		if block == nil || block.Type != pemCertificate || len(rest) > 0 {
			return nil, errors.New("it does not contain one certificate in PEM form")
		}
		return x509.ParseCertificate(block.Bytes)
	})
}

// readKey reads a key from a file that only its owner can read.
func readKey(path string) (*ecdsa.PrivateKey, error) {
	b, err := readPrivate(path)
	return decoded(path, b, err, parseKey)
}

// decoded parses what was read from a file, and returns errors that say how to restore it.
func decoded[T any](path string, text []byte, err error, parse func([]byte) (T, error)) (v T, _ error) {
	if errors.Is(err, fs.ErrNotExist) {
		return v, fmt.Errorf("%s is missing; restore it from a backup: %w", path, fs.ErrNotExist)
	}
	if err != nil {
		return v, err
	}
	if v, err = parse(text); err != nil {
		return v, fmt.Errorf("%s is damaged; restore it from a backup: %w", path, err)
	}
	return v, nil
}
