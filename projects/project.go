// Package projects turns a folder into what a sweep needs: its tasks and their parameter spaces
// from project.yaml, and its files as a bundle that is named by its content.
package projects

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid"
	"mlfnode/grid/jsonschema"
	"mlfnode/grid/problem"
	"mlfnode/grid/space"
	"mlfnode/grid/yamlfile"
)

// The files of a project that mlfnode reads.
const (
	projectFile    = "project.yaml"
	parametersFile = "parameters.yml"
)

// Project is a folder with a program and its tasks. It does not change after it is loaded.
type Project struct {
	Name    string // as CleanName makes it; sweep ids are Name-1, Name-2, …
	Dir     string // its folder; empty for an ad-hoc command without files
	Default string // the task that runs if none is named; empty if there are several and none is the default
	Bundled bool   // the files of Dir travel to the workers
	Lenient bool   // leave out what can't be packed: nobody declared that the files of Dir are needed
	Note    string // why the files of an ad-hoc command's folder do not travel; empty if they do or need not

	tasks []*task // in the order of the file
	file  string  // project.yaml as messages name it; empty if there is none

	document *yaml.Node // the task of an ad-hoc command, as project.yaml would hold it
}

// Definition is a task with the parameter space that its project defines.
type Definition struct {
	Task    grid.Task
	Axes    []space.Axis
	Exclude []string
	Repeat  int64         // how often each point runs; 0 means once, without an axis for the repetition
	Sample  *space.Sample // the subset of the points that runs; nil for all
	Include []string      // patterns of files that travel although ignore files name them
}

// Load reads the project.yaml of a folder. An error about its content is of type problem.List and
// lists all problems.
func Load(dir string) (*Project, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the project's folder: %w", err)
	}
	defer root.Close()
	file := filepath.Join(dir, projectFile)
	data, err := readFile(root, projectFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(root, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, problem.WithoutPath(err))
	}
	p, err := parse(file, data)
	if err != nil {
		return nil, err
	}
	p.Dir = dir
	if p.Name == "" {
		p.Name = folderName(dir)
	}
	return p, nil
}

// Tasks returns the names of the tasks in the order of the file.
func (p *Project) Tasks() []string {
	names := make([]string, len(p.tasks))
	for i, t := range p.tasks {
		names[i] = t.Name
	}
	return names
}

// Task returns the named task, or the default one for an empty name, with its parameters file read.
func (p *Project) Task(name string) (*Definition, error) {
	if len(p.tasks) == 0 {
		return nil, fmt.Errorf("the project %s has no tasks. Add one to its %s:\n%s", p.Name, projectFile,
			smallest(p.Name))
	}
	if name == "" {
		name = p.Default
	}
	if name == "" {
		return nil, fmt.Errorf("the project %s has several tasks and no default. Name one of %s", p.Name,
			strings.Join(p.Tasks(), ", "))
	}
	for _, t := range p.tasks {
		if t.Name == name {
			axes, err := p.axes(t)
			t.Repeat = t.repeat > 0
			if t.requirements != "" && err == nil {
				t.Inputs, err = venvInputs(p.Dir, t.requirements)
			}
			def := &Definition{Task: t.Task, Axes: axes, Exclude: t.exclude, Repeat: t.repeat, Sample: t.sample,
				Include: t.include}
			if t.Stop != nil {
				stop := *t.Stop
				stop.Complete(t.Objective)
				def.Task.Stop = &stop
			}
			return def, err
		}
	}
	return nil, fmt.Errorf("the project %s has no task %s. Its tasks are %s", p.Name, name,
		strings.Join(p.Tasks(), ", "))
}

// axes reads the parameters file of a task.
func (p *Project) axes(t *task) ([]space.Axis, error) {
	name := t.parameters
	if name == "" && t.Name == p.Default {
		name = parametersFile
	}
	if name == "" || p.file == "" {
		return nil, nil
	}
	root, err := os.OpenRoot(p.Dir)
	if err != nil {
		return nil, fmt.Errorf("open the project's folder: %w", err)
	}
	defer root.Close()
	data, err := readFile(root, name)
	switch {
	case errors.Is(err, fs.ErrNotExist) && t.parameters == "":
		return nil, nil
	case err != nil && t.place != nil:
		return nil, problem.List{yamlfile.ProblemAt(p.file, t.place,
			fmt.Sprintf("the parameters file %s can't be read: %v", name, problem.WithoutPath(err)),
			"Give the path of a file in the project's folder, or leave the field out.")}
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", name, problem.WithoutPath(err))
	}
	return space.ParseParameters(filepath.Join(p.Dir, name), data)
}

