package node_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// httpOf asks the node of a state folder over its socket, as any program could.
type httpOf struct {
	t      *testing.T
	client *http.Client
}

func newHTTP(t *testing.T, dir string) *httpOf {
	transport := &http.Transport{DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, "node.sock"))
		}}
	t.Cleanup(transport.CloseIdleConnections)
	return &httpOf{t, &http.Client{Transport: transport}}
}

func (h *httpOf) do(method, path, body string, headers ...string) (*http.Response, []byte) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := h.client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, b
}

// documentOf fetches the OpenAPI document of a node, and makes it refuse fields that it does not
// describe.
func documentOf(t *testing.T, h *httpOf) *openapi3.T {
	t.Helper()
	_, b := h.do("GET", api.Prefix+api.PathDocument, "")
	doc, err := openapi3.NewLoader().LoadFromData(b)
	if err != nil {
		t.Fatal(err)
	}
	no := false
	for _, s := range doc.Components.Schemas {
		if len(s.Value.Properties) > 0 {
			s.Value.AdditionalProperties.Has = &no
		}
	}
	return doc
}

// conforms holds an answer against the document.
func conforms(t *testing.T, doc *openapi3.T, method, pattern string, resp *http.Response, body []byte) {
	t.Helper()
	item := doc.Paths.Value(api.Prefix + pattern)
	if item == nil || item.GetOperation(method) == nil {
		t.Fatalf("%s %s is not in the document", method, pattern)
	}
	responses := item.GetOperation(method).Responses
	described := responses.Status(resp.StatusCode)
	if described == nil {
		described = responses.Default()
	}
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	content := described.Value.Content[media]
	if content == nil {
		t.Errorf("%s %s answers %d with %q, which is not in the document", method, pattern, resp.StatusCode, media)
		return
	}
	if content.Schema == nil {
		return
	}
	values := [][]byte{body}
	if media == "application/x-ndjson" {
		values = bytes.Split(bytes.TrimSpace(body), []byte("\n"))
	}
	for _, b := range values {
		var v any
		err := json.Unmarshal(b, &v)
		if err == nil {
			err = content.Schema.Value.VisitJSON(v)
		}
		if err != nil {
			t.Errorf("%s %s answers %d with %.300s: %v", method, pattern, resp.StatusCode, b, err)
		}
	}
}

