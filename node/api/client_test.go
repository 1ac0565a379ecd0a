package api

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// TestTrialsWith decodes the fields of trials, which come compressed over a network.
func TestTrialsWith(t *testing.T) {
	t.Parallel()
	fields := []string{"index", "state", "exit_code", "wall_seconds", "p[a[0]]", "m[loss]", "m[none]"}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query()["field"]; !slices.Equal(got, fields) ||
			r.Header.Get("Accept") != "application/x-ndjson" {
			t.Errorf("the request is for %v as %s", got, r.Header.Get("Accept"))
		}
		if over, zipped := r.TLS != nil, r.Header.Get("Accept-Encoding") == "gzip"; over != zipped {
			t.Errorf("over a network: %v, compressed: %v", over, zipped)
		}
		const lines = `{"index":3,"state":"failed","exit_code":1,"wall_seconds":1.5,"p[a[0]]":1e-3,"m[loss]":"NaN","m[none]":null}` + "\n"
		if r.TLS == nil {
			fmt.Fprint(w, lines)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		fmt.Fprint(z, lines)
		z.Close()
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	local := NewClient(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", plain.Listener.Addr().String())
	})
	remote := NewRemote([]string{secure.Listener.Addr().String()}, &tls.Config{InsecureSkipVerify: true}, "")
	for _, c := range []*Client{local, remote} {
		defer c.Close()
		n := 0
		for tr, err := range c.Trials().ListFields(t.Context(), "s-1", TrialQuery{}, fields) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			if tr.Index != 3 || tr.State != grid.Failed || tr.ExitCode == nil || *tr.ExitCode != 1 ||
				tr.Usage.Wall != 1.5 {
				t.Errorf("got %+v", tr)
			}
			if p := tr.Params.Find("a[0]"); p == nil || p.Value != (space.Value{Text: "1e-3", Kind: space.Number}) {
				t.Errorf("got the parameters %+v", tr.Params)
			}
			if len(tr.Metrics) != 1 || string(tr.Metrics["loss"]) != `"NaN"` {
				t.Errorf("got the metrics %s", tr.Metrics)
			}
		}
		if n != 1 {
			t.Errorf("got %d trials, want 1", n)
		}
	}
}

// TestTrialsWithCut reports a list that was cut, between lines or within one.
func TestTrialsWithCut(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"{\"index\":3}\n", "{\"index\":3}\n{\"ind"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, text)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}))
		c := NewClient(func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(s.URL, "http://"))
		})
		var last error
		n := 0
		for _, err := range c.Trials().ListFields(t.Context(), "s-1", TrialQuery{}, []string{"index"}) {
			if last = err; err == nil {
				n++
			}
		}
		if n != 1 || !errors.Is(last, ErrLost) {
			t.Errorf("%q: got %d trials, then %v, want 1 and ErrLost", text, n, last)
		}
		c.Close()
		s.Close()
	}
}
