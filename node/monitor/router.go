package monitor

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/gzip"

	"mlfnode/node/api"
	"mlfnode/node/history"
)

// Bounds of requests and answers.
const (
	queryLimit   = 8 << 10  // bytes of a query
	defaultBody  = 1 << 20  // bytes of a body
	largeBody    = 64 << 20 // of a submission, which may list values and an environment
	unlimited    = -1
	compressFrom = 1 << 10 // bytes in an answer

	// writeTimeout is how long a client may take for a piece of an answer. A client that reads
	// nothing for that long is cut off.
	writeTimeout = 30 * time.Second
)

// router dispatches requests to the calls of the table.
type router struct {
	mux       *http.ServeMux
	byPattern map[string]*route
}

// newRouter returns the router of a master, or that of a worker, which has few calls.
func (m *Monitor) newRouter() *router {
	t := &router{mux: http.NewServeMux(), byPattern: map[string]*route{}}
	compress, err := gzhttp.NewWrapper(gzhttp.MinSize(compressFrom), gzhttp.CompressionLevel(gzip.BestSpeed),
		gzhttp.EnableZstd(false))
	if err != nil {
		panic(err) // the options are constants
	}
	worker := !m.master
	for _, rt := range m.handlers.routes() {
		if worker && !rt.everywhere || rt.access == forNodes && !m.snapshots {
			continue
		}
		old := rt.handler
		if rt.old != nil {
			old = rt.old
		}
		handlers := map[string]http.Handler{api.Prefix: rt.handler, api.OldPrefix: old}
		if rt.root {
			handlers = map[string]http.Handler{"": rt.handler}
		}
		for prefix, h := range handlers {
			if !rt.stream {
				h = compress(h)
			}
			if prefix == api.Prefix { // a client of another version may send parameters that its own version knows
				h = rt.strict(h)
			}
			t.add(prefix, &rt, m.bounded(&rt, h))
		}
	}
	if worker {
		t.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
			sendError(w, &api.Error{Status: http.StatusMisdirectedRequest,
				Msg: "this node is a worker, and sweeps are kept by the master"})
		})
	} else {
		t.mux.HandleFunc("/", t.unknown)
	}
	return t
}

// tableForProxy returns a router without handlers: a proxy uses it to look up the route of a
// request.
func tableForProxy(h *handlers) *router {
	t := &router{mux: http.NewServeMux(), byPattern: map[string]*route{}}
	for _, rt := range h.routes() {
		t.add(rt.prefix(), &rt, http.NotFoundHandler())
	}
	return t
}

// prefix returns the path before the pattern of a route.
func (rt *route) prefix() string {
	if rt.root {
		return ""
	}
	return api.Prefix
}

func (t *router) add(prefix string, rt *route, h http.Handler) {
	pattern := rt.method + " " + prefix + rt.pattern
	t.byPattern[pattern] = rt
	t.mux.Handle(pattern, h)
}

// find returns the route of a request, or nil if there is none.
func (t *router) find(r *http.Request) *route {
	_, pattern := t.mux.Handler(r)
	return t.byPattern[pattern]
}

// ServeHTTP implements http.Handler.
func (t *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(r.URL.RawQuery) > queryLimit {
		sendError(w, errLongQuery)
		return
	}
	t.mux.ServeHTTP(w, r)
}

var errLongQuery = &api.Error{Status: http.StatusRequestURITooLong,
	Msg: fmt.Sprintf("the query is longer than %d bytes", queryLimit)}

// unknown answers requests that match no route.
func (t *router) unknown(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut,
		http.MethodDelete} {
		other := *r
		other.Method = method
		if t.find(&other) != nil {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		sendError(w, &api.Error{Status: http.StatusMethodNotAllowed,
			Msg: fmt.Sprintf("%.80s does not accept %.10s", r.URL.Path, r.Method)})
		return
	}
	sendError(w, &api.Error{Status: http.StatusNotFound, Msg: fmt.Sprintf("there is no %.80q", r.URL.Path),
		Hint: "the calls are listed in " + api.Prefix + api.PathDocument})
}

// strict refuses queries with unknown parameters, since a client that mistypes one would misread
// the answer.
func (rt *route) strict(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			sendError(w, badRequest("the query can't be read: "+err.Error(),
				"percent-encode the values of parameters, as in %26 for &"))
			return
		}
		for _, key := range slices.Sorted(maps.Keys(q)) {
			if !slices.ContainsFunc(rt.query, func(p parameter) bool { return p.is(key) }) {
				sendError(w, badRequest(fmt.Sprintf("this call has no parameter %.60q", key), rt.parameters()))
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// parameters lists the parameters of a route for a hint.
func (rt *route) parameters() string {
	if len(rt.query) == 0 {
		return "leave it out: the call has none"
	}
	names := make([]string, len(rt.query))
	for i, p := range rt.query {
		if names[i] = p.name; p.kind == "object" {
			names[i] += "[NAME]"
		}
	}
	return "it has " + strings.Join(names, ", ")
}

// bounded limits the body of a request, and the time in which its client must read the response.
func (m *Monitor) bounded(rt *route, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		if limit := rt.limit(); limit > 0 {
			r.Body = http.MaxBytesReader(w, r.Body, limit)
		}
		status := serveWithWriteTimeout(w, r, cmp.Or(rt.writeTimeout, writeTimeout), next)
		m.requests.observe(rt, status, time.Since(began))
	})
}

