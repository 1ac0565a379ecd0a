package projects

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"mlfnode/grid/space"
)

// runs is Python code that leaves a file behind if anything runs it.
const runs = "open('evil', 'w').close(); __import__('os').system('touch evil')\n"

// oldFolder is a project as the old framework required it: tasks that append pairs of options to a
// command, a driver that queues the combinations of a parameter file, and another driver that only
// echoes.
var oldFolder = tree{
	"__init__.py": ":", "celery.py": ":" + runs + "app = Celery(include=['digits.tasks'])\n",
	"tasks.py": ":# -*- coding: utf-8 -*-\n" + runs + `from __future__ import absolute_import
import json
from digits.celery import app

@app.task(bind=True, acks_late=True)
def echo(self, n):
    for i in range(n):
        self.update_state(state="MSG", meta={"message": {"out": "i=" + str(i)}})
    return {"n": n, "i": n - 1}

@app.task(bind=True, acks_late=True)
def train(self, pars_json):
    cmd = ["python", "-u", "digits/examples/train.py"]
    for key, value in json.loads(pars_json).items():
        cmd += ["--" + key, value]
    return run(self, cmd)

@app.task(bind=True)
def report(self):
    cmd = "python digits/report.py | tee digits/report.txt"
    return run(self, cmd)
`,
	"default.py": ":" + runs + `from digits.tasks import train
from lib.master_functions import yaml2Matrix
#paramatrix = yaml2Matrix("digits/old.yml")
paramatrix = yaml2Matrix("digits/parameters.yml")
base_pars = {
    "maxiter": 3,           # how long
    "dataset": 'TwentyNg',
    "rate": 1e-3, "verbose": True, "seed": None, "sizes": [1, 2],
    "maxiter": 5,
}
for pars in paramatrix:
    res = train.delay(json.dumps(pars))
`,
	"test_echo.py": ":" + runs + `from digits.tasks import echo
n = 5
for i in range(0, 5):
    n += i
    # echo.apply_async(n)
    res = echo.delay(n)
`,
	"parameters.yml": ":epoch: !!python/tuple [5, 20, 5]\nbatchsize: 100\ngpu: \"-1\"\nunit: [1000]\n",
}

func TestImport(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "digits")
	oldFolder.make(t, dir, false)
	r, err := Import(dir)
	check(t, err)
	want := &Report{File: filepath.Join(dir, "project.yaml"), Tasks: []string{"train", "report"}, Notes: []string{
		"tasks.py:8: the task echo has no line cmd = [...] and was left out; put what it does into a program of its own",
		"default.py:6: the constant seed is not a plain value and was left out",
		"default.py:6: the constant sizes is not a plain value and was left out",
		"test_echo.py:7: tasks are submitted with computed arguments, n = 5, 6, 8, 11, 15; put these values into a parameter file",
	}}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("wrong report (-want +got):\n%s", diff)
	}
	const file = `# Made by ` + "`mlfnode import`" + ` from tasks.py; look it over.
name: digits
default: train
tasks:
  train:
    command: [python3, -u, examples/train.py]
    parameters: parameters.yml
    constants:
      maxiter: 5
      dataset: TwentyNg
      rate: 1e-3
      verbose: true
  report:
    command: python3 report.py | tee report.txt
`
	after := readTree(t, dir)
	if diff := cmp.Diff(":"+file, after["project.yaml"]); diff != "" {
		t.Errorf("wrong file (-want +got):\n%s", diff)
	}
	delete(after, "project.yaml")
	if diff := cmp.Diff(oldFolder, after); diff != "" {
		t.Errorf("the folder changed, so something ran (-before +after):\n%s", diff)
	}

	p, err := Load(dir)
	check(t, err)
	d, err := p.Task("")
	check(t, err)
	if got, want := len(d.Axes), 4; got != want || d.Task.Name != "train" {
		t.Errorf("got task %s with %d axes, want train with %d", d.Task.Name, got, want)
	}
	if diff := cmp.Diff(space.Param{Key: "verbose", Value: space.Value{Text: "true", Kind: space.True}},
		d.Task.Constants[3]); diff != "" {
		t.Errorf("wrong constant (-want +got):\n%s", diff)
	}
}

