package projects

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPackMissingFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	_, err := Pack(dir, io.Discard, DefaultBundleLimit)
	wantError(t, err, dir+" can't be read: no such file or directory")
}

func TestPackRefuses(t *testing.T) {
	link := func(target string) func(string) error {
		return func(path string) error { return os.Symlink(target, path) }
	}
	file := func(path string) error { return os.WriteFile(path, nil, 0o600) }
	for _, c := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"abs", link("/etc/passwd"),
			"the link abs points to /etc/passwd, outside the project; copy what it points to, name the link in share if every node has what it points to, or name it in .mlfignore"},
		{"up", link("../up"), "the link up points to ../up, outside the project; copy what it points to, name the link in share if every node has what it points to, or name it in .mlfignore"},
		{"sub/up", link("../../x"),
			"the link sub/up points to ../../x, outside the project; copy what it points to, name the link in share if every node has what it points to, or name it in .mlfignore"},
		{"round", link("sub/../x"),
			"the link round points to sub/../x, and what '..' means there depends on the links before it; write it without '..', or name it in .mlfignore"},
		{"a\xffb", file,
			`the file name "a\xffb" has characters that not every machine supports; rename it, or name it in .mlfignore`},
		{"a\nb", file,
			`the file name "a\nb" has characters that not every machine supports; rename it, or name it in .mlfignore`},
		{`a\b`, file,
			`the file name "a\\b" has characters that not every machine supports; rename it, or name it in .mlfignore`},
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
			// no pattern matches a line end
			if _, err := Pack(dir, io.Discard, DefaultBundleLimit); err != nil && !strings.Contains(c.name, "\n") {
				t.Errorf("named in .mlfignore: got %v, want it left out", err)
			}
		})
	}
}

func TestPackRefusesIgnoreFile(t *testing.T) {
	dir := tree{"main.py": ":", ".mlfignore": "dir"}.folder(t)
	_, err := Pack(dir, io.Discard, DefaultBundleLimit)
	wantError(t, err, ".mlfignore can't be read: it is not a regular file")

	pipe := tree{"main.py": ":"}.folder(t)
	check(t, syscall.Mkfifo(filepath.Join(pipe, ".gitignore"), 0o600))
	_, err = Pack(pipe, io.Discard, DefaultBundleLimit)
	wantError(t, err, ".gitignore can't be read: it is not a regular file")
}

const tooLarge = "name what trials don't need in .mlfignore, or keep large data outside of the folder and name its path under share in project.yaml"

func TestPackSizeLimit(t *testing.T) {
	dir := tree{"a": ":" + strings.Repeat("a", 3<<10), "b/big": ":" + strings.Repeat("b", 9<<10),
		"c": ":" + strings.Repeat("c", 2<<10),
		"d": ":d", ".mlfignore": ":skipped\n", "skipped": ":" + strings.Repeat("s", 1<<20)}.folder(t)
	size := int64(3<<10 + 9<<10 + 2<<10 + 1 + len("skipped\n"))
	if _, err := Pack(dir, io.Discard, size); err != nil {
		t.Errorf("exactly at the limit: got %v, want no error", err)
	}
	var b bytes.Buffer
	_, err := Pack(dir, &b, size-1)
	wantError(t, err,
		"the project's files are 14345 bytes, the limit is 14344 bytes; the largest are b/big (9.0 KiB), a (3.0 KiB), c (2.0 KiB); "+tooLarge)
	if b.Len() > 0 {
		t.Errorf("got %d bytes of a bundle, want none", b.Len())
	}
	_, err = Pack(tree{"one": ":12"}.folder(t), io.Discard, 1)
	wantError(t, err, "the project's files are 2 B, the limit is 1 B; the largest are one (2 B); "+tooLarge)
}

