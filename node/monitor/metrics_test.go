package monitor

import (
	"bytes"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/node/api"
)

// TestMetrics scrapes a master that has data for every metric: the result follows the rules of
// Prometheus, and docs/prometheus.md names each metric.
func TestMetrics(t *testing.T) {
	t.Parallel()
	var store *jetstream.Store
	f := newLive(t, func(cfg *Config) {
		store = cfg.Store
		cfg.Members = func() []api.Member {
			return []api.Member{
				{Node: "n1", State: "alive", CPUs: 4,
					Devices: []api.GPU{{Node: "n1", UUID: "GPU-1", Name: "H200", Utilization: 50, Temperature: -1,
						Power: 300, Trials: []string{"p-1/0"}}}},
				{Node: "n2", State: "dead", Devices: []api.GPU{{UUID: "GPU-2", Temperature: 40}}},
				{Node: "n3", State: "left"},
			}
		}
	})
	axis, err := space.ParseSet("i=0:5")
	if err != nil {
		t.Fatal(err)
	}
	points, err := space.New([]space.Axis{axis}, nil)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := f.cfg.Master.Submit(t.Context(), &api.Submit{Project: "p", Space: points, Task: grid.Task{
		Name: "t", Command: []string{"true"}, Resources: grid.Resources{CPUs: grid.One}, Retries: grid.DefaultRetries(),
		Objective: &grid.Objective{Metric: "loss", Goal: "minimize"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now().UnixMicro()
	ended := func(index int64, class grid.Class, metric string) grid.Event {
		return grid.Event{
			Kind: grid.Finished, Index: index, Attempt: 1, Run: "n1.1." + string(rune('a'+index)), Time: began + 2e6,
			Result: &grid.Result{Class: class, Started: began, Usage: grid.Usage{Wall: 2e6},
				Metrics: grid.Metric{"loss": []byte(metric)}},
		}
	}
	batch := &grid.Batch{V: grid.EventVersion, Sweep: rec.Sweep.ID, Node: "n1", Events: []grid.Event{
		ended(0, "", "0.5"), ended(1, "", "0.25"), ended(2, grid.ClassNode, "9"), ended(4, grid.ClassStopped, "7"),
		{Kind: grid.Started, Index: 3, Attempt: 1, Run: "n1.1.d", Time: began},
	}}
	if _, err := store.Events.Publish(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if status, _ := f.ask(t, api.PathMetrics, ""); status != http.StatusUnauthorized {
		t.Errorf("a stranger got %d, want 401", status)
	}
	var text string
	limit := time.After(time.Minute)
	for !strings.Contains(text, `mlfnode_sweep_trials{state="running",sweep="p-1"} 1`) {
		moved := f.cfg.Master.Changed()
		status, got := f.ask(t, api.PathMetrics, f.token)
		if text = got; status != http.StatusOK {
			t.Fatalf("got %d %s", status, text)
		}
		select {
		case <-moved:
		case <-time.After(100 * time.Millisecond): // the loop lags behind history
		case <-limit:
			t.Fatalf("the events are not seen in\n%s", text)
		}
	}
	_, text = f.ask(t, api.PathMetrics, f.token) // the loop has caught up by now
	for _, want := range []string{
		`mlfnode_build_info{go="go1`, `mlfnode_sweep_best_objective{sweep="p-1"} 0.25`,
		`mlfnode_sweeps{state="running"} 1`,
		`mlfnode_sweep_trials{state="stopped",sweep="p-1"} 1`, `mlfnode_sweep_trials{state="cancelled",sweep="p-1"} 0`,
		`mlfnode_trials_finished_total{state="stopped"} 1`, `mlfnode_trials_finished_total{state="cancelled"} 0`,
		`mlfnode_node_up{node="n2"} 0`, `mlfnode_gpu_utilization_ratio{node="n1",uuid="GPU-1"} 0.5`,
		`mlfnode_http_requests_total{code="200",route="GET /metrics"}`,
		`mlfnode_store_limit_bytes{store="events"}`, "process_resident_memory_bytes", "go_goroutines",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s", want)
		}
	}
	if strings.Contains(text, `"n3"`) || strings.Contains(text, `mlfnode_gpu_temperature_celsius{node="n1"`) {
		t.Error("there are series of what is unknown")
	}
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	promtool(t, text, "check", "metrics")
	documented(t, text)
}

// TestScrapesOutlivePanics makes a collector panic: the node continues, and answers with the other
// metrics.
func TestScrapesOutlivePanics(t *testing.T) {
	t.Parallel()
	f := newLive(t, func(cfg *Config) { cfg.Members = func() []api.Member { panic("a bug") } })
	for path, want := range map[string]string{api.PathMetrics: "mlfnode_build_info", api.PathFlower + "/metrics": ""} {
		for range 2 {
			if status, text := f.ask(t, path, f.token); status != http.StatusOK || !strings.Contains(text, want) {
				t.Errorf("%s: got %d %.200s", path, status, text)
			}
		}
	}
}

// promtool checks a text with Debian's promtool.
func promtool(t *testing.T, text string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Error("promtool is missing; .ci/install installs it")
		}
		return
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(text)
	if said, err := cmd.CombinedOutput(); err != nil || len(bytes.TrimSpace(said)) > 0 && args[1] == "metrics" {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, said)
	}
}

var metricName = regexp.MustCompile(`\bmlfnode_[a-z0-9_]+`)

// documented checks that docs/prometheus.md names the existing metrics, and that rules and
// dashboard use no others.
func documented(t *testing.T, text string) {
	t.Helper()
	namesIn := func(text string) map[string]bool {
		names := map[string]bool{}
		for _, name := range metricName.FindAllString(text, -1) {
			names[strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")] = true
		}
		return names
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	have, told := namesIn(text), namesIn(read("prometheus.md"))
	for name := range have {
		if !told[name] {
			t.Errorf("docs/prometheus.md does not name %s", name)
		}
	}
	for name := range told {
		if !have[name] && name != "mlfnode_retries_total" { // nothing is retried here
			t.Errorf("there is no %s, which docs/prometheus.md names", name)
		}
	}
	for _, file := range []string{"prometheus/alerts.yml", "prometheus/dashboard.json"} {
		for _, name := range slices.Sorted(maps.Keys(namesIn(read(file)))) {
			if !told[name] {
				t.Errorf("docs/%s uses %s, which does not exist", file, name)
			}
		}
	}
	promtool(t, "", "check", "rules", filepath.Join("..", "..", "docs", "prometheus", "alerts.yml"))
}
