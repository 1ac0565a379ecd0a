package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPagesRepeatNoLine finds lines that stand in a page twice, as an edit may leave them.
func TestPagesRepeatNoLine(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) < 10 {
		t.Fatalf("got %d pages, %v", len(pages), err)
	}
	for _, page := range append(pages, "../../README.md") {
		if filepath.Base(page) == "reference.md" { // commands that have a flag in common
			continue
		}
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); len(line) > 60 && seen[line] {
				t.Errorf("%s has twice: %s", filepath.Base(page), line)
			}
			seen[line] = true
		}
	}
}