// TestAnswersConform runs a sweep with successes and failures and asks for everything that can be
// read of it, and for what is not there: each answer is what the document says.
func TestAnswersConform(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	// The trial that fails runs until the sweep is cancelled when it is retried.
	sub := script(t, `echo out; echo '{"accuracy": 0.5}' >>"$MLF_METRICS"
test "$1" != --x=2 && exit
test $MLF_ATTEMPT -eq 1 || sleep 600
exit 1`, "x=1,2,3")
	sub.Task.Objective = &grid.Objective{Metric: "accuracy", Goal: "maximize"}
	v := submit(t, s.Client(), sub)
	for _, err := range s.Client().Sweeps().Watch(t.Context(), v.Sweep, 0) {
		if err != nil {
			t.Fatal(err)
		}
	}
	h := newHTTP(t, cfg.StateDir)
	doc := documentOf(t, h)
	for _, ask := range []struct {
		method, pattern, query, body string
		status                       int
	}{
		{"GET", api.PathDocument, "", "", 200},
		{"GET", api.PathNode, "", "", 200},
		{"GET", api.PathMembers, "", "", 409},
		{"GET", api.PathNodes, "", "", 200},
		{"GET", api.PathSamples, "", "", 404},
		{"GET", api.PathSession, "", "", 200},
		{"GET", api.PathTokens, "", "", 409},
		{"GET", api.PathSweeps, "", "", 200},
		{"POST", api.PathSweeps, "", `{"project":"p","task":{"name":"t","command":["true"],"resources":{"cpus":-1}}}`,
			400},
		{"POST", api.PathSweeps, "", `{"project":"p","task":{"name":"t","command":["true"],"resources":{"cpus":1}}}`,
			200},
		{"POST", api.PathSweeps, "", `{`, 400},
		{"GET", api.PathSweep, "", "", 200},
		{"GET", api.PathDescribe, "", "", 200},
		{"GET", api.PathBundle, "", "", 404},
		{"GET", api.PathTrials, "", "", 200},
		{"GET", api.PathTrials, "?sort=accuracy&desc=true&limit=2", "", 200},
		{"GET", api.PathTrials, "?state=none", "", 400},
		{"GET", api.PathTrials, "?limit=-1", "", 400},
		{"GET", api.PathAttempts, "", "", 200},
		{"GET", api.PathExplain, "", "", 200},
		{"GET", api.PathFailures, "", "", 200},
		{"GET", api.PathCharts + "marginals", "", "", 200},
		{"GET", api.PathCharts + "parallel", "?axis=x", "", 200},
		{"GET", api.PathCharts + "parallel", "?axis=y", "", 400},
		{"GET", api.PathCharts + "heat", "?x=x&y=x", "", 200},
		{"GET", api.PathCharts + "heat", "?x=x&y=x&z=x&stat=failed&p[x]=2..3", "", 200},
		{"GET", api.PathCharts + "heat", "", "", 400},
		{"GET", api.PathCharts + "matrix", "", "", 200},
		{"GET", api.PathCharts + "slices", "?trial=1", "", 200},
		{"GET", api.PathCharts + "slices", "", "", 400},
		{"GET", api.PathCharts + "histogram", "?value=wall", "", 200},
		{"GET", api.PathCharts + "histogram", "?state=lost", "", 400},
		{"GET", api.PathCharts + "histogram", "?value=none", "", 400},
		{"GET", api.PathCharts + "histogram", "?goal=none", "", 400},
		{"GET", api.PathCharts + "history", "?m[accuracy]=..1&p[x]=9", "", 200},
		{"GET", api.PathCharts + "importance", "?raw=true", "", 200},
		{"GET", api.PathCharts + "groups", "?over=x&sort=mean", "", 200},
		{"GET", api.PathCharts + "groups", "?over=y", "", 400},
		{"GET", api.PathCharts + "failures", "", "", 200},
		{"GET", api.PathCharts + "timeline", "", "", 200},
		{"GET", api.PathCharts + "coverage", "", "", 200},
		{"GET", api.PathCharts + "suggestions", "", "", 200},
		{"GET", api.PathCharts + "curves", "?trials=0,1&value=accuracy", "", 200},
		{"GET", api.PathCharts + "curves", "?p[x]=2..3", "", 200},
		{"GET", api.PathCharts + "curves", "?trials=a", "", 400},
		{"GET", api.PathCharts + "curves", "?trials=77", "", 400},
		{"GET", api.PathCurves, "", "", 200},
		{"GET", api.PathCharts + "eta", "", "", 200},
		{"GET", api.PathLogs, "?index=0", "", 200},
		{"GET", api.PathLogs, "?index=77", "", 404},
		{"GET", api.PathWatch, "", "", 200},
		{"GET", api.PathArtifacts, "", "", 200},
		{"POST", api.PathSweep + "/actions/pause", "", "", 409},
		{"POST", api.PathSweep + "/actions/retry", "", `{"index":-1,"failed_only":true}`, 200},
		{"POST", api.PathSweep + "/actions/set", "", `{"priority":3,"max_parallel":2}`, 200},
		{"POST", api.PathSweep + "/actions/set", "", `{"max_parallel":-1}`, 400},
		{"POST", api.PathSweep + "/actions/cancel", "", "", 200},
	} {
		path := strings.NewReplacer("{sweep}", string(v.Sweep), "{index}", "1").Replace(ask.pattern)
		resp, b := h.do(ask.method, api.Prefix+path+ask.query, ask.body)
		if resp.StatusCode != ask.status {
			t.Errorf("%s %s%s: got %d %.200s, want %d", ask.method, path, ask.query, resp.StatusCode, b, ask.status)
			continue
		}
		conforms(t, doc, ask.method, ask.pattern, resp, b)
	}
}

