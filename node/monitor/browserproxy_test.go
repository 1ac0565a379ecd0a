package monitor

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"mlfnode/node/api"
)

// browser sends requests to a proxy as a browser with the page open does.
type browser struct {
	t      *testing.T
	proxy  *Proxy
	server *httptest.Server
	asked  atomic.Pointer[http.Request] // the last request that reached the node
	cookie string
	key    string
	last   api.Session // the answer, if it is a session
}

func newBrowser(t *testing.T, role api.Role) *browser {
	t.Helper()
	b := &browser{t: t}
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.asked.Store(r)
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "{}\n")
	}))
	t.Cleanup(node.Close)
	target, err := url.Parse(node.URL)
	if err != nil {
		t.Fatal(err)
	}
	b.open(role, target)
	return b
}

// newBrowserOf makes a browser for a proxy to a node.
func newBrowserOf(t *testing.T, role api.Role, target *url.URL) *browser {
	t.Helper()
	b := &browser{t: t}
	b.open(role, target)
	return b
}

func (b *browser) open(role api.Role, target *url.URL) {
	b.t.Helper()
	var err error
	b.server = httptest.NewUnstartedServer(nil)
	if b.proxy, err = NewProxy(b.server.Listener.Addr(), target, http.DefaultTransport, role,
		testLog(b.t)); err != nil {
		b.t.Fatal(err)
	}
	b.server.Config.Handler = b.proxy.Handler()
	b.server.Start()
	b.t.Cleanup(b.server.Close)
}

// do sends a request; headers are pairs of names and values.
func (b *browser) do(method, path, body string, headers ...string) (*http.Response, api.Problem) {
	b.t.Helper()
	b.asked.Store(nil)
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.server.URL+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if b.cookie != "" {
		req.Header.Set("Cookie", b.cookie)
	}
	if b.key != "" {
		req.Header.Set(api.HeaderSession, b.key)
	}
	for i := 0; i < len(headers); i += 2 {
		if req.Header.Set(headers[i], headers[i+1]); headers[i] == "Host" {
			req.Host = headers[i+1]
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	var p api.Problem
	b.last = api.Session{}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	_ = json.Unmarshal(text, &p) // an answer that is not a problem leaves it empty
	_ = json.Unmarshal(text, &b.last)
	return resp, p
}

// login logs in with a link.
func (b *browser) login(link string) (*http.Response, api.Problem) {
	_, secret, _ := strings.Cut(link, "#k=")
	resp, p := b.do("POST", api.Prefix+api.PathSession, `{"link":"`+secret+`"}`)
	if resp.StatusCode == http.StatusOK {
		b.key = b.last.Key
	}
	for _, c := range resp.Cookies() {
		b.cookie = c.Name + "=" + c.Value
		if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Name != "mlf_"+b.proxy.port {
			b.t.Errorf("the cookie is %+v", c)
		}
	}
	return resp, p
}

// TestPageIsServed requests the page: it needs no session, and names only its own origin.
func TestPageIsServed(t *testing.T) {
	b := newBrowser(t, api.RoleOperator)
	for path, want := range map[string]int{
		"/": 200, "/sweeps": 200, "/sweeps/a-1/trials/3": 200, "/nodes/x": 200, "/settings": 200, "/other": 404,
		"/assets/0/app.js": 404, "/index.html": 404,
	} {
		resp, _ := b.do("GET", path, "", "Sec-Fetch-Site", "cross-site") // a link on any site may lead here
		if resp.StatusCode != want || b.asked.Load() != nil {
			t.Errorf("%s: got %d, want %d", path, resp.StatusCode, want)
		}
		if csp := resp.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "frame-ancestors 'none'") ||
			strings.Contains(csp, "unsafe") {
			t.Errorf("%s: the policy is %q", path, csp)
		}
	}
	if resp, _ := b.do("POST", "/", ""); resp.StatusCode/100 != 4 {
		t.Errorf("POST /: got %d", resp.StatusCode)
	}
	for _, path := range []string{"/", "/sweeps/a-1?x=y", "//evil.example"} {
		resp, _ := b.do("GET", path, "", "Host", "localhost:"+b.proxy.port)
		if got, want := resp.Header.Get("Location"),
			"http://127.0.0.1:"+b.proxy.port+path; resp.StatusCode != http.StatusTemporaryRedirect || got != want {
			t.Errorf("%s at localhost: got %d to %q, want a redirect to %q", path, resp.StatusCode, got, want)
		}
	}
	if resp, _ := b.do("GET", "/",
		"", "Host", "evil.example:"+b.proxy.port); resp.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("the page by another name: got %d", resp.StatusCode)
	}
}

