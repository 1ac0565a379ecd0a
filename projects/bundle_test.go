package projects

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// pack returns the bundle of a folder and its digest.
func pack(t reporter, dir string) ([]byte, string) {
	t.Helper()
	var b bytes.Buffer
	digest, err := Pack(dir, &b, DefaultBundleLimit)
	check(t, err)
	return b.Bytes(), digest
}

// packed returns the tree that unpacking the folder's bundle produces.
func packed(t *testing.T, dir string) tree {
	t.Helper()
	bundle, _ := pack(t, dir)
	out := t.TempDir()
	check(t, unpack(bundle, out))
	return readTree(t, out)
}

// aged sets the times of everything in a folder.
func aged(t reporter, dir string, at time.Time) {
	t.Helper()
	check(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		at = at.Add(1234567891) // each has its own
		return SetTime(path, at)
	}))
}

func TestPackDeterministic(t *testing.T) {
	content := tree{"main.py": ":print(1)\n", "run.sh": "x:#!/bin/sh\n",
		"data/a": ":1", "data/b": ":2", "empty": "dir", "last": "-> data/a"}
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	past := time.Date(1999, 12, 31, 23, 59, 58, 123456789, time.UTC)
	first := content.folder(t)
	aged(t, first, past)
	one, digest := pack(t, first)
	// The digest is a constant here so that a new version of a library that packs differently does
	// not go unnoticed: every project would then be stored and unpacked again.
	if want := "cdb896a3ccc3ff6642a2e8d6c769f45a019c8eb46ae1e2e4ff98968895217e24"; digest != want {
		t.Errorf("got digest %s, want %s", digest, want)
	}
	dir := t.TempDir()
	content.make(t, dir, true)
	aged(t, dir, past)
	two, again := pack(t, dir)
	if again != digest || !bytes.Equal(one, two) {
		t.Errorf("the same files, written in another order, gave %s, want %s", again, digest)
	}

	// Apart from the times, a new checkout is the same.
	aged(t, dir, past.Add(time.Hour))
	three, other := pack(t, dir)
	if other == digest {
		t.Error("other times gave the same digest")
	}
	before, err := Unpack(bytes.NewReader(one), t.TempDir())
	check(t, err)
	after, err := Unpack(bytes.NewReader(three), t.TempDir())
	check(t, err)
	if before != after {
		t.Errorf("digest of the contents: got %s and %s for files that differ in times only", before, after)
	}
}

func TestPackDigestFollowsContent(t *testing.T) {
	content := tree{"main.py": ":print(1)\n", "sub": "dir", "last": "-> main.py"}
	at := time.Unix(1e9, 0)
	digests := func(tr tree) (string, string) {
		dir := tr.folder(t)
		aged(t, dir, at)
		bundle, digest := pack(t, dir)
		contents, err := Unpack(bytes.NewReader(bundle), t.TempDir())
		check(t, err)
		return digest, contents
	}
	base, contents := digests(content)
	for name, change := range map[string]tree{
		"content":      {"main.py": ":print(2)\n", "sub": "dir", "last": "-> main.py"},
		"mode":         {"main.py": "x:print(1)\n", "sub": "dir", "last": "-> main.py"},
		"name":         {"main2.py": ":print(1)\n", "sub": "dir", "last": "-> main.py"},
		"empty folder": {"main.py": ":print(1)\n", "last": "-> main.py"},
		"link":         {"main.py": ":print(1)\n", "sub": "dir", "last": "-> sub"},
	} {
		if got, inside := digests(change); got == base || inside == contents {
			t.Errorf("another %s gave the same digest", name)
		}
	}
}

// trees draws folders with programs, empty folders, empty files and links that stay inside.
func trees(t *rapid.T) tree {
	name := rapid.StringMatching(`[a-zA-Z0-9 _.+äß-]{1,8}x`)
	tr := tree{}
	under := []string{""}
	for i := range rapid.IntRange(0, 12).Draw(t, "entries") {
		parent := rapid.SampledFrom(under).Draw(t, "parent")
		path := filepath.Join(parent, fmt.Sprintf("%s%d", name.Draw(t, "name"), i))
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			tr[path] = "dir"
			under = append(under, path)
		case 1:
			tr[path] = "x:" + string(rapid.SliceOf(rapid.Byte()).Draw(t, "program"))
		case 2:
			up := strings.Repeat("../", strings.Count(path, "/"))
			tr[path] = "-> " + up + name.Draw(t, "target")
		default:
			tr[path] = ":" + string(rapid.SliceOf(rapid.Byte()).Draw(t, "content"))
		}
	}
	return tr
}

