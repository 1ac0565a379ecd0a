// Package trust decides who belongs to a cluster: its certificate authority, the tokens that let
// machines and people in, the certificates of nodes and the keys of gossip.
//
// The first master makes an Authority, a CA of the cluster's own. Everybody else knows that CA by
// its hash, the Pin, which is part of each token. A connection is verified by the chain to the
// pinned CA and by the name and role in the certificate's URI,
// `mlfnode://node/<name>?role=master|worker`; host names and addresses mean nothing. Machines that
// join and people show `<id>.<secret>` over TLS, to a server that has shown a certificate of the
// pinned CA. A machine's private key never travels.
//
// Certificates are not revoked by lists: the registry of nodes says which key a name has
// (Authority.Known), and a name that is forgotten has none. The CA can be rotated
// (Authority.Rotate): two are trusted until the new one has certified all nodes, and the pin of the
// first one names the cluster for good. Everything on disk is in one folder, 0700, in files of 0600
// that are replaced whole and synced before an answer depends on them. The one process that has the
// lock of the state folder may use it.
//
// Nothing here listens or dials. Whoever does takes the TLS configurations from here and passes on
// the wire types.
package trust

import (
	"errors"
	"fmt"

	"mlfnode/grid"
	"mlfnode/grid/lazyregexp"
)

// NodeRole is what a certificate says that its node does.
type NodeRole string

// The roles of nodes.
const (
	Master NodeRole = "master" // serves the API and NATS
	Worker NodeRole = "worker" // runs trials
)

// Role is what a token lets its bearer do.
type Role string

// The roles of tokens.
const (
	RoleNode     Role = "node"     // join machines, nothing else
	RoleAdmin    Role = "admin"    // what an operator may, and tokens, keys and which nodes there are
	RoleOperator Role = "operator" // everything about sweeps and nodes
	RoleViewer   Role = "viewer"   // read
	RoleNone     Role = "none"     // only in TokenSpec.User: whoever joins gets no access token
)

// ParseRole reads the role of a token as users write it.
func ParseRole(text string) (Role, error) {
	switch r := Role(text); r {
	case RoleNode, RoleAdmin, RoleOperator, RoleViewer:
		return r, nil
	}
	return "", fmt.Errorf("%q is not a role; use node, operator, viewer or admin", text)
}

// forPeople reports whether a token of the role lets a person use the cluster.
func (r Role) forPeople() bool { return r == RoleAdmin || r == RoleOperator || r == RoleViewer }

// What callers tell apart.
var (
	// ErrBadToken is a token that this cluster does not know, or a wrong secret; which of both is
	// never told.
	ErrBadToken = errors.New("token is not known to this cluster")
	// ErrExpired is a known token after its time, or one that has been used as often as it may.
	ErrExpired = errors.New("token is no longer good")
	// ErrRevoked is a known token that was revoked.
	ErrRevoked = errors.New("token was revoked")
	// ErrWrongRole is a known token that is for something else.
	ErrWrongRole = errors.New("token is for something else")
	// ErrUnknownToken is an identifier that no token has.
	ErrUnknownToken = errors.New("no token has this identifier")
	// ErrNameTaken is the name of a node that another key holds.
	ErrNameTaken = errors.New("is taken by another machine")
	// ErrBadRequest is a request that no joining machine of ours makes.
	ErrBadRequest = errors.New("request to join is malformed")
	// ErrUnknownNode is a name that is not in the registry, or a key that is not the name's.
	ErrUnknownNode = errors.New("is not a node of this cluster")
	// ErrWrongCA is a peer whose certificate another authority has signed.
	ErrWrongCA = errors.New("peer belongs to another cluster")
	// ErrRotated is a peer of whose cluster only a CA is known that issues nothing any more; it
	// comes with ErrWrongCA.
	ErrRotated = errors.New("CA of the cluster was rotated")
	// ErrNoCertificate is a connection whose peer showed no certificate.
	ErrNoCertificate = errors.New("peer showed no certificate")
	// ErrNoIdentity is a folder without a node's certificate.
	ErrNoIdentity = errors.New("this machine has not joined a cluster")
	// ErrNoContext is a user without a context file.
	ErrNoContext = errors.New("no cluster was chosen")
)

// nodeName is what fits into a subject, a run's name, a URI and a DNS label.
var nodeName = lazyregexp.New(`^[A-Za-z0-9_-]{1,63}$`)

// CheckNodeName says whether a node may have that name.
func CheckNodeName(node grid.NodeID) error {
	if nodeName.Get().MatchString(string(node)) {
		return nil
	}
	name := string(node)
	if len(name) > 80 {
		name = name[:80] + "…"
	}
	return fmt.Errorf("%q is not a valid node name; use letters, digits, - and _, at most 63", name)
}
