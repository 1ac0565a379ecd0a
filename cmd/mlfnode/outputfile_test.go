package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"mlfnode/grid/gridtest"
	"mlfnode/node/durable"
)

// written writes a text to an output at the path.
func written(path, text string) error {
	out, err := openOutputFile(io.Discard, path)
	if err != nil {
		return err
	}
	defer out.discard()
	if _, err := io.WriteString(out, text); err != nil {
		return err
	}
	return out.commit()
}

// TestOutputIsWhatItWas writes to a file, to links and to a pipe, which are after it what they were
// before.
func TestOutputIsWhatItWas(t *testing.T) {
	dir := t.TempDir()
	target, link, pipe := filepath.Join(dir, "target"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(target, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", link); err != nil {
		t.Fatal(err)
	}
	if err := written(link, "new"); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(target); err != nil || string(b) != "new" {
		t.Errorf("through a link: got %q, %v, want the new text", b, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("got %v, %v, want the link", info, err)
	}
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	end, err := os.OpenFile(pipe, os.O_RDWR, 0) // a pipe holds the little that is written
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	if err := written(pipe, "piped"); err != nil {
		t.Error(err)
	}
	got := make([]byte, len("piped"))
	if info, err := os.Lstat(pipe); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("got %v, %v, want the pipe", info, err)
	} else if _, err := io.ReadFull(end, got); err != nil || string(got) != "piped" {
		t.Errorf("through a pipe: got %q, %v", got, err)
	}
	if err := written(os.DevNull, "x"); err != nil {
		t.Error(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{dir: "is a folder",
		filepath.Join(dir, "dangling"):   "/dangling is a link to a file that does not exist",
		filepath.Join(dir, "no", "file"): "can't be written"} {
		if err := written(path, "x"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", path, err, want)
		}
	}
}

// TestOutputAfterAKill has parts of processes that are gone removed, and none of one that is there
// or of another file.
func TestOutputAfterAKill(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "b"), durable.PartPrefix+"b-2-345"
	for _, name := range []string{durable.PartPrefix + "b-123", other} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, err := openOutputFile(io.Discard, path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.discard()
	if err := written(path, "second"); err != nil {
		t.Fatal(err)
	}
	if err := first.commit(); err != nil {
		t.Errorf("a second output has taken the part of the first: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, []string{other, "b"}) {
		t.Errorf("got %q in the folder, want the part of the other file and the file", names)
	}
}

// TestOutputsAtOnce begins many outputs to one file at the same time: none loses its part to
// another one.
func TestOutputsAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "b")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if err := written(path, "whole"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if b, err := os.ReadFile(path); err != nil || string(b) != "whole" {
		t.Errorf("got %q, %v", b, err)
	}
}

// TestOutputOnAFullDisk says which file can't be written, and to choose another.
func TestOutputOnAFullDisk(t *testing.T) {
	disk := gridtest.SmallDisk(t, "1m", unix.MNT_DETACH)
	fill(t, disk)
	path := filepath.Join(disk, "backup")
	err := written(path, strings.Repeat("x", 1<<16))
	if err == nil {
		t.Fatal("got no error on a full disk")
	}
	if f := asFailure(err); !strings.HasPrefix(f.msg, path+" can't be written: no space left") ||
		strings.Contains(f.hint, "--state-dir") || !strings.Contains(f.hint, "another file") {
		t.Errorf("got %q, try %q", f.msg, f.hint)
	}
	if left, err := filepath.Glob(filepath.Join(disk, durable.PartPrefix+"*")); err != nil || len(left) > 0 {
		t.Errorf("got %q left, %v", left, err)
	}
}
