package monitor

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"mlfnode/node/api"
	"mlfnode/node/monitor/page"
)

// Proxy serves the page to browsers on this machine and passes their API calls on to a node. It
// listens on loopback, uses the access of the command line to the node, and answers only browsers
// that logged in with a one-time link: other users and pages on this machine can reach the port,
// too.
type Proxy struct {
	role     api.Role
	port     string
	log      *slog.Logger
	node     http.Handler
	table    *router // of the node: determines the route of a request
	page     *page.Page
	sessions sessions
}

// NewProxy returns a proxy for browsers that connect to l. Requests go through transport to the
// node at target. No browser gets more rights than role.
func NewProxy(
	l net.Addr, target *url.URL, transport http.RoundTripper, role api.Role, log *slog.Logger,
) (*Proxy, error) {
	address, ok := l.(*net.TCPAddr)
	if !ok || !address.IP.IsLoopback() {
		return nil, fmt.Errorf("browsers are served on loopback only, and not on %s", l)
	}
	p := &Proxy{role: role, port: strconv.Itoa(address.Port), log: log.With("component", "proxy"),
		table: tableForProxy(newHandlers(&Config{Logger: log}, nil, nil, log)), page: page.New()}
	p.node = &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			// they concern only the browser and the proxy
			for _, name := range []string{"Cookie", api.HeaderSession, "Authorization", "Origin", "Referer"} {
				r.Out.Header.Del(name)
			}
			if q := r.Out.URL.Query(); q.Has(api.ParamSession) {
				q.Del(api.ParamSession)
				r.Out.URL.RawQuery = q.Encode()
			}
		},
		ModifyResponse: hintAtVersion,
		ErrorLog:       slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if large := tooLarge(err); large != nil {
				sendError(w, large)
				return
			}
			if r.Context().Err() == nil {
				p.log.Debug("the node can't be reached", "err", err)
			}
			w.Header().Set("Retry-After", "2")
			sendError(w, &api.Error{Status: http.StatusBadGateway, Code: api.CodeUnreachable,
				Msg: "the node can't be reached", Hint: "it may be restarting; the page will try again"})
		},
	}
	return p, nil
}

// hintAtVersion replaces the response of a node that lacks a call that this program has.
func hintAtVersion(r *http.Response) error {
	if r.StatusCode != http.StatusNotFound || r.Request.Method == http.MethodHead ||
		r.Header.Get("Content-Type") == api.MediaProblem {
		return nil
	}
	r.Body.Close()
	e := &api.Error{Status: http.StatusNotFound, Code: api.CodeOlderNode,
		Msg: "this node runs an older version of mlfnode, which can't answer this", Hint: "update the node"}
	b, err := json.Marshal(e.Problem())
	if err != nil {
		return err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	r.Header = http.Header{"Content-Type": {api.MediaProblem}, "Cache-Control": {"no-store"},
		"Content-Length": {strconv.Itoa(len(b))}}
	return nil
}

// Link returns a new link, which can be used once, within a minute.
func (p *Proxy) Link() string {
	return p.origin() + "/#k=" + p.sessions.newLink()
}

// Serve answers browsers until ctx ends.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	requests, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	srv := &http.Server{
		Handler: p.Handler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: headerBytes,
		BaseContext: func(net.Listener) context.Context { return requests },
		ErrorLog:    slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
	}
	return serveUntil(ctx, srv, l, func() {
		cut() // streams do not end without being cut
		srv.Close()
	})
}

// Handler answers browsers.
func (p *Proxy) Handler() http.Handler {
	cross := http.NewCrossOriginProtection()
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { sendError(w, errCrossSite) }))
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+api.Prefix+api.PathSession, p.showSession)
	mux.HandleFunc("POST "+api.Prefix+api.PathSession, p.logIn)
	mux.HandleFunc("DELETE "+api.Prefix+api.PathSession, p.logOut)
	mux.HandleFunc(api.Prefix+"/", p.forward)
	for pattern, rt := range p.table.byPattern {
		if rt.root {
			mux.HandleFunc(pattern, p.forward)
		}
	}
	mux.HandleFunc("GET "+page.Assets, func(w http.ResponseWriter, r *http.Request) {
		if !p.page.ServeAsset(w, r) {
			p.table.unknown(w, r)
		}
	})
	mux.HandleFunc("GET /{$}", p.page.ServeDocument)
	for _, place := range []string{"sweeps", "nodes", "settings"} { // of the page, which displays them itself
		mux.HandleFunc("GET /"+place, p.page.ServeDocument)
		mux.HandleFunc("GET /"+place+"/", p.page.ServeDocument)
	}
	mux.HandleFunc("/", p.table.unknown)
	inner := cross.Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		setSecurityHeaders(w.Header())
		callsAPI := strings.HasPrefix(r.URL.Path, api.Prefix+"/") || p.table.find(r) != nil
		switch site := r.Header.Get("Sec-Fetch-Site"); {
		case r.Host == "localhost:"+p.port && r.Method == http.MethodGet && !callsAPI:
			http.Redirect(w, r, p.origin()+r.URL.RequestURI(), http.StatusTemporaryRedirect)
		case r.Host != "127.0.0.1:"+p.port:
			// localhost may be [::1], where another user can listen; other names result from DNS
			// rebinding
			sendError(w, &api.Error{Status: http.StatusMisdirectedRequest,
				Msg: fmt.Sprintf("this server is not %.60q", r.Host), Hint: "open " + p.origin()})
		case len(r.URL.RawQuery) > queryLimit:
			sendError(w, errLongQuery)
		case callsAPI && site != "" && site != "same-origin" && site != "none":
			sendError(w, errCrossSite)
		default:
			serveWithWriteTimeout(w, r, writeTimeout, inner)
		}
	})
}

