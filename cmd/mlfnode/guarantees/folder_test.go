package guarantees

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"mlfnode/cmd/mlfnode/hosts"
	"mlfnode/projects"
)

// show is a Python program that prints its environment, its arguments, and its folder with
// contents, modes and times. The path of the folder itself is a dot.
const show = `import hashlib, json, os, stat, sys
here = os.getcwd()
def one(path):
    s = os.lstat(path)
    if stat.S_ISLNK(s.st_mode):
        to = os.readlink(path)
        inside = os.path.normpath(os.path.join(os.path.dirname(path), to))
        if os.path.isabs(to) or inside.startswith(".."):
            return ["outside", os.path.realpath(path)]
        return ["link", to, s.st_mtime_ns]
    if stat.S_ISREG(s.st_mode):
        with open(path, "rb") as f: text = hashlib.sha256(f.read()).hexdigest()
        return ["file", oct(stat.S_IMODE(s.st_mode)), s.st_mtime_ns, s.st_size, text]
    return ["folder", oct(stat.S_IMODE(s.st_mode)), s.st_mtime_ns]
found = {}
for at, folders, files in os.walk("."):
    for name in folders + files:
        path = os.path.normpath(os.path.join(at, name))
        found[path] = one(path)
told = json.dumps({"argv": sys.argv, "prefix": sys.prefix, "stdin": sys.stdin.read(), "environ": dict(os.environ), "folder": found})
print(told.replace(here, "."))
`

// told is what the program prints.
type told struct {
	Argv    []string          `json:"argv"`
	Prefix  string            `json:"prefix"`
	Stdin   string            `json:"stdin"`
	Environ map[string]string `json:"environ"`
	Folder  map[string][]any  `json:"folder"`
}

// kindOfFolder is one way in which people keep their programs.
type kindOfFolder struct {
	name    string
	files   map[string]string // a name with a slash at its end is a folder; "-> x" a link; "x:" begins a program
	make    string            // shell commands that finish it
	project bool              // swept as a project, whose project.yaml is among the files
	command []string          // by hand; swept with the value of k behind it
	setup   string            // shell commands that are the project's setup
	absent  []string          // what the ignore files name, or never travels
	loose   string            // of this folder, which a setup made, times and contents are not compared
}

var kindsOfFolders = []kindOfFolder{
	{name: "plain", files: map[string]string{"data/in.csv": "1,2\n", "key": "secret", "tool": "x:#!/bin/sh\n",
		"empty/": "", "locked/a": "a", "deep/er/b": "b"},
		make:    "chmod 600 key; chmod 444 locked/a; chmod 555 locked; chmod 750 deep; chmod 664 data/in.csv; touch -d '2001-02-03 04:05:06.789012345' data/in.csv deep/er",
		command: []string{"python3", "-B", "show.py"}},
	{name: "git", files: map[string]string{".gitignore": "*.log\n/out/\n", "kept.log": "tracked", "other.log": "x",
		"out/model": "x", "src/.gitignore": "!mine.log\n", "src/mine.log": "y", "src/out/a": "a"},
		make: "git init -q . && git add -f kept.log show.py", command: []string{"python3", "-B", "show.py"},
		absent: []string{".git", "other.log", "out"}},
	{name: "white list", files: map[string]string{".gitignore": "/*\n!/show.py\n!/src/\n!.gitignore\n",
		"data.csv": "x", "notes/a": "x", "src/a.py": "a", "src/deep/b.py": "b"},
		make: "git init -q .", command: []string{"python3", "-B", "show.py"},
		absent: []string{".git", "data.csv", "notes"}},
	{name: "venv", project: true, files: map[string]string{".gitignore": "*.tmp\n", "a.tmp": "x",
		"project.yaml": `tasks: {train: {command: [.venv/bin/python, -B, show.py], setup: "python3 -m venv --without-pip .venv && echo made > made && chmod 600 made && touch -d 2002-03-04 made"}}`},
		setup:   "python3 -m venv --without-pip .venv && echo made > made && chmod 600 made && touch -d 2002-03-04 made",
		command: []string{".venv/bin/python", "-B", "show.py"},
		absent:  []string{"a.tmp"}, loose: ".venv"},
	{name: "package", files: map[string]string{"pkg/__init__.py": "", "pkg/__main__.py": show,
		"pkg/__pycache__/old.pyc": "x", "pkg/data.json": "{}"},
		command: []string{"python3", "-B", "-m", "pkg"}, absent: []string{"pkg/__pycache__"}},
	{name: "Makefile", files: map[string]string{"Makefile": "run: prog\n\t@python3 -B show.py $(ARGS)\nprog: a.src b.src\n\techo built again; touch prog\n", "a.src": "a", "b.src": "b", "prog": "x:built"},
		make: "touch -d '2 days ago' a.src; touch -d '1 day ago' b.src; touch -d '1 day ago' prog; touch -r prog -d '+1 second' prog", command: []string{"make", "-s", "run"}},
	{name: "big files", files: map[string]string{"last.ckpt": strings.Repeat("0123456789abcdef", 20<<20/16),
		"study.db": strings.Repeat("x", 17<<20)},
		make: "chmod 640 last.ckpt; truncate -s 30M sparse", command: []string{"python3", "-B", "show.py"}},
	{name: "links", project: true,
		files: map[string]string{"real/a": "a", "to-file": "-> real/a", "to-folder": "-> real",
			"real/up": "-> ../show.py", "gone": "-> no/such/file", "store": "-> ../outside", "../outside/b": "b",
			"project.yaml": `tasks: {train: {command: [python3, -B, show.py], share: [store]}}`},
		command: []string{"python3", "-B", "show.py"}},
}

