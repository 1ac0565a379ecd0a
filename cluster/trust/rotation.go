package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"mlfnode/grid"
	"mlfnode/node/durable"
)

// A rotation of the CA has three steps, each of which replaces one file:
//
//	            Rotate             Switch             Retire
//	Settled ------------> Announced -------> Switched -------> Settled
//	ca.crt: old           old, new           new, old          new
//
// All CAs in ca.crt are trusted, and the first one issues certificates. Their keys are in ca.key.
// It is written before ca.crt when a key is added, and after ca.crt when a key is removed; keys
// that a kill leaves behind are removed when the authority is opened.

// Stage is the progress of a rotation of the CA.
type Stage string

// The stages of a rotation.
const (
	Settled   Stage = "settled"   // there is one CA
	Announced Stage = "announced" // nodes and people learn about a new CA, while the old one still issues
	Switched  Stage = "switched"  // the new CA issues, while the old one is still trusted
)

// ErrStage means that the rotation is not at the stage that the step requires.
var ErrStage = errors.New("is not the next step")

func (i *issuers) stage() Stage {
	switch {
	case len(i.cas) == 1:
		return Settled
	case i.cas[0] == i.cas.newest():
		return Switched
	}
	return Announced
}

// Stage returns the stage of the CA's rotation.
func (i *Issuer) Stage() Stage { return i.issuers.Load().stage() }

// Rotate creates a new CA and announces it to nodes and people. The old CA issues until Switch.
func (i *Issuer) Rotate() error {
	return i.step(Settled, func(now *issuers) (CAs, error) {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		old := now.cas[0]
		date := i.clock()
		if least := old.NotBefore.Add(clockSlack + time.Second); date.Before(least) {
			date = least // the dates determine which CA is the new one
		}
		der, err := signCA(key, date)
		if err != nil {
			return nil, fmt.Errorf("sign the cluster's new CA: %w", err)
		}
		ca, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read the cluster's new CA: %w", err)
		}
		if err := saveCluster(i.dir, i.cluster); err != nil {
			return nil, err
		}
		now.keys = append(slices.Clone(now.keys), key)
		return CAs{old, ca}, writeKeys(filepath.Join(i.dir, caKeyFile), now.keys)
	})
}

// Switch makes the new CA issue certificates. Join tokens of the old CA become invalid.
func (i *Issuer) Switch() error {
	return i.step(Announced, func(now *issuers) (CAs, error) { return CAs{now.cas[1], now.cas[0]}, nil })
}

// Retire stops trusting the old CA.
func (i *Issuer) Retire() error {
	return i.step(Switched, func(now *issuers) (CAs, error) { return CAs{now.cas[0]}, nil })
}

func (i *Issuer) step(from Stage, next func(*issuers) (CAs, error)) error {
	i.joining.Lock()
	defer i.joining.Unlock()
	now := *i.issuers.Load()
	if now.stage() != from {
		return fmt.Errorf("this %w: the CA is %s", ErrStage, now.stage())
	}
	cas, err := next(&now)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(i.dir, caCertFile), cas.pem(), 0o600); err != nil {
		return err
	}
	then := newIssuers(cas, now.keys)
	i.issuers.Store(then) // it is on disk, whatever follows
	pruned, err := then.prune(i.dir)
	i.issuers.Store(pruned)
	return err
}

// Behind returns the nodes that have not followed the last step: while the new CA is announced,
// those that are not known to trust it; after the switch, those that have not shown a certificate
// of it.
func (a *Authority) Behind() []grid.NodeID {
	now := a.issuers.Load()
	newest := PinOf(now.cas.newest()).String()
	var behind []grid.NodeID
	for _, n := range a.Nodes() {
		r := a.nodes.all()[string(n.Node)]
		has := r.CA
		if now.stage() == Announced {
			has = r.Trusts
		}
		if n.Role == grid.Worker && n.Forgotten.IsZero() && a.named(has) != newest {
			behind = append(behind, n.Node)
		}
	}
	return behind
}

// named returns the pin that a record stands for: records from before the first rotation have none.
func (i *Issuer) named(pin string) string {
	if pin == "" {
		return i.cluster.String()
	}
	return pin
}
