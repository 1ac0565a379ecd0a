package node_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestSweepsAreFoundByName asks for sweeps by the names that their users gave them: a name of one
// sweep is as good as its id, that of two is refused with both ids, and the origin is that of the
// submission.
func TestSweepsAreFoundByName(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	submitted := func(name string) grid.SweepID {
		sub := script(t, "exit 0")
		sub.Name, sub.Origin = name, &grid.Origin{User: "anna", Host: "lab", Command: []string{"mlfnode", "sweep"}}
		return submit(t, s.Client(), sub).Sweep
	}
	h := newHTTP(t, cfg.StateDir)
	doc := documentOf(t, h)
	first := submitted("lr search")
	for _, pattern := range []string{api.PathSweep, api.PathDescribe, api.PathFailures, api.PathCharts + "marginals"} {
		for _, prefix := range []string{api.Prefix, api.OldPrefix} {
			resp, b := h.do("GET", prefix+strings.Replace(pattern, "{sweep}", url.PathEscape("lr search"), 1), "")
			if resp.StatusCode != http.StatusOK {
				t.Errorf("%s%s: got %d %.200s", prefix, pattern, resp.StatusCode, b)
			}
			if prefix == api.Prefix {
				conforms(t, doc, "GET", pattern, resp, b)
			}
		}
	}
	d, err := s.Client().Sweeps().Describe(t.Context(), "lr search")
	if err != nil || d.Sweep.Sweep != first || d.Sweep.Owner != "anna" || d.Origin == nil || d.Origin.Host != "lab" {
		t.Errorf("got %+v, %v; want the first sweep and where it came from", d, err)
	}
	second := submitted("lr search")
	for method, path := range map[string]string{"GET": "", "DELETE": "", "POST": "/actions/cancel"} {
		resp, b := h.do(method, api.Prefix+"/sweeps/lr%20search"+path, "")
		if resp.StatusCode != http.StatusConflict || !strings.Contains(string(b), string(first)) ||
			!strings.Contains(string(b), string(second)) {
			t.Errorf("%s: got %d %.300s, want a conflict with both ids", method, resp.StatusCode, b)
		}
	}
	for _, id := range []grid.SweepID{first, second} {
		if v, err := s.Client().Sweeps().Get(t.Context(), id); err != nil || v.Sweep != id {
			t.Errorf("by its id %s: got %v, %v", id, v.Sweep, err)
		}
	}
}
