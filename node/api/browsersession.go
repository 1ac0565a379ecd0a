package api

import (
	"context"
	"net/http"
	"net/url"
)

// PathSession is the session of a browser at mlfnode monitor: POST begins it with a Login, DELETE
// ends it, GET shows it. At a node, GET returns what the client may do.
const PathSession = "/session"

// Role is what a client is allowed to do.
type Role string

// The roles.
const (
	RoleViewer   Role = "viewer"   // read
	RoleOperator Role = "operator" // and act on sweeps and nodes
	RoleAdmin    Role = "admin"    // and manage tokens and keys
)

// Session describes what the client is allowed to do.
type Session struct {
	Role Role   `json:"role"`
	Key  string `json:"key,omitempty"` // key of a new session, which each of its requests must carry
}

// A request in a session carries the session's key in addition to the cookie: in HeaderSession or,
// in a link, in the parameter ParamSession. A browser sends a cookie to every port of a machine,
// but keeps what a page stores for the pages of its own port.
const (
	HeaderSession = "Mlf-Session"
	ParamSession  = "session"
)

// Login begins a session of a browser.
type Login struct {
	Link string `json:"link"` // the part after #k= of the link that mlfnode monitor prints; valid once, for one minute
}

// The codes of refusals by mlfnode monitor.
const (
	CodeUnreachable = "unreachable" // the node does not answer
	CodeCrossSite   = "cross_site"  // a page of another site sent the request
	CodeLinkUsed    = "link_used"   // the link was used or has expired
	CodeViewer      = "viewer"      // the session is read-only
	CodeOlderNode   = "older_node"  // the node's version does not have the call
)

// Session returns what this client may do.
func (c *Client) Session(ctx context.Context) (Session, error) {
	return get[Session](ctx, c, PathSession, nil)
}

// Target returns the address and the transport with which a proxy reaches the node in the same way
// as this client.
func (c *Client) Target() (*url.URL, http.RoundTripper, error) {
	base, err := url.Parse(c.base)
	return base, bearerTransport{c}, err
}

// bearerTransport adds the client's token to each request.
type bearerTransport struct{ client *Client }

// RoundTrip implements http.RoundTripper.
func (b bearerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.client.bearer != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.client.bearer)
	}
	return b.client.http.Transport.RoundTrip(r)
}
