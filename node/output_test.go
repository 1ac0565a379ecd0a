package node_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"mlfnode/node/api"
)

// TestOutputIsReadInParts reads what a trial has printed in parts, searches it, and downloads it
// and the files that it left.
func TestOutputIsReadInParts(t *testing.T) {
	cfg := testConfig(t)
	s := attach(t, cfg)
	sub := script(t, `i=0
while [ $i -lt 3000 ]; do echo "line $i of out"; [ $((i % 1000)) -ne 500 ] || echo "Warning $i" >&2; i=$((i+1)); done
echo kept >"$MLF_OUT/a file.txt"; mkdir "$MLF_OUT/sub"; echo '<script>' >"$MLF_OUT/sub/b.html"`, "x=1,2")
	v := submit(t, s.Client(), sub)
	for _, err := range s.Client().Sweeps().Watch(t.Context(), v.Sweep, 0) {
		if err != nil {
			t.Fatal(err)
		}
	}
	h := newHTTP(t, cfg.StateDir)
	doc := documentOf(t, h)
	ask := func(pattern, query string, status int, answer any) {
		t.Helper()
		path := strings.NewReplacer("{sweep}", string(v.Sweep), "{index}", "1").Replace(pattern)
		resp, b := h.do("GET", api.Prefix+path+"?"+query, "")
		if resp.StatusCode != status {
			t.Fatalf("%s?%s: got %d %.200s, want %d", path, query, resp.StatusCode, b, status)
		}
		conforms(t, doc, "GET", pattern, resp, b)
		if answer != nil {
			if err := json.Unmarshal(b, answer); err != nil {
				t.Fatal(err)
			}
		}
	}
	var out strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&out, "line %d of out\n", i)
	}
	const warnings = "Warning 500\nWarning 1500\nWarning 2500\n"
	window := func(query string) (w api.LogWindow, text map[string]string) {
		t.Helper()
		ask(api.PathLog, query, 200, &w)
		text = map[string]string{}
		for _, p := range w.Pieces {
			if p.Offset < w.Offset || p.Offset+int64(len(p.Data)) > w.Next {
				t.Errorf("%s: a piece at %d of %d bytes is not in the window %d to %d", query, p.Offset,
					len(p.Data), w.Offset, w.Next)
			}
			text[p.Stream] += string(p.Data)
		}
		return w, text
	}
	all := map[string]string{}
	for w := (api.LogWindow{Next: 0, Total: 1}); w.Next < w.Total; {
		var text map[string]string
		w, text = window(fmt.Sprintf("limit=1000&offset=%d", w.Next))
		for stream, part := range text {
			all[stream] += part
		}
		if !w.Ended || w.Attempt != 1 || w.Total != int64(out.Len()+len(warnings)) || w.Next-w.Offset > 1000 {
			t.Fatalf("a window is %+v", w)
		}
	}
	if all["stdout"] != out.String() || all["stderr"] != warnings {
		t.Errorf("the windows have %d and %d bytes, want %d and %d", len(all["stdout"]), len(all["stderr"]),
			out.Len(), len(warnings))
	}
	if w, text := window("stream=stdout&tail=6&limit=3"); text["stdout"] != "f o" || w.Total != int64(out.Len()) {
		t.Errorf("the tail: got %+v", w)
	}
	if w, text := window("stream=stderr&offset=8"); text["stderr"] != warnings[8:] || w.Offset != 8 {
		t.Errorf("the warnings: got %+v", w)
	}
	if w, _ := window("offset=1000000"); len(w.Pieces) > 0 || w.Next != w.Total {
		t.Errorf("behind the end: got %+v", w)
	}
	var hits api.LogHits
	ask(api.PathLogSearch, "q=WARNING", 200, &hits)
	if len(hits.Hits) != 3 || hits.Hits[1].Match != "Warning" || hits.Hits[1].After != " 1500" || hits.Next != nil {
		t.Fatalf("warnings: got %+v", hits)
	}
	for _, hit := range hits.Hits {
		if w, _ := window(fmt.Sprintf("offset=%d&limit=7", hit.Offset)); len(w.Pieces) != 1 ||
			string(w.Pieces[0].Data) != "Warning" {
			t.Errorf("at the hit %+v: got %+v", hit, w)
		}
	}
	ask(api.PathLogSearch, "q=WARNING&case=true", 200, &hits)
	if len(hits.Hits) != 0 {
		t.Errorf("with capital letters: got %+v", hits)
	}
	found, next := 0, int64(0)
	for more := true; more; {
		hits = api.LogHits{}
		ask(api.PathLogSearch, fmt.Sprintf("q=of&stream=stdout&limit=500&offset=%d", next), 200, &hits)
		found += len(hits.Hits)
		if more = hits.Next != nil; more {
			next = *hits.Next
		}
	}
	if found != 3000 {
		t.Errorf("page by page %d hits are found, want 3000", found)
	}
	for _, query := range []string{"q=", "q=a%0Ab", "q=a&stream=x", "q=a&limit=0", "q=a&offset=-1"} {
		ask(api.PathLogSearch, query, 400, nil)
	}
	ask(api.PathLog, "attempt=7", 404, nil)

	var list api.FileList
	ask(api.PathFiles, "", 200, &list)
	if len(list.Files) != 2 || list.Files[0].Name != "a file.txt" || list.Files[1].Name != "sub/b.html" ||
		list.Files[0].Bytes != 5 {
		t.Errorf("files: got %+v", list)
	}
	file := strings.NewReplacer("{sweep}", string(v.Sweep), "{index}", "1").Replace(api.Prefix + api.PathFile)
	for name, want := range map[string]string{"a file.txt": "kept\n", "sub/b.html": "<script>\n"} {
		resp, b := h.do("GET", file+"?name="+url.QueryEscape(name), "")
		if string(b) != want || resp.Header.Get("Content-Security-Policy") != "sandbox" ||
			!strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment") ||
			resp.Header.Get("Content-Type") != "application/octet-stream" ||
			resp.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: got %q with %v", name, b, resp.Header)
		}
	}
	for _, name := range []string{"", "../a file.txt", "/etc/passwd", "sub", "none"} {
		ask(api.PathFile, "name="+url.QueryEscape(name), 404, nil)
	}
	text := strings.NewReplacer("{sweep}", string(v.Sweep), "{index}", "1").Replace(api.Prefix + api.PathLogText)
	if _, b := h.do("GET", text+"?stream=stdout", ""); string(b) != out.String() {
		t.Errorf("downloaded are %d bytes, want %d", len(b), out.Len())
	}
}
