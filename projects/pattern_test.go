package projects

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// makeNames creates files and folders with these names; a folder's name ends with a slash. It
// returns those that could be created: a name may need a folder where a file already exists.
func makeNames(t reporter, dir string, names []string) (made []string) {
	t.Helper()
	old, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range old {
		if e.Name() != ".git" {
			check(t, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	for _, name := range names {
		at := filepath.Join(dir, name)
		if os.MkdirAll(filepath.Dir(at), 0o700) != nil {
			continue
		}
		if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(at, 0o700)
		} else {
			err = os.WriteFile(at, nil, 0o600)
		}
		if err == nil {
			made = append(made, name)
		}
	}
	return made
}

// gitIgnores asks git which of the files and folders the rules ignore.
func gitIgnores(t reporter, repository, rules string, names []string) map[string]bool {
	t.Helper()
	check(t, os.WriteFile(filepath.Join(repository, ".gitignore"), []byte(rules), 0o600))
	cmd := exec.Command("git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index",
		"--stdin", "-z", "-v", "-n")
	cmd.Dir = repository
	cmd.Stdin = strings.NewReader(strings.ReplaceAll(strings.Join(names, "\x00")+"\x00", "/\x00", "\x00"))
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok && exit.ExitCode() == 1 {
		err = nil // none is ignored
	}
	check(t, err)
	ignored := map[string]bool{}
	fields := bytes.Split(out, []byte{0})
	for i := 0; i+3 < len(fields); i += 4 { // file, line, pattern, name
		ignored[string(fields[i+3])] = len(fields[i+2]) > 0 && fields[i+2][0] != '!'
	}
	return ignored
}

// ignores is the matcher's verdict on a name and the folders that contain it.
func ignores(rules []pattern, name string) bool {
	folder := strings.HasSuffix(name, "/")
	name = strings.TrimSuffix(name, "/")
	for i := range len(name) {
		if name[i] == '/' {
			if p := lastMatch(rules, name[:i], true); p != nil && !p.negative {
				return true
			}
		}
	}
	p := lastMatch(rules, name, folder)
	return p != nil && !p.negative
}

func newRepository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", dir).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v\n%s", err, out)
	}
	return dir
}

func sameAsGit(t reporter, repository, rules string, names []string) {
	t.Helper()
	want := gitIgnores(t, repository, rules, names)
	parsed := parseIgnore([]byte(rules))
	if len(want) == 0 {
		t.Fatal("git says nothing")
	}
	for _, name := range names {
		if got, want := ignores(parsed, name), want[strings.TrimSuffix(name, "/")]; got != want {
			t.Fatal("rules ", rules, "\nname ", name, "\ngot ignored = ", got, ", git says ", want)
		}
	}
}