// folder makes the folder.
func (k *kindOfFolder) folder(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "p")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	k.files["show.py"] = show
	for name, text := range k.files {
		at := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(at), 0o755)
		if to, ok := strings.CutPrefix(text, "-> "); ok {
			err = os.Symlink(to, at)
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(at, 0o755)
		} else if body, ok := strings.CutPrefix(text, "x:"); ok {
			err = os.WriteFile(at, []byte(body), 0o755)
		} else if err == nil {
			err = os.WriteFile(at, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sh(t, dir, k.make)
	t.Cleanup(func() { _ = projects.RemoveTree(dir) })
	return dir
}

func sh(t *testing.T, dir, line string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", line)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// byHand runs the command in a copy of the folder, as its user does.
func (k *kindOfFolder) byHand(
	t *testing.T, dir string, run func(cmd *exec.Cmd) []byte, program func(string, ...string) *exec.Cmd,
) *told {
	t.Helper()
	copied := dir + "-by-hand"
	sh(t, filepath.Dir(dir), "cp -a p p-by-hand")
	t.Cleanup(func() { _ = projects.RemoveTree(copied) })
	if k.setup != "" {
		sh(t, copied, k.setup)
	}
	argv := append([]string(nil), k.command...)
	switch {
	case argv[0] == "make":
		argv = append(argv, "ARGS=--k=1")
	case !k.project:
		argv = append(argv, "--k=1")
	}
	path := argv[0]
	if !strings.Contains(path, "/") {
		found, err := exec.LookPath(path)
		if err != nil {
			t.Fatal(err)
		}
		path = found
	}
	cmd := program(path, argv[1:]...)
	cmd.Args, cmd.Dir = argv, copied
	return k.read(t, run(cmd))
}

// read reads what the program printed, and leaves out the differences that there may be.
func (k *kindOfFolder) read(t *testing.T, printed []byte) *told {
	t.Helper()
	var x told
	if err := json.Unmarshal(printed, &x); err != nil {
		t.Fatalf("the program printed %v: %s", err, tail(string(printed)))
	}
	for name := range x.Environ {
		if strings.HasPrefix(name, "MLF_") || name == "PWD" || name == "OLDPWD" {
			delete(x.Environ, name)
		}
	}
	for name, what := range x.Folder {
		for _, absent := range k.absent {
			if name == absent || strings.HasPrefix(name, absent+"/") {
				delete(x.Folder, name)
			}
		}
		if parent := filepath.Dir(name); k.loose != "" &&
			(name == k.loose || strings.HasPrefix(name, k.loose+"/") || parent == k.loose) && what[0] != "link" {
			x.Folder[name] = what[:min(2, len(what))]
		} else if k.loose != "" && strings.HasPrefix(name, k.loose+"/") {
			x.Folder[name] = what[:2]
		}
	}
	return &x
}

// sweepArgs are the command line of a sweep of the folder.
func (k *kindOfFolder) sweepArgs() []string {
	if k.project {
		return []string{"sweep", "-q", "."}
	}
	argv := append([]string{"sweep", "-q", "--set", "k=1", "--"}, k.command...)
	if k.command[0] == "make" {
		argv = append(argv, "ARGS=--k={k}")
	}
	return argv
}

// TestATrialGetsWhatItsUserHas compares what a program finds in a trial with what it finds when its
// user runs it: environment, arguments, standard input, and the folder with contents, modes and
// times. What may differ: variables MLF_*, PWD and OLDPWD; two variables that have a default where
// the user has none; the folder's own path, mode and time; that .git, __pycache__ and what ignore
// files name is not there; the text of links to outside that are shared, and the times and paths in
// what a setup step makes.
func TestATrialGetsWhatItsUserHas(t *testing.T) {
	t.Parallel()
	check := func(t *testing.T, k *kindOfFolder, want *told, printed string) {
		t.Helper()
		if len(want.Folder) < 2 || len(want.Environ) < 2 {
			t.Fatalf("the program found %v by hand, which can't be all", want)
		}
		for name, value := range map[string]string{"PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"} {
			if _, given := want.Environ[name]; !given {
				want.Environ[name] = value
			}
		}
		if diff := cmp.Diff(want, k.read(t, []byte(printed))); diff != "" {
			t.Errorf("what the trial has (-by hand +trial):\n%s", diff)
		}
	}
	t.Run("alone", func(t *testing.T) {
		for i := range kindsOfFolders {
			k := &kindsOfFolders[i]
			t.Run(k.name, func(t *testing.T) {
				h := newHome(t, "USER_OWN=a b", "TWO_LINES=a\nb", "GIT_CONFIG_GLOBAL=/dev/null")
				dir := k.folder(t)
				want := k.byHand(t, dir, func(cmd *exec.Cmd) []byte {
					out, err := cmd.Output()
					if err != nil {
						t.Fatalf("%v by hand: %v", cmd.Args, err)
					}
					return out
				}, func(path string, args ...string) *exec.Cmd {
					cmd := exec.Command(path, args...)
					cmd.Env = h.env
					return cmd
				})
				cmd := h.command(k.sweepArgs()...)
				cmd.Dir = dir
				var said bytes.Buffer
				cmd.Stdout, cmd.Stderr = &said, &said
				if err := cmd.Run(); err != nil {
					t.Fatalf("%v: %v\n%s%s", cmd.Args, err, tail(said.String()), h.must("trials", "last", "--json"))
				}
				check(t, k, want, h.must("logs", "last/0"))
			})
		}
	})
	t.Run("in a cluster", func(t *testing.T) {
		p := newScenario(t, 1, hosts.Options{Env: []string{"PATH=" + os.Getenv("PATH"), "OF_NODE=a b",
			"GIT_CONFIG_GLOBAL=/dev/null"}})
		for i := range kindsOfFolders {
			k := &kindsOfFolders[i]
			t.Run(k.name, func(t *testing.T) {
				dir := k.folder(t)
				want := k.byHand(t, dir, func(cmd *exec.Cmd) []byte {
					r := p.Master.Run(cmd)
					if r.Code != 0 {
						t.Fatalf("%v by hand: exit code %d\n%s", cmd.Args, r.Code, r.Stderr)
					}
					return []byte(r.Stdout)
				}, p.Master.Program)
				cmd := p.Master.Command(k.sweepArgs()...)
				cmd.Dir = dir
				if r := p.Master.Run(cmd); r.Code != 0 {
					t.Fatalf("%v: exit code %d\n%s%s", cmd.Args, r.Code, r.Stdout, r.Stderr)
				}
				check(t, k, want, p.Master.Must("logs", "last/0"))
			})
		}
	})
}
