package node_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestHostileRequests sends requests that no client sends, to a node that runs trials: each is
// refused by the client's own rules, and the node goes on.
func TestHostileRequests(t *testing.T) {
	s := attach(t, testConfig(t))
	c := s.Client()
	long := strings.Repeat("a", 4080)
	const task = `"task":{"name":"t","command":["true"],"resources":{"cpus":1}}`
	for name, body := range map[string]string{
		"a project of 4,080 bytes": `{"project":"` + long + `",` + task + `}`,
		"a project with an escape": `{"project":"\u001b]0;x\u0007/../x",` + task + `}`,
		"negative processors":      `{"project":"p","task":{"name":"t","command":["true"],"resources":{"cpus":-5}}}`,
		"no command":               `{"project":"p","task":{"name":"t","resources":{"cpus":1}}}`,
		"a bundle by another name": `{"project":"p",` + task + `,"bundle":"` + long + `"}`,
		"a bundle that is not hex": `{"project":"p",` + task + `,"bundle":"` + strings.Repeat("zz", 32) + `"}`,
		"metrics of the machine":   `{"project":"p","task":{"name":"t","command":["true"],"resources":{"cpus":1},"metrics":[{"log":"../../etc/passwd"}]}}`,
		"a name of 10,000 letters": `{"project":"p","name":"` + long + long + `",` + task + `}`,
		"a key of 4,080 letters": `{"project":"p",` + task + `,"space":{"axes":[{"key":"` + long +
			`","values":[1]}]}}`,
		"exclude that leaves no one": `{"project":"p",` + task +
			`,"space":{"axes":[{"key":"a","values":[1]}],"exclude":["a == 1"]}}`,
	} {
		_, err := api.Post[api.Sweep](t.Context(), c, api.PathSweeps, json.RawMessage(body))
		var refusal *api.Error
		if !errors.As(err, &refusal) || refusal.Status != http.StatusBadRequest {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	for _, digest := range []string{long, "x", strings.Repeat("g", 64), strings.Repeat("A", 64)} {
		if ok, err := c.Bundles().Has(t.Context(), digest); ok || err != nil {
			t.Errorf("bundle %.20s: got %v, %v", digest, ok, err)
		}
		if err := c.Bundles().Put(t.Context(), digest, strings.NewReader("x")); err == nil {
			t.Errorf("bundle %.20s was stored", digest)
		}
	}
	for _, id := range []grid.SweepID{grid.SweepID(long), "..", "a/b", "\x00", "p-1\x1b"} {
		if _, err := c.Sweeps().Get(t.Context(), id); err == nil {
			t.Errorf("there is a sweep %.20q", id)
		}
		if _, err := c.Sweeps().Cancel(t.Context(), id, false); err == nil {
			t.Errorf("the sweep %.20q was cancelled", id)
		}
	}
	if all, err := c.Sweeps().List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("sweeps: got %v, %v; want none", all, err)
	}
	// A record that contradicts itself comes from elsewhere; what older clients send is taken for
	// what it means.
	old := `{"project":"old",` + task +
		`,"space":{"axes":[{"key":"a","values":[1,2,3,4]}],"exclude":["a > 2"],"blocks":[{"lo":[0],"hi":[4],"kept":3}]}}`
	v, err := api.Post[api.Sweep](t.Context(), c, api.PathSweeps, json.RawMessage(old))
	if err != nil || v.Count != 2 {
		t.Fatalf("an older client's submission: got %d points, %v; want 2", v.Count, err)
	}
	for u, err := range c.Sweeps().Watch(t.Context(), v.Sweep, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if u.Sweep != nil {
			v = *u.Sweep
		}
	}
	if v.State != grid.SweepFinished || v.Succeeded != 2 {
		t.Errorf("it ended as %+v", v)
	}
	for _, index := range []int64{-1, 2, 1 << 40} {
		_, err := c.Trials().Attempts(t.Context(), grid.TrialID{Sweep: v.Sweep, Index: index})
		var refusal *api.Error
		if !errors.As(err, &refusal) || refusal.Status != http.StatusNotFound {
			t.Errorf("attempts of trial %d: got %v, want that there is none", index, err)
		}
	}
}

// TestLastIsTheNewestSweep submits sweeps of several projects: the last one is the one that was
// submitted last.
func TestLastIsTheNewestSweep(t *testing.T) {
	s := attach(t, testConfig(t))
	c := s.Client()
	for _, project := range []string{"b", "a", "c", "a"} {
		sub := script(t, "exit 0")
		sub.Project = project
		v, err := c.Sweeps().Submit(t.Context(), sub)
		if err != nil {
			t.Fatal(err)
		}
		last, err := c.Sweeps().Get(t.Context(), api.Last)
		if err != nil || last.Sweep != v.Sweep {
			t.Errorf("last is %s, %v; want %s", last.Sweep, err, v.Sweep)
		}
		all, err := c.Sweeps().List(t.Context())
		if err != nil || all[len(all)-1].Sweep != v.Sweep {
			t.Errorf("the list ends with %s, %v; want %s", all[len(all)-1].Sweep, err, v.Sweep)
		}
	}
}
