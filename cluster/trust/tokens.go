package trust

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"mlfnode/grid"
)

// tokenRecord is what tokens.json has of a token: everything but its secret.
type tokenRecord struct {
	Role    Role        `json:"role"`
	User    Role        `json:"user,omitempty"` // of the access token for the person who joins with it
	Hash    []byte      `json:"hash"`           // SHA-256 of the secret
	Note    string      `json:"note,omitempty"`
	Created time.Time   `json:"created"`
	Expires time.Time   `json:"expires,omitzero"`
	Revoked time.Time   `json:"revoked,omitzero"`
	Uses    int         `json:"uses,omitempty"`   // how many machines may join, 0 for any number
	Keys    []string    `json:"keys,omitempty"`   // fingerprint and name of the machines that did
	Parent  string      `json:"parent,omitempty"` // the token that was joined with, for an access token
	Node    grid.NodeID `json:"node,omitempty"`   // the node that joined, for an access token
}

// check says whether the token is still good. Only who has shown its secret may learn the answer.
func (r tokenRecord) check(id string, now time.Time) error {
	switch {
	case !r.Revoked.IsZero():
		return fmt.Errorf("the %w on %s (%s); ask for a new one", ErrRevoked, stamp(r.Revoked), id)
	case !r.Expires.IsZero() && !now.Before(r.Expires):
		return fmt.Errorf("the %w: it expired on %s (%s); ask for a new one", ErrExpired, stamp(r.Expires), id)
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// TokenSpec says what kind of token to make.
type TokenSpec struct {
	Role    Role
	Expires time.Duration // from now; 0 is never
	Uses    int           // how many machines may join with a node token; 0 is any number
	User    Role          // what a node token gives who joins with it: operator (also ""), viewer or none
	Note    string        // for the list of tokens
}

// longestNote bounds what a token may say about itself.
const longestNote = 200

func (s *TokenSpec) validate() error {
	if _, err := ParseRole(string(s.Role)); err != nil {
		return err
	}
	if s.Role == RoleNode && s.User == "" {
		s.User = RoleOperator
	}
	switch {
	case s.Expires < 0 || s.Uses < 0:
		return errors.New("a token can't expire in the past or be used less than once")
	case s.Role != RoleNode && (s.Uses != 0 || s.User != ""):
		return errors.New("only node tokens are for a number of uses, and give who joins a role")
	case s.Role == RoleNode && s.User != RoleOperator && s.User != RoleViewer && s.User != RoleNone:
		return fmt.Errorf("%q is not a role for a person who joins; use operator, viewer or none", s.User)
	case len(s.Note) > longestNote:
		return fmt.Errorf("the note of a token has at most %d bytes", longestNote)
	}
	return nil
}

// purgeAfter is how long the list shows tokens that are of no use any more.
const purgeAfter = 30 * 24 * time.Hour

// MakeToken makes a token. It is stored, without its secret, before it is returned.
func (a *Authority) MakeToken(spec TokenSpec) (Token, error) {
	if err := spec.validate(); err != nil {
		return Token{}, err
	}
	now := a.clock()
	r := tokenRecord{Role: spec.Role, User: spec.User, Note: spec.Note, Created: now.UTC(), Uses: spec.Uses}
	if spec.Expires > 0 {
		r.Expires = now.Add(spec.Expires).UTC()
	}
	var t Token
	err := a.tokens.change(func(all map[string]tokenRecord) error {
		purge(all, now)
		t = a.addToken(all, r)
		return nil
	})
	return t, err
}

// addToken gives the record an identifier and a secret, and adds it.
func (a *Authority) addToken(all map[string]tokenRecord, r tokenRecord) Token {
	t := Token{Pin: a.Pin()}
	rand.Read(t.secret[:]) // never fails
	for taken := true; taken; _, taken = all[t.ID] {
		id := make([]byte, idBytes)
		rand.Read(id)
		t.ID = hex.EncodeToString(id)
	}
	hash := t.hash()
	r.Hash = hash[:]
	all[t.ID] = r
	return t
}

// purge drops tokens that ended long ago. A node token stays while an access token that came of it
// is good, so that revoking it still ends that one.
func purge(all map[string]tokenRecord, now time.Time) {
	over := func(r tokenRecord) bool {
		return r.check("", now.Add(-purgeAfter)) != nil && (r.Revoked.IsZero() || now.Sub(r.Revoked) > purgeAfter)
	}
	parents := map[string]bool{}
	for _, r := range all {
		parents[r.Parent] = parents[r.Parent] || !over(r)
	}
	for id, r := range all {
		if over(r) && !parents[id] {
			delete(all, id)
		}
	}
}

// TokenInfo describes a token without its secret.
type TokenInfo struct {
	ID      string      `json:"id"`
	Role    Role        `json:"role"`
	User    Role        `json:"user,omitempty"` // what it gives who joins with it
	Note    string      `json:"note,omitempty"`
	State   string      `json:"state"` // good, expired, revoked or used up
	Created time.Time   `json:"created"`
	Expires time.Time   `json:"expires,omitzero"`
	Revoked time.Time   `json:"revoked,omitzero"`
	Uses    int         `json:"uses,omitempty"` // how many machines may join, 0 for any number
	Used    int         `json:"used,omitempty"` // how many did
	Parent  string      `json:"parent,omitempty"`
	Node    grid.NodeID `json:"node,omitempty"`
}

func (r tokenRecord) info(id string, now time.Time) TokenInfo {
	i := TokenInfo{
		ID: id, Role: r.Role, User: r.User, Note: r.Note, State: "good", Created: r.Created, Expires: r.Expires,
		Revoked: r.Revoked, Uses: r.Uses, Used: len(r.Keys), Parent: r.Parent, Node: r.Node,
	}
	switch {
	case !r.Revoked.IsZero():
		i.State = "revoked"
	case r.check(id, now) != nil:
		i.State = "expired"
	case r.Uses > 0 && len(r.Keys) >= r.Uses:
		i.State = "used up"
	}
	return i
}

// Tokens lists the tokens, the newest first. Ended ones are listed for 30 days at least.
func (a *Authority) Tokens() []TokenInfo {
	var list []TokenInfo
	now := a.clock()
	for id, r := range a.tokens.all() {
		list = append(list, r.info(id, now))
	}
	slices.SortFunc(list, func(x, y TokenInfo) int {
		return cmp.Or(y.Created.Compare(x.Created), cmp.Compare(x.ID, y.ID))
	})
	return list
}

// Revoke ends a token, and the access tokens of those who joined with it, from the next request on.
// ErrUnknownToken means that there is none.
func (a *Authority) Revoke(id string) error {
	now := a.clock().UTC()
	return a.tokens.change(func(all map[string]tokenRecord) error {
		if _, ok := all[id]; !ok {
			return fmt.Errorf("%w: %.40q", ErrUnknownToken, id)
		}
		revoke(all, now, func(other string, r tokenRecord) bool { return other == id || r.Parent == id })
		return nil
	})
}

func revoke(all map[string]tokenRecord, now time.Time, which func(string, tokenRecord) bool) {
	for id, r := range all {
		if which(id, r) && r.Revoked.IsZero() {
			r.Revoked = now
			all[id] = r
		}
	}
}
