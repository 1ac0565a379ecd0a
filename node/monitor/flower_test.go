package monitor

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// sweepBench is a master with sweeps whose trials are running according to the history.
type sweepBench struct {
	*live
	store *jetstream.Store
}

func newSweepBench(t *testing.T) *sweepBench {
	t.Helper()
	b := &sweepBench{}
	b.live = newLive(t, func(cfg *Config) { b.store = cfg.Store })
	return b
}

// submit submits a sweep of count trials with a long parameter; the first trials are running.
func (b *sweepBench) submit(t *testing.T, project, long string, count, running int) grid.SweepID {
	t.Helper()
	points, err := space.New([]space.Axis{
		{Key: "long", Values: []space.Value{{Text: long, Kind: space.Text}}},
		{Key: "i", Interval: []json.Number{"0", json.Number(strconv.Itoa(count))}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := b.cfg.Master.Submit(t.Context(), &api.Submit{Project: project, Space: points, Task: grid.Task{
		Name: "t", Command: []string{"true"}, Resources: grid.Resources{CPUs: grid.One}, Retries: grid.DefaultRetries(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	batch := &grid.Batch{V: grid.EventVersion, Sweep: rec.Sweep.ID, Node: "n1"}
	for i := range running {
		batch.Events = append(batch.Events,
			grid.Event{Kind: grid.Started, Index: int64(i), Attempt: 1, Run: "n1.1." + strconv.Itoa(i),
				Time: time.Now().UnixMicro()})
	}
	if running > 0 {
		if _, err := b.store.Events.Publish(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	limit := time.After(time.Minute)
	for {
		moved := b.cfg.Master.Changed()
		if c, err := b.cfg.History.Counts(t.Context(), rec.Sweep.ID); err == nil && c.Running == int64(running) {
			return rec.Sweep.ID
		}
		select {
		case <-moved:
		case <-time.After(100 * time.Millisecond): // the loop lags behind history
		case <-limit:
			t.Fatal("the events are not seen")
		}
	}
}

// list requests a list of tasks.
func (b *sweepBench) list(t *testing.T, query string) (map[string]api.FlowerTask, int) {
	t.Helper()
	status, text := b.ask(t, api.PathFlower+"/api/tasks?"+query, b.token)
	var all map[string]api.FlowerTask
	if status == http.StatusOK {
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	return all, status
}

// TestFlowerListsAreBounded lists tasks of a sweep whose parameters exceed the size of a list: only
// as many are read as are returned, and one list is made at a time.
func TestFlowerListsAreBounded(t *testing.T) {
	t.Parallel()
	b := newSweepBench(t)
	const trials = 200
	b.submit(t, "p", strings.Repeat("x", flowerBytes/trials), trials, trials)
	for query, want := range map[string]int{"limit=3": 3, "limit=3&offset=190": 3, "limit=50&offset=198": -1,
		"limit=0": 0, "state=FAILURE": 0, "": -1, "limit=3&sort_by=name": -1} {
		all, status := b.list(t, query)
		if status == http.StatusOK && len(all) != want || (status == http.StatusBadRequest) != (want < 0) {
			t.Errorf("%q: got %d tasks and status %d, want %d", query, len(all), status, want)
		}
	}
	leave, err := b.handlers.flower.lists.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client has gone")
	cancel(gone)
	if _, err := b.handlers.flower.list(httptest.NewRequestWithContext(ctx, "GET", "/?limit=1", nil)); !errors.Is(err,
		gone) {
		t.Errorf("while another list is being made: got %v, want that it waits", err)
	}
	leave()
	if all, _ := b.list(t, "limit=1"); len(all) != 1 {
		t.Errorf("after it: got %d tasks, want 1", len(all))
	}
}

// revoke sends Flower's request to revoke a task, whose name may have a query appended, and returns
// the status of the answer.
func (b *sweepBench) revoke(t *testing.T, task string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+b.address+api.PathFlower+"/api/task/revoke/"+task, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+b.token)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// TestFlowerRevokesWhatHasEnded revokes an ended trial of a sweep with several, and a trial of a
// cancelled sweep: as in Celery, nothing is left to do, and the answer is that of every revoke.
func TestFlowerRevokesWhatHasEnded(t *testing.T) {
	t.Parallel()
	b := newSweepBench(t)
	id := b.submit(t, "p", "x", 3, 2)
	revoke := func(task string, want int) {
		t.Helper()
		if got := b.revoke(t, task); got != want {
			t.Errorf("revoke %s: got status %d, want %d", task, got, want)
		}
	}
	ended := grid.Event{Kind: grid.Finished, Index: 1, Attempt: 1, Run: "n1.1.1", Time: time.Now().UnixMicro(),
		Result: &grid.Result{}}
	if _, err := b.store.Events.Publish(t.Context(),
		&grid.Batch{V: grid.EventVersion, Sweep: id, Node: "n1", Events: []grid.Event{ended}}); err != nil {
		t.Fatal(err)
	}
	limit := time.After(time.Minute)
	for {
		moved := b.cfg.Master.Changed()
		if c, err := b.cfg.History.Counts(t.Context(), id); err == nil && c.Succeeded == 1 {
			break
		}
		select {
		case <-moved:
		case <-time.After(100 * time.Millisecond): // the loop lags behind history
		case <-limit:
			t.Fatal("the end is not seen")
		}
	}
	revoke(string(id)+"/1", http.StatusOK)
	revoke(string(id)+"/0", http.StatusOK)
	revoke(string(id)+"/2", http.StatusOK)
	revoke(string(id)+"?terminate=true", http.StatusOK)
	revoke(string(id), http.StatusOK)
	for _, index := range []string{"/0", "/1", "/2"} {
		revoke(string(id)+index, http.StatusOK)
	}
}

// TestFlowerRevokes revokes sweeps and trials by existing and unknown names: without terminate,
// running trials continue.
func TestFlowerRevokes(t *testing.T) {
	t.Parallel()
	b := newSweepBench(t)
	for _, c := range []struct {
		trials, running int
		suffix          string
		status          int
		cancelled       bool
	}{
		{1, 0, "", 200, true},
		{1, 0, "/0", 200, true},
		{1, 0, "/99", 200, false},
		{1, 0, "/x", 200, false},
		{1, 0, "/", 200, false},
		{1, 0, "/-1", 200, false},
		{1, 0, "/0/0", 200, false},
		{1, 1, "", 200, false},
		{1, 1, "/0", 200, false},
		{1, 1, "/0?terminate=true", 200, true},
		{3, 0, "", 200, true},
		{3, 1, "", 409, false},
		{3, 1, "?terminate=true", 200, true},
		{3, 0, "/1", 200, false},
		{3, 0, "/1?terminate=true", 200, false},
		{3, 1, "/0", 200, false},
		{3, 0, "/99?terminate=true", 200, false},
	} {
		id := b.submit(t, "p", "x", c.trials, c.running)
		status := b.revoke(t, string(id)+c.suffix)
		rec, _ := b.cfg.Master.Sweep(id)
		if got := rec.Sweep.State == grid.SweepCancelled; status != c.status || got != c.cancelled {
			t.Errorf("%q of %d trials, of which %d run: got status %d, cancelled: %v, want %d, %v", c.suffix, c.trials,
				c.running, status, got, c.status, c.cancelled)
		}
	}
}
