package trust

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// JoinClient is a machine that wants to join: it dials with TLS, sends Request, and passes the
// answer to Accept. After a failure, all steps can be repeated.
type JoinClient struct {
	dir   string
	token Token
	node  grid.NodeID
	key   *ecdsa.PrivateKey
	csr   []byte
}

// NewJoin prepares a join under the given name. It stores the machine's key in the folder, so that
// a new attempt after a kill uses the same key: the master may have given the name to it already.
func NewJoin(dir string, token Token, node grid.NodeID) (*JoinClient, error) {
	if err := CheckNodeName(node); err != nil {
		return nil, err
	}
	if err := openFolder(dir); err != nil {
		return nil, err
	}
	if !missing(filepath.Join(dir, caKeyFile)) {
		return nil, fmt.Errorf("%s belongs to the master of a cluster; to join another one, use another state folder",
			dir)
	}
	key, err := joinKey(dir, node)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: string(node)}}, key)
	if err != nil {
		return nil, fmt.Errorf("make a signing request: %w", err)
	}
	return &JoinClient{dir: dir, token: token, node: node, key: key, csr: csr}, nil
}

// joinKey returns the key that this cluster may know already: a member's own key, even if the
// member knows an older CA than the token; or else that of an unfinished join; or else a new one.
// It replaces a half-written or exposed key of an unfinished join, because nothing depends on it.
func joinKey(dir string, node grid.NodeID) (*ecdsa.PrivateKey, error) {
	if id, err := LoadIdentity(dir); err == nil && id.Node == node {
		return id.Cert.PrivateKey.(*ecdsa.PrivateKey), nil
	}
	path := filepath.Join(dir, joinKeyFile)
	if key, err := readKey(path); err == nil {
		return key, nil
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	text, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	return key, durable.WriteFile(path, text, 0o600)
}

// TLS returns a configuration that verifies that the server is a master of the token's cluster
// before anything is sent.
func (j *JoinClient) TLS() *tls.Config { return j.token.Pin.Client() }

// Request returns the request to send to a master over a connection made with TLS, and nowhere
// else.
func (j *JoinClient) Request() JoinRequest {
	return JoinRequest{Token: j.token.Bearer(), Node: j.node, CSR: j.csr}
}

// Accept checks the master's answer and stores it. From then on, LoadIdentity and LoadKeyring
// return those of this node.
func (j *JoinClient) Accept(a JoinAnswer) (*Identity, error) {
	cas, err := parseCAs(append([][]byte{a.CA}, a.MoreCAs...))
	if err != nil {
		return nil, fmt.Errorf("read the CA that the master sent: %w", err)
	}
	if PinOf(cas[0]) != j.token.Pin {
		return nil, fmt.Errorf("the %w than the token's", ErrWrongCA)
	}
	cluster := j.token.Pin // the master does not know rotations
	if a.Cluster != "" {
		if cluster, err = parsePin(a.Cluster); err != nil {
			return nil, fmt.Errorf("read which cluster the master sent: %w", err)
		}
	}
	id, err := newIdentity(a.Certificate, cas, cluster, j.key)
	if err != nil {
		return nil, err
	}
	if err := verify([]*x509.Certificate{id.Leaf()}, cas, x509.ExtKeyUsageClientAuth, time.Now()); err != nil {
		return nil, err
	}
	if id.Node != j.node || id.Role != grid.Worker {
		return nil, errors.New("the master sent the certificate of another node")
	}
	if err := checkKeys(a.Keyring); err != nil {
		return nil, fmt.Errorf("read the keyring that the master sent: %w", err)
	}
	if err := id.save(j.dir, a.Keyring); err != nil {
		return nil, err
	}
	return id, durable.Remove(filepath.Join(j.dir, joinKeyFile))
}
