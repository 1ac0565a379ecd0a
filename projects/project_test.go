package projects

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"mlfnode/grid"
	"mlfnode/grid/space"
)

// loaded is everything that a project says about itself.
type loaded struct {
	Name, Default string
	Bundled       bool
	Tasks         []Definition
}

func number(text string) space.Value { return space.Value{Text: text, Kind: space.Number} }

// plain returns a task with nothing but a command.
func plain(name string, command ...string) Definition {
	return Definition{Task: grid.Task{Name: name, Command: command, Resources: grid.Resources{CPUs: grid.One},
		Retries: grid.Retries{grid.ClassLost: 16, grid.ClassSetup: 2}}}
}

func with(d Definition, change func(*Definition)) Definition {
	change(&d)
	return d
}

// everything is a file with every field, which is also the seed for fuzzing.
const everything = `name: all-fields
default: train
tasks:
  train:
    command: ["python3", "-u", "main.py", "--lr={lr}", ""]
    parameters: grid/values.yml
    constants: {out: result, "n": 010, on: yes, flag: true, off: false, text: "1", empty: ""}
    setup: ["sh", "setup.sh"]
    image: ""
    env: {OMP_NUM_THREADS: "1", HOME_OF: $HOME, NOTHING: ""}
    resources: {cpus: 0.5, memory: 1.5GiB, gpus: 0, gpu_memory: 0}
    timeout: 1d2h3m4s5ms
    idle_timeout: 90
    grace: 0.5s
    log_limit: 10 kB
    retries: {exit: 2, oom: {times: 4, memory: 1.5}, lost: 3}
    replace: false
    artifacts: ["result/**", "*.json"]
    metrics: [{log: result/log}, {regex: 'loss (?P<loss>\d+)'}, {json: stdout}]
    objective: {metric: validation/main/accuracy, goal: maximize}
    exclude: ["lr > 1", "n == 2"]
  echo:
    command: echo {n} | tee out
    setup: pip install -r requirements.txt
    retries: 2
    replace: true
    exclude: n > 1
    metrics: {log: log}
`

func TestLoad(t *testing.T) {
	train := with(plain("train", "python3", "-u", "main.py", "--lr={lr}", ""), func(d *Definition) {
		d.Axes = []space.Axis{{Key: "lr", Values: []space.Value{number("1e-3"), number("0.10")}}}
		d.Exclude = []string{"lr > 1", "n == 2"}
		d.Task.Constants = space.Params{{Key: "out", Value: space.Value{Text: "result"}},
			{Key: "n", Value: space.Value{Text: "010"}},
			{Key: "on", Value: space.Value{Text: "yes"}},
			{Key: "flag", Value: space.Value{Text: "true", Kind: space.True}},
			{Key: "off", Value: space.Value{Text: "false", Kind: space.False}}, {Key: "text",
				Value: space.Value{Text: "1"}}, {Key: "empty"}}
		d.Task.Setup = []string{"sh", "setup.sh"}
		d.Task.Env = map[string]string{"OMP_NUM_THREADS": "1", "HOME_OF": "$HOME", "NOTHING": ""}
		d.Task.Resources = grid.Resources{CPUs: 500, Memory: 3 << 29}
		d.Task.Timeout = 26*time.Hour + 3*time.Minute + 4*time.Second + 5*time.Millisecond
		d.Task.IdleTimeout, d.Task.Grace, d.Task.LogLimit = 90*time.Second, 500*time.Millisecond, 10_000
		d.Task.Retries = grid.Retries{grid.ClassExit: 2, grid.ClassMemory: 4, grid.ClassLost: 3, grid.ClassSetup: 2}
		d.Task.Escalate = map[grid.Class]float64{grid.ClassMemory: 1.5}
		d.Task.NoReplace = true
		d.Task.Artifacts = []string{"result/**", "*.json"}
		d.Task.Metrics = []grid.Source{{Log: "result/log"}, {Regex: `loss (?P<loss>\d+)`}, {JSON: "stdout"}}
		d.Task.Objective = &grid.Objective{Metric: "validation/main/accuracy", Goal: "maximize"}
	})
	echo := with(plain("echo"), func(d *Definition) {
		d.Task.Shell, d.Task.Setup = "echo {n} | tee out", []string{"/bin/sh", "-c", "pip install -r requirements.txt"}
		d.Task.Retries = grid.Retries{grid.ClassExit: 2, grid.ClassSignal: 2, grid.ClassMemory: 2,
			grid.ClassTimeout: 2, grid.ClassIdle: 2,
			grid.ClassStart: 2, grid.ClassLost: 16, grid.ClassSetup: 2}
		d.Exclude, d.Task.Metrics = []string{"n > 1"}, []grid.Source{{Log: "log"}}
	})
	shared := func(name string) Definition {
		return with(plain(name, "a"), func(d *Definition) { d.Task.Env = map[string]string{"A": "1"} })
	}
	for _, c := range []struct {
		name, yaml string
		want       loaded
	}{
		{"everything", everything, loaded{"all-fields", "train", true, []Definition{train, echo}}},
		{"empty", "", loaded{Name: "folder", Bundled: true}},
		{"comments", "# nothing\n\n---\n# yet\n", loaded{Name: "folder", Bundled: true}},
		{"name only", "name: a\n", loaded{Name: "a", Bundled: true}},
		{"byte order mark", "\ufeffname: a\n", loaded{Name: "a", Bundled: true}},
		{"CRLF", "name: a\r\ntasks:\r\n  t: {command: [x]}\r\n", loaded{"a", "t", true, []Definition{plain("t", "x")}}},
		{"JSON", `{"tasks": {"t": {"command": ["x", "1"]}}}`,
			loaded{"folder", "t", true, []Definition{plain("t", "x", "1")}}},
		{"numbers in command", "tasks: {t: {command: [sleep, 1.50, true]}}",
			loaded{"folder", "t", true, []Definition{plain("t", "sleep", "1.50", "true")}}},
		{"order of tasks", "tasks: {z: {command: [x]}, a: {command: [y]}, 1: {command: [w]}}",
			loaded{"folder", "", true, []Definition{plain("z", "x"), plain("a", "y"), plain("1", "w")}}},
		{"default parameters", "default: main\ntasks: {main: {command: [x]}, other: {command: [y]}}",
			loaded{"folder", "main", true, []Definition{
				with(plain("main", "x"), func(d *Definition) {
					d.Axes = []space.Axis{{Key: "seed", Values: []space.Value{number("1")}}}
				}),
				plain("other", "y")}}},
		{"alias", "tasks:\n  a: {command: [a], env: &e {A: \"1\"}}\n  b: {command: [a], env: *e}\n",
			loaded{"folder", "", true, []Definition{shared("a"), shared("b")}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "folder")
			files := tree{"project.yaml": ":" + c.yaml, "grid/values.yml": ":lr: [1e-3, 0.10]\n"}
			if c.name == "default parameters" {
				files["parameters.yml"] = ":seed: 1\n"
			}
			files.make(t, dir, false)
			p, err := Load(dir)
			check(t, err)
			got := loaded{Name: p.Name, Default: p.Default, Bundled: p.Bundled}
			for _, name := range p.Tasks() {
				d, err := p.Task(name)
				check(t, err)
				got.Tasks = append(got.Tasks, *d)
			}
			if diff := cmp.Diff(c.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("wrong project (-want +got):\n%s", diff)
			}
			if p.Dir != dir {
				t.Errorf("got folder %s, want %s", p.Dir, dir)
			}
		})
	}
}

func TestLoadMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "My Nets")
	_, err := Load(dir)
	wantError(t, err, "open the project's folder: open "+dir+": no such file or directory")

	check(t, os.Mkdir(dir, 0o700))
	const example = "name: my-nets\ntasks:\n  train:\n    command: [\"python3\", \"-u\", \"main.py\"]"
	_, err = Load(dir)
	wantError(t, err, dir+" has no project.yaml. Write one like this:\n"+example)
	if p, said := loadText(t, example); said != "" || p.Default != "train" {
		t.Errorf("the example that is shown: got %v, %s, want a project", p, said)
	}

	check(t, os.WriteFile(filepath.Join(dir, "tasks.py"), nil, 0o600))
	_, err = Load(dir)
	wantError(t, err, dir+" has no project.yaml. There is a tasks.py: mlfnode import "+dir+
		" makes one from it. Otherwise write one like this:\n"+example)
}

func TestLoadNoFile(t *testing.T) {
	for name, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"folder": {func(path string) error { return os.Mkdir(path, 0o700) }, "it is not a regular file"},
		"pipe":   {func(path string) error { return syscall.Mkfifo(path, 0o600) }, "it is not a regular file"},
		"link outside": {func(path string) error { return os.Symlink("/etc/passwd", path) },
			"path escapes from parent"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "project.yaml")
			check(t, c.make(file))
			_, err := Load(dir)
			wantError(t, err, "read "+file+": "+c.want)
		})
	}
}

// FuzzLoad looks for files that cause a panic or take long, and for errors without a position.
func FuzzLoad(f *testing.F) {
	for _, c := range badProjects(f) {
		f.Add(c.yaml)
	}
	f.Add(everything)
	f.Add(bomb(10, 10))
	f.Fuzz(func(t *testing.T, text string) {
		begun := time.Now()
		p, err := parse("project.yaml", []byte(text))
		if took := time.Since(begun); took > 5*time.Second {
			t.Fatalf("took %v", took)
		}
		if err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				if line == "" {
					t.Fatalf("an empty line in the message %q", err)
				}
			}
			if !strings.HasPrefix(err.Error(), "project.yaml:") {
				t.Fatalf("the message does not begin with the place: %v", err)
			}
			return
		}
		if p.Name != "" && p.Name != CleanName(p.Name) {
			t.Fatalf("got the name %q", p.Name)
		}
		for _, task := range p.tasks {
			if (len(task.Command) == 0) == (task.Shell == "") || task.Resources.CPUs <= 0 || task.Timeout < 0 {
				t.Fatalf("got the task %+v", task.Task)
			}
		}
	})
}
