package page

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// maxPacked is how many bytes a browser fetches at its first visit, compressed.
const maxPacked = 90_000

// TestVendoredFiles compares the libraries with their digests, and finds the licence of each.
func TestVendoredFiles(t *testing.T) {
	sums, err := files.ReadFile("vendor/vendor.sum")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]string{}
	for line := range strings.Lines(string(sums)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		known[name] = sum
	}
	ours := []string{"package.json", "package-lock.json", "files.txt", "vendor.sum", "NOTICE"}
	entries, err := fs.ReadDir(files, "vendor")
	if err != nil {
		t.Fatal(err)
	}
	notice, _ := files.ReadFile("vendor/NOTICE")
	for _, e := range entries {
		if slices.Contains(ours, e.Name()) {
			continue
		}
		b, err := files.ReadFile("vendor/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != known[e.Name()] {
			t.Errorf("vendor/%s is not what vendor.sum says; run make vendor", e.Name())
		}
		delete(known, e.Name())
	}
	for name := range known {
		t.Errorf("vendor.sum names %s, which is not there", name)
	}
	list, _ := files.ReadFile("vendor/files.txt")
	lock, _ := files.ReadFile("vendor/package-lock.json")
	for line := range strings.Lines(string(list)) {
		fields := strings.Fields(line)
		if strings.HasPrefix(line, "#") || len(fields) != 3 {
			continue
		}
		name := fields[0]
		if !strings.Contains(string(list), "\n"+name+" LICENSE ") {
			t.Errorf("there is no licence of %s", name)
		}
		if !strings.Contains(string(notice), name+" ") || !strings.Contains(string(lock), `"node_modules/`+name+`"`) {
			t.Errorf("%s is not in NOTICE and package-lock.json", name)
		}
	}
	if strings.Contains(string(lock), `"resolved"`) {
		t.Error("package-lock.json names a registry")
	}
}

var (
	imports   = regexp.MustCompile("(?m)(?:(?:^|;)[ \\t]*(?:import|export)\\b[^;'\"`=]*?\\bfrom|(?:^|;)[ \\t]*import|\\bimport\\()[ \\t]*['\"]([^'\"\\n]+)['\"]")
	atOnce    = regexp.MustCompile(`(?m)^(?:import|export)[^;(]*?from ["'](\./[^"']+)["']`)
	inMap     = regexp.MustCompile(`"([^"]+)": "/assets/([^"]+)"`)
	linked    = regexp.MustCompile(`(?:src|href)="/assets/([^"]+)"`)
	elsewhere = regexp.MustCompile(`(?i)["'(]\s*(?:https?:)?//(?:[a-z0-9-]+\.)+[a-z]`)
)

// TestImports checks that the page loads nothing from elsewhere: each import is one of the embedded
// files or in the import map.
func TestImports(t *testing.T) {
	html, err := files.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for _, m := range inMap.FindAllSubmatch(html, -1) {
		named[string(m[1])] = true
	}
	p := New()
	for _, m := range linked.FindAllSubmatch(html, -1) {
		if p.files[string(m[1])] == nil {
			t.Errorf("the document links %s, which is not there", m[1])
		}
	}
	for name := range p.files {
		b, err := files.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		switch path.Ext(name) {
		case ".js", ".mjs":
		case ".css", ".html":
			if elsewhere.Match(b) {
				t.Errorf("%s names another origin", name)
			}
			continue
		default:
			continue
		}
		for _, m := range imports.FindAllStringSubmatch(string(b), -1) {
			if !named[m[1]] && (!strings.HasPrefix(m[1], ".") || p.files[path.Join(path.Dir(name), m[1])] == nil) {
				t.Errorf("%s imports %q, which is neither a file nor in the import map", name, m[1])
			}
		}
		if strings.HasPrefix(name, "vendor/") {
			continue
		}
		if bad := regexp.MustCompile(
			`\.(innerHTML|outerHTML)\b|insertAdjacentHTML|document\.write|\beval\(|new Function\b|dangerouslySetInnerHTML`).Find(b); bad != nil {
			t.Errorf("%s uses %s", name, bad)
		}
		if elsewhere.Match(b) {
			t.Errorf("%s names another origin", name)
		}
		if lines := bytes.Count(b, []byte("\n")); lines > 300 {
			t.Errorf("%s has %d lines, at most 300 are allowed", name, lines)
		}
		if !bytes.HasPrefix(b, []byte("// ")) {
			t.Errorf("%s does not begin with what it is", name)
		}
	}
}

