package monitor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/master"
)

// front is a master's API on a port, with an operator's token.
type front struct {
	*Monitor
	address string
	token   string
}

func newFront(t *testing.T, edit func(*Monitor)) *front {
	t.Helper()
	authority, err := trust.OpenAuthority(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := authority.MakeToken(trust.TokenSpec{Role: trust.RoleOperator})
	if err != nil {
		t.Fatal(err)
	}
	log := testLog(t)
	m := New(Config{
		Logger: log, Cluster: Cluster{Authority: authority},
		Master: master.New(master.Config{Logger: log, Store: &jetstream.Store{}, Capacity: oneSlot}),
	})
	if edit != nil {
		edit(m)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background()) // ends with the test
	ended := make(chan error, 1)
	go func() { ended <- m.ServeOthers(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the API ended with: %v", err)
		}
	})
	return &front{Monitor: m, address: l.Addr().String(), token: token.Bearer()}
}

// get sends a request with the operator's token, on a connection of its own.
func (f *front) get(t *testing.T, path string) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.address+api.Prefix+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// halves are requests that are never completed, by description.
func halves() map[string]string {
	part := func(line, headers string) string {
		return line + " HTTP/1.1\r\nHost: x\r\n" + headers
	}
	return map[string]string{
		"nothing at all":      "",
		"half a header":       part("POST "+api.Prefix+api.PathJoin, "Content-Le"),
		"half a body to join": part("POST "+api.Prefix+api.PathJoin, "Content-Length: 1000\r\n\r\n{"),
		"half a body to ask": part("POST "+api.Prefix+api.PathChallenge,
			"Content-Length: 60000\r\n\r\n{\"tok"),
		"chunks that never end": part("POST "+api.Prefix+api.PathJoin,
			"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"),
		"a bundle without a token": part("PUT "+api.Prefix+api.PathBundles+
			"x", "Content-Length: 100000000\r\n\r\nabc"),
		"a sweep with a wrong token": part("POST "+api.Prefix+api.PathSweeps,
			"Authorization: Bearer nonsense\r\nContent-Length: 1000\r\n\r\n{"),
		"a read that brings a body":   part("GET "+api.Prefix+api.PathSweeps, "Content-Length: 1000\r\n\r\n{"),
		"an answer that is not taken": part("GET "+api.Prefix+api.PathSweeps, "\r\n"),
	}
}

// TestHalfSentRequestsEnd sends incomplete requests and waits: each connection ends.
func TestHalfSentRequestsEnd(t *testing.T) {
	f := newFront(t, func(m *Monitor) { m.guard.requestTimeout = 100 * time.Millisecond })
	for name, text := range halves() {
		if name == "nothing at all" || name == "half a header" || name == "an answer that is not taken" {
			// the server's own limits, which net/http tests, and the limit of connections, which is
			// tested below
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := knock(t, f.address, text)
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("the connection is still open: %v", err)
			}
		})
	}
}

func knock(t *testing.T, address, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestStrangersAreBounded opens many more connections without a token than are allowed: the oldest
// end, whatever they have sent, and an operator is served in the meantime.
func TestStrangersAreBounded(t *testing.T) {
	f := newFront(t, func(m *Monitor) { m.unauthenticated = newUnauthenticatedConns(16) })
	known := knock(t, f.address,
		fmt.Sprintf("GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n",
			api.Prefix+api.PathSweeps, f.token))
	if line, err := bufio.NewReader(known).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
		t.Fatalf("an operator got %q, %v", line, err)
	}
	var all []net.Conn
	for range 15 {
		for _, text := range halves() {
			all = append(all, knock(t, f.address, text))
		}
		if status, err := f.get(t, api.PathSweeps); err != nil || status != http.StatusOK {
			t.Errorf("an operator beside %d strangers got %d, %v", len(all), status, err)
		}
	}
	for _, conn := range all[:len(all)-16] {
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && err.(net.Error).Timeout() {
			t.Fatal("an old connection of a stranger is still open")
		}
	}
	// A connection that has presented a token is not limited, however long it is silent.
	if _, err := fmt.Fprintf(known, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n",
		api.Prefix+api.PathSweeps, f.token); err != nil {
		t.Error(err)
	}
	_ = known.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := known.Read(make([]byte, 100)); n == 0 {
		t.Errorf("the operator's connection was ended: %v", err)
	}
}

// TestDigestsAreChecked requests bundles by names that are not digests: nothing is looked up, and
// the store continues.
func TestDigestsAreChecked(t *testing.T) {
	f := newFront(t, nil) // there is no store: any lookup would panic
	for _, name := range []string{"x", "%2e%2e%2fx", "ABCDEF", fmt.Sprintf("%064d", 0) + "0", fmt.Sprintf("%063dA", 0),
		fmt.Sprintf("%063dg", 0), fmt.Sprintf("%04080d", 0)} {
		for method, want := range map[string]int{http.MethodHead: http.StatusNotFound,
			http.MethodPut: http.StatusBadRequest} {
			req, err := http.NewRequestWithContext(t.Context(), method,
				"http://"+f.address+api.Prefix+api.PathBundles+name, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+f.token)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != want {
				t.Errorf("%s of %.80s: got %d, want %d", method, name, resp.StatusCode, want)
			}
		}
	}
}

// silent is a TLS connection to a peer that reads nothing: its Close waits for the peer to read the
// close_notify.
type silent struct {
	net.Conn
	raw net.Conn
}

func (c silent) NetConn() net.Conn { return c.raw }
func (c silent) Close() error      { select {} }

// leaver is a connection that reports its end before Close returns, as the server's connections do.
type leaver struct {
	net.Conn
	s      *unauthenticatedConns
	closed chan struct{}
}

func (c leaver) Close() error {
	c.s.connClosed(c)
	close(c.closed)
	return nil
}

// TestCutIsNotWaitedFor ends connections that take their time to close, and ones that report their
// end immediately: the next stranger enters nevertheless, and the lock is free in the meantime.
func TestCutIsNotWaitedFor(t *testing.T) {
	s := newUnauthenticatedConns(1)
	first := leaver{s: s, closed: make(chan struct{})}
	second := leaver{s: s, closed: make(chan struct{})}
	s.connOpened(silent{raw: first})
	s.connOpened(second)
	<-first.closed
	s.connOpened(silent{raw: leaver{s: s, closed: make(chan struct{})}})
	<-second.closed
	if s.order.Len() != 1 || len(s.byConn) != 1 {
		t.Errorf("%d connections in order and %d by name, want one", s.order.Len(), len(s.byConn))
	}
}

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// TestRenewWithoutACertificate requests a new certificate as a client that has none, as through the
// owner's socket.
func TestRenewWithoutACertificate(t *testing.T) {
	f := newFront(t, nil)
	var refusal *api.Error
	if _, err := f.handlers.access.renew(httptest.NewRequest(http.MethodPost, api.PathCertificate, nil),
		&trust.RenewalRequest{}); !errors.As(err, &refusal) || refusal.Status != http.StatusForbidden {
		t.Errorf("got %v, want a refusal", err)
	}
}