// TestBrowsersLogIn follows a session: a link works once, a cookie works until the browser logs
// out, and the node never sees it.
func TestBrowsersLogIn(t *testing.T) {
	b := newBrowser(t, api.RoleOperator)
	sweeps := api.Prefix + api.PathSweeps
	if resp, p := b.do("GET", sweeps, ""); resp.StatusCode != 401 || p.Hint == "" || b.asked.Load() != nil {
		t.Errorf("without a session: got %d, %+v", resp.StatusCode, p)
	}
	link := b.proxy.Link()
	if resp, p := b.login(link); resp.StatusCode != 200 {
		t.Fatalf("a link: got %d, %+v", resp.StatusCode, p)
	}
	first := b.cookie
	if resp, p := b.login(link); resp.StatusCode != 403 || p.Code != api.CodeLinkUsed {
		t.Errorf("a link that was used: got %d, %+v", resp.StatusCode, p)
	}
	if resp, _ := b.do("GET", api.Prefix+api.PathSession, ""); resp.StatusCode != 200 {
		t.Errorf("who am I: got %d", resp.StatusCode)
	}
	resp, _ := b.do("POST", sweeps, "{}", "Authorization", "Bearer of somebody", "Origin", b.server.URL)
	asked := b.asked.Load()
	if resp.StatusCode != 200 || asked == nil || asked.Header.Get("Cookie")+asked.Header.Get(api.HeaderSession)+
		asked.Header.Get("Authorization")+asked.Header.Get("Origin") != "" {
		t.Errorf("an action: got %d, and the node was asked %v", resp.StatusCode, asked)
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
		"Access-Control-Allow-Origin": "", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if !strings.Contains(resp.Header.Get("Content-Security-Policy"), "frame-ancestors 'none'") {
		t.Errorf("the policy is %q", resp.Header.Get("Content-Security-Policy"))
	}
	for _, ask := range [][2]string{ // calls for the owner and for machines
		{"GET", api.PathTokens}, {"POST", api.PathTokens}, {"POST", api.PathKeyring},
		{"POST", "/members/host1/actions/forget"}, {"POST", api.PathJoin},
		{"GET", "/snapshots/a-1/0/1"},
	} {
		if resp, _ := b.do(ask[0], api.Prefix+ask[1], "{}"); resp.StatusCode != 403 || b.asked.Load() != nil {
			t.Errorf("%s %s: got %d, want 403", ask[0], ask[1], resp.StatusCode)
		}
	}
	if resp, _ := b.do("GET", api.Prefix+"/nothing", ""); resp.StatusCode != 404 || b.asked.Load() != nil {
		t.Errorf("what there is not: got %d, want 404", resp.StatusCode)
	}
	if resp, _ := b.do("DELETE", api.Prefix+api.PathSession, ""); resp.StatusCode != 204 {
		t.Errorf("log out: got %d", resp.StatusCode)
	}
	b.cookie = first
	if resp, _ := b.do("GET", sweeps, ""); resp.StatusCode != 401 {
		t.Errorf("after the log-out: got %d, want 401", resp.StatusCode)
	}
}

// TestViewersRead checks that a read-only session changes nothing.
func TestViewersRead(t *testing.T) {
	b := newBrowser(t, api.RoleViewer)
	b.login(b.proxy.Link())
	for pattern, rt := range b.proxy.table.byPattern {
		method, path, _ := strings.Cut(placeholder.ReplaceAllString(pattern, "x"), " ")
		if rt.pattern == api.PathSession || method == "HEAD" {
			continue
		}
		resp, p := b.do(method, path, "{}")
		passed := resp.StatusCode == 200 && b.asked.Load() != nil
		if passed != (rt.access == mayRead) || !passed && resp.StatusCode != 403 {
			t.Errorf("%s: got %d, %+v", pattern, resp.StatusCode, p)
		}
	}
}

// TestOtherSitesGetNothing sends a valid cookie in the ways in which pages of other sites can make
// a browser send it.
func TestOtherSitesGetNothing(t *testing.T) {
	b := newBrowser(t, api.RoleOperator)
	b.login(b.proxy.Link())
	sweeps, port := api.Prefix+api.PathSweeps, b.proxy.port
	for _, c := range []struct {
		method, path string
		headers      []string
		want         int
	}{
		{"GET", sweeps, nil, 200},
		// which may be [::1], where another user can listen
		{"GET", sweeps, []string{"Host", "localhost:" + port}, 421},
		{"GET", api.PathMetrics, []string{"Host", "localhost:" + port}, 421},
		{"POST", api.Prefix + api.PathSession, []string{"Host", "localhost:" + port}, 421},
		{"GET", sweeps, []string{"Host", "[::1]:" + port}, 421},
		{"GET", "/", []string{"Host", "[::1]:" + port}, 421},
		{"GET", sweeps, []string{"Sec-Fetch-Site", "none"}, 200},
		{"GET", sweeps, []string{"Host", "attacker.example:" + port}, 421},
		{"GET", sweeps, []string{"Host", "127.0.0.1"}, 421},
		{"GET", sweeps, []string{"Host", "127.0.0.1:1"}, 421},
		{"GET", sweeps, []string{"Host", "127.0.0.1.attacker.example:" + port}, 421},
		{"GET", sweeps, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"GET", sweeps, []string{"Sec-Fetch-Site", "same-site"}, 403}, // a page on another port of this machine
		{"POST", sweeps, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"POST", sweeps, []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"POST", sweeps, []string{"Sec-Fetch-Site", "", "Origin", "https://attacker.example"}, 403},
		{"POST", sweeps, []string{"Sec-Fetch-Site", "", "Origin", "null"}, 403},
		{"DELETE", api.Prefix + api.PathSession, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"GET", sweeps + "?x=" + strings.Repeat("x", 9000), nil, 414},
	} {
		resp, p := b.do(c.method, c.path, "{}", c.headers...)
		if resp.StatusCode != c.want || (b.asked.Load() != nil) != (c.want == 200) {
			t.Errorf("%s %.40s %v: got %d, %+v; want %d", c.method, c.path, c.headers, resp.StatusCode, p, c.want)
		}
	}
	if resp, p := b.do("POST", api.Prefix+"/sweeps/a-1/actions/retry",
		strings.Repeat("x", 2<<20)); resp.StatusCode != 413 {
		t.Errorf("a long body: got %d, %+v; want 413", resp.StatusCode, p)
	}
}

// TestLinksAndSessionsEnd lets time pass, and tries to guess links.
func TestLinksAndSessionsEnd(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	s := &sessions{clock: func() time.Time { return now }}
	old := s.newLink()
	now = now.Add(linkTime)
	if _, _, ok, _ := s.redeem(old); ok {
		t.Error("a link of a minute ago is good")
	}
	secret, key, ok, _ := s.redeem(s.newLink())
	if !ok || s.use(secret, key) == nil || s.use("x", key) != nil || s.use(secret, "x") != nil ||
		s.use(secret, "") != nil {
		t.Fatal("a session does not begin")
	}
	for range 20 { // the expiry slides, up to a week
		if now = now.Add(sessionIdle - time.Minute); now.Sub(time.Date(2026, 1, 1, 0, 1, 0, 0,
			time.UTC)) < sessionTime && s.use(secret, key) == nil {
			t.Errorf("the session ended at %v", now)
		}
	}
	if s.use(secret, key) != nil {
		t.Error("a session is good after more than a week")
	}
	if secret, key, _, _ = s.redeem(s.newLink()); s.use(secret, key) == nil {
		t.Error("the next session does not begin")
	}
	if now = now.Add(sessionIdle + time.Second); s.use(secret, key) != nil {
		t.Error("a session is good after a night")
	}
	for range maxTries {
		if _, _, ok, tired := s.redeem("guess"); ok || tired {
			t.Error("a guess is good, or the first ones are too many")
		}
	}
	if _, _, ok, tired := s.redeem("guess"); ok || !tired {
		t.Error("guesses have no bound")
	}
	if _, _, ok, tired := s.redeem(s.newLink()); !ok || tired {
		t.Error("guesses of others lock out who has the link")
	}
	now = now.Add(time.Minute + time.Second)
	for range 3 * maxSessions {
		if _, _, ok, _ := s.redeem(s.newLink()); !ok {
			t.Error("a link does not work")
		}
	}
	if len(s.open) > maxSessions || len(s.links) > maxLinks {
		t.Errorf("%d sessions and %d links are kept", len(s.open), len(s.links))
	}
}

// TestStreamsHoldSessions keeps a session idle except for an open request, and then lets a week
// pass.
func TestStreamsHoldSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sessions
		secret, key, _, _ := s.redeem(s.newLink())
		v := s.use(secret, key)
		release := s.requestStarted(v)
		time.Sleep(2 * sessionIdle)
		if s.use(secret, key) != v {
			t.Error("a session with an open request is idle")
		}
		time.Sleep(2 * sessionIdle)
		release()
		time.Sleep(sessionIdle)
		if s.use(secret, key) != v || v.ctx.Err() != nil {
			t.Error("a session is idle as soon as its stream has ended")
		}
		began := time.Now()
		<-v.ctx.Done()
		if got, want := time.Since(began), sessionTime-5*sessionIdle; got != want {
			t.Errorf("streams end after %v, want %v", got, want)
		}
		if s.use(secret, key) != nil {
			t.Error("a session is good after more than a week")
		}
	})
}

