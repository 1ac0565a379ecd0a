package trust

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"mlfnode/grid"
)

// Grant is what a bearer token permits.
type Grant struct {
	ID   string // of the token
	Role Role   // admin, operator or viewer
	Note string
	Node grid.NodeID // the node whose join issued the token, if any
}

// CheckAccess checks `Authorization: Bearer <id>.<secret>`, without waiting for the disk. It
// returns ErrBadToken for an unknown token or a wrong secret. Only with the right secret does it
// return ErrExpired, ErrRevoked, or, for a node token, ErrWrongRole.
func (s *TokenStore) CheckAccess(bearer string) (Grant, error) {
	t, r, err := s.known(bearer)
	if err != nil {
		return Grant{}, err
	}
	if !r.Role.forPeople() {
		return Grant{}, fmt.Errorf("the %w: a node token lets machines join, and nothing else (%s)", ErrWrongRole, t.ID)
	}
	return Grant{ID: t.ID, Role: r.Role, Note: r.Note, Node: r.Node}, nil
}

// known returns the record of a valid token. It reveals the reason for a refusal only if the secret
// is right.
func (s *TokenStore) known(bearer string) (Token, tokenRecord, error) {
	t, ok := parseBearer(bearer)
	r, known := s.tokens.all()[t.ID]
	var kept [sha256.Size]byte // compared in constant time, also for an unknown token
	n, hash := copy(kept[:], r.Hash), t.hash()
	if subtle.ConstantTimeCompare(kept[:], hash[:]) != 1 || n != len(kept) || !known || !ok {
		return t, r, fmt.Errorf("the %w", ErrBadToken)
	}
	return t, r, r.check(t.ID, s.clock())
}
