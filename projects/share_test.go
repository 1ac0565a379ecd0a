package projects

import (
	"fmt"
	"strings"
	"testing"
)

// TestPatternsThatNameNothing checks that patterns of include and share that can't match any file
// are refused, with a hint on what to write.
func TestPatternsThatNameNothing(t *testing.T) {
	const file = "Write the name of a file or folder, or a pattern like data/** as in .gitignore."
	for _, c := range []struct{ text, hint string }{
		{"[", file}, {"a[b", file}, {"[]", file}, {"[!", file}, {"[[:none:]]", file}, {`a\`, file},
		{"!a", file}, {"# a", file}, {" ", file},
		{"/", file}, {".", "Write ** for everything in it."}, {"./", "Write ** for everything in it."},
		{"./data", "Write /data."}, {"./data/**", "Write /data/**."}, {"data//x", "Write /data/x."},
		{"data/./x", "Write /data/x."}, {"data/.", "Write /data."},
		{"a/../b", "Patterns start at the project's folder: no '..'."},
		{"a\nb", "Give each pattern in an entry of its own."},
	} {
		for _, field := range []string{"include", "share"} {
			if c.text == "/" && field == "share" {
				continue // the root of each node, which may be shared
			}
			_, err := load(t, fmt.Sprintf("tasks: {t: {command: [a], %s: [ok, %q]}}\n", field, c.text))
			if err == nil || !strings.Contains(err.Error(), c.hint) {
				t.Errorf("%s: [%q]: got %v, want %q", field, c.text, err, c.hint)
			}
			if field == "share" {
				if err := CheckShare([]string{"ok", c.text}); err == nil || !strings.Contains(err.Error(), c.hint) {
					t.Errorf("the master's check of %q: got %v, want %q", c.text, err, c.hint)
				}
			}
		}
	}
	for _, text := range []string{"data", "data/", "/data", "data/**", "**/x", "**", "*", "a b",
		`a\[b`, `\!x`, "[]]", "[a-c]/x", "..x", "x..", ".git", "/mnt/a", "../b", "/mnt/a/**"} {
		fields := []string{"share"}
		if !isOutside(text) {
			fields = append(fields, "include")
		}
		for _, field := range fields {
			if _, err := load(t, fmt.Sprintf("tasks: {t: {command: [a], %s: [%q]}}\n", field, text)); err != nil {
				t.Errorf("%s: [%q]: %v", field, text, err)
			}
		}
	}
	for _, text := range []string{"~/data", "/mnt/*/a", "../[a]"} {
		if err := CheckShare([]string{text}); err == nil {
			t.Errorf("share %q is accepted", text)
		}
	}
}

// TestCheckInputs checks that patterns that name no file are refused: the setup would depend on no
// file, or on files of another project.
func TestCheckInputs(t *testing.T) {
	for _, text := range []string{"", "#x", "!a", "[", "../a", "/", "a\nb"} {
		if err := CheckInputs([]string{"ok", text}); err == nil {
			t.Errorf("the input %q is accepted", text)
		}
	}
	if err := CheckInputs([]string{"/requirements.txt", "deps/**"}); err != nil {
		t.Error(err)
	}
}

// load reads a project.yaml with this text and the task in it.
func load(t *testing.T, text string) (*Definition, error) {
	t.Helper()
	p, err := Load(tree{"project.yaml": ":" + text}.folder(t))
	if err != nil {
		return nil, err
	}
	return p.Task("t")
}
