package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"mlfnode/grid"
)

// NewToken requests a token.
type NewToken struct {
	Role    string        `json:"role"`
	Expires time.Duration `json:"expires"` // lifetime; 0 means that it never expires
	Uses    int           `json:"uses"`    // number of machines that may join with it; 0 means no limit
	User    string        `json:"user"`    // role of the access token that the joining person receives
	Note    string        `json:"note"`
}

// TokenMade is a new token, with everything else that is needed to use it.
type TokenMade struct {
	ID      string    `json:"id"`
	Token   string    `json:"token"`
	Role    string    `json:"role"`
	Expires time.Time `json:"expires,omitzero"`
	Master  string    `json:"master"` // HOST:PORT of the API
}

// TokenKnown is a token in a list, without its secret.
type TokenKnown struct {
	ID      string    `json:"id"`
	Role    string    `json:"role"`
	State   string    `json:"state"` // good, expired, revoked or used up
	Note    string    `json:"note,omitempty"`
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires,omitzero"`
	Used    int       `json:"used"`
	Uses    int       `json:"uses,omitempty"`
}

// CA is the progress of a rotation of the cluster's CA.
type CA struct {
	Stage string `json:"stage"` // settled, announced or switched
	Pin   string `json:"pin"`   // SHA-256 of the CA that issues certificates
	// SHA-256 of the other CA: the new one while it is announced, the old one after the switch
	Other string `json:"other,omitempty"`

	Behind []grid.NodeID `json:"behind"` // reachable nodes that have not followed the last step
	Away   []grid.NodeID `json:"away"`   // unreachable nodes that have not followed the last step
}

// CAStep requests the next step of a rotation of the CA.
type CAStep struct {
	Step string `json:"step"` // rotate, switch or retire
	// do not wait for nodes that have not followed the previous step: they need a token to join
	// again
	Now bool `json:"now"`
}

// Access manages who may use the cluster: tokens, the gossip key and the cluster's CA.
type Access struct{ client *Client }

// Access returns the calls about tokens and keys.
func (c *Client) Access() Access { return Access{c} }

// MakeToken makes a token.
func (a Access) MakeToken(ctx context.Context, t NewToken) (TokenMade, error) {
	return post[TokenMade](ctx, a.client, PathTokens, t)
}

// Tokens lists the tokens, the newest first.
func (a Access) Tokens(ctx context.Context) ([]TokenKnown, error) {
	return get[[]TokenKnown](ctx, a.client, PathTokens, nil)
}

// RevokeToken revokes a token and everything that was issued through it.
func (a Access) RevokeToken(ctx context.Context, id string) error {
	return discard(a.client.do(ctx, http.MethodDelete, strings.Replace(PathToken, "{id}", url.PathEscape(id), 1), nil,
		nil))
}

// RotateKeyring gives the cluster a new gossip key.
func (a Access) RotateKeyring(ctx context.Context) error {
	_, err := post[struct{}](ctx, a.client, PathKeyring, nil)
	return err
}

// CA returns the progress of a rotation of the cluster's CA.
func (a Access) CA(ctx context.Context) (CA, error) { return get[CA](ctx, a.client, PathCA, nil) }

// StepCA takes the next step of a rotation of the CA, and waits a few seconds for the nodes to
// follow.
func (a Access) StepCA(ctx context.Context, s CAStep) (CA, error) {
	return post[CA](ctx, a.client, PathCA, s)
}