// TestErrorsAreProblemDocuments asks for what is not there, in wrong ways and in too many words:
// each answer is a problem that old clients can read, under both prefixes.
func TestErrorsAreProblemDocuments(t *testing.T) {
	cfg := testConfig(t)
	attach(t, cfg)
	h := newHTTP(t, cfg.StateDir)
	for _, prefix := range []string{api.Prefix, api.OldPrefix} {
		for _, ask := range []struct {
			method, path, body string
			status             int
			code               string
		}{
			{"GET", "/nothing", "", 404, "not_found"},
			{"GET", "/sweeps/none-1", "", 404, "not_found"},
			{"PATCH", "/sweeps", "", 405, "method_not_allowed"},
			{"DELETE", "/sweeps", "", 405, "method_not_allowed"},
			{"POST", "/sweeps/none-1/actions/explode", "", 404, "not_found"},
			{"GET", "/sweeps?x=" + strings.Repeat("x", 9<<10), "", 414, "request_uri_too_long"},
			{"POST", "/sweeps/none-1/actions/retry", `{"class":"` + strings.Repeat("x", 2<<20) + `"}`, 413,
				"request_entity_too_large"},
		} {
			resp, b := h.do(ask.method, prefix+ask.path, ask.body)
			var p api.Problem
			if err := json.Unmarshal(b, &p); err != nil || resp.Header.Get("Content-Type") != api.MediaProblem {
				t.Errorf("%s %.40s: got %.200s (%s), want a problem", ask.method, ask.path, b,
					resp.Header.Get("Content-Type"))
			}
			if resp.StatusCode != ask.status || p.Status != ask.status || p.Code != ask.code ||
				p.Title != http.StatusText(ask.status) || p.Detail == "" || p.Msg != p.Detail {
				t.Errorf("%s %.40s: got %d, %+v; want %d, %s", ask.method, ask.path, resp.StatusCode, p,
					ask.status, ask.code)
			}
		}
	}
}

// TestAnswersAreCachedAndCompressed asks again for what the client has, and for long answers: the
// first are left out, the second compressed.
func TestAnswersAreCachedAndCompressed(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	submit(t, s.Client(), script(t, "exit 0"))
	h := newHTTP(t, cfg.StateDir)
	path := api.Prefix + api.PathDocument
	resp, whole := h.do("GET", path, "")
	tag := resp.Header.Get("ETag")
	if resp, b := h.do("GET", path, "", "If-None-Match", `W/"0", `+tag); resp.StatusCode != http.StatusNotModified ||
		len(b) > 0 || tag == "" {
		t.Errorf("the tag %s: got %d with %d bytes, want 304", tag, resp.StatusCode, len(b))
	}
	resp, b := h.do("GET", path, "", "Accept-Encoding", "gzip")
	if resp.Header.Get("Content-Encoding") != "gzip" || len(b) > len(whole)/2 {
		t.Errorf("got %d bytes of %d, encoded as %q", len(b), len(whole), resp.Header.Get("Content-Encoding"))
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := io.ReadAll(z); err != nil || !bytes.Equal(plain, whole) {
		t.Errorf("the compressed answer is another one: %v", err)
	}
	if resp, b := h.do("GET", api.Prefix+api.PathMembers, "", "Accept-Encoding",
		"gzip"); resp.Header.Get("Content-Encoding") != "" {
		t.Errorf("%d bytes are compressed", len(b))
	}
}

// TestStreamsAreNotBuffered follows the output of a sweep that waits, with an offer to take
// compressed answers.
func TestStreamsAreNotBuffered(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	v := submit(t, s.Client(), script(t, "echo here; exec sleep 60"))
	h := newHTTP(t, cfg.StateDir)
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://localhost"+api.Prefix+"/sweeps/"+string(v.Sweep)+
		"/logs?follow=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := h.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line := make([]byte, 10)
	if _, err := io.ReadFull(resp.Body, line); err != nil || !strings.HasPrefix(string(line), `{"v":`) {
		t.Errorf("got %q, %v", line, err)
	}
	if _, err := s.Client().Sweeps().Cancel(t.Context(), v.Sweep, false); err != nil {
		t.Error(err)
	}
}
