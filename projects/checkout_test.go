package projects

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mlfnode/grid"
)

// TestCheckout inspects a folder before the first commit, after it, with changes of each kind, and
// with no branch checked out.
func TestCheckout(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "exp")
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string, want *grid.Checkout) {
		t.Helper()
		if diff := cmp.Diff(want, Checkout(t.Context(), dir)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	write("exp/a.py", "1\n")
	write("exp/old.py", "a file\nof several\nlines that moves\n")
	write("exp/gone.py", "2\n")
	write("other/b.py", "3\n")
	check("without git", nil)
	runGit(t, top, "init", "-q")
	check("before the first commit", &grid.Checkout{Branch: "main", Changed: []string{"?? exp/"}})
	runGit(t, top, "add", ".")
	runGit(t, top, "commit", "-q", "-m", "first")
	commit, err := git(top, "rev-parse", "HEAD")
	if err != nil {
		t.Fatal(err)
	}
	commit = commit[:40]
	check("as committed", &grid.Checkout{Commit: commit, Branch: "main"})
	write("exp/a.py", "changed\n")
	write("exp/new file.py", "4\n")
	write("other/b.py", "changed, and no part of the project\n")
	runGit(t, top, "mv", "exp/old.py", "exp/moved.py")
	if err := os.Remove(filepath.Join(dir, "gone.py")); err != nil {
		t.Fatal(err)
	}
	changed := []string{"M exp/a.py", "D exp/gone.py", "R exp/moved.py", "?? exp/new file.py"}
	check("changed", &grid.Checkout{Commit: commit, Branch: "main", Changed: changed})
	runGit(t, top, "checkout", "-q", "--detach")
	check("on no branch", &grid.Checkout{Commit: commit, Changed: changed})
}

// TestCheckoutWithoutAnswer checks that Checkout gives up on a git that does not answer.
func TestCheckoutWithoutAnswer(t *testing.T) {
	dir := t.TempDir()
	runGit(t, dir, "init", "-q")
	runGit(t, dir, "config", "filter.slow.clean", "exec sleep 600")
	for name, text := range map[string]string{".gitattributes": "*.bin filter=slow\n", "a.bin": "1"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	runGit(t, dir, "-c", "filter.slow.clean=cat", "add", ".")
	if err := os.WriteFile(filepath.Join(dir, "a.bin"), []byte("2"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := Checkout(t.Context(), dir); got != nil {
		t.Errorf("got %+v, want nil", got)
	}
}
