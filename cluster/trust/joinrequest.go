package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"slices"

	"mlfnode/grid"
)

// JoinRequest is the request of a machine that wants to become a node. It holds a secret, so it
// must be sent only to a master of the token's cluster.
type JoinRequest struct {
	Token string      `json:"token"` // <id>.<secret>
	Node  grid.NodeID `json:"node"`
	CSR   []byte      `json:"csr"` // DER; proves that the machine has the key, and only the key is used
}

// TokenID returns the token's identifier without its secret.
func (r JoinRequest) TokenID() string {
	t, _ := parseBearer(r.Token)
	return t.ID
}

// JoinAnswer is what a machine needs to be a node.
type JoinAnswer struct {
	Certificate []byte   `json:"certificate"`        // DER
	CA          []byte   `json:"ca"`                 // DER; the one that the token pins
	MoreCAs     [][]byte `json:"more_cas,omitempty"` // DER; also trusted, during a rotation of the CA
	Cluster     string   `json:"cluster,omitempty"`  // pin of the cluster's first CA
	Keyring     [][]byte `json:"keyring"`            // gossip keys, the primary key first
	Access      string   `json:"access,omitempty"`   // <id>.<secret> for the person who joined, if the token grants one
	Role        Role     `json:"role,omitempty"`     // role of Access
}

// largestCSR is ample for a P-256 key and a name.
const largestCSR = 4 << 10

// Join makes a machine a node. Whatever it requests, it becomes a worker.
//
// Join returns ErrBadToken, ErrExpired, ErrRevoked, ErrWrongRole, ErrNameTaken or ErrBadRequest;
// then nothing has changed. The same key can join again under the same name, which does not count
// as another use of the token and ends the access token that it got before.
func (a *Authority) Join(r JoinRequest) (JoinAnswer, error) {
	// What can be checked without a change comes first, beginning with the cheapest. Only a caller
	// with the token's secret learns anything about the token.
	if err := CheckNodeName(r.Node); err != nil {
		return JoinAnswer{}, fmt.Errorf("the %w: %w", ErrBadRequest, err)
	}
	if len(r.CSR) > largestCSR {
		return JoinAnswer{}, fmt.Errorf("the %w: its signing request has %d bytes", ErrBadRequest, len(r.CSR))
	}
	token, record, err := a.known(r.Token)
	if err != nil {
		return JoinAnswer{}, err
	}
	if record.Role != RoleNode {
		return JoinAnswer{}, fmt.Errorf("the %w: it has the role %s, and machines join with a node token (%s)",
			ErrWrongRole, record.Role, token.ID)
	}
	key, err := requestedKey(r.CSR)
	if err != nil {
		return JoinAnswer{}, err
	}
	a.joining.Lock()
	defer a.joining.Unlock()
	by := a.issuers.Load()
	der, err := a.signNode(by, r.Node, grid.Worker, key)
	if err != nil {
		return JoinAnswer{}, err
	}
	digest := fingerprint(key)
	if err := checkName(a.nodes.all(), r.Node, grid.Worker, digest); err != nil {
		return JoinAnswer{}, err
	}
	answer := JoinAnswer{Certificate: der, CA: by.cas[0].Raw, MoreCAs: by.cas[1:].raw(), Cluster: a.cluster.String(),
		Keyring: a.keyring.Keys()}
	if answer.Access, answer.Role, err = a.useToken(token.ID, r.Node, digest); err != nil {
		return JoinAnswer{}, err
	}
	// A kill here costs nothing: the machine tries again with the same key, whose use is already
	// counted.
	if err := a.register(r.Node, grid.Worker, digest, by); err != nil {
		return JoinAnswer{}, err
	}
	return answer, nil
}

// requestedKey returns the key of a signing request that was signed with that key. Names and
// extensions in the request are ignored.
func requestedKey(der []byte) (*ecdsa.PublicKey, error) {
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("the %w: its signing request can't be read", ErrBadRequest)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("the %w: its key is not on the curve P-256", ErrBadRequest)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the %w: its signing request is not signed with its key", ErrBadRequest)
	}
	return key, nil
}

// useToken counts a use of the token for the key and name, and makes the access token that comes
// with it.
func (s *TokenStore) useToken(id string, node grid.NodeID, digest string) (access string, role Role, err error) {
	now := s.clock()
	err = s.tokens.change(func(all map[string]tokenRecord) error {
		r, ok := all[id]
		if !ok {
			return fmt.Errorf("the %w", ErrBadToken)
		}
		if err := r.check(id, now); err != nil {
			return err
		}
		use := useOf(digest, node)
		if !slices.Contains(r.Keys, use) && !slices.Contains(r.Keys, digest) {
			if r.Uses > 0 && len(r.Keys) >= r.Uses {
				return fmt.Errorf("the %w: all its uses are spent (%s); ask for a new one", ErrExpired, id)
			}
			r.Keys = append(slices.Clone(r.Keys), use)
			all[id] = r
		}
		for child, c := range all {
			if c.Parent == id && c.Node == node {
				delete(all, child)
			}
		}
		if role = r.User; role == RoleNone {
			role = ""
			return nil
		}
		child := tokenRecord{Role: role, Note: "given to the person who added " + string(node), Created: now.UTC(),
			Parent: id, Node: node}
		access = s.addToken(all, child).Bearer()
		return nil
	})
	return access, role, err
}

// useOf returns the record of a token's use by a key for a name, so that one key cannot take many
// names. Older records hold only the key.
func useOf(digest string, node grid.NodeID) string { return digest + " " + string(node) }
