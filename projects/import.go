package projects

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Report says what Import has made of an old project folder.
type Report struct {
	File  string   // the project.yaml that was written
	Tasks []string // in the order of tasks.py
	Notes []string // what was not translated, with its place
}

// The statements that matter in the Python files of an old project.
var (
	defLine   = regexp.MustCompile(`^def\s+(\w+)\s*\(`)
	cmdLine   = regexp.MustCompile(`^\s+cmd\s*=\s*`)
	yamlCall  = regexp.MustCompile(`yaml2Matrix\(\s*["']([^"']+)["']`)
	baseLine  = regexp.MustCompile(`^\s*base_pars\s*=\s*`)
	taskCall  = regexp.MustCompile(`\b(\w+)\.(?:delay|apply_async|s|signature)\(`)
	echoStyle = regexp.MustCompile(`range\(\s*\d+\s*\)`)
)

// oldTask is a task found in tasks.py.
type oldTask struct {
	name    string
	command []string
	shell   string
}

// oldDriver is what a driver script (default.py, run_training.py, …) submits.
type oldDriver struct {
	file       string
	parameters string
	base       [][2]any
	calls      []string
}

// importer collects what an old folder says. It reads the Python files as text and runs nothing.
type importer struct {
	dir     string
	prefix  string // the folder's own name, with which the old paths begin
	report  Report
	tasks   []oldTask
	drivers []oldDriver
}

// Import reads an old project folder (tasks.py, default.py and other drivers, parameters.yml) and writes its project.yaml,
// which must not exist yet.
func Import(dir string) (*Report, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", dir, err)
	}
	im := &importer{dir: abs, prefix: filepath.Base(abs) + "/"}
	im.report.File = filepath.Join(dir, projectFile)
	if _, err := os.Lstat(filepath.Join(abs, projectFile)); err == nil {
		return nil, fmt.Errorf("%s is there already; nothing was changed", im.report.File)
	}
	text, err := os.ReadFile(filepath.Join(abs, "tasks.py"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no tasks.py, so it is no old project; for a new one use: mlfnode new NAME", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("tasks.py can't be read: %w", bare(err))
	}
	im.readTasks(string(text))
	if err := im.readDrivers(); err != nil {
		return nil, err
	}
	if len(im.tasks) == 0 {
		return nil, fmt.Errorf("tasks.py in %s has no function with a line cmd = [...]; write project.yaml by hand", dir)
	}
	return &im.report, im.write()
}

func (im *importer) note(file string, line int, format string, v ...any) {
	im.report.Notes = append(im.report.Notes, fmt.Sprintf("%s:%d: %s", file, line, fmt.Sprintf(format, v...)))
}

func (im *importer) readTasks(text string) {
	function := ""
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if m := defLine.FindStringSubmatch(line); m != nil {
			function = m[1]
		}
		at := cmdLine.FindStringIndex(line)
		if at == nil || function == "" {
			continue
		}
		v, _, err := literal(strings.Join(lines[i:], "\n")[at[1]:])
		t := oldTask{name: function}
		if err == nil {
			err = im.command(&t, v)
		}
		if err != nil {
			im.note("tasks.py", i+1, "the command of task %s is computed, not written down; fill in `command`", function)
			t.command = []string{"echo", "fill in the command of " + function}
		}
		if !slices.ContainsFunc(im.tasks, func(o oldTask) bool { return o.name == function }) {
			im.tasks = append(im.tasks, t)
			im.report.Tasks = append(im.report.Tasks, function)
		}
	}
}

// command translates a list or a string. The old paths began at the framework's folder, the new ones at the project's.
func (im *importer) command(t *oldTask, v any) error {
	switch v := v.(type) {
	case string:
		t.shell = strings.ReplaceAll(modernPython(v), " "+im.prefix, " ")
		return nil
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return errors.New("not a string")
			}
			t.command = append(t.command, strings.TrimPrefix(s, im.prefix))
		}
		if len(t.command) > 0 && t.command[0] == "python" {
			t.command[0] = "python3"
		}
		return nil
	}
	return errors.New("neither list nor string")
}

func modernPython(shell string) string {
	if rest, ok := strings.CutPrefix(shell, "python "); ok {
		return "python3 " + rest
	}
	return shell
}

// readDrivers looks at every other Python file of the folder.
func (im *importer) readDrivers() error {
	files, err := filepath.Glob(filepath.Join(im.dir, "*.py"))
	if err != nil {
		return fmt.Errorf("list %s: %w", im.dir, err)
	}
	for _, path := range files {
		name := filepath.Base(path)
		if name == "tasks.py" || name == "celery.py" || name == "__init__.py" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("%s can't be read: %w", name, bare(err))
		}
		im.readDriver(name, string(text))
	}
	return nil
}

