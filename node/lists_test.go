package node_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// TestSweepsArePaged reads the sweeps page by page while one of them is removed, and all of them as
// CSV and lines: no sweep is left out or given twice.
func TestSweepsArePaged(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	var want []grid.SweepID
	for range 5 {
		v := submit(t, s.Client(), script(t, "exit 0"))
		want = append(want, v.Sweep)
	}
	for _, id := range want {
		for _, err := range s.Client().Sweeps().Watch(t.Context(), id, 0) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	slices.Reverse(want)
	h := newHTTP(t, cfg.StateDir)
	doc := documentOf(t, h)
	var got []grid.SweepID
	for after := ""; ; {
		resp, b := h.do("GET", api.Prefix+"/sweeps?limit=2&after="+url.QueryEscape(after), "")
		conforms(t, doc, "GET", api.PathSweeps, resp, b)
		var list api.SweepList
		if err := json.Unmarshal(b, &list); err != nil || len(list.Sweeps) > 2 {
			t.Fatalf("got %s, %v", b, err)
		}
		for _, v := range list.Sweeps {
			got = append(got, v.Sweep)
		}
		if after = list.Next; after == "" {
			break
		}
		if len(got) == 2 { // the place of the cursor is gone
			if err := s.Client().Sweeps().Remove(t.Context(), got[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the pages have %v, want %v", got, want)
	}
	_, b := h.do("GET", api.Prefix+"/sweeps", "", "Accept", "text/csv")
	rows, err := csv.NewReader(strings.NewReader(string(b))).ReadAll()
	if err != nil || len(rows) != 5 || rows[0][0] != "sweep" || rows[1][0] != string(want[0]) {
		t.Errorf("as CSV: got %v, %v", rows, err)
	}
	resp, b := h.do("GET", api.Prefix+"/sweeps?state=finished", "", "Accept", "application/x-ndjson")
	conforms(t, doc, "GET", api.PathSweeps, resp, b)
	if n := strings.Count(string(b), "\n"); n != 4 {
		t.Errorf("as lines: got %d, want 4", n)
	}
	for _, query := range []string{"limit=0", "limit=201", "limit=x", "after=x", "after=1.x.y"} {
		if resp, b := h.do("GET", api.Prefix+"/sweeps?"+query, ""); resp.StatusCode != 400 {
			t.Errorf("%s: got %d %s, want 400", query, resp.StatusCode, b)
		}
	}
}

// TestTrialsArePagedByColumns reads trials by columns page by page, in several orders, and all of
// them as CSV, where no text is a formula.
func TestTrialsArePagedByColumns(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	v := submit(t, s.Client(),
		script(t, `echo '{"accuracy": 0.5}' >>"$MLF_METRICS"; test "$1" != --x=2`, "x=1,2,3,4,5,6,-7", "f==1+1"))
	for _, err := range s.Client().Sweeps().Watch(t.Context(), v.Sweep, 0) {
		if err != nil {
			t.Fatal(err)
		}
	}
	h := newHTTP(t, cfg.StateDir)
	doc := documentOf(t, h)
	path := api.Prefix + "/sweeps/" + string(v.Sweep) + "/trials?"
	for query, want := range map[string]string{
		"":                     "[1 2 3 4 5 6 -7]",
		"sort=x&desc=true":     "[6 5 4 3 2 1 -7]",
		"sort=index&desc=true": "[-7 6 5 4 3 2 1]",
		"state=succeeded":      "[1 3 4 5 6 -7]",
		"class=exit":           "[2]",
	} {
		var got, again []string
		for after := ""; ; {
			_, b := h.do("GET", fmt.Sprintf("%s%s&limit=3&after=%s&field=p[x]", path, query, url.QueryEscape(after)),
				"")
			var table api.TrialTable
			if err := json.Unmarshal(b, &table); err != nil || len(table.Columns) != 1 {
				t.Fatalf("%s: got %s, %v", query, b, err)
			}
			for _, x := range table.Columns[0].Values {
				again = append(again, fmt.Sprint(x))
			}
			if after = table.Cursor; after == "" {
				break
			}
		}
		if fmt.Sprint(again) != want {
			t.Errorf("%s, by cursor: got %v, want %s", query, again, want)
		}
		for offset := int64(0); ; {
			resp, b := h.do("GET", fmt.Sprintf("%s%s&limit=3&offset=%d&field=p[x]&field=m[accuracy]&field=state",
				path, query, offset), "")
			conforms(t, doc, "GET", api.PathTrials, resp, b)
			var table api.TrialTable
			if err := json.Unmarshal(b, &table); err != nil || len(table.Columns) != 3 || table.Count > 3 ||
				table.Count != len(table.Columns[0].Values) {
				t.Fatalf("%s: got %s, %v", query, b, err)
			}
			for _, x := range table.Columns[0].Values {
				got = append(got, fmt.Sprint(x))
			}
			if total := int64(len(strings.Fields(want))); query != "class=exit" &&
				(table.Total == nil || *table.Total != total) {
				t.Errorf("%s: total is %v, want %d", query, table.Total, total)
			}
			if table.Next == nil {
				break
			}
			offset = *table.Next
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: got %v, want %s", query, got, want)
		}
	}
	_, b := h.do("GET", path+"field=index&field=p[x]&field=p[f]&field=exit_code", "", "Accept", "text/csv, */*")
	if want := "index,p[x],p[f],exit_code\n0,1,'=1+1,0\n1,2,'=1+1,1\n"; !strings.HasPrefix(string(b), want) ||
		!strings.Contains(string(b), "\n6,-7,'=1+1,0\n") {
		t.Errorf("as CSV: got %s, want %s and so on", b, want)
	}
	resp, b := h.do("GET", path, "", "Accept", "application/x-ndjson")
	conforms(t, doc, "GET", api.PathTrials, resp, b)
	if n := strings.Count(string(b), "\n"); n != 7 {
		t.Errorf("as lines: got %d, want 7", n)
	}
	if resp, b := h.do("GET", path+"field=nothing", ""); resp.StatusCode != 400 {
		t.Errorf("an unknown column: got %d %s, want 400", resp.StatusCode, b)
	}
}

// TestTablePagesFollowChanges asks for a page of a table again and again: it is what it was before
// as long as its trials do not change, and shows what a retry does to one of them.
func TestTablePagesFollowChanges(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	c := s.Client().Sweeps()
	v := submit(t, s.Client(), script(t, `test "$1" != --x=2`, "x=1,2,3"))
	wait := func() {
		t.Helper()
		for _, err := range c.Watch(t.Context(), v.Sweep, 0) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	h := newHTTP(t, cfg.StateDir)
	page := func() (attempts []any) {
		t.Helper()
		for limit := 2; limit < 4; limit++ {
			var table api.TrialTable
			_, b := h.do("GET", fmt.Sprintf("%s/sweeps/%s/trials?limit=%d&field=attempts", api.Prefix, v.Sweep, limit),
				"")
			if err := json.Unmarshal(b, &table); err != nil || len(table.Columns) != 1 || table.Count != limit {
				t.Fatalf("page of %d trials: got %s, %v", limit, b, err)
			}
			attempts = table.Columns[0].Values
		}
		return attempts
	}
	wait()
	for retries := range 3 {
		for range 2 {
			if got, want := fmt.Sprint(page()), fmt.Sprint([]any{1, 1 + retries, 1}); got != want {
				t.Errorf("attempts after %d retries: got %v, want %v", retries, got, want)
			}
		}
		if _, err := c.Retry(t.Context(), v.Sweep, api.Retry{Index: -1}); err != nil {
			t.Fatal(err)
		}
		wait()
	}
}
