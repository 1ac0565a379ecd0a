package projects

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// pack gives the bundle of a folder and its digest.
func pack(t reporter, dir string) ([]byte, string) {
	t.Helper()
	var b bytes.Buffer
	digest, err := Pack(dir, &b, DefaultBundleLimit)
	check(t, err)
	return b.Bytes(), digest
}

// packed is what comes out of a bundle of the folder.
func packed(t *testing.T, dir string) tree {
	t.Helper()
	bundle, _ := pack(t, dir)
	out := t.TempDir()
	check(t, Unpack(bytes.NewReader(bundle), out))
	return readTree(t, out)
}

func TestPackDeterministic(t *testing.T) {
	content := tree{"main.py": ":print(1)\n", "run.sh": "x:#!/bin/sh\n", "data/a": ":1", "data/b": ":2", "empty": "dir", "last": "-> data/a"}
	one, digest := pack(t, content.folder(t))
	// The digest is written down so that a new version of a library that packs otherwise does not go unnoticed: then every
	// project would be stored and unpacked again.
	if want := "d425536f97ce4d96ab0c40d00c7a77e9ed497f2fcd9201a4cb321d02a877d4ef"; digest != want {
		t.Errorf("got digest %s, want %s", digest, want)
	}

	dir := t.TempDir()
	old := syscall.Umask(0o077)
	content.make(t, dir, true)
	syscall.Umask(old)
	past := time.Date(1999, 12, 31, 0, 0, 0, 0, time.UTC)
	check(t, os.Chtimes(filepath.Join(dir, "main.py"), past, past))
	check(t, os.Chtimes(dir, past, past))
	two, again := pack(t, dir)
	if again != digest || !bytes.Equal(one, two) {
		t.Errorf("the same files, written in another order with another umask and time, gave %s, want %s", again, digest)
	}
}

func TestPackDigestFollowsContent(t *testing.T) {
	content := tree{"main.py": ":print(1)\n", "sub": "dir", "last": "-> main.py"}
	_, base := pack(t, content.folder(t))
	for name, change := range map[string]tree{
		"content":      {"main.py": ":print(2)\n", "sub": "dir", "last": "-> main.py"},
		"mode":         {"main.py": "x:print(1)\n", "sub": "dir", "last": "-> main.py"},
		"name":         {"main2.py": ":print(1)\n", "sub": "dir", "last": "-> main.py"},
		"empty folder": {"main.py": ":print(1)\n", "last": "-> main.py"},
		"link":         {"main.py": ":print(1)\n", "sub": "dir", "last": "-> sub"},
	} {
		if _, got := pack(t, change.folder(t)); got == base {
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
		check(t, Unpack(bytes.NewReader(bundle), to))
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
		{name: "always", absent: ".git/config sub/.git/config __pycache__/a sub/__pycache__/b a.pyc sub/b.pyc", kept: "main.py sub/main.py gitlike"},
		{name: "gitignore", git: "*.log\nresult/\n", absent: "a.log sub/b.log result/model sub/result/model", kept: "main.py result.txt"},
		{name: "mlfignore wins", mlf: "*.tmp\n", git: "*.log\n", absent: "a.tmp", kept: "a.log main.py"},
		{name: "empty mlfignore wins", mlf: "\n", git: "*.log\n", kept: "a.log main.py"},
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

// A project that is reached by a link was packed as an empty bundle once.
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
	dir := tree{"main.py": ":", "state/history.db": ":1", "sub/state/kept": ":2", "sub": "dir", "sub/state": "dir"}.folder(t)
	var b bytes.Buffer
	_, err := Pack(dir, &b, DefaultBundleLimit, filepath.Join(dir, "state"), filepath.Join(dir, "none"))
	check(t, err)
	out := t.TempDir()
	check(t, Unpack(&b, out))
	want := tree{"main.py": ":", "sub": "dir", "sub/state": "dir", "sub/state/kept": ":2"}
	if diff := cmp.Diff(want, readTree(t, out)); diff != "" {
		t.Errorf("wrong content (-want +got):\n%s", diff)
	}
}
