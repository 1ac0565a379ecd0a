package node_test

import (
	"encoding/json"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestQueriesAreStrict sends parameters that a call does not have: it is refused with those that it
// has, but for clients of older versions.
func TestQueriesAreStrict(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	v := submit(t, s.Client(), script(t, "exit 0"))
	h := newHTTP(t, cfg.StateDir)
	at := "/sweeps/" + string(v.Sweep)
	for query, hint := range map[string]string{
		"/sweeps?stat=running": "state, project, limit, after", "/node?x": "the call has none",
		at + "/charts/heat?x=a&y=b&w=1": "p[NAME]",
		at + "/trials?lmit=3":           "limit", at + "/charts/eta?value=wall": "the call has none",
		at + "/trials?limit=%zz": "%26", at + "/charts/marginals?p=1": "p[NAME]",
	} {
		resp, b := h.do("GET", api.Prefix+query, "")
		var p api.Problem
		if err := json.Unmarshal(b, &p); err != nil || resp.StatusCode != 400 || !strings.Contains(p.Hint, hint) {
			t.Errorf("%s: got %d %s, want a hint at %s", query, resp.StatusCode, b, hint)
		}
	}
	if resp, b := h.do("GET", api.OldPrefix+at+"?later=1", ""); resp.StatusCode != 200 {
		t.Errorf("under %s: got %d %s", api.OldPrefix, resp.StatusCode, b)
	}
}

// TestListsComeInTheAcceptedForm asks for lists in the ways that clients do: the most wanted form
// is given, and limit and field mean the same in all.
func TestListsComeInTheAcceptedForm(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	v := submit(t, s.Client(), script(t, "exit 0", "x=1,2,3,4"))
	wait(t, s.Client(), v.Sweep)
	h := newHTTP(t, cfg.StateDir)
	at := api.Prefix + "/sweeps/" + string(v.Sweep) + "/trials"
	for accept, want := range map[string]string{
		"": "application/json", "*/*": "application/json", "text/html": "application/json", "text/csv": "text/csv",
		"text/csv;q=0.5, application/json":       "application/json",
		"application/json;q=0.2, text/csv;q=0.9": "text/csv", "application/x-ndjson, */*": "application/x-ndjson",
		"text/csv;q=0": "application/json",
		"text/csv;q=x": "application/json", "text/*": "text/csv",
		"text/html, application/*;q=0.9, */*;q=0.8": "application/json",
	} {
		resp, b := h.do("GET", at+"?limit=2&field=index&field=p[x]&sort=index&desc=true", "", "Accept", accept)
		if got, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); got != want ||
			resp.Header.Get("Vary") == "" {
			t.Errorf("%q: got %s, want %s", accept, got, want)
		}
		const csv, lines = "index,p[x]\n3,4\n2,3\n", `{"index":3,"p[x]":4}` + "\n" + `{"index":2,"p[x]":3}` + "\n"
		if got := string(b); want == "text/csv" && got != csv || want == "application/x-ndjson" && got != lines {
			t.Errorf("%q: got %q", accept, got)
		}
		var table api.TrialTable
		if err := json.Unmarshal(b, &table); want == "application/json" &&
			(err != nil || table.Count != 2 || len(table.Columns) != 2) {
			t.Errorf("%q: got %s, %v", accept, b, err)
		}
	}
	for _, accept := range []string{"text/csv", "application/x-ndjson", "application/json"} {
		if resp, b := h.do("GET", at+"?limit=-1", "", "Accept", accept); resp.StatusCode != 400 {
			t.Errorf("limit=-1 as %s: got %d %s", accept, resp.StatusCode, b)
		}
		if resp, b := h.do("GET", api.Prefix+"/sweeps?limit=1", "", "Accept", accept); resp.StatusCode != 200 ||
			strings.Count(string(b), string(v.Sweep)) != 1 {
			t.Errorf("sweeps as %s: got %d %s", accept, resp.StatusCode, b)
		}
	}
}

// TestDryRunsChangeNothing counts what actions would change and finds everything as it was.
func TestDryRunsChangeNothing(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	c := s.Client()
	sub := script(t, `test "$1" != --x=2 || exit 1; test "$1" = --x=1 || exec sleep 600`, "x=1,2,3,4,5,6")
	sub.MaxParallel = 1
	v := submit(t, c, sub)
	until(t, c, v.Sweep, func(v api.Sweep) bool { return v.Succeeded == 1 && v.Failed == 1 && v.Running == 1 })
	h := newHTTP(t, cfg.StateDir)
	doc := documentOf(t, h)
	dry := func(action, body string, status int, changed int64) {
		t.Helper()
		pattern := api.PathSweep + "/actions/" + action
		resp, b := h.do("POST", api.Prefix+strings.Replace(pattern, "{sweep}", string(v.Sweep), 1)+
			"?dry_run=true", body)
		var done api.Done
		if resp.StatusCode != status || status == 200 &&
			(json.Unmarshal(b, &done) != nil || done.Changed != changed || !done.DryRun) {
			t.Errorf("%s: got %d %s, want %d and %d trials", action, resp.StatusCode, b, status, changed)
		}
		conforms(t, doc, "POST", pattern, resp, b)
	}
	dry("pause", "", 200, 3)
	dry("kill", "", 200, 1)
	dry("set", `{"priority":5}`, 200, 3)
	dry("cancel", "", 200, 4)
	dry("retry", `{"index":-1,"failed_only":true}`, 200, 1)
	dry("retry", `{"index":0}`, 200, 0)
	dry("extend", `{"axes":[{"key":"x","values":[7,8]}]}`, 200, 2)
	dry("extend", `{"axes":[{"key":"x","values":[]}]}`, 409, 0)
	if now, err := c.Sweeps().Get(t.Context(), v.Sweep); err != nil || now.State != grid.SweepRunning ||
		now.Count != 6 || now.Failed != 1 || now.Running != 1 {
		t.Errorf("afterwards: got %+v, %v", now, err)
	}
	if _, err := c.Sweeps().Cancel(t.Context(), v.Sweep, false); err != nil {
		t.Fatal(err)
	}
	until(t, c, v.Sweep, func(v api.Sweep) bool { return v.Running == 0 })
	dry("retry", `{"index":-1}`, 200, 5)
	// the sweep goes on, and with it the three trials that have not run
	dry("retry", `{"index":-1,"failed_only":true}`, 200, 4)
	dry("cancel", "", 200, 0)
	dry("pause", "", 409, 0)
	if now, err := c.Sweeps().Get(t.Context(), v.Sweep); err != nil || now.State != grid.SweepCancelled ||
		now.Cancelled != 4 {
		t.Errorf("at the end: got %+v, %v", now, err)
	}
}
