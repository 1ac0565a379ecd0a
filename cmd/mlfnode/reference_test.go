package main

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

var (
	updateReference = flag.Bool("reference", false, "write docs/reference.md")
	manFolder       = flag.String("man", "", "write man pages into this folder")
)

// headings are the lines that begin a part of a command's page.
var headings = regexp.MustCompile(`(?m)^#+ `)

// documented gives all commands, each below the one that it belongs to.
func documented(c *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{c}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" {
			all = append(all, documented(sub)...)
		}
	}
	return all
}

// reference writes what --help says of every command as one page.
func reference(t *testing.T, root *cobra.Command) []byte {
	t.Helper()
	var page bytes.Buffer
	page.WriteString("# Commands\n\nWhat `--help` prints, for all commands. `make docs` makes this page, and man pages in `build/man`.\n\n")
	root.DisableAutoGenTag = true
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range documented(root) {
		var part bytes.Buffer
		if err := doc.GenMarkdownCustom(c, &part, func(string) string { return "" }); err != nil {
			t.Fatal(err)
		}
		text, _, _ := strings.Cut(part.String(), "### SEE ALSO")
		text, _, _ = strings.Cut(text, "### Options inherited from parent commands")
		text = strings.ReplaceAll(text, home, "~")
		page.WriteString(headings.ReplaceAllStringFunc(text, func(h string) string {
			if h == "## " {
				return h
			}
			return "### "
		}))
	}
	return page.Bytes()
}

// TestReference holds that docs/reference.md is about the commands as they are; `make docs` writes
// it.
func TestReference(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("XDG_STATE_HOME", "")
	root := rootCommand(newTestApp(io.Discard, io.Discard))
	root.InitDefaultCompletionCmd()
	got := reference(t, root)
	file := filepath.Join("..", "..", "docs", "reference.md")
	if *updateReference {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kept, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(kept, got) {
		t.Errorf("docs/reference.md is not about this program (%v); run: make docs", err)
	}
	folder := *manFolder
	if folder == "" {
		folder = t.TempDir()
	}
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "mlfnode", Manual: "mlfnode"},
		folder); err != nil {
		t.Fatal(err)
	}
	if pages, err := filepath.Glob(filepath.Join(folder, "mlfnode*.1")); err != nil ||
		len(pages) < len(documented(root)) {
		t.Errorf("got %d man pages, %v; want one for each of %d commands", len(pages), err, len(documented(root)))
	}
}
