package projects

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"mlfnode/grid"
	"mlfnode/grid/problem"
	"mlfnode/grid/space"
)

// Save writes the project.yaml of an ad-hoc command with its settings, and a parameters.yml of its
// axes, into the folder whose files travel, or else into a new folder with the project's name. It
// returns the files. It changes no existing file; an existing parameters.yml that says the same is
// left as it is.
func (p *Project) Save(name string, axes []space.Axis, env map[string]string) (files []string, err error) {
	if p.document == nil {
		return nil, errors.New("there is already a project here: --save is for a command after --")
	}
	if name == "" || name != CleanName(name) {
		return nil, fmt.Errorf("%q is not a valid project name; use lowercase letters, digits and dashes, as in %s",
			name, CleanName(name))
	}
	parameters, err := parametersText(axes)
	if err != nil {
		return nil, err
	}
	task := mapping()
	task.Content = slices.Clone(p.document.Content)
	if len(env) > 0 {
		variables := mapping()
		for _, key := range slices.Sorted(maps.Keys(env)) {
			if err := grid.CheckVariable(key); err != nil {
				return nil, err
			}
			appendEntry(variables, key, scalar(strings.ReplaceAll(env[key], "$", "$$")))
		}
		appendEntry(task, "env", variables)
	}
	dir := name
	if p.Bundled {
		dir = p.Dir
	}
	if len(axes) > 0 {
		appendEntry(task, "parameters", scalar(parametersFile))
		if data, err := os.ReadFile(filepath.Join(dir, parametersFile)); err == nil {
			if old, err := space.ParseParameters(parametersFile, data); err == nil && sameAxes(old, axes) {
				parameters = nil
			}
		}
	}
	if file := filepath.Join(dir, parametersFile); len(axes) == 0 && p.Bundled {
		if _, err := os.Lstat(file); err == nil {
			return nil, fmt.Errorf("the project would run the parameters of %s, which the command does not. Move "+
				"that file away, or give it with --parameters", file)
		}
	}
	tasks := mapping()
	appendEntry(tasks, p.Default, task)
	root := mapping()
	appendEntry(root, "name", scalar(name))
	appendEntry(root, "tasks", tasks)
	text, err := encoded("# Made by mlfnode sweep --save.\n", root)
	if err != nil {
		return nil, err
	}
	if err := p.checkSaved(text); err != nil {
		return nil, err
	}
	return writeProject(dir, !p.Bundled, text, parameters)
}

// checkSaved parses the text of a project again: it must yield the task of the command.
func (p *Project) checkSaved(text []byte) error {
	saved, err := parse(projectFile, text)
	if err != nil {
		return err
	}
	record := func(t *task) []byte {
		asked := t.Task
		asked.Env, asked.Inputs, asked.Repeat = nil, nil, false // read or saved separately
		b, _ := json.Marshal([]any{asked, t.exclude, t.repeat, t.sample})
		return b
	}
	if len(saved.tasks) != 1 || len(p.tasks) != 1 || !bytes.Equal(record(saved.tasks[0]), record(p.tasks[0])) {
		return fmt.Errorf("a %s can't say the same as this command. Write it by hand", projectFile)
	}
	return nil
}

// writeProject writes the files of a project. If it fails, it leaves nothing behind.
func writeProject(dir string, fresh bool, project, parameters []byte) (files []string, err error) {
	if fresh {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("the folder %s can't be made: %w. Choose another name", dir,
				problem.WithoutPath(err))
		}
	}
	defer func() {
		if err != nil {
			for _, f := range files {
				os.Remove(f)
			}
			if fresh {
				os.Remove(dir)
			}
			files = nil
		}
	}()
	for _, f := range []struct {
		name string
		text []byte
	}{{projectFile, project}, {parametersFile, parameters}} {
		if f.text == nil {
			continue
		}
		path := filepath.Join(dir, f.name)
		file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return files, fmt.Errorf("%s already exists; nothing was changed. Move it away, or add a task to it", path)
		}
		if err != nil {
			return files, fmt.Errorf("%s can't be written: %w", path, problem.WithoutPath(err))
		}
		files = append(files, path)
		_, err = file.Write(f.text)
		if err = errors.Join(err, file.Close()); err != nil {
			return files, fmt.Errorf("%s can't be written: %w", path, problem.WithoutPath(err))
		}
	}
	return files, nil
}

// parametersText returns axes as a parameters.yml, or nil for none.
func parametersText(axes []space.Axis) ([]byte, error) {
	if len(axes) == 0 {
		return nil, nil
	}
	root := mapping()
	var last *yaml.Node // the zip, as long as nothing follows it
	for _, a := range axes {
		if a.Zip == nil {
			appendEntry(root, a.Key, axisNode(a))
			last = nil
			continue
		}
		zip := mapping()
		for _, z := range a.Zip {
			appendEntry(zip, z.Key, axisNode(z))
		}
		if last != nil {
			last.Content = append(last.Content, zip)
			continue
		}
		last = &yaml.Node{Kind: yaml.SequenceNode, Content: []*yaml.Node{zip}}
		appendEntry(root, "zip", last)
	}
	text, err := encoded("", root)
	if err != nil {
		return nil, err
	}
	if read, err := space.ParseParameters(parametersFile, text); err != nil || !sameAxes(read, axes) {
		return nil, fmt.Errorf("a %s can't say the same as these parameters. Give them as a file, with "+
			"--parameters, and write the project.yaml by hand", parametersFile)
	}
	return text, nil
}

func sameAxes(a, b []space.Axis) bool {
	x, err := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err == nil && err2 == nil && bytes.Equal(x, y)
}

func axisNode(a space.Axis) *yaml.Node {
	for _, f := range a.Formulas() { // at most one
		if f.Name == space.FormulaInterval {
			n := flowMap()
			for i, key := range []string{"start", "end", "step"}[:min(len(f.Numbers), 3)] {
				appendEntry(n, key, unquoted(string(f.Numbers[i])))
			}
			return n
		}
		numbers := sequence()
		for _, v := range f.Numbers {
			numbers.Content = append(numbers.Content, unquoted(string(v)))
		}
		return flowMap(scalar(f.Name), numbers)
	}
	list := sequence()
	for _, v := range a.Values {
		list.Content = append(list.Content, valueNode(v))
	}
	return list
}

// safeText matches text that YAML always reads as a plain string, wherever it appears.
var safeText = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./-]*$`)

func valueNode(v space.Value) *yaml.Node {
	switch v.Kind {
	case space.Number, space.True, space.False:
		return &yaml.Node{Kind: yaml.ScalarNode, Value: v.Text}
	case space.List:
		list := sequence()
		var items []space.Value
		// After an error, the axes differ when they are read back.
		if err := json.Unmarshal([]byte(v.Text), &items); err == nil {
			for _, item := range items {
				list.Content = append(list.Content, valueNode(item))
			}
		}
		return list
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Value: v.Text, Style: yaml.DoubleQuotedStyle}
	if safeText.MatchString(v.Text) && !strings.Contains(" true false null ", " "+strings.ToLower(v.Text)+" ") {
		n.Style = 0
	}
	return n
}