// TestProxyIsForLoopback checks that addresses other than loopback are refused.
func TestProxyIsForLoopback(t *testing.T) {
	if _, err := NewProxy(&net.TCPAddr{IP: net.IPv4zero, Port: 5555}, &url.URL{}, nil, api.RoleViewer,
		testLog(t)); err == nil {
		t.Error("a proxy serves every network")
	}
}

// TestUnreachableNode checks that an unreachable node is reported as a problem, and that the
// session remains.
func TestUnreachableNode(t *testing.T) {
	b := newBrowser(t, api.RoleOperator)
	b.login(b.proxy.Link())
	target, _ := url.Parse("http://127.0.0.1:1")
	gone, err := NewProxy(b.server.Listener.Addr(), target, http.DefaultTransport, api.RoleOperator, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	b.proxy.node = gone.node
	if resp, p := b.do("GET", api.Prefix+api.PathSweeps, ""); resp.StatusCode != 502 || p.Code != api.CodeUnreachable {
		t.Errorf("got %d, %+v", resp.StatusCode, p)
	}
}

// TestOlderNode reaches an older node through a proxy: calls that the node does not have are
// distinguished from things that do not exist.
func TestOlderNode(t *testing.T) {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, api.PathSweeps) {
			sendError(w, &api.Error{Status: http.StatusNotFound, Msg: "there is no sweep"})
			return
		}
		http.NotFound(w, r)
	}))
	defer node.Close()
	target, err := url.Parse(node.URL)
	if err != nil {
		t.Fatal(err)
	}
	b := newBrowserOf(t, api.RoleOperator, target)
	if resp, p := b.login(b.proxy.Link()); resp.StatusCode != 200 {
		t.Fatalf("log in: got %d, %+v", resp.StatusCode, p)
	}
	if resp, p := b.do("GET", api.Prefix+api.PathNode, ""); resp.StatusCode != 404 || p.Code != api.CodeOlderNode ||
		!strings.Contains(p.Detail, "older version") || p.Hint == "" {
		t.Errorf("what it does not have: got %d, %+v", resp.StatusCode, p)
	}
	if resp, p := b.do("GET", api.Prefix+api.PathSweeps, ""); resp.StatusCode != 404 ||
		p.Detail != "there is no sweep" {
		t.Errorf("what is not there: got %d, %+v", resp.StatusCode, p)
	}
}