// parse parses a project.yaml that messages call file.
func parse(file string, data []byte) (*Project, error) {
	p := &Project{Bundled: true, file: file}
	root, err := yamlfile.Parse(file, data)
	if err != nil || root == nil {
		return p, err
	}
	f := &strictFile{name: file}
	var chosen yamlValue
	yamlValue{f, "the project", root}.fields("", `{name: example, tasks: {train: {command: ["python3", "main.py"]}}}`,
		projectFields(p, &chosen))
	switch {
	case chosen.node == nil && len(p.tasks) == 1:
		p.Default = p.tasks[0].Name
	case chosen.node != nil && p.Default != "" && !f.full() && !slices.Contains(p.Tasks(), p.Default):
		hint := "Add a task, or leave the field out."
		if len(p.tasks) > 0 {
			hint = "The tasks are " + strings.Join(p.Tasks(), ", ") + "."
		}
		chosen.report(hint, "default is %q, which is not a task", p.Default)
	}
	return p, f.problems.Err()
}

// projectFields reads a project into p, and stores the value that names the default task in chosen.
func projectFields(p *Project, chosen *yamlValue) map[string]field {
	return map[string]field{
		"name": {jsonschema.Text, func(v yamlValue) {
			name, ok := v.filled()
			if ok && name != CleanName(name) {
				v.report("Use lowercase letters, digits and dashes, like "+CleanName(name)+".",
					"the name %q is not usable", name)
			}
			p.Name = name
		}},
		"default": {jsonschema.Text, func(v yamlValue) {
			p.Default, _ = v.filled()
			*chosen = v
		}},
		"tasks": {jsonschema.Map(objectOf(taskFields(newTask("")))), func(v yamlValue) {
			v.entries(`{train: {command: ["python3", "main.py"]}}`, func(key, value yamlValue) {
				if key.what == "" || strings.Trim(key.what, letters+"_.") != "" {
					key.report("Use letters, digits, '-', '_' and '.'.", "the task name %q is not usable", key.what)
					return
				}
				p.tasks = append(p.tasks, readTask(key, value))
			})
		}},
	}
}

// Space returns the parameter space of a task over axes, which are the task's own combined with
// those of the command line.
func (d *Definition) Space(axes []space.Axis) (space.Space, error) {
	if d.Repeat > 0 {
		end := json.Number(strconv.FormatInt(d.Repeat, 10))
		axes = append(slices.Clip(axes), space.Axis{Key: space.RepeatKey, Interval: []json.Number{"0", end}})
	}
	s, err := space.New(axes, d.Exclude)
	if err != nil || d.Sample == nil {
		return s, err
	}
	return s.Sampled(*d.Sample, d.Repeat > 0)
}

// readFile reads a regular file, so that a pipe or a device can't block. Of a file with more than
// yamlfile.MaxFile bytes, which is refused later, it returns only one byte more than that.
func readFile(root *os.Root, name string) ([]byte, error) {
	info, err := root.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, yamlfile.MaxFile+1))
}

// missing explains what to write if there is no project.yaml.
func missing(root *os.Root, dir string) error {
	advice := "Write one like this:"
	if _, err := root.Stat("tasks.py"); err == nil {
		advice = fmt.Sprintf("There is a tasks.py: mlfnode import %s makes one from it. Otherwise write one like this:",
			dir)
	}
	return fmt.Errorf("%s has no %s. %s\n%s", dir, projectFile, advice, smallest(folderName(dir)))
}

// smallest returns a minimal project.yaml that works.
func smallest(name string) string {
	return "name: " + name + "\ntasks:\n  train:\n    command: [\"python3\", \"-u\", \"main.py\"]"
}

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-"

// CleanName derives a project's name from any text: lowercase letters, digits and single dashes, at
// most 40 bytes. Text without a usable letter yields "project".
func CleanName(s string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(s) {
		switch {
		case b.Len() >= 40:
		case strings.ContainsRune(letters, r) && r != '-':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	if name := strings.TrimRight(b.String(), "-"); name != "" {
		return name
	}
	return "project"
}

func folderName(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		abs = dir
	}
	return CleanName(filepath.Base(abs))
}

// File reports whether the project has a project.yaml.
func (p *Project) File() bool { return p.file != "" }
