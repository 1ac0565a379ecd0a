package projects

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/grid"
)

// runGit runs git in a folder, without this machine's settings.
func runGit(t reporter, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git",
		append([]string{"-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main", "-c",
			"protocol.file.allow=always"}, args...)...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatal("git ", strings.Join(args, " "), ": ", err, "\n", string(out))
	}
	return string(out)
}

// listed returns the names of the files and links that travel, and what is left out with the
// reasons.
func listed(t reporter, dir string, o ListOptions) (names []string, left map[string]string) {
	t.Helper()
	f, err := List(dir, o)
	check(t, err)
	left = map[string]string{}
	for _, l := range f.Left {
		left[l.Name] = l.Why
	}
	for i := range f.items {
		if !f.items[i].info.IsDir() {
			names = append(names, f.items[i].name)
		}
	}
	return names, left
}

// TestListAsGit checks that what travels is what git lists, whatever the rules: the files that it
// tracks and those that no rule names, in the whole repository and in each of its folders.
func TestListAsGit(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	dir := newRepository(t)
	exclude := filepath.Join(dir, ".git", "info", "exclude")
	name := rapid.SampledFrom([]string{"a", "b", "c.x", "data", "src", "lib"})
	line := rapid.SampledFrom([]string{"a", "b", "*.x", "data/", "/data", "src/*", "!src/a", "!*.x", "*", "!*/", "!c.x",
		"/*", "!/src", "lib/a", "data/*", "!data/b", "**/a", "src/**", "!a", "[ab]", "!data/", "lib"})
	rapid.Check(t, func(t *rapid.T) {
		var names []string
		for range rapid.IntRange(1, 14).Draw(t, "files") {
			names = append(names, strings.Join(rapid.SliceOfN(name, 1, 4).Draw(t, "name"), "/"))
		}
		names = makeNames(t, dir, names)
		check(t, os.WriteFile(exclude, nil, 0o600))
		check(t, os.RemoveAll(filepath.Join(dir, ".git", "index")))
		folders := []string{"."}
		var tracked []string
		for _, name := range names {
			if folder := filepath.Dir(name); !slices.Contains(folders, folder) {
				folders = append(folders, folder)
			}
			if rapid.IntRange(0, 4).Draw(t, "tracked") == 0 {
				tracked = append(tracked, name)
			}
		}
		if len(tracked) > 0 {
			runGit(t, dir, append([]string{"add", "-f"}, tracked...)...)
		}
		said := ""
		for range rapid.IntRange(1, 3).Draw(t, "rules") {
			at := filepath.Join(dir, rapid.SampledFrom(folders).Draw(t, "place"), ".gitignore")
			if rapid.IntRange(0, 4).Draw(t, "exclude") == 0 {
				at = exclude
			}
			text := strings.Join(rapid.SliceOfN(line, 1, 4).Draw(t, "rules"), "\n") + "\n"
			check(t, os.WriteFile(at, []byte(text), 0o600))
			said += at + ":\n" + text
		}
		for _, folder := range []string{".", rapid.SampledFrom(folders).Draw(t, "project")} {
			at := filepath.Join(dir, folder)
			var want []string
			for name := range strings.SplitSeq(runGit(t, at, "ls-files", "-z", "--cached", "--others",
				"--exclude-standard"), "\x00") {
				if name != "" {
					want = append(want, name)
				}
			}
			slices.Sort(want)
			if len(want) == 0 && folder != "." {
				continue // an ignored folder is listed as a project of its own
			}
			got, _ := listed(t, at, ListOptions{})
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatal("in the folder ", folder, " (-git +got):\n", diff, "tracked: ", tracked, "\n", said)
			}
		}
	})
}

