package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid/gridtest"
	"mlfnode/node/config"
)

// TestPrometheus has Debian's Prometheus, with the configuration and the rules of docs/prometheus,
// scrape a master over TLS while trials run.
func TestPrometheus(t *testing.T) {
	program := gridtest.Program(t, "prometheus")
	scrape, rules := docs(t, "prometheus.yml"), docs(t, "alerts.yml")
	c := newTestCluster(t)
	c.ports = config.Ports{API: gridtest.FreePort(t)}
	c.start()
	c.open("sweep", "-q", "--set", "i=0:3", "--", "sh", "-c", `test "${1#--i=}" != 2`, "sh").exit(1)
	running := c.open(c.sweep("-q", "-d")...)
	running.exit(0)
	c.awaitBegun()

	dir, port := t.TempDir(), gridtest.FreePort(t)
	user := c.context("")
	scrape = strings.Replace(scrape, `"master:7420"`, fmt.Sprintf(`"127.0.0.1:%d"`, c.ports.API), 1)
	scrape = "global: {scrape_interval: 500ms, evaluation_interval: 500ms, scrape_timeout: 500ms}\n" + scrape
	for name, text := range map[string]string{
		"prometheus.yml": scrape, "token": user.Token, "ca.crt": user.CA, "alerts.yml": rules,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(program, "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"),
		fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port), "--log.level=warn")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it has ended if this fails
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	}()
	p := &prometheus{t, fmt.Sprintf("http://127.0.0.1:%d/api/v1/", port)}
	for query, want := range map[string]string{
		`up{job="mlfnode"}`: "1",
		`mlfnode_sweep_trials{sweep="sh-2",state="running"}`: "3",
		`mlfnode_trials_finished_total{state="failed"}`:      "1",
		`mlfnode_trials_finished_total{state="succeeded"}`:   "2",
		`sum(mlfnode_node_up)`:                               "1",
		`mlfnode_node_attempts_running{node="m"}`:            "3",
	} {
		p.await(query, want)
	}
	var evaluated struct {
		Groups []struct {
			Rules []struct{ Name, Health string }
		}
	}
	until(t, "the rules are evaluated", func() bool {
		p.get("rules", nil, &evaluated)
		for _, g := range evaluated.Groups {
			for _, r := range g.Rules {
				if r.Health == "err" {
					t.Fatalf("the rule %s can't be evaluated", r.Name)
				}
				if r.Health != "ok" {
					return false
				}
			}
		}
		return len(evaluated.Groups) > 0
	})
	c.end()
}

// prometheus asks one.
type prometheus struct {
	t    *testing.T
	base string
}

// get asks for something and reports whether there was an answer.
func (p *prometheus) get(path string, q url.Values, data any) bool {
	resp, err := http.Get(p.base + path + "?" + q.Encode())
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	answer := struct {
		Status string
		Data   any
	}{Data: data}
	return json.NewDecoder(resp.Body).Decode(&answer) == nil && answer.Status == "success"
}

// await waits until a query has a value.
func (p *prometheus) await(query, want string) {
	p.t.Helper()
	got := "nothing"
	until(p.t, query+" is "+want, func() bool {
		var data struct {
			Result []struct{ Value [2]any }
		}
		if p.get("query", url.Values{"query": {query}}, &data) && len(data.Result) == 1 {
			got, _ = data.Result[0].Value[1].(string)
		}
		return got == want
	})
}

// until waits until something is so.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(time.Minute); !is(); {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("it did not come to pass that %s", what)
		}
	}
}

// docs reads a file of docs/prometheus.
func docs(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "docs/prometheus", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
