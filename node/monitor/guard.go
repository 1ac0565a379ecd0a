package monitor

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/node/api"
)

// access is the permission that a request has, or that a route requires.
type access uint8

const (
	mayNothing access = iota
	mayRead
	mayAct
	mayAdminister // through the socket in the master's state folder, or with an admin token
	mayOwn        // through that socket only
	forNodes      // with a node's certificate; no token suffices
)

// accessWithoutRoute returns the access that a request without a route needs: a client that may not
// read or act learns nothing about paths.
func accessWithoutRoute(r *http.Request) access {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return mayRead
	}
	return mayAct
}

// errNoToken is the answer to a request without a token.
var errNoToken = errors.New("this needs a token")

// guard passes on the requests that their tokens allow.
type guard struct {
	authority *trust.Authority // nil on a node that stands alone
	refusals  *refusalLog
	log       *slog.Logger

	requestTimeout time.Duration // the time in which a client without a token must send a request
	recheckTime    time.Duration // between two checks of a stream's token
}

// wrap returns a handler that passes requests on to next if their tokens allow them.
func (g *guard) wrap(next *router) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		need, stream := accessWithoutRoute(r), false
		if rt := next.find(r); rt != nil {
			need, stream = rt.access, rt.stream
		}
		read := http.NewResponseController(w)
		_ = read.SetReadDeadline(time.Now().Add(g.requestTimeout)) // the server's connections have deadlines
		_ = read.SetWriteDeadline(time.Now().Add(writeTimeout))    // for refusals; routes set their own deadlines
		if need == mayNothing {
			r.Body = http.MaxBytesReader(w, r.Body, unauthenticatedBytes)
			next.ServeHTTP(w, r)
			return
		}
		if need == forNodes {
			if err := g.checkNode(r); err != nil {
				sendError(w, err)
				return
			}
			connOf(r.Context()).authenticated()
			_ = read.SetReadDeadline(time.Time{})
			next.ServeHTTP(w, r)
			return
		}
		have, who, err := g.rightsOf(r)
		switch {
		case err != nil:
			hint := "ask whoever runs the master for a new token, made with: mlfnode token --role operator"
			if errors.Is(err, errNoToken) && strings.Contains(r.Header.Get("Accept"), "text/html") {
				hint = "this is for programs; a browser gets in by the link of: mlfnode monitor"
			}
			w.Header().Set("WWW-Authenticate", "Bearer")
			sendError(w, &api.Error{Status: http.StatusUnauthorized, Msg: err.Error(), Hint: hint})
		case have < need && need == mayAdminister:
			sendError(w, &api.Error{Status: http.StatusForbidden,
				Msg:  "this needs the rights of an admin, like those of the person who ran mlfnode up",
				Hint: "do it on the master's machine, or with a token made there by: mlfnode token --role admin"})
		case have < need && need == mayOwn:
			sendError(w, &api.Error{Status: http.StatusForbidden,
				Msg: "this is for the owner of the master's state folder", Hint: "do it on the master's machine"})
		case have < need:
			sendError(w, &api.Error{Status: http.StatusForbidden, Msg: "the token is read-only",
				Hint: "use one made with: mlfnode token --role operator"})
		default:
			connOf(r.Context()).authenticated()
			_ = read.SetReadDeadline(time.Time{})
			ctx := context.WithValue(r.Context(), principalKey{}, principal{name: who, rights: have})
			if stream {
				watched, stop := g.watchAccess(ctx, bearerOf(r))
				defer stop()
				ctx = watched
			}
			next.ServeHTTP(w, r.WithContext(ctx))
		}
	})
}

// Limits of clients that have not shown a token.
const (
	unauthenticatedBytes = 64 << 10
	requestTimeout       = 10 * time.Second // to send one request
	maxUnauthenticated   = 256              // connections
)

// recheckTime is the interval at which the token of an open stream is checked again.
const recheckTime = 15 * time.Second

// watchAccess returns a context for a stream that ends when the stream's token becomes invalid. The
// caller must call stop, which waits for the watcher to end.
func (g *guard) watchAccess(ctx context.Context, bearer string) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(g.recheckTime)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-watched.Done():
				return
			}
			if _, err := g.authority.CheckAccess(bearer); err != nil {
				cancel(err)
				return
			}
		}
	}()
	return watched, func() {
		cancel(nil)
		<-ended
	}
}

// bearerOf returns the token of a request, or "" if it has none.
func bearerOf(r *http.Request) string {
	bearer, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok && strings.HasPrefix(r.URL.Path, api.PathFlower+"/") {
		_, bearer, _ = r.BasicAuth() // which scripts for Flower use, whatever the name
	}
	return bearer
}

// rightsOf returns what a request is allowed to do, and who sent it.
func (g *guard) rightsOf(r *http.Request) (access, string, error) {
	bearer := bearerOf(r)
	if bearer == "" {
		return mayNothing, "", errNoToken
	}
	grant, err := g.authority.CheckAccess(bearer)
	if err != nil {
		g.refusals.warn(g.log, "access refused", r, err)
		return mayNothing, "", err
	}
	return rights(grant.Role), "token " + grant.ID, nil
}

// rights returns what a role is allowed to do.
func rights(role trust.Role) access {
	switch role {
	case trust.RoleAdmin:
		return mayAdminister
	case trust.RoleOperator:
		return mayAct
	case trust.RoleViewer:
		return mayRead
	}
	return mayNothing
}

// principal is the client that sent a request, and what it is allowed to do.
type principal struct {
	name   string // of the token; empty for the owner of the state folder
	rights access
}

type principalKey struct{}

func principalOf(ctx context.Context) principal {
	p, ok := ctx.Value(principalKey{}).(principal)
	if !ok {
		p.rights = mayOwn // of the owner, who connects through the socket
	}
	return p
}

// whoami answers with what the client is allowed to do.
func whoami(r *http.Request) (api.Session, error) {
	switch principalOf(r.Context()).rights {
	case mayOwn, mayAdminister:
		return api.Session{Role: api.RoleAdmin}, nil
	case mayAct:
		return api.Session{Role: api.RoleOperator}, nil
	}
	return api.Session{Role: api.RoleViewer}, nil
}

// refusalLogInterval is the minimum time between two logged refusals: repeated attempts must not
// fill the disk.
const refusalLogInterval = 10 * time.Second

// refusalLog counts refusals that are not logged. The zero value is ready.
type refusalLog struct {
	mu         sync.Mutex
	logged     time.Time
	suppressed int
}

func (k *refusalLog) warn(log *slog.Logger, what string, r *http.Request, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.logged) < refusalLogInterval {
		k.suppressed++
		return
	}
	log.Warn(what, "from", r.RemoteAddr, "err", err, "more", k.suppressed)
	k.logged, k.suppressed = time.Now(), 0
}

// checkNode reports whether a node may still send requests: it may have been removed from the
// cluster since its connection was made.
func (g *guard) checkNode(r *http.Request) error {
	node, err := peer(r)
	if err != nil || g.authority == nil {
		return err
	}
	if err := g.authority.Known(node, r.TLS.PeerCertificates[0]); err != nil {
		return &api.Error{Status: http.StatusForbidden, Msg: err.Error(),
			Hint: "join again with a token, made on the master with: mlfnode token"}
	}
	return nil
}
