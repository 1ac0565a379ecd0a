package top

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"go.uber.org/goleak"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// waitLimit bounds waits whose duration is not what a test checks.
const waitLimit = 3 * time.Minute

// stream is one stream of events that a server holds open.
type stream struct {
	topics string
	write  chan string // "" ends it
}

// eventServer answers with streams that a test writes. refuse returns the status of the answer, 0
// for a stream.
func eventServer(t *testing.T, refuse func(topics string) int) (*api.Client, <-chan *stream) {
	t.Helper()
	streams := make(chan *stream, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := &stream{topics: r.FormValue("topics"), write: make(chan string)}
		if status := refuse(s.topics); status != 0 {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error": "refused: %s"}`, s.topics)
			return
		}
		streams <- s
		w.WriteHeader(http.StatusOK)
		for {
			w.(http.Flusher).Flush()
			select {
			case text := <-s.write:
				if text == "" {
					return
				}
				fmt.Fprint(w, text)
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	client := api.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	})
	t.Cleanup(client.Close)
	return client, streams
}

// feeding is a running feed.
type feeding struct {
	*feed
	t    *testing.T
	sent chan tea.Msg
}

func run(t *testing.T, client *api.Client) *feeding {
	t.Helper()
	r := &feeding{t: t, sent: make(chan tea.Msg, 1000)}
	r.feed = newFeed(func() *api.Client { return client }, func(context.Context) error { return nil }, func(m tea.Msg) {
		r.sent <- m
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.feed.run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return r
}

// await waits for a message.
func (r *feeding) await(what string, is func(tea.Msg) bool) {
	r.t.Helper()
	for late := time.After(waitLimit); ; {
		select {
		case m := <-r.sent:
			if is(m) {
				return
			}
		case <-late:
			r.t.Fatalf("no message: %s", what)
		}
	}
}

func next(t *testing.T, streams <-chan *stream, topics string) *stream {
	t.Helper()
	for late := time.After(waitLimit); ; {
		select {
		case s := <-streams:
			if s.topics == topics {
				return s
			}
		case <-late:
			t.Fatalf("nobody asks for %s", topics)
		}
	}
}

func isState(check func(streamState) bool) func(tea.Msg) bool {
	return func(m tea.Msg) bool {
		l, ok := m.(streamState)
		return ok && check(l)
	}
}

// TestFeed follows a node that stands alone, goes away, comes back, gets another request, stops,
// and does not have what is wanted.
func TestFeed(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Run("all", func(t *testing.T) {
		client, streams := eventServer(t, func(topics string) int {
			switch {
			case strings.Contains(topics, "nodes"):
				return http.StatusConflict
			case strings.Contains(topics, "gone"):
				return http.StatusNotFound
			}
			return 0
		})
		r := run(t, client)
		r.want([]string{"overview", "nodes"})
		s := next(t, streams, "overview")
		for n := range 20 {
			s.write <- fmt.Sprintf("id: 7\nevent: overview\ndata: {\"running\": %d}\n\n: hb\n\n", n)
		}
		r.await("it is live", isState(func(l streamState) bool { return l.live }))
		messages := 0
		r.await("the last state", func(m tea.Msg) bool {
			all, ok := m.(states)
			messages++
			return ok && all[len(all)-1].Overview.Running == 19
		})
		if messages > 15 {
			t.Errorf("20 events came as %d messages, want them gathered", messages)
		}
		s.write <- "event: news\ndata: 1\n\n" // from a later version
		s.write <- ""
		r.await("it is away", isState(func(l streamState) bool { return !l.live }))
		s = next(t, streams, "overview")
		s.write <- "event: overview\ndata: {}\n\n"
		r.await("it is back", isState(func(l streamState) bool { return l.live }))
		r.want([]string{"overview", "sweep:a-1"})
		s = next(t, streams, "overview,sweep:a-1")
		s.write <- "event: sweep\ndata: {\"sweep\": \"a-1\"}\n\n"
		r.await("the sweep", func(m tea.Msg) bool {
			all, ok := m.(states)
			return ok && all[0].Sweep != nil && all[0].Sweep.Sweep == grid.SweepID("a-1")
		})
		s.write <- "event: bye\ndata: {\"reason\": \"the node stops\"}\n\n"
		r.await("it stops", isState(func(l streamState) bool { return !l.live && l.why == "the node stops" }))
		r.want([]string{"sweep:gone"})
		r.await("it is gone", isState(func(l streamState) bool { return l.gone && l.why == "refused: sweep:gone" }))
	})
}
