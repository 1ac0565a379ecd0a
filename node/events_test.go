package node_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// event is one of the stream of events.
type event struct {
	id   uint64
	name string
	data string
}

// listen opens a stream of events; its end closes the channel.
func (h *httpOf) listen(topics string, last uint64) (events <-chan event, stop func()) {
	h.t.Helper()
	return h.listenAt("http://localhost"+api.Prefix, topics, last)
}

func (h *httpOf) listenAt(base, topics string, last uint64) (events <-chan event, stop func()) {
	h.t.Helper()
	ctx, stop := context.WithCancel(h.t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", base+api.PathEvents+"?topics="+topics, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	if last > 0 {
		req.Header.Set("Last-Event-ID", strconv.FormatUint(last, 10))
	}
	resp, err := h.client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	if media := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || media != "text/event-stream" {
		h.t.Fatalf("%s: got %d, %s", topics, resp.StatusCode, media)
	}
	all := make(chan event, 1000)
	go func() {
		defer close(all)
		defer resp.Body.Close()
		var e event
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				e.id, _ = strconv.ParseUint(value, 10, 64)
			case "event":
				e.name = value
			case "data":
				e.data = value
			case "":
				if e.name != "" {
					all <- e
				}
				e = event{}
			}
		}
	}()
	return all, stop
}

// next waits for an event of which ok is true, and gives all up to it.
func next(t *testing.T, events <-chan event, ok func(event) bool) []event {
	t.Helper()
	var all []event
	limit := time.After(time.Minute)
	for {
		select {
		case e, open := <-events:
			if !open {
				t.Fatalf("the stream ended after %v", all)
			}
			if all = append(all, e); ok(e) {
				return all
			}
		case <-limit:
			t.Fatalf("the event did not come; these did: %v", all)
		}
	}
}

func sweepState(t *testing.T, e event) api.SweepState {
	t.Helper()
	var s api.SweepState
	if e.name == "sweep" {
		if err := json.Unmarshal([]byte(e.data), &s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestEventsFollowSweeps watches the cluster, a sweep and one of its trials until the sweep ends.
// Then the node starts again: a client that comes back gets what may have changed since its last
// event, and nothing that it has seen.
func TestEventsFollowSweeps(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	early := submit(t, s.Client(), script(t, "exit 0", "x=1,2"))
	for _, err := range s.Client().Sweeps().Watch(t.Context(), early.Sweep, 0) {
		if err != nil {
			t.Fatal(err)
		}
	}
	h := newHTTP(t, cfg.StateDir)
	events, stop := h.listen("overview", 0)
	defer stop()
	next(t, events, func(e event) bool { return e.name == "overview" })
	v := submit(t, s.Client(), script(t, "sleep 0.2; test $1 != --x=3", "x=1,2,3,4,5,6"))
	seen := next(t, events, func(e event) bool {
		v := sweepState(t, e)
		return v.State == grid.SweepFinished
	})
	last := seen[len(seen)-1]
	if got := sweepState(t, last); got.Sweep != v.Sweep || got.Succeeded != 5 || got.Failed != 1 ||
		got.Pending+got.Running != 0 || got.Count != 6 {
		t.Errorf("it ended as %+v", got)
	}
	for i := range seen[1:] {
		if seen[i+1].id < seen[i].id {
			t.Errorf("the ids go back: %v", seen)
		}
	}
	topics := fmt.Sprintf("sweep:%s,sweep:%s,trial:%s/2", early.Sweep, v.Sweep, v.Sweep)
	all, stopAll := h.listen(topics, 0)
	defer stopAll()
	found := map[string]event{}
	next(t, all, func(e event) bool {
		found[e.name+string(sweepState(t, e).Sweep)] = e
		return len(found) == 3
	})
	if got := found["trial"].data; !strings.Contains(got, `"state":"failed"`) ||
		!strings.Contains(got, `"trial":"`+string(v.Sweep)+`/2"`) {
		t.Errorf("the trial is %s", got)
	}
	stopAll()

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	bye := next(t, events, func(e event) bool { return e.name == "bye" })
	if got := bye[len(bye)-1].data; got != `{"reason":"the node stops"}` {
		t.Errorf("the stream ends with %s", got)
	}
	if _, open := <-events; open {
		t.Error("the stream goes on after bye")
	}

	attach(t, cfg)
	again, stopAgain := h.listen("sweep:"+string(v.Sweep), last.id)
	defer stopAgain()
	back := next(t, again, func(e event) bool { return e.name == "sweep" })
	if e := back[0]; e.id != last.id || sweepState(t, e) != sweepState(t, last) {
		t.Errorf("after the restart: got %v, want %v", e, last)
	}
}

// TestEventsAreBounded opens more streams than one may have, and asks for what there is not.
func TestEventsAreBounded(t *testing.T) {
	cfg := testConfig(t)
	attach(t, cfg)
	h := newHTTP(t, cfg.StateDir)
	for range 32 {
		_, stop := h.listen("overview", 0)
		defer stop()
	}
	resp, b := h.do("GET", api.Prefix+api.PathEvents+"?topics=overview", "")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("one stream more: got %d %s, want 503", resp.StatusCode, b)
	}
	for topics, want := range map[string]int{
		"": 400, "nothing": 400, "overview:x": 400, "sweep:none-1": 404, "trial:none-1/0": 404, "sweep:a/1": 400,
		"nodes": 409, "trial:": 400,
	} {
		if resp, b := h.do("GET", api.Prefix+api.PathEvents+"?topics="+topics, ""); resp.StatusCode != want {
			t.Errorf("topics %q: got %d %s, want %d", topics, resp.StatusCode, b, want)
		}
	}
}

// TestRemovedTrialsAreAnnounced watches a trial whose sweep is removed: the last event of it says
// so.
func TestRemovedTrialsAreAnnounced(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	v := submit(t, s.Client(), script(t, "exit 0"))
	wait(t, s.Client(), v.Sweep)
	h := newHTTP(t, cfg.StateDir)
	doc := documentOf(t, h)
	events, stop := h.listen(fmt.Sprintf("trial:%s/0", v.Sweep), 0)
	defer stop()
	next(t, events, func(e event) bool { return strings.Contains(e.data, `"state":"succeeded"`) })
	if err := s.Client().Sweeps().Remove(t.Context(), v.Sweep); err != nil {
		t.Fatal(err)
	}
	all := next(t, events, func(e event) bool { return strings.Contains(e.data, `"state":"removed"`) })
	var got any
	if err := json.Unmarshal([]byte(all[len(all)-1].data), &got); err != nil {
		t.Fatal(err)
	}
	if err := doc.Components.Schemas["Trial"].Value.VisitJSON(got); err != nil ||
		!strings.Contains(all[len(all)-1].data, string(v.Sweep)+"/0") {
		t.Errorf("the last event is %s: %v", all[len(all)-1].data, err)
	}
}
