package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mlfnode/node/api"
)

// TestDrainWithoutALook drains a node although the master does not tell what runs there, and refuses when it can't be drained.
func TestDrainWithoutALook(t *testing.T) {
	for _, test := range []struct {
		drain, sweeps int // the master's answers
		fails         bool
		want          string
	}{
		{http.StatusOK, http.StatusInternalServerError, false, "m takes no more trials; what still runs there is unknown: history is closed"},
		{http.StatusConflict, http.StatusOK, true, ""},
	} {
		answer := func(status int) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				text := "{}"
				if status != http.StatusOK {
					text = `{"error":"history is closed"}`
				}
				_, _ = w.Write([]byte(text))
			}
		}
		mux := http.NewServeMux()
		mux.HandleFunc("POST /", answer(test.drain))
		mux.HandleFunc("GET /", answer(test.sweeps))
		server := httptest.NewServer(mux)
		defer server.Close()
		c := api.NewClient(func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
		})
		defer c.Close()
		var said bytes.Buffer
		a := &app{stdout: &screen{w: io.Discard}, stderr: &said}
		if err := a.drain(t.Context(), c, "m", ""); (err != nil) != test.fails || !strings.Contains(said.String(), test.want) {
			t.Errorf("%d, %d: got %v and %q, want %q", test.drain, test.sweeps, err, &said, test.want)
		}
	}
}