func TestImportNotes(t *testing.T) {
	const computed = "tasks.py:2: the command of task t is computed, not written down; fill in `command`"
	const plain = "def t(self):\n    cmd = ['a']\n"
	for _, c := range []struct {
		name, tasks, driver string
		want                []string
	}{
		{"variable", "def t(self):\n    cmd = command\n", "", []string{computed}},
		{"sum of lists", "def t(self):\n    cmd = ['python', 'a.py'] + extra\n", "", []string{computed}},
		{"sum over two lines", "def t(self):\n    cmd = ['a'] \\\n        + extra\n", "", []string{computed}},
		{"format", "def t(self):\n    cmd = 'python %s' % file\n", "", []string{computed}},
		{"format in brackets", "def t(self):\n    cmd = ('python %s' % file)\n", "", []string{computed}},
		{"method", "def t(self):\n    cmd = 'python a.py'.split()\n", "", []string{computed}},
		{"formatted string", "def t(self):\n    cmd = f'python {a}'\n", "", []string{computed}},
		{"variable in list", "def t(self):\n    cmd = ['python', file]\n", "", []string{computed}},
		{"number in list", "def t(self):\n    cmd = ['sleep', 1]\n", "", []string{computed}},
		{"empty list", "def t(self):\n    cmd = []\n", "", []string{computed}},
		{"empty text", "def t(self):\n    cmd = ''\n", "", []string{computed}},
		{"zero byte", "def t(self):\n    cmd = ['a\\0']\n", "", []string{computed}},
		{"Latin-1", "def t(self):\n    cmd = ['\xe4']\n", "", []string{computed}},
		{"never ends", "def t(self):\n    cmd = ['a',\n", "", []string{computed}},
		{"second command", plain + "    if gpu:\n        cmd = ['b']\n", "",
			[]string{
				"tasks.py:4: the task t has another command here, under a condition; the one of line 2 was taken"}},
		{"a command before",
			"def t(self):\n    cmd = 'echo hostname=$(hostname)'\n    run(cmd)\n    cmd = ['a']\n    cmd.append(x)\n",
			"",
			[]string{
				"tasks.py:2: the task t has another command here, which gets no parameters; the one of line 4 was taken"}},
		{"a command behind", plain +
			"    for k in p:\n        cmd += ['--' + k]\n    run(cmd)\n    cmd = 'rm -r tmp'\n", "",
			[]string{
				"tasks.py:6: the task t has another command here, which gets no parameters; the one of line 2 was taken"}},
		{"a computed command behind one",
			"def t(self):\n    cmd = 'hostname'\n    cmd = ['a', file]\n    cmd.extend(x)\n", "", []string{
				"tasks.py:3: the command of task t is computed, not written down; fill in `command`",
				"tasks.py:2: the task t has another command here, which gets no parameters; the one of line 3 was taken"}},
		{"constants one by one", plain, "base_pars = {}\nbase_pars['a'] = 1\nbase_pars[\"b\"] = x\n",
			[]string{"default.py:3: the constant b is computed, not written down; fill it in under `constants`"}},
		{"options appended", plain + "    cmd = cmd + ['--k', v]\n", "", nil},
		{"computed constants", plain, "base_pars = dict(a=1)\n",
			[]string{"default.py:1: base_pars is computed, not written down; fill in `constants`"}},
		{"changed constants", plain, "\nbase_pars = {'a': 1} if x else {}\n",
			[]string{"default.py:2: base_pars is computed, not written down; fill in `constants`"}},
		{"odd constants", plain, "base_pars = {1: 2, '--a': 'b', '<<': 1, '': 1, 'ok': 1}\n", []string{
			"default.py:1: the constant 1 is not a plain value and was left out",
			"default.py:1: the constant --a is not a plain value and was left out",
			"default.py:1: the constant << is not a plain value and was left out",
			"default.py:1: the constant  is not a plain value and was left out"}},
		{"computed file", plain, "m = yaml2Matrix(PARAMETERS)\nt.delay(m)\n",
			[]string{"default.py:1: the parameter file is computed, not written down; fill in `parameters`"}},
		{"file elsewhere", plain, "m = yaml2Matrix('../shared.yml')\n",
			[]string{
				"default.py:1: the parameter file ../shared.yml is outside the project; copy it and fill in `parameters`"}},
		{"file not there", plain, "\n\nm = yaml2Matrix('none.yml')\n",
			[]string{"default.py:3: the parameter file none.yml is not there"}},
		{"loop", plain, "for n in range(5):\n    t.apply_async(n)\n",
			[]string{"default.py:2: tasks are submitted with computed arguments, n = 0, 1, 2, 3, 4; put these values into a parameter file"}},
		{"products", plain, "n = 2\nfor i in range(1, 8, 3):\n    m = n * i\n    t.delay({'m': m})\n",
			[]string{"default.py:4: tasks are submitted with computed arguments, m = 2, 8, 14; put these values into a parameter file"}},
		{"a loop over something else", plain, "for n in sizes:\n    t.delay(n)\n",
			[]string{
				"default.py:2: tasks are submitted with computed arguments; put their values into a parameter file"}},
		{"a loop that calls", plain, "n = 1\nfor i in range(3):\n    n = next(n)\n    t.delay(n)\n",
			[]string{
				"default.py:4: tasks are submitted with computed arguments; put their values into a parameter file"}},
		{"Windows", "def t(self):\r\n    cmd = ['a',\r\n        'b']\r\n", "base_pars = {'a': 1}\r\n", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := tree{"tasks.py": ":" + c.tasks, "default.py": ":" + c.driver}.folder(t)
			r, err := Import(dir)
			check(t, err)
			if diff := cmp.Diff(c.want, r.Notes); diff != "" {
				t.Errorf("wrong notes (-want +got):\n%s", diff)
			}
			p, err := Load(dir)
			if err != nil {
				t.Fatalf("what was written can't be loaded: %v", err)
			}
			if got := p.Tasks(); len(got) != 1 || got[0] != "t" {
				t.Errorf("got the tasks %v, want t", got)
			}
		})
	}
}

func TestImportRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	_, err := Import(dir)
	wantError(t, err, dir+" can't be read: no such file or directory")

	dir = tree{"main.py": ":" + runs}.folder(t)
	_, err = Import(dir)
	wantError(t, err, dir+" has no tasks.py, so it is not an old project; to make a new one: mlfnode new NAME")

	dir = tree{"tasks.py": ":def f(x):\n    return x\n"}.folder(t)
	_, err = Import(dir)
	wantError(t, err, "tasks.py in "+dir+" has no function with a line cmd = [...]; write project.yaml by hand")

	dir = tree{"tasks.py": "dir"}.folder(t)
	_, err = Import(dir)
	wantError(t, err, "tasks.py can't be read: it is not a regular file")

	dir = tree{"tasks.py": ":def t():\n    cmd = ['a']\n", "project.yaml": ":name: mine\n"}.folder(t)
	_, err = Import(dir)
	wantError(t, err, filepath.Join(dir, "project.yaml")+" already exists; nothing was changed")
	if got := readTree(t, dir)["project.yaml"]; got != ":name: mine\n" {
		t.Errorf("got %q, want the file as it was", got)
	}
}

// TestImportLoads checks that whatever the old files contain, the output of Import can be loaded.
func TestImportLoads(t *testing.T) {
	root := t.TempDir()
	text := rapid.OneOf(rapid.String(),
		rapid.SampledFrom([]string{"", " ", "~", "null", "true", "<<", "- a", "a: b",
			"#", "*x", "!x", "1e5", "a\nb\n", "\t", "\ta", "\ta\nb", " a\n b", "\n a", "a\r\nb", "a\tb\n", "\u0085",
			"a\u2028b\n", "\ufeffa\nb", "\x7f\n"}))
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp(root, "old")
		check(t, err)
		command := make([]string, rapid.IntRange(1, 4).Draw(t, "length"))
		for i := range command {
			command[i] = quoted(text.Draw(t, "argument"))
		}
		pars := ""
		for range rapid.IntRange(0, 4).Draw(t, "constants") {
			pars += quoted(text.Draw(t, "key")) + ": " + quoted(text.Draw(t, "value")) + ", "
		}
		tree{"tasks.py": ":def t(self):\n    cmd = [" + strings.Join(command, ", ") +
			"]\n", "default.py": ":base_pars = {" + pars + "}\n"}.make(t, dir, false)
		_, err = Import(dir)
		check(t, err)
		_, err = Load(dir)
		check(t, err)
	})
}

// TestImportNotesYAML11 checks that Import reports values that PyYAML, which reads YAML 1.1,
// interpreted differently.
func TestImportNotesYAML11(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "digits")
	files := tree{}
	for name, text := range oldFolder {
		files[name] = text
	}
	files["parameters.yml"] =
		":mode: 0777\nsize: [1_000, 1000, 0x1F, \"0x1F\"]\nflip: [no, true, 'off', On]\nat: 1:30\nlr: [1e-3, 0.10, 1_0.5]\nwhen: 2024-01-01 10:00:00\nday: 2024-01-01\nn: +5\n"
	files.make(t, dir, false)
	r, err := Import(dir)
	check(t, err)
	var got []string
	for _, n := range r.Notes {
		if strings.Contains(n, "YAML 1.1") {
			got = append(got, n)
		}
	}
	note := func(line int, text, old string) string {
		return fmt.Sprintf(
			"parameters.yml:%d: %s was %s for the old program (YAML 1.1), and stays %s now; write %s for what it was",
			line, text, old, text, old)
	}
	want := []string{
		note(1, "0777", "511"), note(2, "1_000", "1000"), note(2, "0x1F", "31"), note(3, "no", "False"),
		note(3, "On", "True"), note(4, "1:30", "90"),
		note(5, "1_0.5", "10.5"), note(6, "2024-01-01 10:00:00", "a timestamp, which Python formats differently"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("wrong notes (-want +got):\n%s", diff)
	}
}
