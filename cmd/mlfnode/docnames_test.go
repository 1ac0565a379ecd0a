package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	fileInPage = regexp.MustCompile("`([a-zA-Z0-9_/]+\\.(?:go|js))`")
	testInPage = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`")
	// nameInPage is a name of the code with the file that has it.
	nameInPage = regexp.MustCompile("`([A-Za-z.]+)` \\(`([a-zA-Z0-9_/]+\\.(?:go|js))`\\)")
)

// TestPagesNameWhatExists holds that the files and tests that the pages for developers name exist.
// A name without its whole path stands for any file with that ending.
func TestPagesNameWhatExists(t *testing.T) {
	var paths, sources []string
	eachGoFile(t, func(path string) {
		paths = append(paths, "/"+filepath.ToSlash(path))
		if strings.HasSuffix(path, "_test.go") {
			text, err := os.ReadFile(filepath.Join(root, path))
			if err != nil {
				t.Fatal(err)
			}
			sources = append(sources, string(text))
		}
	})
	scripts, err := filepath.Glob(filepath.Join(root, "node", "monitor", "page", "*.js"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range scripts {
		paths = append(paths, "/node/monitor/page/"+filepath.Base(path))
	}
	all, tests := strings.Join(paths, "\n")+"\n", strings.Join(sources, "\n")
	checked := 0
	for _, name := range []string{"ARCHITECTURE.md", "CONTRIBUTING.md"} {
		page, err := os.ReadFile(filepath.Join(root, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fileInPage.FindAllStringSubmatch(string(page), -1) {
			if checked++; !strings.Contains(all, "/"+m[1]+"\n") {
				t.Errorf("%s names the file %s, which does not exist", name, m[1])
			}
		}
		for _, m := range nameInPage.FindAllStringSubmatch(string(page), -1) {
			if checked++; !nameIsIn(t, paths, m[1], m[2]) {
				t.Errorf("%s names %s of %s, which has no such name", name, m[1], m[2])
			}
		}
		for _, m := range testInPage.FindAllStringSubmatch(string(page), -1) {
			if checked++; !strings.Contains(tests, "func "+m[1]+"(") {
				t.Errorf("%s names the test %s, which does not exist", name, m[1])
			}
		}
	}
	if checked < 100 {
		t.Errorf("got %d names checked, want them all", checked)
	}
}

// nameIsIn reports whether a file with this ending has the last part of a name.
func nameIsIn(t *testing.T, paths []string, name, file string) bool {
	name = name[strings.LastIndex(name, ".")+1:]
	for _, path := range paths {
		if !strings.HasSuffix(path, "/"+file) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(`\b` + name + `\b`).Match(text) {
			return true
		}
	}
	return false
}