func (im *importer) readDriver(name, text string) {
	d := oldDriver{file: name}
	lines := strings.Split(text, "\n")
	submits := false
	for i, line := range lines {
		if m := taskCall.FindStringSubmatch(line); m != nil {
			submits = true
			d.calls = append(d.calls, m[1])
		}
		if m := yamlCall.FindStringSubmatch(line); m != nil {
			d.parameters = strings.TrimPrefix(m[1], im.prefix)
		}
		if at := baseLine.FindStringIndex(line); at != nil {
			v, _, err := literal(strings.Join(lines[i:], "\n")[at[1]:])
			pairs, ok := v.([][2]any)
			if err != nil || !ok {
				im.note(name, i+1, "base_pars is computed, not written down; fill in `constants`")
				continue
			}
			d.base = im.constants(name, i+1, pairs)
		}
		if submits && d.parameters == "" && echoStyle.MatchString(line) {
			im.note(name, i+1, "a loop submits tasks with computed arguments; put its values into a parameter file")
		}
	}
	if d.parameters != "" || d.base != nil || submits {
		im.drivers = append(im.drivers, d)
	}
}

// constants keeps the pairs that can be options.
func (im *importer) constants(file string, line int, pairs [][2]any) (kept [][2]any) {
	for _, p := range pairs {
		key, ok := p[0].(string)
		switch v := p[1].(type) {
		case string, source:
			if ok && v != source("None") {
				kept = append(kept, p)
				continue
			}
		}
		im.note(file, line, "the constant %v is no plain value and was left out", p[0])
		_ = key
	}
	return kept
}

// driver finds what is submitted for a task: the driver that calls it, else the one that is not tied to another.
func (im *importer) driver(task string) *oldDriver {
	var loose *oldDriver
	for i := range im.drivers {
		d := &im.drivers[i]
		if slices.Contains(d.calls, task) && (d.parameters != "" || d.base != nil) {
			return d
		}
		if len(d.calls) == 0 && loose == nil {
			loose = d
		}
	}
	return loose
}

// write makes project.yaml. It appears whole or not at all.
func (im *importer) write() error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Made by `mlfnode import` from tasks.py; look it over.\n")
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(im.document()); err != nil {
		return fmt.Errorf("write %s: %w", im.report.File, err)
	}
	f, err := os.OpenFile(filepath.Join(im.dir, projectFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("%s can't be written: %w", im.report.File, bare(err))
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("%s can't be written: %w", im.report.File, bare(err))
	}
	return nil
}

func (im *importer) document() *yaml.Node {
	tasks := mapping()
	chosen := im.tasks[0].name
	for _, t := range im.tasks {
		d := im.driver(t.name)
		if d != nil && d.file == "default.py" && slices.Contains(d.calls, t.name) {
			chosen = t.name
		}
		put(tasks, t.name, im.task(&t, d))
	}
	root := mapping()
	put(root, "name", scalar(CleanName(filepath.Base(im.dir))))
	put(root, "default", scalar(chosen))
	put(root, "tasks", tasks)
	return root
}

func (im *importer) task(t *oldTask, d *oldDriver) *yaml.Node {
	n := mapping()
	if t.shell != "" {
		put(n, "command", scalar(t.shell))
	} else {
		list := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, arg := range t.command {
			list.Content = append(list.Content, scalar(arg))
		}
		put(n, "command", list)
	}
	if d == nil {
		return n
	}
	if d.parameters != "" {
		put(n, "parameters", scalar(d.parameters))
		if _, err := os.Stat(filepath.Join(im.dir, d.parameters)); err != nil {
			im.note(d.file, 1, "the parameter file %s is not there", d.parameters)
		}
	}
	if len(d.base) > 0 {
		constants := mapping()
		for _, p := range d.base {
			put(constants, p[0].(string), constant(p[1]))
		}
		put(n, "constants", constants)
	}
	return n
}

func constant(v any) *yaml.Node {
	switch v := v.(type) {
	case source:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: strings.ToLower(string(v))}
	case string:
		return scalar(v)
	}
	return scalar("")
}

func mapping() *yaml.Node { return &yaml.Node{Kind: yaml.MappingNode} }

func scalar(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	return n
}

func put(m *yaml.Node, key string, v *yaml.Node) { m.Content = append(m.Content, scalar(key), v) }