// TestCookiesAreNotEnough sends the cookie without the key, as a page on any other port of this
// machine can, and gets nothing.
func TestCookiesAreNotEnough(t *testing.T) {
	b := newBrowser(t, api.RoleOperator)
	b.login(b.proxy.Link())
	key, sweeps := b.key, api.Prefix+api.PathSweeps
	if b.key = ""; key == "" {
		t.Fatal("there is no key")
	}
	for _, query := range []string{"", "?session=", "?session=x"} {
		for _, method := range []string{"GET", "POST"} {
			if resp, _ := b.do(method, sweeps+query, "{}"); resp.StatusCode != 401 || b.asked.Load() != nil {
				t.Errorf("%s with the cookie alone and %q: got %d", method, query, resp.StatusCode)
			}
		}
	}
	if resp, _ := b.do("DELETE", api.Prefix+api.PathSession, ""); resp.StatusCode != 204 {
		t.Errorf("got %d", resp.StatusCode)
	}
	if resp, _ := b.do("GET", sweeps+"?limit=3&session="+key, ""); resp.StatusCode != 200 ||
		b.asked.Load().URL.RawQuery != "limit=3" {
		t.Errorf("a link with the key: got %d, and the node was asked %v", resp.StatusCode, b.asked.Load())
	}
	if resp, _ := b.do("POST", sweeps+"?session="+key, "{}"); resp.StatusCode != 401 {
		t.Errorf("an action by a link with the key: got %d", resp.StatusCode)
	}
}

// TestLogOutEndsStreams logs out while a stream of the session is open, and starts more sessions
// than are kept while a stream of another one is.
func TestLogOutEndsStreams(t *testing.T) {
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "begun")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer node.Close()
	target, err := url.Parse(node.URL)
	if err != nil {
		t.Fatal(err)
	}
	b := newBrowserOf(t, api.RoleOperator, target)
	for name, end := range map[string]func(){
		"the log-out": func() { b.do("DELETE", api.Prefix+api.PathSession, "") },
		"too many sessions": func() {
			for range maxSessions {
				b.proxy.sessions.redeem(b.proxy.sessions.newLink())
			}
		},
	} {
		b.cookie, b.key = "", ""
		b.login(b.proxy.Link())
		req, err := http.NewRequestWithContext(t.Context(), "GET", b.server.URL+api.Prefix+api.PathEvents+
			"?topics=overview", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", b.cookie)
		req.Header.Set(api.HeaderSession, b.key)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.ReadFull(resp.Body, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(io.Discard, resp.Body)
		}()
		select {
		case <-ended:
			t.Fatalf("the stream ended before %s", name)
		default:
		}
		end()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Errorf("the stream goes on after %s", name)
		}
	}
}
