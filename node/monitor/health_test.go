package monitor

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"mlfnode/cluster/trust"
	"mlfnode/jetstream"
	"mlfnode/node/api"
	"mlfnode/node/history"
	"mlfnode/node/master"
)

// live is a front whose master runs, on a store of its own.
type live struct {
	front
	server *jetstream.Server
	cfg    Config
}

// newLive starts a master without nodes and serves its API on a port.
func newLive(t *testing.T, edit func(*Config)) *live {
	t.Helper()
	log, dir := testLog(t), t.TempDir()
	server, err := jetstream.Start(jetstream.Config{Dir: filepath.Join(dir, "jetstream"), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	store, err := server.OpenStore(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	db, err := history.Open(filepath.Join(dir, "history.db"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	authority, err := trust.OpenAuthority(filepath.Join(dir, "trust"), nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := authority.MakeToken(trust.TokenSpec{Role: trust.RoleOperator})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		Logger: log, Cluster: Cluster{Authority: authority}, Store: store, History: db.Listings(),
		Node:   api.Node{Node: "host1", Version: "1.2.3"},
		Master: master.New(master.Config{Store: store, History: db, Logger: log, Capacity: oneSlot}),
	}
	if edit != nil {
		edit(&cfg)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background()) // ends with the test
	ended := make(chan error, 2)
	m := New(cfg)
	go func() { ended <- cfg.Master.Run(ctx) }()
	<-cfg.Master.Ready()
	go func() { ended <- m.ServeOthers(ctx, l) }()
	t.Cleanup(func() {
		stop()
		for range cap(ended) {
			if err := <-ended; err != nil && !errors.Is(err, jetstream.ErrClosed) {
				t.Errorf("it ended with: %v", err)
			}
		}
	})
	return &live{front{m, l.Addr().String(), token.Bearer()}, server, cfg}
}

// ask sends a GET, with the token if there is one, and returns the status and the body.
func (f *front) ask(t *testing.T, path, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// TestHealth asks a master without a token, while its store works and after the store has stopped.
// Strangers learn nothing but yes or no.
func TestHealth(t *testing.T) {
	t.Parallel()
	f := newLive(t, nil)
	// allows for a busy machine
	f.handlers.root.healthy.timeout, f.handlers.root.ready.timeout = time.Minute, time.Minute
	for _, path := range []string{api.PathHealthy, api.PathReady} {
		if status, text := f.ask(t, path, ""); status != http.StatusOK || text != "ok\n" {
			t.Errorf("%s: got %d %q, want ok", path, status, text)
		}
	}
	f.server.Close()
	f.handlers.root.healthy.at, f.handlers.root.ready.at = time.Time{}, time.Time{} // expire the cached answers
	f.handlers.root.healthy.timeout, f.handlers.root.ready.timeout = time.Second, time.Second
	for _, path := range []string{api.PathHealthy, api.PathReady} {
		if status, text := f.ask(t, path, ""); status != http.StatusServiceUnavailable || text != "not ok\n" {
			t.Errorf("%s without a store: got %d %q, want not ok", path, status, text)
		}
	}
}

// TestHealthOfWhatHangs asks a master that does not respond to its own probes: there is an answer
// all the same.
func TestHealthOfWhatHangs(t *testing.T) {
	t.Parallel()
	f := newFront(t, func(m *Monitor) { m.handlers.root.healthy.timeout = 10 * time.Millisecond })
	if status, text := f.ask(t, api.PathHealthy, ""); status != http.StatusServiceUnavailable || text != "not ok\n" {
		t.Errorf("got %d %q, want not ok", status, text)
	}
}

// TestHealthIsAskedOnce lets many clients ask at the same time: what costs a flush is done once.
func TestHealthIsAskedOnce(t *testing.T) {
	asked := 0
	h := &health{log: testLog(t), timeout: time.Minute, probe: func(context.Context) error { asked++; return nil }}
	answers := make(chan error)
	for range 50 {
		go func() { answers <- h.check() }()
	}
	for range 50 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if asked > 2 { // on a busy machine it may take longer than an answer is valid
		t.Errorf("asked %d times, want once", asked)
	}
}
