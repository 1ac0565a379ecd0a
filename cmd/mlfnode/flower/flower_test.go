// Package flower compares the answers that a node gives to calls of Flower with those of a real
// Flower.
package flower

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/node"
	"mlfnode/node/api"
	"mlfnode/node/config"
)

// server answers the calls of Flower.
type server struct {
	t      *testing.T
	base   string
	client *http.Client
	worker string
	ids    map[string]string // of tasks by their names
}

// reply is an answer: the values of JSON with the order of keys at the top, or text.
type reply struct {
	status int
	media  string
	text   string
	keys   []string
	value  any
}

func (s *server) ask(method, path string) reply {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.base+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.SetBasicAuth("u", "p")
	resp, err := s.client.Do(req)
	if err != nil {
		return reply{text: err.Error()}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	r := reply{status: resp.StatusCode, media: media, text: string(b)}
	if strings.HasSuffix(media, "json") {
		if err := json.Unmarshal(b, &r.value); err != nil {
			s.t.Fatalf("%s: %v in %s", path, err, b)
		}
		r.keys = keysOf(b)
	}
	return r
}

// keysOf gives the keys of an object in their order.
func keysOf(b []byte) (keys []string) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil
	}
	for d.More() {
		key, err := d.Token()
		var rest json.RawMessage
		if err != nil || d.Decode(&rest) != nil {
			return keys
		}
		keys = append(keys, key.(string))
	}
	return keys
}