var errCrossSite = &api.Error{Status: http.StatusForbidden, Code: api.CodeCrossSite,
	Msg: "the request comes from a page of another site"}

// origin returns the origin that browsers use.
func (p *Proxy) origin() string { return "http://127.0.0.1:" + p.port }

// setSecurityHeaders sets the security headers of every response. There are no CORS headers, so no
// other origin gets access.
func setSecurityHeaders(h http.Header) {
	for name, value := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; " +
			"form-action 'self'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin", "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
	} {
		h.Set(name, value)
	}
}

// cookieName includes the port, since browsers share the cookies of a host between its ports.
func (p *Proxy) cookieName() string { return "mlf_" + p.port }

// sessionOf returns the session of a request, or nil if it has none. A program on another port of
// this machine may have been sent the cookie, but not the key.
func (p *Proxy) sessionOf(r *http.Request) *session {
	c, err := r.Cookie(p.cookieName())
	if err != nil {
		return nil
	}
	key := r.Header.Get(api.HeaderSession)
	if key == "" && r.Method == http.MethodGet {
		key = r.URL.Query().Get(api.ParamSession)
	}
	return p.sessions.use(c.Value, key)
}

var errNoSession = &api.Error{Status: http.StatusUnauthorized, Msg: "this browser is not logged in",
	Hint: "press Enter where mlfnode monitor runs, and open the new link"}

func (p *Proxy) showSession(w http.ResponseWriter, r *http.Request) {
	if p.sessionOf(r) == nil {
		sendError(w, errNoSession)
		return
	}
	sendJSON(w, r, api.Session{Role: p.role})
}

// logIn logs in a browser that presents a link.
func (p *Proxy) logIn(w http.ResponseWriter, r *http.Request) {
	var login api.Login
	r.Body = http.MaxBytesReader(w, r.Body, unauthenticatedBytes)
	// anyone on this machine may send this request
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(requestTimeout))
	if err := decode(r, &login); err != nil {
		sendError(w, err)
		return
	}
	cookie, key, ok, tired := p.sessions.redeem(login.Link)
	switch {
	case tired:
		w.Header().Set("Retry-After", "60")
		sendError(w, &api.Error{Status: http.StatusTooManyRequests, Msg: "too many wrong links were tried",
			Hint: "wait a minute"})
	case !ok:
		sendError(w, &api.Error{Status: http.StatusForbidden, Code: api.CodeLinkUsed,
			Msg: "the link has been used or has expired", Hint: errNoSession.Hint})
	default:
		p.setCookie(w, cookie, int(sessionTime.Seconds()))
		w.Header().Set("Cache-Control", "no-store")
		sendJSON(w, r, api.Session{Role: p.role, Key: key})
	}
}

// logOut logs out a browser and ends its streams.
func (p *Proxy) logOut(w http.ResponseWriter, r *http.Request) {
	if c, err := r.Cookie(p.cookieName()); err == nil && p.sessionOf(r) != nil {
		p.sessions.end(c.Value)
	}
	p.setCookie(w, "", -1)
	w.WriteHeader(http.StatusNoContent)
}

func (p *Proxy) setCookie(w http.ResponseWriter, value string, age int) {
	http.SetCookie(w, &http.Cookie{Name: p.cookieName(), Value: value, Path: "/", MaxAge: age, HttpOnly: true,
		SameSite: http.SameSiteStrictMode})
}

// forward passes a request on to the node. Calls for the owner, for nodes or for joining machines
// are refused.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request) {
	session := p.sessionOf(r)
	if session == nil {
		sendError(w, errNoSession)
		return
	}
	defer p.sessions.requestStarted(session)()
	ctx, stop := context.WithCancel(r.Context())
	defer stop()
	defer context.AfterFunc(session.ctx, stop)()
	r = r.WithContext(ctx)
	rt := p.table.find(r)
	switch {
	case rt == nil:
		p.table.unknown(w, r)
		return
	case rt.access != mayRead && rt.access != mayAct:
		sendError(w, &api.Error{Status: http.StatusForbidden, Msg: "browsers may not do this",
			Hint: "use the command line"})
		return
	case rt.access == mayAct && p.role == api.RoleViewer:
		sendError(w, &api.Error{Status: http.StatusForbidden, Code: api.CodeViewer, Msg: "this session is read-only",
			Hint: "log in through an mlfnode monitor that was started without --role viewer"})
		return
	}
	if limit := rt.limit(); limit > 0 {
		r.Body = http.MaxBytesReader(w, r.Body, limit)
	}
	p.node.ServeHTTP(w, r)
}
