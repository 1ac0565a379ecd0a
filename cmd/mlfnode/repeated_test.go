package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoLineTwice holds that no line of prose, and no long line at all, is in a page twice, as
// after an edit or a merge. The page of commands is generated.
func TestNoLineTwice(t *testing.T) {
	root := filepath.Join("..", "..")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) < 10 {
		t.Fatalf("got %d pages, %v", len(pages), err)
	}
	for _, page := range append(pages, filepath.Join(root, "README.md")) {
		if filepath.Base(page) == "reference.md" {
			continue
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for line, n := range repeated(string(text)) {
			t.Errorf("%s has a line %d times: %s", page, n, line)
		}
	}
	if got := repeated("a\n" +
		strings.Repeat("long enough to be a line of prose, and there twice\n", 2)); len(got) != 1 {
		t.Errorf("of a page with a line twice: got %v", got)
	}
}

// repeated gives the lines of prose and the long lines that are more than once in a page, with how
// often.
func repeated(text string) map[string]int {
	seen, code := map[string]int{}, false
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "```") {
			code = !code
		}
		prose := len(line) >= 40 && !code && !strings.HasPrefix(line, "|") // tables share their heads
		if prose || len(line) > 60 {
			seen[line]++
		}
	}
	for line, n := range seen {
		if n == 1 {
			delete(seen, line)
		}
	}
	return seen
}
