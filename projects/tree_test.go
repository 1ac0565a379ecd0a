package projects

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tree is a folder's content by name: "dir", "-> target" for a link, "x:content" for a program,
// ":content" for other files.
type tree map[string]string

// reporter has the methods that *testing.T and *rapid.T share.
type reporter interface {
	Helper()
	Fatal(args ...any)
}

func check(t reporter, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantError fails unless err has exactly this message.
func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("got no error, want %q", want)
	}
	if got := err.Error(); got != want {
		t.Fatalf("wrong error\ngot  %s\nwant %s", got, want)
	}
}

// make writes the tree into dir, in the order of names or in reverse.
func (tr tree) make(t reporter, dir string, backwards bool) {
	t.Helper()
	names := make([]string, 0, len(tr))
	for name := range tr {
		names = append(names, name)
	}
	slices.Sort(names)
	if backwards {
		slices.Reverse(names)
	}
	for _, name := range names {
		path, what := filepath.Join(dir, name), tr[name]
		check(t, os.MkdirAll(filepath.Dir(path), 0o777))
		if target, ok := strings.CutPrefix(what, "-> "); ok {
			check(t, os.Symlink(target, path))
		} else if what == "dir" {
			check(t, os.MkdirAll(path, 0o777))
		} else if text, ok := strings.CutPrefix(what, "x:"); ok {
			check(t, os.WriteFile(path, []byte(text), 0o777))
		} else {
			check(t, os.WriteFile(path, []byte(what[1:]), 0o666))
		}
	}
}

// folder creates a temporary folder with the tree.
func (tr tree) folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	tr.make(t, dir, false)
	return dir
}

// unpack unpacks a bundle.
func unpack(bundle []byte, dir string) error {
	_, err := Unpack(bytes.NewReader(bundle), dir)
	return err
}

// readTree is the inverse of make.
func readTree(t reporter, dir string) tree {
	t.Helper()
	tr := tree{}
	check(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		tr[name], err = describe(path, d)
		return err
	}))
	return tr
}

func describe(path string, d fs.DirEntry) (string, error) {
	info, err := d.Info()
	switch {
	case err != nil:
		return "", err
	case info.IsDir():
		return "dir", nil
	case info.Mode().Type() == fs.ModeSymlink:
		target, err := os.Readlink(path)
		return "-> " + target, err
	case !info.Mode().IsRegular():
		return info.Mode().Type().String(), nil
	}
	text, err := os.ReadFile(path)
	if info.Mode()&0o111 != 0 {
		return "x:" + string(text), err
	}
	return ":" + string(text), err
}