// TestPackWhileFilesChange checks that a file that changes after it was listed is packed as it is
// when its turn comes.
func TestPackWhileFilesChange(t *testing.T) {
	noise := make([]byte, 6<<20) // more than the packer buffers, so that the change comes between listing and reading
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(noise)
	for _, c := range []struct {
		name   string
		change func(path string) error
		want   string // of the file; empty when it is left out
		note   string
	}{
		{"vanishes", os.Remove, "", "victim was removed while the folder was packed and is left out"},
		{"grows", func(path string) error { return os.WriteFile(path, []byte("before and after"), 0o600) },
			":before and after", ""},
		{"shrinks", func(path string) error { return os.Truncate(path, 1) }, ":b", ""},
		{"is replaced", func(path string) error {
			return replace(path, os.WriteFile(path+".new", []byte("new"), 0o600))
		}, ":new", ""},
		{"becomes a folder", func(path string) error { return replace(path, os.Mkdir(path+".new", 0o700)) }, "",
			"victim was replaced while the folder was packed and is left out"},
		{"becomes a pipe", func(path string) error { return replace(path, syscall.Mkfifo(path+".new", 0o600)) }, "",
			"victim was replaced while the folder was packed and is left out"},
		{"becomes a link", func(path string) error { return replace(path, os.Symlink("/etc/passwd", path+".new")) }, "",
			"victim was removed while the folder was packed and is left out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree{"early": ":" + string(noise), "victim": ":before"}.folder(t)
			f, err := List(dir, ListOptions{})
			check(t, err)
			var bundle bytes.Buffer
			w := &trigger{w: &bundle, do: func() error { return c.change(filepath.Join(dir, "victim")) }}
			_, err = f.Pack(w, DefaultBundleLimit)
			check(t, err)
			if !w.done {
				t.Fatal("nothing was written before the end, so the change came too late")
			}
			out := t.TempDir()
			check(t, unpack(bundle.Bytes(), out))
			if got := readTree(t, out)["victim"]; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got := strings.Join(f.Notes, "\n"); got != c.note {
				t.Errorf("got the notes %q, want %q", got, c.note)
			}
		})
	}
}

// TestPackWhileFilesGrow checks that a log to which another run keeps writing is packed up to some
// point.
func TestPackWhileFilesGrow(t *testing.T) {
	for name, size := range map[string]int{"small log": 1000, "large log": 20 << 20} {
		t.Run(name, func(t *testing.T) {
			dir := tree{"file": ":" + strings.Repeat("0123456789", size/10)}.folder(t)
			log, err := os.OpenFile(filepath.Join(dir, "file"), os.O_WRONLY|os.O_APPEND, 0)
			check(t, err)
			stop, stopped := make(chan struct{}), make(chan error)
			go func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						stopped <- log.Close()
						return
					default:
						fmt.Fprintf(log, "%09d\n", i)
					}
				}
			}()
			var bundle bytes.Buffer
			_, err = Pack(dir, &bundle, DefaultBundleLimit)
			close(stop)
			check(t, <-stopped)
			check(t, err)
			out := t.TempDir()
			check(t, unpack(bundle.Bytes(), out))
			now, err := os.ReadFile(filepath.Join(dir, "file"))
			check(t, err)
			got, err := os.ReadFile(filepath.Join(out, "file"))
			check(t, err)
			if len(got) < size/10*10 || !bytes.HasPrefix(now, got) {
				t.Errorf("got %d bytes, want a beginning of the file", len(got))
			}
		})
	}
}

// TestPackRefusesFileThatChanges checks that a large file is refused if its beginning is written
// while it is read, since the copy would be torn.
func TestPackRefusesFileThatChanges(t *testing.T) {
	noise := make([]byte, 20<<20)
	rng := rand.NewChaCha8([32]byte{1})
	rng.Read(noise)
	dir := tree{"file": ":" + string(noise)}.folder(t)
	file, err := os.OpenFile(filepath.Join(dir, "file"), os.O_WRONLY, 0)
	check(t, err)
	defer file.Close()
	_, err = Pack(dir, &trigger{w: io.Discard, do: func() error { _, err := file.Write([]byte("new")); return err }},
		DefaultBundleLimit)
	wantError(t, err, "file keeps changing while the folder is packed; name it in .mlfignore if trials don't need it, or stop the program that writes it")
}

// TestPackLeavesOddFiles checks that anything other than a file, folder or link is left out and is
// no reason for a refusal.
func TestPackLeavesOddFiles(t *testing.T) {
	device := func(mode uint32, dev int) func(string) error {
		return func(path string) error { return syscall.Mknod(path, mode|0o600, dev) }
	}
	for _, c := range []struct {
		name string
		make func(path string) error
		want string
	}{
		{"pipe", func(path string) error { return syscall.Mkfifo(path, 0o600) }, "a pipe"},
		{"socket", device(syscall.S_IFSOCK, 0), "a socket"},
		{"null", device(syscall.S_IFCHR, 1<<8|3), "a device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree{"main.py": ":", "sub": "dir"}.folder(t)
			if err := c.make(filepath.Join(dir, "sub", c.name)); err != nil {
				t.Skipf("this machine can't make it: %v", err)
			}
			f, err := List(dir, ListOptions{})
			check(t, err)
			if diff := cmp.Diff([]Left{{Name: "sub/" + c.name, Why: c.want}}, f.Left); diff != "" {
				t.Errorf("what is left out (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tree{"main.py": ":", "sub": "dir"}, packed(t, dir)); diff != "" {
				t.Errorf("wrong content (-want +got):\n%s", diff)
			}
		})
	}
}

// replace moves what was created at path+".new" to path.
func replace(path string, err error) error {
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// trigger calls a function at the first write.
type trigger struct {
	w    io.Writer
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
	return w.w.Write(p)
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
