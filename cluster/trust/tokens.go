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

// TokenStore holds the tokens of a cluster, without their secrets. Callers reach it through the
// Authority.
type TokenStore struct {
	tokens *table[tokenRecord]
	clock  func() time.Time
	pin    func() Pin // of the CA that new tokens name
}

// tokenRecord is the entry of a token in tokens.json, without its secret.
type tokenRecord struct {
	Role    Role        `json:"role"`
	User    Role        `json:"user,omitempty"` // role of the access token for the person who joins with it
	Hash    []byte      `json:"hash"`           // SHA-256 of the secret
	Note    string      `json:"note,omitempty"`
	Created time.Time   `json:"created"`
	Expires time.Time   `json:"expires,omitzero"`
	Revoked time.Time   `json:"revoked,omitzero"`
	Uses    int         `json:"uses,omitempty"`   // number of machines that may join; 0 means any number
	Keys    []string    `json:"keys,omitempty"`   // fingerprint and name of the machines that have joined
	Parent  string      `json:"parent,omitempty"` // of an access token: the token used to join
	Node    grid.NodeID `json:"node,omitempty"`   // of an access token: the node that joined
}

// check returns an error if the token is no longer valid. Only a caller that has shown its secret
// may learn the result.
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

// TokenSpec describes a token to make.
type TokenSpec struct {
	Role    Role
	Expires time.Duration // from now; 0 means never
	Uses    int           // number of machines that may join with a node token; 0 means any number
	User    Role          // role of the person who joins with a node token: operator (the default), viewer or none
	Note    string        // shown in the list of tokens
}

// longestNote bounds the note of a token.
const longestNote = 200

// purgeAfter is how long invalid tokens stay in the list.
const purgeAfter = 30 * 24 * time.Hour

// MakeToken makes a token. It stores the token, without its secret, before it returns.
func (s *TokenStore) MakeToken(spec TokenSpec) (Token, error) {
	if _, err := ParseRole(string(spec.Role)); err != nil {
		return Token{}, err
	}
	if spec.Role == RoleNode && spec.User == "" {
		spec.User = RoleOperator
	}
	switch {
	case spec.Expires < 0 || spec.Uses < 0:
		return Token{}, errors.New("a token can't expire in the past or be used less than once")
	case spec.Role != RoleNode && (spec.Uses != 0 || spec.User != ""):
		return Token{}, errors.New("only node tokens have a number of uses and a role for the person who joins")
	case spec.Role == RoleNode && spec.User != RoleOperator && spec.User != RoleViewer && spec.User != RoleNone:
		return Token{}, fmt.Errorf("%q is not a role for a person who joins; use operator, viewer or none", spec.User)
	case len(spec.Note) > longestNote:
		return Token{}, fmt.Errorf("the note of a token has at most %d bytes", longestNote)
	}
	now := s.clock()
	r := tokenRecord{Role: spec.Role, User: spec.User, Note: spec.Note, Created: now.UTC(), Uses: spec.Uses}
	if spec.Expires > 0 {
		r.Expires = now.Add(spec.Expires).UTC()
	}
	var t Token
	err := s.tokens.change(func(all map[string]tokenRecord) error {
		purge(all, now)
		t = s.addToken(all, r)
		return nil
	})
	return t, err
}

// addToken adds a record under a new identifier, with a new secret.
func (s *TokenStore) addToken(all map[string]tokenRecord, r tokenRecord) Token {
	t := Token{Pin: s.pin()}
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

// purge drops tokens that ended long ago. A node token stays while an access token that was issued
// with it is valid, so that revoking the former still ends the latter.
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
	ID               string
	Role             Role
	Note             string
	State            string // good, expired, revoked or used up
	Created, Expires time.Time
	Uses             int // number of machines that may join; 0 means any number
	Used             int // number of machines that have joined
}

// Tokens returns the tokens, newest first. Invalid ones are included for at least 30 days.
func (s *TokenStore) Tokens() []TokenInfo {
	var list []TokenInfo
	now := s.clock()
	for id, r := range s.tokens.all() {
		i := TokenInfo{
			ID: id, Role: r.Role, Note: r.Note, State: "good", Created: r.Created, Expires: r.Expires, Uses: r.Uses,
			Used: len(r.Keys),
		}
		switch {
		case !r.Revoked.IsZero():
			i.State = "revoked"
		case r.check(id, now) != nil:
			i.State = "expired"
		case r.Uses > 0 && len(r.Keys) >= r.Uses:
			i.State = "used up"
		}
		list = append(list, i)
	}
	slices.SortFunc(list, func(x, y TokenInfo) int {
		return cmp.Or(y.Created.Compare(x.Created), cmp.Compare(x.ID, y.ID))
	})
	return list
}

// Revoke invalidates a token, and the access tokens of people who joined with it, from the next
// request on. It returns ErrUnknownToken if there is no such token.
func (s *TokenStore) Revoke(id string) error {
	now := s.clock().UTC()
	return s.tokens.change(func(all map[string]tokenRecord) error {
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
