package trust

import (
	"crypto/x509"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// Authority is the CA of a cluster, with its tokens and its registry of nodes. Only the master has
// one. It may be used from many goroutines; what it is asked to change is on disk when the call
// returns, and unchanged when the call fails.
type Authority struct {
	dir     string
	clock   func() time.Time
	cluster Pin // of the first CA
	keyring *Keyring

	issuers atomic.Pointer[issuers]

	lifetime time.Duration // of the certificates of nodes

	tokens *table[tokenRecord]
	nodes  *table[nodeRecord]

	joining sync.Mutex // one join, or step of a rotation, at a time, from the look at what is so to its record

	selfMu sync.Mutex
	self   grid.NodeID // this master, once it has a certificate
}

// OpenAuthority opens the CA in the folder, or makes one where none is. A CA that was half made
// when the process was killed is made again, unless something was issued: then it says what is
// missing. A nil clock is time.Now. The caller holds the lock of the state folder.
func OpenAuthority(dir string, clock func() time.Time) (*Authority, error) {
	if clock == nil {
		clock = time.Now
	}
	if err := openFolder(dir); err != nil {
		return nil, err
	}
	if missing(filepath.Join(dir, caCertFile)) {
		if err := makeAuthority(dir, clock()); err != nil {
			return nil, err
		}
	}
	return loadAuthority(dir, clock)
}

// makeAuthority writes all files of an authority. The CA's certificate comes last: nothing can be
// issued before it is there, and from then on every other file is.
func makeAuthority(dir string, now time.Time) error {
	if what := issued(dir); what != "" {
		return fmt.Errorf("%s is missing, but %s is there, so this machine is or was part of a cluster; "+
			"restore the file from a backup, or use another state folder to found a new cluster", filepath.Join(dir, caCertFile), what)
	}
	if now.Year() < 2000 {
		return fmt.Errorf("this machine's clock says %s; set it before a cluster is founded", now.Format(time.DateOnly))
	}
	key, err := newKey()
	if err != nil {
		return err
	}
	text, err := keyPEM(key)
	if err != nil {
		return err
	}
	der, err := signCA(key, now)
	if err != nil {
		return fmt.Errorf("sign the cluster's CA: %w", err)
	}
	for _, write := range []func() error{
		func() error { return durable.WriteFile(filepath.Join(dir, caKeyFile), text, 0o600) },
		func() error { return saveKeys(dir, [][]byte{NewGossipKey()}) },
		func() error { return makeTable(filepath.Join(dir, tokensFile)) },
		func() error { return makeTable(filepath.Join(dir, nodesFile)) },
		func() error { return durable.WriteFile(filepath.Join(dir, caCertFile), certPEM(der), 0o600) },
	} {
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

// issued names what shows that an authority without its certificate was in use, "" if nothing does.
// A file that can't be read counts: better ask than forget a cluster.
func issued(dir string) string {
	if !missing(filepath.Join(dir, nodeCertFile)) {
		return nodeCertFile
	}
	for _, name := range []string{tokensFile, nodesFile} {
		path := filepath.Join(dir, name)
		if missing(path) {
			continue
		}
		if t, err := openTable[struct{}](path); err != nil || len(t.all()) > 0 {
			return name
		}
	}
	return ""
}

func loadAuthority(dir string, clock func() time.Time) (a *Authority, err error) {
	a = &Authority{dir: dir, clock: clock, lifetime: nodeLifetime}
	by, err := loadIssuers(dir)
	if err != nil {
		return nil, err
	}
	a.issuers.Store(by)
	if a.cluster, err = loadCluster(dir, by.cas); err != nil {
		return nil, err
	}
	if a.keyring, err = LoadKeyring(dir); err != nil {
		return nil, err
	}
	if a.tokens, err = openTable[tokenRecord](filepath.Join(dir, tokensFile)); err != nil {
		return nil, err
	}
	if a.nodes, err = openTable[nodeRecord](filepath.Join(dir, nodesFile)); err != nil {
		return nil, err
	}
	return a, nil
}

// CA is the certificate of the CA that issues.
func (a *Authority) CA() *x509.Certificate { return a.CAs()[0] }

// Pin is the hash by which others know this CA.
func (a *Authority) Pin() Pin { return PinOf(a.CA()) }

// Keyring holds the keys of gossip, which a join hands out.
func (a *Authority) Keyring() *Keyring { return a.keyring }

// IssueSelf gives this master its own certificate, in the authority's folder: the one that is there
// if it is for that name, else a new one, also in place of one of an older version, without
// ServerName, or of one that is to be renewed. ErrNameTaken means that a worker has the name.
func (a *Authority) IssueSelf(node grid.NodeID) (*Identity, error) {
	if err := CheckNodeName(node); err != nil {
		return nil, err
	}
	a.joining.Lock()
	defer a.joining.Unlock()
	id, err := LoadIdentity(a.dir)
	if err != nil || id.Node != node || id.Role != Master || a.Known(node, id.Leaf()) != nil ||
		!id.CAs.equal(a.CAs()) || id.Leaf().CheckSignatureFrom(a.CA()) != nil ||
		!slices.Contains(id.Leaf().DNSNames, ServerName) || renewable(id.Leaf(), a.clock()) {
		if id, err = a.issueSelf(node); err != nil {
			return nil, err
		}
	}
	id.Clock = a.clock
	a.selfMu.Lock()
	a.self = node
	a.selfMu.Unlock()
	return id, nil
}

func (a *Authority) issueSelf(node grid.NodeID) (*Identity, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	by := a.issuers.Load()
	der, err := a.signNode(by, node, Master, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	id, err := newIdentity(der, by.cas, a.cluster, key)
	if err != nil {
		return nil, err
	}
	if err := a.register(node, Master, fingerprint(&key.PublicKey), by); err != nil {
		return nil, err
	}
	return id, SaveIdentity(a.dir, id)
}
