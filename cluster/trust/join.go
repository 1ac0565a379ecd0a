package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"slices"

	"mlfnode/grid"
)

// JoinRequest is how a machine asks to become a node. It holds a secret, so it is sent to a master
// of the token's cluster alone.
type JoinRequest struct {
	Token string      `json:"token"` // <id>.<secret>
	Node  grid.NodeID `json:"node"`
	CSR   []byte      `json:"csr"` // DER, by which the machine shows that it has the key; only the key counts
}

// TokenID names the token without its secret.
func (r JoinRequest) TokenID() string {
	t, _ := parseBearer(r.Token)
	return t.ID
}

// JoinAnswer is what makes a machine a node.
type JoinAnswer struct {
	Certificate []byte   `json:"certificate"`        // DER
	CA          []byte   `json:"ca"`                 // DER; the one that the token names
	MoreCAs     [][]byte `json:"more_cas,omitempty"` // DER; also trusted, while the CA is being rotated
	Cluster     string   `json:"cluster,omitempty"`  // pin of the cluster's first CA
	Keyring     [][]byte `json:"keyring"`            // of gossip, the primary key first
	Access      string   `json:"access,omitempty"`   // <id>.<secret> for the person who joined, if the token gives one
	Role        Role     `json:"role,omitempty"`     // what Access lets the person do
}

// largestCSR is ample for a key on P-256 and a name.
const largestCSR = 4 << 10

// Join makes a machine a node. Whatever it asks for, it becomes a worker.
//
// It returns ErrBadToken, ErrExpired, ErrRevoked, ErrWrongRole, ErrNameTaken or ErrBadRequest;
// nothing has changed then. The same key may join again by the same name, which costs the token no
// further use and ends the access token that it got before.
func (a *Authority) Join(r JoinRequest) (JoinAnswer, error) {
	token, err := a.checkRequest(r)
	if err != nil {
		return JoinAnswer{}, err
	}
	key, err := requestedKey(r.CSR)
	if err != nil {
		return JoinAnswer{}, err
	}
	a.joining.Lock()
	defer a.joining.Unlock()
	by := a.issuers.Load()
	der, err := a.signNode(by, r.Node, Worker, key)
	if err != nil {
		return JoinAnswer{}, err
	}
	digest := fingerprint(key)
	if err := checkName(a.nodes.all(), r.Node, Worker, digest); err != nil {
		return JoinAnswer{}, err
	}
	answer := JoinAnswer{Certificate: der, CA: by.cas[0].Raw, MoreCAs: by.cas[1:].raw(), Cluster: a.cluster.String(), Keyring: a.keyring.Keys()}
	if answer.Access, answer.Role, err = a.useToken(token.ID, r.Node, digest); err != nil {
		return JoinAnswer{}, err
	}
	// A kill here costs nothing: the machine tries again with the same key, which has paid.
	if err := a.register(r.Node, Worker, digest, by); err != nil {
		return JoinAnswer{}, err
	}
	return answer, nil
}

// checkRequest judges everything that can be judged without changing anything, the cheap things
// first. What it says about the token is told only to whoever has its secret.
func (a *Authority) checkRequest(r JoinRequest) (Token, error) {
	if err := CheckNodeName(r.Node); err != nil {
		return Token{}, fmt.Errorf("the %w: %w", ErrBadRequest, err)
	}
	if len(r.CSR) > largestCSR {
		return Token{}, fmt.Errorf("the %w: its signing request has %d bytes", ErrBadRequest, len(r.CSR))
	}
	t, record, err := a.known(r.Token)
	if err == nil && record.Role != RoleNode {
		err = fmt.Errorf("the %w: it has the role %s, and machines join with a node token (%s)", ErrWrongRole, record.Role, t.ID)
	}
	return t, err
}

// requestedKey gives the key of a signing request that was signed with it. Names and extensions in
// it don't matter.
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

// useToken counts a use of the token for that key and name, and makes the access token that comes
// with it.
func (a *Authority) useToken(id string, node grid.NodeID, digest string) (access string, role Role, err error) {
	now := a.clock()
	err = a.tokens.change(func(all map[string]tokenRecord) error {
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
				return fmt.Errorf("the %w: it has been used as often as it may (%s); ask for a new one", ErrExpired, id)
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
		child := tokenRecord{Role: role, Note: "given to the person who added " + string(node), Created: now.UTC(), Parent: id, Node: node}
		access = a.addToken(all, child).Bearer()
		return nil
	})
	return access, role, err
}

// useOf is the use of a token by a key for a name: one key must not take many names. Older records
// have the key alone.
func useOf(digest string, node grid.NodeID) string { return digest + " " + string(node) }

// spendUses has the uses of tokens by a node count on, but no longer let the same key in again.
func spendUses(all map[string]tokenRecord, node grid.NodeID, digest string) {
	for id, r := range all {
		keys := slices.Clone(r.Keys)
		for i, use := range keys {
			if use == digest || use == useOf(digest, node) {
				keys[i] = "forgotten " + useOf(digest, node)
			}
		}
		r.Keys = keys
		all[id] = r
	}
}
