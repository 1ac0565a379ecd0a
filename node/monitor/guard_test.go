package monitor

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/jetstream"
	"mlfnode/node/master"
)

// TestStreamsEndWithTheirTokens revokes the token of one of two streams: that stream ends, and the
// other one continues.
func TestStreamsEndWithTheirTokens(t *testing.T) {
	authority, err := trust.OpenAuthority(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	log := testLog(t)
	m := New(Config{
		Logger: log, Cluster: Cluster{Authority: authority},
		Master: master.New(master.Config{Logger: log, Store: &jetstream.Store{}, Capacity: oneSlot}),
	})
	m.guard.recheckTime = 10 * time.Millisecond
	table := &router{mux: http.NewServeMux(), byPattern: map[string]*route{}}
	ended := map[string]chan error{"/a": make(chan error, 1), "/b": make(chan error, 1)}
	for path := range ended {
		table.add("", &route{method: "GET", pattern: path, access: mayRead, call: call{stream: true}},
			http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "begun")
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
				ended[path] <- context.Cause(r.Context())
			}))
	}
	srv := httptest.NewServer(m.guard.wrap(table))
	defer srv.Close()
	tokens := map[string]trust.Token{}
	for path := range ended {
		token, err := authority.MakeToken(trust.TokenSpec{Role: trust.RoleViewer})
		if err != nil {
			t.Fatal(err)
		}
		tokens[path] = token
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token.Bearer())
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"/a", "/b"} {
		if err := authority.Revoke(tokens[path].ID); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended[path]:
			if !errors.Is(err, trust.ErrRevoked) {
				t.Errorf("%s ended with %v, want that its token is revoked", path, err)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s goes on with a revoked token", path)
		}
		if path == "/a" && len(ended["/b"]) > 0 {
			t.Error("a stream whose token is good has ended")
		}
	}
}

// TestBrowserAtTheMaster opens the address of the master itself in a browser: the refusal explains
// how a browser gets access.
func TestBrowserAtTheMaster(t *testing.T) {
	m := New(Config{Logger: testLog(t)})
	h := m.guard.wrap(&router{mux: http.NewServeMux(), byPattern: map[string]*route{}})
	for accept, hint := range map[string]string{"text/html,application/xhtml+xml": "mlfnode monitor",
		"*/*": "mlfnode token"} {
		for _, path := range []string{"/", "/sweeps/chainer-3", "/api/v1/sweeps"} {
			r, w := httptest.NewRequest("GET", path, nil), httptest.NewRecorder()
			r.Header.Set("Accept", accept)
			h.ServeHTTP(w, r)
			if w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), hint) {
				t.Errorf("%s, which takes %s: got %d %s, want a hint of %s", path, accept, w.Code, w.Body, hint)
			}
		}
	}
}
