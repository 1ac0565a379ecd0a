package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/api"
	"mlfnode/projects"
)

// TestShowWithLess asks a master of an older version, and one that shows viewers less: show prints
// what it gets, with a note why the rest is missing, and compare still compares two sweeps.
func TestShowWithLess(t *testing.T) {
	for name, refusal := range map[string]*api.Error{
		"an older version": {Status: http.StatusNotFound, Msg: "there is no such call"},
		"a viewer's token": {Status: http.StatusForbidden, Msg: "the token is for reading"},
	} {
		t.Run(name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("GET /v1/sweeps/{sweep}", func(w http.ResponseWriter, r *http.Request) {
				v := api.Sweep{Project: "p", Task: "train", Keys: []string{"lr"}, Metrics: []string{"loss"},
					Bundles: []string{r.PathValue("sweep") + "files"}}
				v.Sweep, v.State, v.Count = grid.SweepID(r.PathValue("sweep")), grid.SweepFinished, 1
				_ = json.NewEncoder(w).Encode(v)
			})
			mux.HandleFunc("GET /v1/sweeps/{sweep}/trials", func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte(`{"v":{"trial":"` + r.PathValue("sweep") +
					`/0","state":"succeeded","params":{"lr":0.1},"metrics":{"loss":0.5}}}` + "\n\n"))
			})
			mux.HandleFunc("GET /v1/sweeps/{sweep}/description", func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(refusal.Status)
				_ = json.NewEncoder(w).Encode(refusal)
			})
			server := httptest.NewServer(mux)
			defer server.Close()
			c := api.NewClient(func(ctx context.Context) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
			})
			defer c.Close()
			var out, errs bytes.Buffer
			ui := newConsole(&out, &errs)
			if err := showSweep(t.Context(), ui, c, "p-1"); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); !strings.Contains(got, "p.train") || !strings.Contains(got, "finished") ||
				!strings.Contains(errs.String(), name) {
				t.Errorf("got\n%s%s", got, &errs)
			}
			out.Reset()
			if err := compareSweeps(t.Context(), ui, c, [2]grid.SweepID{"p-1", "p-2"}, &compareFlags{}); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); !strings.Contains(got, "1 point in both") || !strings.Contains(got, "p-1files") {
				t.Errorf("got\n%s", got)
			}
		})
	}
}

// TestFetchOfATruncatedBundle loses the connection to the master amid the files: it says what to
// do, and leaves nothing behind.
func TestFetchOfATruncatedBundle(t *testing.T) {
	from := t.TempDir()
	noise := make([]byte, 64<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(noise) // it does not fail
	if err := os.WriteFile(filepath.Join(from, "noise"), noise, 0o600); err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if _, err := projects.Pack(from, &packed, projects.DefaultBundleLimit); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/sweeps/{sweep}", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.Sweep{Project: "p"})
	})
	mux.HandleFunc("GET /v1/sweeps/{sweep}/bundle", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(packed.Bytes()[:packed.Len()/2])
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	c := api.NewClient(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
	defer c.Close()
	to := t.TempDir()
	var errs bytes.Buffer
	ui := newConsole(io.Discard, &errs)
	ui.printError(fetchBundle(t.Context(), ui, c, "p-1", filepath.Join(to, "was")))
	if got := errs.String(); !strings.Contains(got, "mlfnode: the download is incomplete: ") ||
		!strings.HasSuffix(got, "\n  try: run the command again\n") {
		t.Errorf("got %q", got)
	}
	if left, err := os.ReadDir(to); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

// TestMineWithoutOwners lists one's own sweeps where no sweep says whose it is.
func TestMineWithoutOwners(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/sweeps", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode([]api.Sweep{{Project: "p"}})
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	c := api.NewClient(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
	defer c.Close()
	var out, errs bytes.Buffer
	ui := newConsole(&out, &errs)
	if err := listSweeps(t.Context(), ui, c, true, nil); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 0 || !strings.HasPrefix(errs.String(), "note: no sweep says who submitted it") ||
		strings.Count(errs.String(), "\n") != 1 {
		t.Errorf("got\n%s%s", &out, &errs)
	}
}
