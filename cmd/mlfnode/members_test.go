package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mlfnode/node/api"
)

// TestDrainWithoutALook drains a node although the master does not tell what runs there, and
// refuses when it can't be drained.
func TestDrainWithoutALook(t *testing.T) {
	for _, test := range []struct {
		drain, sweeps int // the master's answers
		fails         bool
		want          string
	}{
		{http.StatusOK, http.StatusInternalServerError, false,
			"m takes no more trials; what still runs there is unknown: history is closed"},
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
		ui := newConsole(io.Discard, &said)
		if err := drainNode(t.Context(), ui, c, "m", ""); (err != nil) != test.fails ||
			!strings.Contains(said.String(), test.want) {
			t.Errorf("%d, %d: got %v and %q, want %q", test.drain, test.sweeps, err, &said, test.want)
		}
	}
}

// TestAtRest asks whether trials run on a node, of a master that has not heard yet of all that the
// node runs.
func TestAtRest(t *testing.T) {
	member := func(state string, running int) []api.Member {
		return []api.Member{{Node: "other", State: "alive"}, {Node: "m", State: state, Running: running}}
	}
	for _, tt := range []struct {
		name    string
		trials  string // that run, as the master knows
		members []api.Member
		rests   bool
		state   string
	}{
		{"nothing runs", "", member("alive", 0), true, "alive"},
		{"the master has not heard of it yet", "", member("alive", 1), false, "alive"},
		{"the node has not told of it yet", `{"v":{"trial":"p-1/0","state":"running","node":"m"}}`,
			member("alive", 0), false, "alive"},
		{"one runs elsewhere", `{"v":{"trial":"p-1/0","state":"running","node":"other"}}`,
			member("alive", 0), true, "alive"},
		{"it is not seen at the moment", "", member("suspect", 0), false, "suspect"},
		{"it may run on, cut off", "", member("dead", 0), false, "dead"},
		{"it has left", "", member("left", 1), true, "left"},
		{"the master has just begun", "", nil, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mux := http.NewServeMux()
			mux.HandleFunc("GET /v1/members", func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(tt.members)
			})
			mux.HandleFunc("GET /v1/sweeps", func(w http.ResponseWriter, _ *http.Request) {
				v := api.Sweep{Project: "p"}
				v.Sweep = "p-1"
				v.Running = int64(len(strings.Fields(tt.trials)))
				_ = json.NewEncoder(w).Encode([]api.Sweep{v})
			})
			mux.HandleFunc("GET /v1/sweeps/{sweep}/trials", func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write([]byte(tt.trials + "\n\n"))
			})
			server := httptest.NewServer(mux)
			defer server.Close()
			c := api.NewClient(func(ctx context.Context) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
			})
			defer c.Close()
			rests, state, err := isIdle(t.Context(), c, "m")
			if err != nil || rests != tt.rests || state != tt.state {
				t.Errorf("got %v and the state %q (%v), want %v and %q", rests, state, err, tt.rests, tt.state)
			}
		})
	}
}
