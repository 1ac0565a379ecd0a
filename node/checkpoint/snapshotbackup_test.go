package checkpoint_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"mlfnode/node/checkpoint"
)

// TestBackup has the store's backup hold all generations of a trial, with what is in them, and
// nothing that is on its way.
func TestBackup(t *testing.T) {
	live, dir, copied := t.TempDir(), t.TempDir(), t.TempDir()
	s := open(t, dir, 1<<30)
	for i, text := range []string{"one", "two"} {
		write(t, live, map[string]string{"step": text, "same": "content"})
		if _, err := saveAs(
			t, s, trial, live, checkpoint.Snapshot{Attempt: i + 1, Resumed: i, Clean: true},
		); err != nil {
			t.Fatal(err)
		}
	}
	part := filepath.Join(dir, string(trial.Sweep), "0", "parts")
	if err := os.MkdirAll(part, 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, part, map[string]string{"on its way": "x"})
	err := s.Backup(func(path string, f *os.File) error {
		content, err := io.ReadAll(f)
		if err == nil {
			write(t, copied, map[string]string{path: string(content)})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if found, _ := filepath.Glob(filepath.Join(copied, "*", "*", "parts", "*")); len(found) != 0 {
		t.Errorf("the backup has %v", found)
	}
	r := open(t, copied, 1<<30)
	if got, want := generations(t, r), generations(t, s); !slices.Equal(got, want) || len(got) != 2 {
		t.Errorf("got the generations %v, want %v, which are two", got, want)
	}
	newest, err := r.Load(t.Context(), trial, generations(t, r)[1])
	if err != nil {
		t.Fatal(err)
	}
	for i := range newest.Files {
		if f := &newest.Files[i]; f.Mode.IsRegular() {
			if err := r.Verify(t.Context(), trial, f.Hash); err != nil {
				t.Errorf("%s: %v", f.Path, err)
			}
		}
	}
}
