package trust

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"mlfnode/grid"
)

// Registry holds the nodes of a cluster: which key has which name, and what other packages store
// for a node. Callers reach it through the Authority, which alone adds and forgets nodes.
type Registry struct {
	nodes *table[nodeRecord]
	clock func() time.Time
}

// nodeRecord is the entry of a node in nodes.json.
type nodeRecord struct {
	Key       string        `json:"key"` // fingerprint
	Role      grid.NodeRole `json:"role"`
	Joined    time.Time     `json:"joined"`
	Forgotten time.Time     `json:"forgotten,omitzero"`
	// See EditNodeData; the JSON name is from versions that stored only drains.
	Data json.RawMessage `json:"drain,omitempty"`

	// Pin of the CA of the newest certificate that the node has shown; empty means the cluster's
	// first CA.
	CA     string `json:"ca,omitempty"`
	Trusts string `json:"trusts,omitempty"` // pin of the newest CA that the node is known to trust; empty as above
}

// NodeInfo describes a node of the registry.
type NodeInfo struct {
	Node      grid.NodeID
	Role      grid.NodeRole
	Forgotten time.Time // zero for a node that belongs to the cluster
}

// mostNodes bounds the registry, including forgotten nodes, in case somebody joins without end.
const mostNodes = 10_000

// checkName returns an error if the key may not have the name. A new key of a master may take a
// master's name, in case its certificate was lost.
func checkName(all map[string]nodeRecord, node grid.NodeID, role grid.NodeRole, digest string) error {
	r, ok := all[string(node)]
	switch {
	case !ok && len(all) >= mostNodes:
		return fmt.Errorf(
			"the cluster has %d nodes, and no room for more; mlfnode forget NAME on the master makes some", len(all))
	case !ok, !r.Forgotten.IsZero(), r.Key == digest && r.Role == role, r.Role == grid.Master && role == grid.Master:
		return nil
	}
	return fmt.Errorf(
		"the name %s %w, which joined on %s; choose another name with --node, or, if that machine is gone, "+
			"run mlfnode forget %s on the master", node, ErrNameTaken, stamp(r.Joined), node)
}

// register assigns a name to a key.
func (reg *Registry) register(node grid.NodeID, role grid.NodeRole, digest string, by *issuers) error {
	now := reg.clock().UTC()
	return reg.nodes.change(func(all map[string]nodeRecord) error {
		if err := checkName(all, node, role, digest); err != nil {
			return err
		}
		// The node reports later whether it knows others.
		r := nodeRecord{Key: digest, Role: role, Joined: now, CA: by.pins[0], Trusts: by.pins[0]}
		if old, ok := all[string(node)]; ok && old.Forgotten.IsZero() {
			r.Data = old.Data
		}
		all[string(node)] = r
		return nil
	})
}

// Known checks that the certificate's key is the one that the registry has for the node. It returns
// ErrUnknownNode if the node was forgotten, if its name belongs to another machine now, or if it
// has not shown a certificate of a CA that is still trusted. Known does not wait for the disk.
func (a *Authority) Known(node grid.NodeID, cert *x509.Certificate) error {
	r, ok := a.nodes.all()[string(node)]
	key, isOurs := cert.PublicKey.(*ecdsa.PublicKey)
	name, role, err := nodeOf(cert)
	switch {
	case ok && !r.Forgotten.IsZero():
		return fmt.Errorf("%.63q %w: it was forgotten on %s; it can join again with a token", node, ErrUnknownNode,
			stamp(r.Forgotten))
	case !ok || !isOurs || err != nil || name != node:
		return fmt.Errorf("%.63q %w", node, ErrUnknownNode)
	case r.Key != fingerprint(key) || r.Role != role:
		return fmt.Errorf("%.63q %w with this key: another machine has the name now", node, ErrUnknownNode)
	case !slices.Contains(a.issuers.Load().pins, a.named(r.CA)):
		return fmt.Errorf("%.63q %w any more: the CA was rotated while it was away; it can join again with a token",
			node, ErrUnknownNode)
	}
	return nil
}