func TestPackUnpackSameTree(t *testing.T) {
	root := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		tr := trees(t)
		from, err := os.MkdirTemp(root, "from")
		check(t, err)
		to, err := os.MkdirTemp(root, "to")
		check(t, err)
		tr.make(t, from, rapid.Bool().Draw(t, "backwards"))
		bundle, digest := pack(t, from)
		check(t, unpack(bundle, to))
		if diff := cmp.Diff(tr, readTree(t, to)); diff != "" {
			t.Fatalf("the tree changed on its way (-want +got):\n%s", diff)
		}
		if _, again := pack(t, to); again != digest {
			t.Fatalf("packed again: got %s, want %s", again, digest)
		}
	})
}

func TestPackIgnore(t *testing.T) {
	for _, c := range []struct {
		name         string
		mlf, git     string
		absent, kept string
	}{
		{name: "always", absent: ".git/config sub/.git/config __pycache__/a sub/__pycache__/b a.pyc sub/b.pyc",
			kept: "main.py sub/main.py gitlike"},
		{name: "gitignore", git: "*.log\nresult/\n", absent: "a.log sub/b.log result/model sub/result/model",
			kept: "main.py result.txt"},
		{name: "mlfignore on top", mlf: "*.tmp\n!b.log\n", git: "*.log\n", absent: "a.tmp a.log",
			kept: "b.log main.py"},
		{name: "negation", mlf: "*.npz\n!small.npz\n", absent: "big.npz sub/big.npz", kept: "small.npz sub/small.npz"},
		{name: "rooted", mlf: "/data\n", absent: "data/a", kept: "sub/data/a"},
		{name: "comment and CRLF", mlf: "# notes\r\n*.log\r\n\r\n", absent: "a.log", kept: "main.py"},
		{name: "double star", mlf: "a/**/z\n", absent: "a/z a/b/z a/b/c/z", kept: "z b/z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := tree{}
			if c.mlf != "" {
				tr[".mlfignore"] = ":" + c.mlf
			}
			if c.git != "" {
				tr[".gitignore"] = ":" + c.git
			}
			for name := range strings.FieldsSeq(c.absent + " " + c.kept) {
				tr[name] = ":"
			}
			got := packed(t, tr.folder(t))
			for name := range strings.FieldsSeq(c.absent) {
				if _, ok := got[name]; ok {
					t.Errorf("%s was packed, want it left out", name)
				}
			}
			for name := range strings.FieldsSeq(c.kept) {
				if _, ok := got[name]; !ok {
					t.Errorf("%s was left out, want it packed", name)
				}
			}
		})
	}
}

// TestPackFolderBehindLink is a regression test: a project reached through a link was once packed
// as an empty bundle.
func TestPackFolderBehindLink(t *testing.T) {
	dir := tree{"main.py": ":print(1)\n"}.folder(t)
	link := filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(dir, link))
	if diff := cmp.Diff(tree{"main.py": ":print(1)\n"}, packed(t, link)); diff != "" {
		t.Errorf("wrong content (-want +got):\n%s", diff)
	}
	_, digest := pack(t, dir)
	if _, got := pack(t, link); got != digest {
		t.Errorf("through the link: got %s, want %s", got, digest)
	}
}

func TestPackExcept(t *testing.T) {
	dir := tree{"main.py": ":", "state/history.db": ":1", "sub/state/kept": ":2", "sub": "dir",
		"sub/state": "dir"}.folder(t)
	var b bytes.Buffer
	_, err := Pack(dir, &b, DefaultBundleLimit, filepath.Join(dir, "state"), filepath.Join(dir, "none"))
	check(t, err)
	out := t.TempDir()
	check(t, unpack(b.Bytes(), out))
	want := tree{"main.py": ":", "sub": "dir", "sub/state": "dir", "sub/state/kept": ":2"}
	if diff := cmp.Diff(want, readTree(t, out)); diff != "" {
		t.Errorf("wrong content (-want +got):\n%s", diff)
	}
}
