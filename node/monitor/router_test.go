package monitor

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"mlfnode/node/api"
)

// TestSlowReadersAreCut answers a client that reads nothing: the response ends, however long it is.
func TestSlowReadersAreCut(t *testing.T) {
	ended := make(chan error, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p := &deadlineWriter{ResponseWriter: w, limit: 50 * time.Millisecond}
		for {
			if _, err := p.Write(make([]byte, 64<<10)); err != nil {
				ended <- err
				return
			}
		}
	}))
	defer srv.Close()
	conn := knock(t, srv.Listener.Addr().String(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	defer conn.Close()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Error("the answer goes on although nobody reads it")
	}
}

// TestQuietStreams leaves a stream idle for longer than a write may take, in both versions of HTTP.
func TestQuietStreams(t *testing.T) {
	for _, two := range []bool{true, false} {
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			const limit = 100 * time.Millisecond
			p := &deadlineWriter{ResponseWriter: w, limit: limit}
			for range 2 {
				if _, err := io.WriteString(p, "x"); err != nil {
					t.Error(err)
				}
				p.Flush()
				select {
				case <-time.After(3 * limit):
				case <-r.Context().Done():
				}
			}
		}))
		srv.EnableHTTP2 = two
		srv.StartTLS()
		resp, err := srv.Client().Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		if all, err := io.ReadAll(resp.Body); string(all) != "xx" || err != nil || (resp.ProtoMajor == 2) != two {
			t.Errorf("got %q over %s, %v; want two letters", all, resp.Proto, err)
		}
		resp.Body.Close()
		srv.Close()
	}
}

// TestHTTP2 sends requests over TLS in both versions of HTTP: the answers are the same, and as many
// may be open as a browser wants.
func TestHTTP2(t *testing.T) {
	f := newFront(t, nil)
	id, err := f.guard.authority.IssueSelf("host1")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background()) // ends with the test
	ended := make(chan error, 1)
	go func() { ended <- f.ServeOthers(ctx, tls.NewListener(raw, id.APIServer(nil))) }()
	for _, force := range []bool{true, false} {
		transport := &http.Transport{ForceAttemptHTTP2: force, TLSClientConfig: f.guard.authority.Pin().Client()}
		if !force {
			transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		}
		for _, token := range []string{f.token, "x.y"} {
			req, err := http.NewRequestWithContext(t.Context(), "GET", "https://"+raw.Addr().String()+api.Prefix+
				api.PathSweeps, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+token)
			resp, err := (&http.Client{Transport: transport}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			want := map[bool]int{true: http.StatusOK, false: http.StatusUnauthorized}[token == f.token]
			if resp.StatusCode != want || (resp.ProtoMajor == 2) != force {
				t.Errorf("got %d over %s, want %d (HTTP/2 %v)", resp.StatusCode, resp.Proto, want, force)
			}
		}
		transport.CloseIdleConnections()
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestAccessOfRoutes checks that clients who may only read can't change anything, and that the
// table states who may use which call.
func TestAccessOfRoutes(t *testing.T) {
	for pattern, rt := range tableOf(t).byPattern {
		reads := rt.method == http.MethodGet || rt.method == http.MethodHead
		switch {
		case rt.summary == "" || rt.topic == "":
			t.Errorf("%s is not described", pattern)
		case !reads && rt.access == mayRead:
			t.Errorf("%s changes something with the rights to read", pattern)
		case rt.access == mayNothing &&
			!slices.Contains([]string{api.PathJoin, api.PathChallenge, api.PathHealthy, api.PathReady,
				api.PathFlower + "/healthcheck"}, rt.pattern):
			t.Errorf("%s needs no token", pattern)
		}
	}
}

// TestListsThatFail checks that an error before the first row is reported as a problem, and a later
// one by cutting the connection.
func TestListsThatFail(t *testing.T) {
	broken := errors.New("history is damaged")
	for _, media := range []string{mediaCSV, mediaLines} {
		w := httptest.NewRecorder()
		writeAll(w, media, sweepColumns, false, func(func(*api.Sweep) error) error { return broken })
		var p api.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != 500 || p.Detail != broken.Error() ||
			w.Header().Get("Content-Type") != api.MediaProblem {
			t.Errorf("%s: got %d %s", media, w.Code, w.Body)
		}
		func() {
			defer func() {
				if r := recover(); r != http.ErrAbortHandler {
					t.Errorf("%s: a list that was begun ended with %v", media, r)
				}
			}()
			writeAll(httptest.NewRecorder(), media, sweepColumns, false, func(put func(*api.Sweep) error) error {
				for range 1000 {
					if err := put(&api.Sweep{}); err != nil {
						return err
					}
				}
				return broken
			})
		}()
	}
}
