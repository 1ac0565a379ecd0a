// Package trust decides who belongs to a cluster. It provides the cluster's certificate authority,
// the tokens that admit machines and people, the certificates of nodes and the gossip keys.
//
// The first master creates an Authority, a CA of the cluster's own. All others know that CA by its
// hash, the Pin, which is part of each token. A connection is verified by the chain to the pinned
// CA and by the name and role in the certificate's URI, `mlfnode://node/<name>?role=master|worker`;
// host names and addresses do not matter. People, and machines that join, send `<id>.<secret>` over
// TLS to a server that has shown a certificate of the pinned CA. A machine's private key never
// leaves it.
//
// There are no revocation lists: the registry of nodes assigns one key to each name
// (Authority.Known), and none to a name that was forgotten. The CA can be rotated
// (Authority.Rotate): two CAs are trusted until the new one has certified all nodes, and the pin of
// the first CA identifies the cluster permanently. All state is in one folder with mode 0700, in
// files with mode 0600 that are replaced atomically and synced before an answer depends on them.
// Only the process that holds the lock of the state folder may use it.
//
// The package neither listens nor dials. Its callers do so with its TLS configurations, and
// transfer its wire types.
package trust

import (
	"errors"
	"fmt"

	"mlfnode/grid"
	"mlfnode/grid/lazyregexp"
)

// Role is what a token permits its bearer to do.
type Role string

// The roles of tokens.
const (
	RoleNode     Role = "node"     // join machines, nothing else
	RoleAdmin    Role = "admin"    // everything that an operator may do, and manage tokens, keys and nodes
	RoleOperator Role = "operator" // everything about sweeps and nodes
	RoleViewer   Role = "viewer"   // read
	RoleNone     Role = "none"     // only in TokenSpec.User: joining grants no access token
)

// ParseRole parses the role of a token as users write it.
func ParseRole(text string) (Role, error) {
	switch r := Role(text); r {
	case RoleNode, RoleAdmin, RoleOperator, RoleViewer:
		return r, nil
	}
	return "", fmt.Errorf("%q is not a role; use node, operator, viewer or admin", text)
}

// forPeople reports whether a token with the role lets a person use the cluster.
func (r Role) forPeople() bool { return r == RoleAdmin || r == RoleOperator || r == RoleViewer }

// The errors that callers distinguish.
var (
	// ErrBadToken means that this cluster does not know the token, or that the secret is wrong;
	// callers cannot find out which.
	ErrBadToken = errors.New("token is not known to this cluster")
	// ErrExpired means that the token has expired, or that all its uses are spent.
	ErrExpired = errors.New("token is no longer valid")
	// ErrRevoked means that the token was revoked.
	ErrRevoked = errors.New("token was revoked")
	// ErrWrongRole means that the token does not permit the request.
	ErrWrongRole = errors.New("token is for something else")
	// ErrUnknownToken means that no token has the identifier.
	ErrUnknownToken = errors.New("no token has this identifier")
	// ErrNameTaken means that another key has the name of the node.
	ErrNameTaken = errors.New("is taken by another machine")
	// ErrBadRequest means that a join request is malformed.
	ErrBadRequest = errors.New("request to join is malformed")
	// ErrUnknownNode means that the name is not in the registry, or that the key is not the name's.
	ErrUnknownNode = errors.New("is not a node of this cluster")
	// ErrWrongCA means that another authority has signed the peer's certificate.
	ErrWrongCA = errors.New("peer belongs to another cluster")
	// ErrRotated means that the only known CA of the peer's cluster no longer issues certificates.
	// It is returned together with ErrWrongCA.
	ErrRotated = errors.New("CA of the cluster was rotated")
	// ErrNoCertificate means that the peer of a connection showed no certificate.
	ErrNoCertificate = errors.New("peer showed no certificate")
	// ErrNoIdentity means that a folder has no node certificate.
	ErrNoIdentity = errors.New("this machine has not joined a cluster")
	// ErrNoContext means that the user has no context file.
	ErrNoContext = errors.New("no cluster was chosen")
)

// nodeName matches names that are valid in a subject, a run's name, a URI and a DNS label.
var nodeName = lazyregexp.New(`^[A-Za-z0-9_-]{1,63}$`)

// CheckNodeName returns an error if a node cannot have the name.
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
