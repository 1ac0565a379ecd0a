package projects

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/grid"
	"mlfnode/grid/problem"
)

func TestTaskRefuses(t *testing.T) {
	const one = "tasks: {train: {command: [a]}}\n"
	const given = "tasks:\n  train:\n    command: [a]\n    parameters: p.yml\n"
	for _, c := range []struct {
		name  string
		files tree
		task  string
		want  string
	}{
		{"no tasks", tree{"project.yaml": named("a")},
			"", "the project a has no tasks. Add one to its project.yaml:\n" +
				"name: a\ntasks:\n  train:\n    command: [\"python3\", \"-u\", \"main.py\"]"},
		{"no default", tree{"project.yaml": ":name: a\ntasks: {b: {command: [x]}, a: {command: [x]}}\n"}, "",
			"the project a has several tasks and no default. Name one of b, a"},
		{"unknown", tree{"project.yaml": ":name: a\ntasks: {b: {command: [x]}, a: {command: [x]}}\n"},
			"c", "the project a has no task c. Its tasks are b, a"},
		{"no such file", tree{"project.yaml": ":" + given}, "",
			"DIR/project.yaml:4:17: the parameters file p.yml can't be read: no such file or directory. Give the path of a file in the project's folder, or leave the field out."},
		{"a folder", tree{"project.yaml": ":" + given, "p.yml": "dir"}, "",
			"DIR/project.yaml:4:17: the parameters file p.yml can't be read: it is not a regular file. Give the path of a file in the project's folder, or leave the field out."},
		{"leads outside", tree{"project.yaml": ":" + given, "p.yml": "-> /etc/passwd"}, "",
			"DIR/project.yaml:4:17: the parameters file p.yml can't be read: path escapes from parent. Give the path of a file in the project's folder, or leave the field out."},
		{"too large", tree{"project.yaml": ":" + given, "p.yml": ":" + strings.Repeat("# x\n", 1<<20+1)}, "",
			"DIR/p.yml:1:1: the file has more than 4 MiB. " + adviceTooLong},
		{"default file is a folder", tree{"project.yaml": ":" + one, "parameters.yml": "dir"},
			"", "read parameters.yml: it is not a regular file"},
		{"faulty file", tree{"project.yaml": ":" + given, "p.yml": ":lr: [0.1, null]\n"}, "",
			`DIR/p.yml:1:11: lr has no value (null). Give a value, write "" for empty text, or false to leave the option out.`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := c.files.folder(t)
			p, err := Load(dir)
			check(t, err)
			_, err = p.Task(c.task)
			wantError(t, err, strings.ReplaceAll(c.want, "DIR", dir))
		})
	}
}

func TestAdhoc(t *testing.T) {
	cwd := tree{"Train Nets.py": ":", "sub/eval.py": ":", "data": "dir"}.folder(t)
	for _, c := range []struct {
		argv    []string
		name    string
		bundled bool
	}{
		{[]string{"python3", "-u", "Train Nets.py", "--a=1"}, "train-nets", true},
		{[]string{"python3", "sub/eval.py"}, "eval", true},
		{[]string{"./sub/eval.py"}, "eval", true},
		{[]string{"/usr/bin/env.sh", "x"}, "env", true},
		{[]string{"echo", "data"}, "echo", false},
		{[]string{"/bin/true"}, "true", false},
		{[]string{"./true"}, "true", true},
		{[]string{"cat", "../no-such-file"}, "cat", true},
		{[]string{"cat", filepath.Join(cwd, "sub/eval.py")}, "cat", true},
		{[]string{"ÄÖ"}, "project", true},
		{[]string{"sh", "-c", "echo 'a b'", ""}, "sh", true},
		{[]string{"python3", "-m", "sub.eval"}, "python3", true},
		{[]string{"make", "train"}, "make", true},
	} {
		p, err := Adhoc(c.argv, cwd)
		check(t, err)
		d, err := p.Task("")
		check(t, err)
		want := plain(c.name, c.argv...)
		want.Task.Metrics = []grid.Source{{JSON: "stdout", Optional: true}}
		if diff := cmp.Diff(&want, d); diff != "" {
			t.Errorf("%q: wrong task (-want +got):\n%s", c.argv, diff)
		}
		dir := ""
		if c.bundled {
			dir = cwd
		}
		if p.Name != c.name || p.Bundled != c.bundled || p.Dir != dir {
			t.Errorf("%q: got %s, bundled %v, folder %q, want %s, %v, %q", c.argv, p.Name, p.Bundled, p.Dir,
				c.name, c.bundled, dir)
		}
	}
}

