package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// badInput is a command line that must be refused with exactly this text, leaving nothing behind.
type badInput struct {
	name  string
	files map[string]string // in the folder where the command runs; a name with a slash at its end is an empty folder
	args  string            // split at blanks; a ~ in it is a blank
	want  string
	code  int // 2 where it is 0
}

func TestBadInput(t *testing.T) {
	t.Setenv("PATH", "/usr/bin:/bin")
	for _, tt := range badInputs() {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, tt.files)
			t.Chdir(dir)
			t.Setenv("HOME", filepath.Join(dir, "home"))
			t.Setenv("XDG_STATE_HOME", filepath.Join(dir, "state"))
			t.Setenv("TMPDIR", t.TempDir())
			t.Setenv("MLF_CPUS", "2")
			t.Setenv("MLF_MEMORY", "1GiB")
			before := listing(t, dir)
			var stdout, stderr bytes.Buffer
			code := run(context.Background(), &interrupts{}, words(tt.args), &stdout, &stderr)
			want := tt.code
			if want == 0 {
				want = exitUsage
			}
			if code != want {
				t.Errorf("got exit code %d, want %d", code, want)
			}
			if got := stderr.String(); got != tt.want {
				t.Errorf("got message\n%s\nwant\n%s", got, tt.want)
			}
			if stdout.Len() > 0 {
				t.Errorf("got output %q, want none", &stdout)
			}
			if diff := cmp.Diff(before, listing(t, dir)); diff != "" {
				t.Errorf("it left something behind:\n%s", diff)
			}
			if left := listing(t, os.Getenv("TMPDIR")); len(left) > 1 {
				t.Errorf("it left temporary files behind: %v", left)
			}
		})
	}
}

func words(line string) []string {
	all := strings.Fields(line)
	for i := range all {
		all[i] = strings.ReplaceAll(all[i], "~", " ")
	}
	return all
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch target, link := strings.CutPrefix(text, "-> "); {
		case err != nil:
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		case link:
			err = os.Symlink(target, path)
		default:
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// listing gives every path under dir.
func listing(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		all = append(all, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
