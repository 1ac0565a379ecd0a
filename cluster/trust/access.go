package trust

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"time"

	"mlfnode/grid"
)

// Grant is what a bearer may do.
type Grant struct {
	ID   string // of the token
	Role Role   // admin, operator or viewer
	Note string
	Node grid.NodeID // where the token was given out, if at a join
}

// CheckAccess judges `Authorization: Bearer <id>.<secret>`, without waiting for the disk. It returns ErrBadToken for an unknown
// token or a wrong secret, and only with the right secret ErrExpired, ErrRevoked, or ErrWrongRole for a node token.
func (a *Authority) CheckAccess(bearer string) (Grant, error) {
	t, ok := parseBearer(bearer)
	r, known := a.tokens.all()[t.ID]
	if !r.owns(t.hash()) || !known || !ok {
		return Grant{}, fmt.Errorf("the %w", ErrBadToken)
	}
	if err := r.check(t.ID, a.clock()); err != nil {
		return Grant{}, err
	}
	if !r.Role.forPeople() {
		return Grant{}, fmt.Errorf("the %w: a node token lets machines join, and nothing else (%s)", ErrWrongRole, t.ID)
	}
	return Grant{ID: t.ID, Role: r.Role, Note: r.Note, Node: r.Node}, nil
}

// owns compares in constant time. The empty record, which stands for an unknown token, owns nothing.
func (r tokenRecord) owns(hash [sha256.Size]byte) bool {
	var kept [sha256.Size]byte
	n := copy(kept[:], r.Hash)
	return subtle.ConstantTimeCompare(kept[:], hash[:]) == 1 && n == len(kept)
}

// checkJoin says whether machines may still join with the token; its uses are counted when one does.
func (r tokenRecord) checkJoin(id string, now time.Time) error {
	if r.Role != RoleNode {
		return fmt.Errorf("the %w: it has the role %s, and machines join with a node token (%s)", ErrWrongRole, r.Role, id)
	}
	return r.check(id, now)
}