// TestAdhocInFolderOfEverything checks that a folder that holds everything a user has does not
// travel just because a command was typed there.
func TestAdhocInFolderOfEverything(t *testing.T) {
	home := tree{"train.py": ":"}.folder(t)
	t.Setenv("HOME", home)
	for dir, what := range map[string]string{home: "your home folder", "/": "the root folder",
		"/tmp": "the folder /tmp"} {
		p, err := Adhoc([]string{"python3", "-m", "pkg"}, dir)
		check(t, err)
		if want := "trials start in an empty folder, because " + what +
			" does not travel to them; to give a command files, run it in a folder of its own"; p.Bundled ||
			p.Note != want {
			t.Errorf("%s: got bundled %v and %q, want the note %q", dir, p.Bundled, p.Note, want)
		}
		if p, err := Adhoc([]string{"true"}, dir); err != nil || p.Bundled || p.Note != "" {
			t.Errorf("%s: true: got %+v, %v, want no files and no word about it", dir, p, err)
		}
	}
}

// TestAdhocRefusesAbove checks that arguments above the folder are refused: they can't travel, and
// a trial would find something else there.
func TestAdhocRefusesAbove(t *testing.T) {
	outer := tree{"train.py": ":", "in/x": ":"}.folder(t)
	for _, argv := range [][]string{{"python3", "../train.py"}, {"../train.py"}, {"ls", ".."}, {"x", "--data=../in"},
		{"x", "in/../../train.py"}} {
		_, err := Adhoc(argv, filepath.Join(outer, "in"))
		at, _ := strings.CutPrefix(argv[len(argv)-1], "--data=")
		wantError(t, err, at+" is outside the folder you are in, and trials get only that folder. Go to the folder that contains both, or give the absolute path")
	}
}

func TestAdhocKeepsArguments(t *testing.T) {
	argv := []string{"echo", "a"}
	p, err := Adhoc(argv, t.TempDir())
	check(t, err)
	argv[1] = "b"
	d, err := p.Task("")
	check(t, err)
	if got := d.Task.Command[1]; got != "a" {
		t.Errorf("got %s, want the argument that was given", got)
	}
}

func TestAdhocRefuses(t *testing.T) {
	home := tree{"train.py": ":"}.folder(t)
	t.Setenv("HOME", home)
	const none = "there is no command. Write it after two dashes, as in mlfnode sweep --set lr=0.1,0.01 -- python3 prog.py"
	for _, c := range []struct {
		argv []string
		want string
	}{
		{nil, none},
		{[]string{""}, none},
		{[]string{"echo", "a\x00b"},
			`the argument "a\x00b" contains a zero byte, which a program's argument can't contain. Take it out`},
		{[]string{"python3", "train.py"},
			"all files of your home folder would travel to the workers, because train.py is in it. Move train.py to a folder of its own and run the command there"},
	} {
		_, err := Adhoc(c.argv, home)
		wantError(t, err, c.want)
	}
	if _, err := Adhoc([]string{"echo"}, home); err != nil {
		t.Errorf("a command without files in the home folder: %v", err)
	}
	link := filepath.Join(t.TempDir(), "link")
	check(t, os.Symlink(home, link))
	if _, err := Adhoc([]string{"python3", "train.py"}, link); err == nil {
		t.Error("the home folder behind a link was taken, want it refused")
	}
}

func TestCleanName(t *testing.T) {
	for text, want := range map[string]string{"": "project", "Chainer": "chainer", "My  Nets!": "my-nets",
		"-a-": "a", "ünïcode": "n-code", "日本": "project",
		strings.Repeat("ab", 30): strings.Repeat("ab", 20), strings.Repeat("a", 39) + "-b": strings.Repeat("a", 39)} {
		if got := CleanName(text); got != want {
			t.Errorf("%q: got %s, want %s", text, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := CleanName(rapid.String().Draw(t, "text"))
		if name != CleanName(name) || name == "" || len(name) > 40 || strings.Trim(name, letters) != "" {
			t.Fatalf("got %q", name)
		}
	})
}

// TestProblemsType checks that the problems of a file can be told from other errors.
func TestProblemsType(t *testing.T) {
	_, err := parse("project.yaml", []byte("nmae: x\n"))
	if problems, ok := err.(problem.List); !ok || len(problems) != 1 || problems[0].Line != 1 {
		t.Errorf("got %#v, want one problem in line 1", err)
	}
}
