package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/shell"
)

// manualBlock is a fenced block of the manual: its language, the file that it is, its text.
var manualBlock = regexp.MustCompile("(?ms)^```(\\w+) ?(\\S*)\n(.*?)^```\n")

// TestManual runs the examples of pages: blocks with the name of a file make it, and commands behind $ in console blocks print what
// stands below them. There … stands for anything on the line.
func TestManual(t *testing.T) {
	for _, page := range []string{"migrating", "parameters", "projects", "results", "running", "settings", "start"} {
		t.Run(page, func(t *testing.T) { runManual(t, filepath.Join("..", "..", "docs", page+".md")) })
	}
}

func runManual(t *testing.T, name string) {
	page, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("MLF_CPUS", "2")
	commands := 0
	for _, m := range manualBlock.FindAllSubmatch(page, -1) {
		language, file, text := string(m[1]), string(m[2]), string(m[3])
		if file != "" {
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if language != "console" {
			continue
		}
		for _, example := range strings.Split(text, "$ ")[1:] {
			line, want, _ := strings.Cut(example, "\n")
			exit := 0
			if before, _, fails := strings.Cut(line, " # exits with 1"); fails {
				line, exit = before, 1
			}
			args, err := shell.Fields(strings.TrimPrefix(line, "mlfnode "), nil)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			if args[0] == "cd" {
				t.Chdir(args[1])
				continue
			}
			var out, errs bytes.Buffer
			code := run(t.Context(), &interrupts{}, args, &out, &errs)
			got := strings.TrimRight(out.String(), "\n") + "\n"
			shown := strings.ReplaceAll(regexp.QuoteMeta(want), "…", ".*")
			if !strings.Contains(line, "--sample") {
				shown += "$"
			}
			if code != exit || want != "" && !regexp.MustCompile("^"+shown).MatchString(got) {
				t.Errorf("%s: exit code %d, got\n%s%s\nwant\n%s", line, code, got, errs.String(), want)
			}
			commands++
		}
	}
	if commands == 0 {
		t.Error("the page has no examples")
	}
}