// newOurs runs a node that stands alone.
func newOurs(t *testing.T) (*server, *api.Client) {
	t.Helper()
	cfg := config.Config{
		StateDir: t.TempDir(), Node: "n1", Machine: inventory.Machine{CPUs: 4, Memory: 8 << 30},
		Retention: config.DefaultRetention(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	s, err := node.Attach(t.Context(), cfg, true, func() {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(cfg.StateDir, "node.sock"))
	}
	transport := &http.Transport{DialContext: dial}
	t.Cleanup(transport.CloseIdleConnections)
	return &server{t: t, base: "http://localhost" + api.PathFlower, client: &http.Client{Transport: transport},
		worker: "n1", ids: map[string]string{}}, s.Client()
}

// submit runs one trial of a task and gives its id.
func submit(t *testing.T, c *api.Client, task, script string) string {
	t.Helper()
	axis, err := space.ParseSet("i=1")
	if err != nil {
		t.Fatal(err)
	}
	points, err := space.New([]space.Axis{axis}, nil)
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Sweeps().Submit(t.Context(),
		api.Submit{Project: "proj", Space: points, Environ: os.Environ(), Task: grid.Task{
			Name: task, Command: []string{"/bin/sh", "-c", script, "sh"}, Resources: grid.Resources{CPUs: grid.One},
			Retries: grid.Retries{}, Grace: time.Second,
		}})
	if err != nil {
		t.Fatal(err)
	}
	return string(v.Sweep) + "/0"
}

// awaitState waits until a task has a state.
func (s *server) awaitState(task, state string) {
	s.t.Helper()
	await(s.t, task+" in state "+state, func() bool {
		v, _ := s.ask("GET", "/api/task/info/"+s.ids[task]).value.(map[string]any)
		return v["state"] == state
	})
}

// TestLikeFlower makes the same calls to a real Flower and to a node, which have run the same: the
// answers have the same status, keys and types, and list the same tasks in the same order.
func TestLikeFlower(t *testing.T) {
	c := newCelery(t)
	theirs := &server{t: t, base: c.base, client: &http.Client{}, worker: "w1@localhost", ids: map[string]string{}}
	ours, client := newOurs(t)
	theirs.client.Timeout = time.Minute
	c.await("Flower's worker", func() bool {
		v, _ := theirs.ask("GET", "/api/workers?status=1").value.(map[string]any)
		return v[theirs.worker] == true
	})
	for _, task := range []struct{ name, script, state string }{
		{"train", `echo '{"loss": 1}' >>"$MLF_METRICS"`, "SUCCESS"}, {"fail", "echo no >&2; exit 3", "FAILURE"},
		{"wait", "sleep 600", "STARTED"},
	} {
		theirs.ids[task.name], ours.ids[task.name] = c.send("proj."+task.name),
			submit(t, client, task.name, task.script)
		theirs.awaitState(task.name, task.state)
		ours.awaitState(task.name, task.state)
	}
	both := &pair{t, theirs, ours}
	for _, path := range []string{
		"/api/task/info/{train}", "/api/task/info/{fail}", "/api/task/info/{wait}", "/api/task/info/nope",
		"/api/task/result/{train}", "/api/task/result/{fail}", "/api/task/result/{wait}", "/api/task/types",
		"/api/queues/length",
		"/api/tasks?sort_by=x", "/api/tasks?received_start=foo", "/api/tasks?search=(", "/api/tasks?limit=x",
		"/api/workers?status=1", "/api/workers?workername=nope", "/healthcheck",
	} {
		both.compare("GET", path)
	}
	for query, want := range map[string][]string{
		"":                       {"fail", "train", "wait"},
		"?sort_by=started":       {"train", "fail", "wait"},
		"?sort_by=-started":      {"wait", "fail", "train"},
		"?sort_by=-received":     {"wait", "fail", "train"},
		"?sort_by=name":          {"fail", "train", "wait"},
		"?sort_by=name&limit=2":  {"fail", "train"},
		"?sort_by=name&offset=2": {"wait"},
		"?state=FAILURE":         {"fail"}, "?taskname=proj.train": {"train"}, "?taskname=All&state=STARTED": {"wait"},
		"?workername={worker}&sort_by=name": {"fail", "train", "wait"}, "?workername=other": nil,
		"?search=state:FAILURE": {"fail"}, "?search=train": {"train"},
		"?received_start=2020-01-01+00:00&sort_by=name": {"fail", "train", "wait"},
		"?received_end=2020-01-01+00:00":                nil,
	} {
		both.list("/api/tasks"+query, want)
	}
	c.await("what Flower hears of its worker with the next heartbeat", func() bool {
		v, _ := theirs.ask("GET", "/api/workers?refresh=1").value.(map[string]any)
		w, _ := v[theirs.worker].(map[string]any)
		return w["stats"] != nil &&
			strings.Contains(theirs.ask("GET", "/metrics").text, "flower_worker_number_of_currently_executing_tasks{")
	})
	both.workers("/api/workers?refresh=1")
	both.workers("/api/workers?workername={worker}&refresh=1")
	both.metrics()
	both.compare("POST", "/api/task/revoke/{wait}?terminate=true")
	both.compare("POST", "/api/task/revoke/nope")
	theirs.awaitState("wait", "REVOKED")
	ours.awaitState("wait", "REVOKED")
	both.compare("GET", "/api/task/info/{wait}")
}

// pair is a real Flower and a node.
type pair struct {
	t            *testing.T
	theirs, ours *server
}

func (p *pair) ask(method, path string) (theirs, ours reply) {
	p.t.Helper()
	fill := func(s *server) string {
		filled := strings.ReplaceAll(path, "{worker}", s.worker)
		for name, id := range s.ids {
			filled = strings.ReplaceAll(filled, "{"+name+"}", id)
		}
		return filled
	}
	theirs, ours = p.theirs.ask(method, fill(p.theirs)), p.ours.ask(method, fill(p.ours))
	if theirs.status != ours.status {
		p.t.Errorf("%s %s: got status %d, want %d\n%s\n%s", method, path, ours.status, theirs.status,
			ours.text, theirs.text)
	}
	return theirs, ours
}

func (p *pair) compare(method, path string) {
	p.t.Helper()
	theirs, ours := p.ask(method, path)
	if strings.TrimPrefix(ours.media, "application/problem+") != strings.TrimPrefix(theirs.media, "application/") &&
		ours.media != theirs.media && path != "/healthcheck" {
		p.t.Errorf("%s: got a %s, want a %s", path, ours.media, theirs.media)
	}
	switch {
	case theirs.value == nil:
		if a, b := anyID(p.theirs, theirs.text), anyID(p.ours, ours.text); a != b {
			p.t.Errorf("%s: got %q, want %q", path, b, a)
		}
	case strings.Contains(path, "status=1"), theirs.status != http.StatusOK:
		// names of workers; an error has its text in a key
		same(p.t, path, values(theirs.value, "error"), values(ours.value, "error"), false)
	case strings.Contains(path, "queues"): // Flower knows lengths with RabbitMQ's management alone
		same(p.t, path, keys(theirs.value), keys(ours.value), false)
	case strings.Contains(path, "result"):
		same(p.t, path, keys(theirs.value), keys(ours.value), false)
	default:
		same(p.t, path, theirs.value, ours.value, false)
	}
}

// anyID replaces what is a server's own.
func anyID(s *server, text string) string {
	for name, id := range s.ids {
		text = strings.ReplaceAll(text, id, name)
	}
	return text
}

// values gives the values of an object with names of its own, or the one value under key where that
// is there.
func values(v any, key string) any {
	object, ok := v.(map[string]any)
	if !ok {
		return v
	}
	if text, ok := object[key]; ok {
		return text
	}
	return slices.Collect(maps.Values(object))
}

func keys(v any) any {
	object, _ := v.(map[string]any)
	return slices.Sorted(maps.Keys(object))
}

// list compares which tasks a list has, and how they look.
func (p *pair) list(path string, want []string) {
	p.t.Helper()
	theirs, ours := p.ask("GET", path)
	for s, r := range map[*server]reply{p.theirs: theirs, p.ours: ours} {
		var got []string
		for _, id := range r.keys {
			got = append(got, anyID(s, id))
		}
		if !strings.Contains(path, "sort_by") {
			slices.Sort(got) // each has an order of its own
		}
		if !slices.Equal(got, want) {
			p.t.Errorf("%s of %s: got %v, want %v", path, s.base, got, want)
		}
	}
	for _, name := range want {
		a, _ := theirs.value.(map[string]any)
		b, _ := ours.value.(map[string]any)
		same(p.t, path+" "+name, a[p.theirs.ids[name]], b[p.ours.ids[name]], false)
	}
}

// workers compares what is told of the worker. Of Celery's own matters a node has less.
func (p *pair) workers(path string) {
	p.t.Helper()
	theirs, ours := p.ask("GET", path)
	a, _ := theirs.value.(map[string]any)
	b, _ := ours.value.(map[string]any)
	if !reflect.DeepEqual(keys(a[p.theirs.worker]), keys(b[p.ours.worker])) {
		p.t.Errorf("%s: got %v, want %v", path, keys(b[p.ours.worker]), keys(a[p.theirs.worker]))
	}
	same(p.t, path, a[p.theirs.worker], b[p.ours.worker], true)
}

// same wants that two values have the same keys and types, and null in the same places; with fewer,
// keys may be missing in ours.
func same(t *testing.T, at string, theirs, ours any, fewer bool) {
	t.Helper()
	if reflect.TypeOf(theirs) != reflect.TypeOf(ours) {
		t.Errorf("%s: got %T (%.80v), want %T (%.80v)", at, ours, ours, theirs, theirs)
		return
	}
	switch a := theirs.(type) {
	case map[string]any:
		b := ours.(map[string]any)
		for key := range a {
			if _, ok := b[key]; !ok && !fewer {
				t.Errorf("%s: there is no %s", at, key)
			}
		}
		for key, v := range b {
			if _, ok := a[key]; !ok {
				if !strings.Contains(at, ".total") && !strings.Contains(at, ".kwargs") { // their keys are names
					t.Errorf("%s: there is %s, which Flower has not", at, key)
				}
				continue
			}
			same(t, at+"."+key, a[key], v, fewer)
		}
	case []any:
		if b := ours.([]any); len(a) > 0 && len(b) > 0 {
			same(t, at+"[]", a[0], b[0], fewer)
		}
	}
}

var metricLine = regexp.MustCompile(`(?m)^(?:# TYPE )?(flower_[a-z_]+)(?:\{([^}]*)\}| (counter|gauge|histogram)$)`)

// metrics compares names, types and labels.
func (p *pair) metrics() {
	p.t.Helper()
	theirs, ours := p.ask("GET", "/metrics")
	a, b := metricsOf(theirs.text), metricsOf(ours.text)
	for name, want := range a {
		if !strings.Contains(name, "_created") && b[name] != want { // those come from Python's library
			p.t.Errorf("%s: got %q, want %q", name, b[name], want)
		}
	}
	for name := range b {
		if a[name] == "" {
			p.t.Errorf("there is %s, which Flower has not", name)
		}
	}
	if len(a) < 6 {
		p.t.Errorf("Flower has only %v", a)
	}
}

// metricsOf gives types and labels of metrics by name.
func metricsOf(text string) map[string]string {
	all := map[string]string{}
	for _, m := range metricLine.FindAllStringSubmatch(text, -1) {
		if m[3] != "" {
			all[m[1]] = m[3]
			continue
		}
		var names []string
		for pair := range strings.SplitSeq(m[2], ",") {
			name, _, _ := strings.Cut(pair, "=")
			names = append(names, name)
		}
		slices.Sort(names)
		all[m[1]+" labels"] = fmt.Sprint(names)
	}
	return all
}