// TestPatternsAsGit tests patterns as people write them.
func TestPatternsAsGit(t *testing.T) {
	repository := newRepository(t)
	names := strings.Fields(`a a/ a/b a/b/ a/b/c main.py src/ src/main.py src/lib/ src/lib/config/ src/lib/config/c.py lib/config/x lib/config/
		data/ data/raw data/raw/ data/raw/x.csv src/data/raw/reader.py run1.out run-.out runx.out file1.txt file.txt file12.txt c++ c++/x cx
		we$ird (1).csv Copy foo.o foo.O .env .venv/ .venv/bin/python build/x/y/z/w.o x/build/y .hidden/.x a.b.c [a] [ab] !x #x - a-b ]x \\x
		logs/ logs/a.log logs/debug/a.log x/logs/a.log doc/frotz doc/frotz/ x/doc/frotz/ foo/bar/baz foo/x/bar foobar foo**bar axxb a/x/y/b trailing`)
	names = append(names, "Copy (1).csv", "trailing ", "trail  ing", "with space/x y", " lead",
		"tab\t", "ü", "src/ü/x", "a\\b")
	names = makeNames(t, repository, names)
	for _, rules := range []string{
		"lib/config/", "data/raw", "/*\n!/main.py\n!/src/", "*\n!*/\n!*.py", "data/*\n!data/raw", "run[!0-9].out",
		"run[^0-9].out", "file?.txt",
		"c++", "Copy (1).csv", "we$ird", "*.csv\n!Copy*", "[Cc]opy*", "a/**", "a/**/b", "**/b", "**/config", "/**/c.py",
		"**", "*", "/", "//", "!", "!/",
		"a/", "/a", "/a/", "a/b/", "src/**/*.py", "src/*.py", "foo/**/bar", "foo**bar", "foo/**bar", "fo**/bar",
		"a/x**/b", "trailing\\ ", "trailing ",
		"trail\\ \\ ing", "with space/", " lead", "tab\t", "\\#x", "\\!x", "#x", "!x", "*.log\n!a.log",
		"logs\n!logs/a.log", "logs/*\n!logs/debug/",
		"[a]", "[[]a]", "\\[a\\]", "[]]x", "[]-a]*", "[a-]*", "[!a-c]*",
		"[\\]]x", "[[:alpha:]]", "[[:digit:]]*", "[[:nothing:]]", "[[:alpha:", "[a", "a\\",
		"*.[oO]", "f*o.?", "?", "??", "*/", "*/*", "*/*/", "/*/*", "**/", "**/*", "/**", "a/**/", "a/*/c", ".*", ".*/",
		"*.*.*", "a\\b", "a\\\\b", "\\a", "ü", "?\xc3", "\xef\xbb\xbfa",
		"a\r\nsrc\r", "  ", "\t", "*.py[cod]", "/src/lib\n!/src/lib/config",
		"src/lib/*\n!src/lib/config/\nsrc/lib/config/*\n!src/lib/config/c.py", "-", "a-b", "[a-b-c]*", "[b-a]*",
		"***", "a/***", "a/***/c", "**b", "a**",
		"[/]", "a[/]b", "a[!x]b", "a?b", "foo/*bar", "foo[/]bar", "*\\/b", "**\\/b", "a/**\\/c",
	} {
		sameAsGit(t, repository, rules, names)
	}
}

// TestPatternsAsGitRandom tests random patterns and names.
func TestPatternsAsGitRandom(t *testing.T) {
	repository := newRepository(t)
	piece := rapid.SampledFrom([]string{"a", "b", "ab", "c.x", "*", "**", "?", "/", "/", "/", "[ab]", "[!a]", "[a-c]",
		"[[:alpha:]]", "[", "]", "\\", "\\*", "-", "!", "#", " ", ".", "x"})
	part := rapid.SampledFrom([]string{"a", "b", "ab", "ba", "abc", "c.x", "x", ".x", "a b", "*", "-",
		"[", "]", "!a", "aab", "bxa"})
	rapid.Check(t, func(t *rapid.T) {
		var rules strings.Builder
		for range rapid.IntRange(1, 4).Draw(t, "lines") {
			if rapid.IntRange(0, 3).Draw(t, "negative") == 0 {
				rules.WriteByte('!')
			}
			rules.WriteString(strings.Join(rapid.SliceOfN(piece, 1, 6).Draw(t, "pattern"), "") + "\n")
		}
		names := make([]string, 40)
		for i := range names {
			names[i] = strings.Join(rapid.SliceOfN(part, 1, 4).Draw(t, "name"), "/")
			if rapid.Bool().Draw(t, "folder") {
				names[i] += "/"
			}
		}
		sameAsGit(t, repository, rules.String(), makeNames(t, repository, names))
	})
}

// FuzzPattern checks that no pattern and no name takes long or causes a panic.
func FuzzPattern(f *testing.F) {
	for _, seed := range []string{"*.py", "a/**/b", "[!a-z]*", "[[:alpha:]]?", "**/", "\\", "[", "*a*a*a*a*a*a*a*b"} {
		f.Add(seed, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/b")
	}
	f.Fuzz(func(t *testing.T, rules, name string) {
		if len(rules)+len(name) < 4096 {
			ignores(parseIgnore([]byte(rules)), name)
		}
	})
}