func TestListInRepository(t *testing.T) {
	config := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", config)
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	tree{"git/ignore": ":*.global\n"}.make(t, config, false)
	for _, c := range []struct {
		name    string
		files   tree
		track   string // names that git tracks although they are ignored
		git     bool
		in      string // the folder of the project, if it is not the whole
		include []string
		want    string
		left    map[string]string
	}{
		{name: "tracked", git: true,
			files: tree{".gitignore": ":log*\ndata/\n", "pkg/logging.py": ":", "pkg/log.txt": ":", "data/kept": ":",
				"data/more": ":"}, track: "pkg/logging.py data/kept",
			want: ".gitignore data/kept pkg/logging.py",
			left: map[string]string{"pkg/log.txt": ".gitignore", "data/more": ".gitignore"}},
		{name: "tracked, but named in mlfignore", git: true,
			files: tree{".gitignore": ":data/\n",
				".mlfignore": ":big\n", "data/big": ":", "data/kept": ":", "big": ":"}, track: "data/big data/kept big",
			want: ".gitignore .mlfignore data/kept",
			left: map[string]string{"big": ".mlfignore", "data/big": ".mlfignore"}},
		{name: "nested", files: tree{".gitignore": ":*.log\n", "sub/.gitignore": ":!kept.log\n/data\n",
			"sub/kept.log": ":", "sub/lost.log": ":", "sub/data/x": ":", "sub/more/data/x": ":", "kept.log": ":"},
			want: ".gitignore sub/.gitignore sub/kept.log sub/more/data/x",
			left: map[string]string{"kept.log": ".gitignore", "sub/lost.log": ".gitignore",
				"sub/data/": "sub/.gitignore"}},
		{name: "nested mlfignore", files: tree{"sub/.mlfignore": ":*.bin\n", "sub/a.bin": ":", "a.bin": ":"},
			want: "a.bin sub/.mlfignore", left: map[string]string{"sub/a.bin": "sub/.mlfignore"}},
		{name: "virtual environment of uv",
			files: tree{"main.py": ":", ".venv/.gitignore": ":*", ".venv/bin/python": "-> /usr/bin/python3",
				".venv/pyvenv.cfg": ":"},
			want: "main.py", left: map[string]string{".venv/": ".venv/.gitignore"}},
		{name: "global and private rules", git: true,
			files: tree{"a.global": ":", "b.private": ":", "c": ":", ".git/info/exclude": ":*.private\n"},
			want:  "c", left: map[string]string{"a.global": filepath.Join(config, "git", "ignore"),
				"b.private": ".git/info/exclude"}},
		{name: "no repository, no global rules", files: tree{"a.global": ":", "c": ":"}, want: "a.global c"},
		{name: "rules above the project", git: true, in: "deep/project",
			files: tree{".gitignore": ":*.log\n/deep/project/out\n",
				"deep/project/a.log": ":", "deep/project/out/x": ":", "deep/project/main.py": ":"},
			want: "main.py", left: map[string]string{"a.log": "../../.gitignore", "out/": "../../.gitignore"}},
		{name: "project that its repository ignores", git: true, in: "scratch/p",
			files: tree{".gitignore": ":scratch/\n*.py\n",
				"scratch/p/main.py": ":", "scratch/p/.gitignore": ":x\n", "scratch/p/x": ":"},
			want: ".gitignore main.py", left: map[string]string{"x": ".gitignore"}},
		{name: "include", git: true,
			files: tree{".gitignore": ":data/\n*_pb2.py\n", "data/a/x": ":", "data/b/y": ":", "gen/m_pb2.py": ":",
				"n_pb2.py": ":", "gen/__pycache__/a.pyc": ":"}, include: []string{"data/a", "*_pb2.py"},
			want: ".gitignore data/a/x gen/m_pb2.py n_pb2.py",
			left: map[string]string{"data/b/": ".gitignore", "gen/__pycache__/": ByDefault}},
		{name: "include with stars",
			files:   tree{".gitignore": ":out/\n", "out/deep/a.json": ":", "out/deep/b.bin": ":"},
			include: []string{"out/**/*.json"},
			want:    ".gitignore out/deep/a.json", left: map[string]string{"out/deep/b.bin": ".gitignore"}},
		{name: "include of what never travels", files: tree{"a.pyc": ":", "__pycache__/b.pyc": ":", "main.py": ":"},
			include: []string{"*.pyc"}, want: "__pycache__/b.pyc a.pyc main.py"},
		{name: "by default", files: tree{"sub/.git/config": ":", "__pycache__/a": ":", "sub/b.pyc": ":",
			"main.py": ":"}, want: "main.py",
			left: map[string]string{"sub/.git/": ByDefault, "__pycache__/": ByDefault, "sub/b.pyc": ByDefault}},
		{name: "tracked pyc", git: true, files: tree{"a.pyc": ":", "b.pyc": ":"}, track: "a.pyc", want: "a.pyc",
			left: map[string]string{"b.pyc": ByDefault}},
		{name: "folder emptied by rules", files: tree{".gitignore": ":data/*\n", "data/x": ":"}, want: ".gitignore",
			left: map[string]string{"data/x": ".gitignore"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.git {
				runGit(t, dir, "init", "-q")
				check(t, os.Remove(filepath.Join(dir, ".git", "info", "exclude")))
			}
			c.files.make(t, dir, false)
			if c.track != "" {
				runGit(t, dir, append([]string{"add", "-f"}, strings.Fields(c.track)...)...)
			}
			names, left := listed(t, filepath.Join(dir, c.in), ListOptions{Include: c.include})
			delete(left, ".git/")
			if diff := cmp.Diff(strings.Fields(c.want), names); diff != "" {
				t.Errorf("what travels (-want +got):\n%s", diff)
			}
			if c.left == nil {
				c.left = map[string]string{}
			}
			if diff := cmp.Diff(c.left, left); diff != "" {
				t.Errorf("what is left out (-want +got):\n%s", diff)
			}
		})
	}
}

