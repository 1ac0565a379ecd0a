package projects

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/problem"
	"mlfnode/grid/space"
)

// The statements that matter in a driver script.
var (
	yamlCall = lazyregexp.New(`\byaml2Matrix\(\s*(?:["']([^"']+)["']\s*[,)])?`)
	yamlName = lazyregexp.New(`\byaml2Matrix\(\s*(\w+)\s*[,)]`)
	baseLine = lazyregexp.New(`^\s*base_pars\s*=\s*`)
	baseItem = lazyregexp.New(`^\s*base_pars\[["']([^"'\\]+)["']\]\s*=\s*`)
	taskCall = lazyregexp.New(`\b(\w+)\.(?:delay|apply_async|s|signature)\(`)
)

// oldDriver is what a driver script (default.py, run_training.py, …) submits.
type oldDriver struct {
	file       string
	parameters string
	base       [][2]any
	calls      []string
	submits    int // the line of the first call, from 1
	reads      int // the line that names the parameter file
}

// readDrivers reads every other Python file of the folder.
func (im *importer) readDrivers(root *os.Root) error {
	files, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return fmt.Errorf("list %s: %w", im.dir, problem.WithoutPath(err))
	}
	for _, file := range files {
		name := file.Name()
		if filepath.Ext(name) != ".py" || name == "tasks.py" || name == "celery.py" || name == "__init__.py" {
			continue
		}
		text, err := readPython(root, name)
		if err != nil {
			return fmt.Errorf("%s can't be read: %w", name, problem.WithoutPath(err))
		}
		im.readDriver(name, text)
	}
	return nil
}

func (im *importer) readDriver(name, text string) {
	d := oldDriver{file: name}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		if m := taskCall.Get().FindStringSubmatch(line); m != nil {
			d.calls = append(d.calls, m[1])
			if d.submits == 0 {
				d.submits = i + 1
			}
		}
		if m := yamlCall.Get().FindStringSubmatch(line); m != nil {
			d.reads = i + 1
			if v := yamlName.Get().FindStringSubmatch(line); v != nil && m[1] == "" {
				m[1] = assignedText(lines, v[1])
			}
			d.parameters = im.parameters(name, i+1, m[1])
		}
		if at := baseLine.Get().FindStringIndex(line); at != nil {
			v, err := statement(strings.Join(lines[i:], "\n")[at[1]:])
			pairs, ok := v.([][2]any)
			if err != nil || !ok {
				im.addNote(name, i+1, "base_pars is computed, not written down; fill in `constants`")
				continue
			}
			d.base = im.constants(name, i+1, pairs)
		}
		if m := baseItem.Get().FindStringSubmatchIndex(line); m != nil {
			v, err := statement(line[m[1]:])
			if err != nil {
				im.addNote(name, i+1, "the constant %s is computed, not written down; fill it in under `constants`",
					line[m[2]:m[3]])
				continue
			}
			d.base = im.constants(name, i+1, append(d.base, [2]any{line[m[2]:m[3]], v}))
		}
	}
	if d.submits > 0 && d.reads == 0 {
		if values := arguments(lines, d.submits-1); values != "" {
			im.addNote(name, d.submits,
				"tasks are submitted with computed arguments, %s; put these values into a parameter file", values)
		} else {
			im.addNote(name, d.submits,
				"tasks are submitted with computed arguments; put their values into a parameter file")
		}
	}
	if d.parameters != "" || d.base != nil || d.submits > 0 {
		im.drivers = append(im.drivers, d)
	}
}

// assignedText returns the text of a variable that is assigned only once, from a literal; it
// returns "" for other variables.
func assignedText(lines []string, name string) (text string) {
	line := regexp.MustCompile(`^\s*` + regexp.QuoteMeta(name) + `\s*[+]?=([^=].*)$`)
	times := 0
	for _, l := range lines {
		if m := line.FindStringSubmatch(l); m != nil {
			times++
			v, err := statement(m[1])
			if text, _ = v.(string); err != nil {
				text = ""
			}
		}
	}
	if times != 1 {
		return ""
	}
	return text
}

// parameters translates the path of a parameter file; it returns "" if the line computes the path.
func (im *importer) parameters(file string, line int, path string) string {
	name := path
	if usable(path) {
		name = im.localPath(path)
	}
	switch {
	case name == "":
		im.addNote(file, line, "the parameter file is computed, not written down; fill in `parameters`")
		return ""
	case !grid.IsRelative(name) || !usable(name) || strings.TrimSpace(name) == "":
		im.addNote(file, line, "the parameter file %s is outside the project; copy it and fill in `parameters`", name)
		return ""
	}
	data, err := os.ReadFile(filepath.Join(im.dir, name))
	if err != nil {
		im.addNote(file, line, "the parameter file %s is not there", name)
	}
	im.oldValues(name, data)
	return name
}

// constants keeps the pairs that can be options; of equal keys the last one counts, as in Python.
func (im *importer) constants(file string, line int, pairs [][2]any) (kept [][2]any) {
	for _, p := range pairs {
		if !isConstant(p) {
			im.addNote(file, line, "the constant %v is not a plain value and was left out", p[0])
			continue
		}
		if i := slices.IndexFunc(kept, func(o [2]any) bool { return o[0] == p[0] }); i >= 0 {
			kept[i] = p
			continue
		}
		kept = append(kept, p)
	}
	return kept
}

func isConstant(p [2]any) bool {
	key, ok := p[0].(string)
	if !ok || key == "<<" {
		return false
	}
	v := space.Value{}
	switch value := p[1].(type) {
	case string:
		v.Text = value
	case source:
		if value == "None" {
			return false
		}
		v.Text = string(value)
	default:
		return false
	}
	return space.Axis{Key: key, Values: []space.Value{v}}.Check() == nil
}

// driver finds what is submitted for a task: the driver that calls it, or else the driver that is
// not tied to another task.
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
