package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTroubleshootingNamesRealMessages looks for the messages of docs/troubleshooting.md in the
// texts of the program.
func TestTroubleshootingNamesRealMessages(t *testing.T) {
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		source.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	messages := 0
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]*)` \\|").FindAllSubmatch(page, -1) {
		if !strings.Contains(string(m[1]), " ") {
			continue // a failure class
		}
		messages++
		for _, part := range strings.Split(string(m[1]), "…") {
			if !strings.Contains(source.String(), strings.TrimSpace(part)) {
				t.Errorf("%q: no text of the program has %q", m[1], part)
			}
		}
	}
	if messages < 20 {
		t.Errorf("found %d messages; the page has more", messages)
	}
}