// serveWithWriteTimeout limits how long each write of a response may take, and returns the status
// of the response.
func serveWithWriteTimeout(w http.ResponseWriter, r *http.Request, limit time.Duration, next http.Handler) int {
	p := &deadlineWriter{ResponseWriter: w, limit: limit}
	p.clearDeadline()
	next.ServeHTTP(p, r)
	p.extend() // for what is left in buffers
	return cmp.Or(p.status, http.StatusOK)
}

// limit is the maximum size of a request's body in bytes; zero or less means no limit.
func (rt *route) limit() int64 { return cmp.Or(rt.bodyLimit, defaultBody) }

// deadlineWriter sets a deadline for each write. Between writes there is none: over HTTP/2 an
// expired deadline ends the stream even while nothing is being written.
type deadlineWriter struct {
	http.ResponseWriter
	limit  time.Duration
	status int // 0 before the header is written, and if a write sends it implicitly
}

// WriteHeader implements http.ResponseWriter.
func (p *deadlineWriter) WriteHeader(status int) {
	p.status = status
	p.ResponseWriter.WriteHeader(status)
}

func (p *deadlineWriter) extend() {
	// a recorder of a test has none
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Now().Add(p.limit))
}

func (p *deadlineWriter) clearDeadline() {
	_ = http.NewResponseController(p.ResponseWriter).SetWriteDeadline(time.Time{})
}

// Write implements http.ResponseWriter.
func (p *deadlineWriter) Write(b []byte) (int, error) {
	p.extend()
	defer p.clearDeadline()
	return p.ResponseWriter.Write(b)
}

// FlushError is for http.ResponseController.
func (p *deadlineWriter) FlushError() error {
	p.extend()
	defer p.clearDeadline()
	return http.NewResponseController(p.ResponseWriter).Flush()
}

// Flush implements http.Flusher, which the compressor looks for.
func (p *deadlineWriter) Flush() { _ = p.FlushError() } // the next write reports that the client has gone

// Unwrap is for http.ResponseController.
func (p *deadlineWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// sendJSON answers with a value as JSON. The response to a GET has an ETag and no body if the
// client already has it.
func sendJSON(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		sendError(w, err)
		return
	}
	sendBytes(w, r, append(b, '\n'))
}

func sendBytes(w http.ResponseWriter, r *http.Request, b []byte) {
	if r.Method == http.MethodGet {
		sum := fnv.New64a()
		sum.Write(b)
		if notModified(w, r, fmt.Sprintf("%x", sum.Sum(nil))) {
			return
		}
	}
	w.Header().Set("Content-Type", mediaJSON)
	_, _ = w.Write(b) // the client has gone if this fails
}

// notModified sets the ETag of a response, and answers 304 if the client already has this version.
func notModified(w http.ResponseWriter, r *http.Request, version string) bool {
	tag := `W/"` + version + `"`
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", "no-cache") // the client revalidates each time
	for had := range strings.SplitSeq(r.Header.Get("If-None-Match"), ",") {
		if strings.TrimSpace(had) == tag {
			w.WriteHeader(http.StatusNotModified)
			return true
		}
	}
	return false
}

// sendError answers with a problem. An error that is not an *api.Error is an internal error.
func sendError(w http.ResponseWriter, err error) {
	e := asError(err)
	h := w.Header()
	h.Set("Content-Type", api.MediaProblem)
	h.Set("Cache-Control", "no-store")
	h.Del("ETag")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(e.Problem()) // the client has gone if this fails
}

func asError(err error) *api.Error {
	var e *api.Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, history.ErrSlow) {
		return &api.Error{Status: http.StatusServiceUnavailable, Msg: history.ErrSlow.Error()}
	}
	return &api.Error{Status: http.StatusInternalServerError, Msg: err.Error()}
}

func badRequest(msg, hint string) error {
	return &api.Error{Status: http.StatusBadRequest, Msg: msg, Hint: hint}
}

// decode reads the body of a request, whose size the route has limited.
func decode(r *http.Request, v any) error {
	err := json.NewDecoder(r.Body).Decode(v)
	switch large := tooLarge(err); {
	case large != nil:
		return large
	case err != nil:
		return badRequest("the request can't be read: "+err.Error(), "use an mlfnode of the node's version")
	}
	return nil
}

// tooLarge returns the response to a body over its limit, or nil for any other error.
func tooLarge(err error) error {
	var large *http.MaxBytesError
	if !errors.As(err, &large) {
		return nil
	}
	return &api.Error{Status: http.StatusRequestEntityTooLarge,
		Msg: fmt.Sprintf("the request is longer than %d bytes", large.Limit)}
}

// openAPI describes the API. A test makes it of the table of routes, so that no node spends time or
// memory on that.
//
//go:embed openapi.json
var openAPI []byte

// document answers with the OpenAPI document.
func document(w http.ResponseWriter, r *http.Request) { sendBytes(w, r, bytes.TrimSpace(openAPI)) }