// Has reports whether a node of that name is in the cluster, up or down: it has joined and was not
// forgotten. Has does not wait for the disk.
func (reg *Registry) Has(node grid.NodeID) bool {
	r, ok := reg.nodes.all()[string(node)]
	return ok && r.Forgotten.IsZero()
}

// Forget removes the name from a node's key. The node's certificate is rejected from its next
// connection on, and the name is free. Forget revokes the access tokens that were issued when the
// node joined, and invalidates its uses of join tokens: it can join again with a new token, or with
// one that has uses left.
//
// A Forget that failed is completed by another one, even if the node is already forgotten.
// ErrUnknownNode means that there was never such a node. The master does not forget itself.
func (a *Authority) Forget(node grid.NodeID) error {
	a.selfMu.Lock()
	self := a.self
	a.selfMu.Unlock()
	if node == self {
		return fmt.Errorf("%s is this master itself, which can't be forgotten", node)
	}
	a.joining.Lock()
	defer a.joining.Unlock()
	r, ok := a.nodes.all()[string(node)]
	if !ok {
		return errUnknown(node)
	}
	now := a.clock().UTC()
	// The tokens come first: a forgotten node must not have a valid one, wherever a kill or a full
	// disk interrupts this.
	err := a.tokens.change(func(all map[string]tokenRecord) error {
		revoke(all, now, func(_ string, t tokenRecord) bool { return t.Node == node })
		for id, t := range all { // its uses still count, but the same key can't join again
			keys := slices.Clone(t.Keys)
			for i, use := range keys {
				if use == r.Key || use == useOf(r.Key, node) {
					keys[i] = "forgotten " + useOf(r.Key, node)
				}
			}
			t.Keys = keys
			all[id] = t
		}
		return nil
	})
	if err != nil || !r.Forgotten.IsZero() {
		return err
	}
	return a.edit(node, func(r *nodeRecord) {
		*r = nodeRecord{Key: r.Key, Role: r.Role, Joined: r.Joined, Forgotten: now}
	})
}

func errUnknown(node grid.NodeID) error {
	return fmt.Errorf("%.63q %w; mlfnode members lists them", node, ErrUnknownNode)
}

// edit changes the record of a node that is in the cluster.
func (reg *Registry) edit(node grid.NodeID, fn func(*nodeRecord)) error {
	return reg.nodes.change(func(all map[string]nodeRecord) error {
		r, ok := all[string(node)]
		if !ok || !r.Forgotten.IsZero() {
			return errUnknown(node)
		}
		fn(&r)
		all[string(node)] = r
		return nil
	})
}

// NodeData returns the value that EditNodeData stored for a node, or nil. The caller must not
// modify it.
func (reg *Registry) NodeData(node grid.NodeID) json.RawMessage {
	return reg.nodes.all()[string(node)].Data
}

// EditNodeData durably replaces the JSON value that another package stores for a node; nil removes
// it. The value is also removed with the node. EditNodeData returns ErrUnknownNode if there is no
// such node.
func (reg *Registry) EditNodeData(node grid.NodeID, edit func(json.RawMessage) (json.RawMessage, error)) error {
	var refused error
	err := reg.edit(node, func(r *nodeRecord) {
		var data json.RawMessage
		if data, refused = edit(r.Data); refused == nil {
			r.Data = data
		}
	})
	return errors.Join(refused, err)
}

// Nodes returns the nodes of the registry sorted by name, including forgotten ones.
func (reg *Registry) Nodes() []NodeInfo {
	var list []NodeInfo
	for name, r := range reg.nodes.all() {
		list = append(list, NodeInfo{grid.NodeID(name), r.Role, r.Forgotten})
	}
	slices.SortFunc(list, func(x, y NodeInfo) int { return strings.Compare(string(x.Node), string(y.Node)) })
	return list
}