// TestSizeOfAssets bounds what a browser loads at first: the document, and what it links and
// imports immediately.
func TestSizeOfAssets(t *testing.T) {
	p := New()
	first, total := map[string]bool{}, 0
	var load func(name string)
	load = func(name string) {
		f := p.files[name]
		if f == nil || first[name] {
			return
		}
		first[name] = true
		for _, m := range atOnce.FindAllSubmatch(f.plain, -1) {
			load(path.Join(path.Dir(name), string(m[1])))
		}
	}
	load(document)
	html, err := files.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range append(linked.FindAllSubmatch(html, -1), inMap.FindAllSubmatch(html, -1)...) {
		load(string(m[len(m)-1]))
	}
	sum := 0
	for name, f := range p.files {
		switch path.Ext(name) {
		case ".js", ".mjs", ".css", ".html", ".svg":
			total += len(f.packed())
			if first[name] {
				sum += len(f.packed())
			}
		}
	}
	t.Logf("at first: %d files with %d bytes compressed; all: %d bytes", len(first), sum, total)
	if sum > maxPacked {
		t.Errorf("a browser loads %d bytes compressed at first, at most %d are allowed", sum, maxPacked)
	}
}

// TestServing asks for the document and the files that it names, as browsers do.
func TestServing(t *testing.T) {
	p := New()
	ask := func(target string, headers ...string) *http.Response {
		r := httptest.NewRequest("GET", target, nil)
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		if strings.HasPrefix(target, Assets) {
			if !p.ServeAsset(w, r) {
				w.WriteHeader(http.StatusNotFound)
			}
		} else {
			p.ServeDocument(w, r)
		}
		return w.Result()
	}
	doc := ask("/sweeps/x")
	html, _ := io.ReadAll(doc.Body)
	if csp := doc.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "'sha256-") ||
		!strings.Contains(csp, "trusted-types 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("the policy is %q", csp)
	}
	if got := doc.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("the document is %q", got)
	}
	tag := doc.Header.Get("ETag")
	if again := ask("/", "If-None-Match", tag); tag == "" || again.StatusCode != http.StatusNotModified {
		t.Errorf("the document again, with tag %q: got %d, want 304", tag, again.StatusCode)
	}
	sources := regexp.MustCompile(`(?:src|href)="(/assets/[^"]+)"`).FindAllStringSubmatch(string(html), -1)
	if len(sources) < 4 {
		t.Fatalf("the document names %d files", len(sources))
	}
	for _, m := range sources {
		plain, packed := ask(m[1]), ask(m[1], "Accept-Encoding", "br, gzip")
		a, _ := io.ReadAll(plain.Body)
		z, err := gzip.NewReader(bufio.NewReader(packed.Body))
		if err != nil {
			t.Fatalf("%s: %v", m[1], err)
		}
		b, _ := io.ReadAll(z)
		if plain.StatusCode != 200 || len(a) == 0 || !bytes.Equal(a, b) ||
			packed.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s: got %d, %d bytes, and compressed %d", m[1], plain.StatusCode, len(a), len(b))
		}
		if got := plain.Header.Get("Cache-Control"); got != maxAge {
			t.Errorf("%s: Cache-Control is %q", m[1], got)
		}
	}
	for _, wrong := range []string{"/assets/app.js", "/assets/0000000000000000/app.js",
		Assets + p.digest + "/index.html", Assets + p.digest + "/../page.go", Assets + p.digest + "/page.go"} {
		if got := ask(wrong).StatusCode; got != http.StatusNotFound {
			t.Errorf("%s: got %d, want 404", wrong, got)
		}
	}
}