// TestListSubmodule checks that a repository inside a repository has its own rules and tracked
// files.
func TestListSubmodule(t *testing.T) {
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	module := tree{"m.py": ":", ".gitignore": ":*.o\n/kept\n", "kept": ":"}.folder(t)
	runGit(t, module, "init", "-q")
	runGit(t, module, "add", "-f", ".")
	runGit(t, module, "commit", "-q", "-m", "m")
	dir := tree{"main.py": ":", ".gitignore": ":*.py\n"}.folder(t)
	runGit(t, dir, "init", "-q")
	runGit(t, dir, "submodule", "--quiet", "add", module, "third/module")
	tree{"third/module/x.o": ":", "third/module/new.c": ":"}.make(t, dir, false)
	names, left := listed(t, dir, ListOptions{})
	if diff := cmp.Diff([]string{".gitignore", ".gitmodules", "third/module/.gitignore", "third/module/kept",
		"third/module/m.py", "third/module/new.c"}, names); diff != "" {
		t.Errorf("what travels (-want +got):\n%s", diff)
	}
	want := map[string]string{".git/": ByDefault, "main.py": ".gitignore", "third/module/.git": ByDefault,
		"third/module/x.o": "third/module/.gitignore"}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Errorf("what is left out (-want +got):\n%s", diff)
	}
	names, _ = listed(t, dir, ListOptions{Include: []string{".git"}})
	if !slices.Contains(names, ".git/HEAD") || !slices.Contains(names, "third/module/.git") {
		t.Errorf("with .git included: got %v, want what git keeps as well", names)
	}
}

// TestListShare checks that links that lead outside travel if share names them or their targets.
func TestListShare(t *testing.T) {
	outside := tree{"store/a": ":"}.folder(t)
	store := filepath.Join(outside, "store")
	dir := filepath.Join(outside, "project")
	tree{"main.py": ":", "data": "-> ../store", "deep/more": "-> " + store + "/a",
		"own": "-> main.py"}.make(t, dir, false)
	for _, share := range [][]string{{"data", "more"}, {"data", "deep/**"}, {store}, {"../store"}, {"*", "deep"}} {
		f, err := List(dir, ListOptions{Share: share})
		check(t, err)
		got := map[string]string{}
		for _, l := range f.Links {
			got[l.Path] = l.To
		}
		delete(got, "")
		if diff := cmp.Diff(map[string]string{"data": store, "deep/more": store + "/a"}, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", share, diff)
		}
		if f.Has("data") != true || f.Has("data/a") != true || f.Has("own") != true || f.Has("none") {
			t.Errorf("%v: wrong answers about what travels", share)
		}
	}
	_, err := List(dir, ListOptions{Share: []string{"data"}})
	wantError(t, err, "the link deep/more points to "+store+
		"/a, outside the project; copy what it points to, name the link in share if every node has what it points to, or name it in .mlfignore")
	_, err = List(dir, ListOptions{Share: []string{"/no/such"}})
	wantError(t, err, "share names /no/such, which can't be read: no such file or directory; correct the path")

	// the cluster's nodes may have it
	f, err := List(dir, ListOptions{Share: []string{"/no/such", store}, Cluster: true})
	check(t, err)
	if diff := cmp.Diff(
		[]string{
			"share names /no/such, which this machine can't read (no such file or directory); trials run on nodes that can"},
		f.Notes); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}

	f, err = List(dir, ListOptions{Lenient: true})
	check(t, err)
	if diff := cmp.Diff([]Left{{Name: "data", Why: "a link to outside"}, {Name: "deep/more", Why: "a link to outside"}},
		f.Left); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]grid.Link(nil), f.Links); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
}

// TestListUnmatched checks that patterns that match nothing are reported, unless a setup step may
// still create a match.
func TestListUnmatched(t *testing.T) {
	dir := tree{".gitignore": ":gen/\nbig.bin\n",
		"main.py": ":", "data/a": ":", "gen/b": ":", "big.bin": ":", "link": "-> /mnt/store"}.folder(t)
	for _, c := range []struct {
		include, share []string
		setup          bool
		want           []string
	}{
		{include: []string{"gen", "gen/b", "big.*"}, share: []string{"data/**", "data", "link", "main.py"}},
		{include: []string{"gen/c", "/b"}, share: []string{"link", "dat/**"},
			want: []string{`include has "gen/c"`, `include has "/b"`, `share has "dat/**"`}},
		{include: []string{"main.py/"}, share: []string{"link", "venv"}, setup: true,
			want: []string{`include has "main.py/"`}},
	} {
		f, err := List(dir, ListOptions{Include: c.include, Share: c.share, Setup: c.setup})
		check(t, err)
		for i := range c.want {
			c.want[i] += ", which matches no file of the project"
		}
		if diff := cmp.Diff(c.want, f.Notes); diff != "" {
			t.Errorf("include %q, share %q (-want +got):\n%s", c.include, c.share, diff)
		}
	}
}
