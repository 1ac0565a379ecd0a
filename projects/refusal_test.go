package projects

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPackMissingFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	_, err := Pack(dir, io.Discard, DefaultBundleLimit)
	wantError(t, err, dir+" can't be read: no such file or directory")
}

func TestPackRefuses(t *testing.T) {
	device := func(mode uint32, dev int) func(string) error {
		return func(path string) error { return syscall.Mknod(path, mode|0o600, dev) }
	}
	link := func(target string) func(string) error {
		return func(path string) error { return os.Symlink(target, path) }
	}
	file := func(path string) error { return os.WriteFile(path, nil, 0o600) }
	for _, c := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"abs", link("/etc/passwd"), "the link abs points to /etc/passwd, outside the project; copy what it points to, or name it in .mlfignore"},
		{"up", link("../up"), "the link up points to ../up, outside the project; copy what it points to, or name it in .mlfignore"},
		{"sub/up", link("../../x"), "the link sub/up points to ../../x, outside the project; copy what it points to, or name it in .mlfignore"},
		{"round", link("sub/../x"), "the link round points to sub/../x, and what '..' means there depends on the links before it; write it without, or name it in .mlfignore"},
		{"pipe", func(path string) error { return syscall.Mkfifo(path, 0o600) }, "pipe is no file, folder or link and can't be packed; name it in .mlfignore"},
		{"socket", device(syscall.S_IFSOCK, 0), "socket is no file, folder or link and can't be packed; name it in .mlfignore"},
		{"null", device(syscall.S_IFCHR, 1<<8|3), "null is no file, folder or link and can't be packed; name it in .mlfignore"},
		{"a\xffb", file, `the file name "a\xffb" has characters that not every machine can hold; rename it, or name it in .mlfignore`},
		{"a\nb", file, `the file name "a\nb" has characters that not every machine can hold; rename it, or name it in .mlfignore`},
		{`a\b`, file, `the file name "a\\b" has characters that not every machine can hold; rename it, or name it in .mlfignore`},
	} {
		t.Run(strings.ToValidUTF8(c.name, "?"), func(t *testing.T) {
			dir := tree{"main.py": ":", "sub": "dir"}.folder(t)
			if err := c.make(filepath.Join(dir, c.name)); err != nil {
				t.Skipf("this machine can't make it: %v", err)
			}
			var b bytes.Buffer
			_, err := Pack(dir, &b, DefaultBundleLimit)
			wantError(t, err, c.want)
			if b.Len() > 0 {
				t.Errorf("got %d bytes of a bundle, want none", b.Len())
			}
			check(t, os.WriteFile(filepath.Join(dir, ".mlfignore"), []byte("*\n"), 0o600))
			if _, err := Pack(dir, io.Discard, DefaultBundleLimit); err != nil && !strings.Contains(c.name, "\n") { // no pattern matches a line end
				t.Errorf("named in .mlfignore: got %v, want it left out", err)
			}
		})
	}
}

func TestPackRefusesIgnoreFile(t *testing.T) {
	dir := tree{"main.py": ":", ".mlfignore": "dir"}.folder(t)
	_, err := Pack(dir, io.Discard, DefaultBundleLimit)
	wantError(t, err, ".mlfignore can't be read: it is no regular file")

	pipe := tree{"main.py": ":"}.folder(t)
	check(t, syscall.Mkfifo(filepath.Join(pipe, ".gitignore"), 0o600))
	_, err = Pack(pipe, io.Discard, DefaultBundleLimit)
	wantError(t, err, ".gitignore can't be read: it is no regular file")
}

func TestPackSizeLimit(t *testing.T) {
	dir := tree{"a": ":" + strings.Repeat("a", 3<<10), "b/big": ":" + strings.Repeat("b", 9<<10), "c": ":" + strings.Repeat("c", 2<<10),
		"d": ":d", ".mlfignore": ":skipped\n", "skipped": ":" + strings.Repeat("s", 1<<20)}.folder(t)
	size := int64(3<<10 + 9<<10 + 2<<10 + 1 + len("skipped\n"))
	if _, err := Pack(dir, io.Discard, size); err != nil {
		t.Errorf("exactly at the limit: got %v, want no error", err)
	}
	var b bytes.Buffer
	_, err := Pack(dir, &b, size-1)
	wantError(t, err, "the project's files are 14345 bytes, the limit is 14344 bytes; the largest are b/big (9.0 KiB), a (3.0 KiB), c (2.0 KiB); name what trials don't need in .mlfignore")
	if b.Len() > 0 {
		t.Errorf("got %d bytes of a bundle, want none", b.Len())
	}
	_, err = Pack(tree{"one": ":12"}.folder(t), io.Discard, 1)
	wantError(t, err, "the project's files are 2 B, the limit is 1 B; the largest are one (2 B); name what trials don't need in .mlfignore")
}

// A file that does not stay as it was listed would give a torn bundle.
func TestPackWhileFilesChange(t *testing.T) {
	noise := make([]byte, 4<<20) // more than the packer buffers, so that the change comes between listing and reading
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(noise)
	const changed = "victim was changed while the project was packed; run the command again"
	for _, c := range []struct {
		name   string
		change func(path string) error
		want   string
	}{
		{"vanishes", os.Remove, "victim can't be read: no such file or directory"},
		{"grows", func(path string) error { return os.WriteFile(path, []byte("before and after"), 0o600) }, changed},
		{"shrinks", func(path string) error { return os.Truncate(path, 1) }, changed},
		{"same size", func(path string) error {
			return os.Chtimes(path, time.Time{}, time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC))
		}, changed},
		{"becomes a folder", func(path string) error { return replace(path, os.Mkdir(path+".new", 0o700)) }, changed},
		{"becomes a pipe", func(path string) error { return replace(path, syscall.Mkfifo(path+".new", 0o600)) }, changed},
		{"becomes a link", func(path string) error { return replace(path, os.Symlink("/etc/passwd", path+".new")) }, changed},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree{"early": ":" + string(noise), "victim": ":before"}.folder(t)
			w := &trigger{do: func() error { return c.change(filepath.Join(dir, "victim")) }}
			_, err := Pack(dir, w, DefaultBundleLimit)
			if !w.done {
				t.Fatal("nothing was written before the end, so the change came too late")
			}
			wantError(t, err, c.want)
		})
	}
}

// replace puts what was made at path+".new" in the place of path.
func replace(path string, err error) error {
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// trigger does something at the first write.
type trigger struct {
	do   func() error
	done bool
}

func (w *trigger) Write(p []byte) (int, error) {
	if !w.done {
		w.done = true
		if err := w.do(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func TestPackFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	_, err = Pack(tree{"main.py": ":print(1)\n"}.folder(t), full, DefaultBundleLimit)
	wantError(t, err, "write bundle: write /dev/full: no space left on device")
}
