package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// unexplained are variables that no user needs, with the reason.
var unexplained = map[string]string{
	"MLF_FAKE_GPUS":        "is known to programs that were built for tests alone",
	"MLF_FAKE_GPUS_SCRIPT": "likewise",
	"MLF_RUN":              "marks the processes of an attempt",
	"MLF_TOKEN":            "marks the processes of a node",
	"MLF_OF_THE_AGENT":     "is set by a conformance suite",
	"MLF_TEST_SUITE":       "chooses the suite of Debian that tests boot",
}

// TestVariablesAreInTheManual looks for each environment variable of mlfnode that stands in its
// source in a table of the manual.
func TestVariablesAreInTheManual(t *testing.T) {
	root := filepath.Join("..", "..")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var manual strings.Builder
	for _, name := range pages {
		if base := filepath.Base(name); base == "reference.md" || base == "ARCHITECTURE.md" {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		manual.Write(text)
	}
	variable := regexp.MustCompile(`"(MLF_[A-Z_]*[A-Z])\b`)
	found := map[string]string{}
	for _, top := range []string{"cmd", "node", "cluster", "jetstream", "grid", "projects"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
				return err
			}
			text, err := os.ReadFile(name)
			for _, m := range variable.FindAllStringSubmatch(string(text), -1) {
				found[m[1]] = name
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for v, name := range found {
		if unexplained[v] == "" && !strings.Contains(manual.String(), "`"+v+"`") &&
			!strings.Contains(manual.String(), "`$"+v+"`") {
			t.Errorf("no page of the manual explains %s, which %s names", v, name)
		}
	}
	for v := range unexplained {
		if found[v] == "" {
			t.Errorf("%s is not in the source any more", v)
		}
	}
	if len(found) < 40 {
		t.Errorf("variables: got %d, want at least 40", len(found))
	}
}
