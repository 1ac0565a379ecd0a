package node_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"

	"mlfnode/node"
	"mlfnode/node/api"
)

// TestBrowsersReachTheNode serves browsers beside a port that is taken: one logs in by the link,
// reads, acts, and follows events, which come as they happen.
func TestBrowsersReachTheNode(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	b, err := node.NewBrowsers(t.Context(), s, port, api.RoleOperator, cfg.Logger)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	link, err := url.Parse(b.Link())
	if err != nil || link.Hostname() != "127.0.0.1" || link.Host == taken.Addr().String() {
		t.Fatalf("the link is %v, %v", link, err)
	}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, Transport: &http.Transport{}}
	defer browser.CloseIdleConnections()
	base := "http://" + link.Host + api.Prefix
	var session api.Session
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(api.HeaderSession, session.Key)
		resp, err := browser.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, strings.TrimSpace(string(b))
	}
	if status, text := ask("GET", api.PathSweeps, ""); status != http.StatusUnauthorized {
		t.Errorf("without a login: got %d %s", status, text)
	}
	login, _ := json.Marshal(api.Login{Link: strings.TrimPrefix(link.Fragment, "k=")})
	if status, text := ask("POST", api.PathSession, string(login)); status != http.StatusOK ||
		json.Unmarshal([]byte(text), &session) != nil || session.Role != api.RoleOperator {
		t.Fatalf("the login: got %d %s", status, text)
	}
	h := &httpOf{t, browser}
	events, stopEvents := h.listenAt(base, "overview&session="+session.Key, 0)
	defer stopEvents()
	next(t, events, func(e event) bool { return e.name == "overview" })
	status, text := ask("POST", api.PathSweeps,
		`{"project":"p","task":{"name":"t","command":["sleep","60"],"resources":{"cpus":1}}}`)
	if status != http.StatusOK {
		t.Fatalf("a sweep: got %d %s", status, text)
	}
	next(t, events, func(e event) bool { return sweepState(t, e).Running == 1 })
	if status, text := ask("POST", "/sweeps/p-1/actions/cancel", ""); status != http.StatusOK {
		t.Errorf("cancel: got %d %s", status, text)
	}
	next(t, events, func(e event) bool { return sweepState(t, e).State == "cancelled" })
	stop()
	if err := <-ended; err != nil {
		t.Errorf("serving ended with %v", err)
	}
}
