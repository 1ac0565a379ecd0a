package projects

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestImportOfTheOldTemplate imports a project made from the old template. There a task first
// reports the machine's name through the same variable that later holds the program, paths start at
// the folder above, and the folder may have been renamed since.
func TestImportOfTheOldTemplate(t *testing.T) {
	for _, folder := range []string{"mnist", "mnist-copy"} {
		dir := filepath.Join(t.TempDir(), folder)
		files := tree{
			"__init__.py": ":", "celery.py": ":" + runs, "net/train_mnist.py": ":" + runs,
			"tasks.py": ":" + runs + `from mnist.celery import app
from lib.worker_functions import *

@app.task(bind=True, acks_late=True)
def echo(self, n):
    i = 0
    while i < n:
        self.update_state(state="MSG", meta={"message": {"out": "i=" + str(i)}})
        i += 1
    return {"n": n, "i": i - 1}

@app.task(bind=True, acks_late=True)
def train(self, pars_json):
    cmd = "echo hostname=$(hostname)"
    runCommand(self, cmd)
    pars = json.loads(pars_json)
    cmd = ["python", "mnist/net/train_mnist.py"]
    for key in pars:
        cmd.append("--" + key)
        cmd.append(pars[key])
    self.update_state(state="MSG", meta={"message": {"out": "Command: " + " ".join(cmd)}})
    return runCommand(self, cmd)
`,
			"default.py": ":" + runs + `from mnist.tasks import *
import lib.master_functions as mf
paramatrix = mf.yaml2Matrix("mnist/parameters.yml")
base_pars = {"out": "result"}
base_pars["frequency"] = -1
for pars in paramatrix:
    p = base_pars.copy()
    p.update(pars)
    res = train.delay(json.dumps(p))
`,
			"test_echo.py": ":" + runs + `from mnist.tasks import *
n = 5
for c in range(0, 5):
    n = n + c
    res = echo.delay(n)
`,
			"parameters.yml": ":epoch: !!python/tuple [5, 20, 5]\nunit: [1000]\n",
		}
		files.make(t, dir, false)
		r, err := Import(dir)
		check(t, err)
		want := []string{
			"tasks.py:6: the task echo has no line cmd = [...] and was left out; put what it does into a program of its own",
			"tasks.py:15: the task train has another command here, which gets no parameters; the one of line 18 was taken",
			"test_echo.py:6: tasks are submitted with computed arguments, n = 5, 6, 8, 11, 15; put these values into a parameter file",
		}
		if diff := cmp.Diff(want, r.Notes); diff != "" {
			t.Errorf("%s: wrong notes (-want +got):\n%s", folder, diff)
		}
		file := ":# Made by `mlfnode import` from tasks.py; look it over.\nname: " + folder + `
default: train
tasks:
  train:
    command: [python3, net/train_mnist.py]
    parameters: parameters.yml
    constants:
      out: result
      frequency: -1
`
		if diff := cmp.Diff(file, readTree(t, dir)["project.yaml"]); diff != "" {
			t.Errorf("%s: wrong file (-want +got):\n%s", folder, diff)
		}
		p, err := Load(dir)
		check(t, err)
		d, err := p.Task("")
		check(t, err)
		if len(d.Axes) != 2 {
			t.Errorf("%s: got %d axes, want those of the parameter file", folder, len(d.Axes))
		}
	}
}

// TestImportAppendedOptions checks that what a task appends to its command before the parameters
// belongs to the command.
func TestImportAppendedOptions(t *testing.T) {
	const adds = ": the task t adds to its command here, after parameters or under a condition; look at `command`"
	for _, c := range []struct {
		name, body, want string
		notes            []string
	}{
		{"append",
			"    cmd = ['python']\n    cmd.append('a.py')\n    cmd.append(\n        '--fixed')\n    for k in p:\n        cmd.append(k)\n",
			"python3 a.py --fixed", nil},
		{"extend and add",
			"    cmd = ['a']\n    cmd.extend(['b', 'c'])\n    cmd += ['d',\n            'e']  # more\n    cmd += args(p)\n",
			"a b c d e", nil},
		{"text", "    cmd = 'python a.py'\n    cmd += ' --x'\n    cmd += ' --k=' + k\n",
			"/bin/sh -c python3 a.py --x", nil},
		{"a report first",
			"    cmd = ['echo']\n    cmd.append('hello')\n    run(cmd)\n    cmd = ['a']\n    cmd.append('b')\n    cmd.append(p)\n",
			"a b",
			[]string{
				"tasks.py:2: the task t has another command here, which gets no parameters; the one of line 5 was taken"}},
		{"under a condition", "    cmd = ['a']\n    if gpu:\n        cmd.append('--gpu')\n    cmd.extend(p)\n",
			"a", []string{"tasks.py:4" + adds}},
		{"behind the parameters", "    cmd = ['a']\n    cmd.extend(p)\n    cmd.append('--last')\n",
			"a", []string{"tasks.py:4" + adds}},
		{"of another kind", "    cmd = 'a'\n    cmd.append('--last')\n", "/bin/sh -c a", []string{"tasks.py:3" + adds}},
		{"a class behind", "    cmd = ['a']\n    cmd.extend(p)\nclass C:\n    def f(self):\n        cmd = ['b']\n",
			"a", nil},
	} {
		dir := tree{"tasks.py": ":def t(self, p):\n" + c.body,
			"default.py": ":FILE = 'p.yml'\nm = yaml2Matrix(FILE)\nt.delay(m)\n", "p.yml": ":k: 1\n"}.folder(t)
		r, err := Import(dir)
		check(t, err)
		if diff := cmp.Diff(c.notes, r.Notes); diff != "" {
			t.Errorf("%s: wrong notes (-want +got):\n%s", c.name, diff)
		}
		p, err := Load(dir)
		check(t, err)
		d, err := p.Task("t")
		check(t, err)
		if got := strings.Join(d.Task.Template().Argv(nil), " "); got != c.want {
			t.Errorf("%s: got the command %q, want %q", c.name, got, c.want)
		}
		if len(d.Axes) != 1 {
			t.Errorf("%s: got %d axes, want that of the file that a variable names", c.name, len(d.Axes))
		}
	}
}
