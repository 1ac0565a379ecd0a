package trust

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// Authority is the CA of a cluster, with its tokens and its registry of nodes. Only the master has
// one. It is safe for concurrent use. A change is on disk when the call returns; if the call fails,
// nothing has changed.
type Authority struct {
	clock   func() time.Time
	keyring *Keyring

	*Issuer
	*TokenStore
	*Registry

	selfMu sync.Mutex
	self   grid.NodeID // this master, once it has a certificate
}

// OpenAuthority opens the CA in the folder, or creates one if there is none. If the process was
// killed while it created a CA, the CA is created again, unless it has already issued something:
// then the error names the missing file. A nil clock means time.Now. The caller must hold the lock
// of the state folder.
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
	by, err := loadIssuers(dir)
	if err != nil {
		return nil, err
	}
	i := &Issuer{dir: dir, clock: clock, lifetime: nodeLifetime}
	i.issuers.Store(by)
	if i.cluster, err = loadCluster(dir, by.cas); err != nil {
		return nil, err
	}
	keyring, err := LoadKeyring(dir)
	if err != nil {
		return nil, err
	}
	tokens, err := openTable[tokenRecord](filepath.Join(dir, tokensFile))
	if err != nil {
		return nil, err
	}
	nodes, err := openTable[nodeRecord](filepath.Join(dir, nodesFile))
	if err != nil {
		return nil, err
	}
	return &Authority{
		clock: clock, keyring: keyring, Issuer: i,
		TokenStore: &TokenStore{tokens: tokens, clock: clock, pin: i.Pin},
		Registry:   &Registry{nodes: nodes, clock: clock},
	}, nil
}

// makeAuthority writes all files of an authority. It writes the CA's certificate last: nothing can
// be issued before that exists, and all other files exist from then on.
func makeAuthority(dir string, now time.Time) error {
	if what := issued(dir); what != "" {
		return fmt.Errorf("%s is missing, but %s is there, so this machine is or was part of a cluster; "+
			"restore the file from a backup, or use another state folder to found a new cluster", filepath.Join(dir,
			caCertFile), what)
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

// issued returns the name of a file that shows that an authority without its certificate was in
// use, or "" if there is none. A file that cannot be read counts, because asking is better than
// losing a cluster.
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

// Keyring returns the gossip keys, which a join hands out.
func (a *Authority) Keyring() *Keyring { return a.keyring }

// IssueSelf returns this master's own certificate from the authority's folder. It issues a new one
// if there is none for the name, if the certificate is due for renewal, or if it was issued by an
// older version and lacks ServerName. ErrNameTaken means that a worker has the name.
func (a *Authority) IssueSelf(node grid.NodeID) (*Identity, error) {
	if err := CheckNodeName(node); err != nil {
		return nil, err
	}
	a.joining.Lock()
	defer a.joining.Unlock()
	id, err := LoadIdentity(a.dir)
	if err != nil || id.Node != node || id.Role != grid.Master || a.Known(node, id.Leaf()) != nil ||
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
	der, err := a.signNode(by, node, grid.Master, &key.PublicKey)
	if err != nil {
		return nil, err
	}
	id, err := newIdentity(der, by.cas, a.cluster, key)
	if err != nil {
		return nil, err
	}
	if err := a.register(node, grid.Master, fingerprint(&key.PublicKey), by); err != nil {
		return nil, err
	}
	return id, SaveIdentity(a.dir, id)
}
