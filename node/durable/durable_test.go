package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"mlfnode/node/durable"
)

func TestWriteFile(t *testing.T) { testReplacement(t, durable.WriteFile) }

func TestReplaceFile(t *testing.T) { testReplacement(t, durable.ReplaceFile) }

func testReplacement(t *testing.T, write func(path string, content []byte, mode fs.FileMode) error) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	defer syscall.Umask(syscall.Umask(0o077))
	for content, mode := range map[string]fs.FileMode{"long content": 0o755, "": 0o600, "short": 0o644} {
		if err := write(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, statErr := os.Stat(path)
		if err = errors.Join(err, statErr); err != nil || string(got) != content || info.Mode().Perm() != mode {
			t.Errorf("got %q, %v, %v, want %q, %v", got, info, err, content, mode)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v in the folder, want the file alone", entries, err)
	}
}

// TestFailedWriteLeavesNothing makes the last step fail: the temporary file is gone, and what was
// there is unchanged.
func TestFailedWriteLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(path, []byte("x"), 0o600); err == nil {
		t.Error("got no error for a file in the place of a folder")
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || !entries[0].IsDir() {
		t.Errorf("got %v, %v in the folder, want what was there", entries, err)
	}
	if err := durable.WriteFile(filepath.Join(dir, "none", "file"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v without a folder, want fs.ErrNotExist", err)
	}
}

func TestClean(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"file", durable.PartPrefix + "file-1", durable.PartPrefix + "other-22"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.Clean(dir); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "file" {
		t.Errorf("got %v, %v in the folder, want the file alone", entries, err)
	}
}

func TestRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // what is gone stays so
		if err := durable.Remove(path); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got %v, want that it is gone", err)
		}
	}
}
