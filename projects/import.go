package projects

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"mlfnode/grid/lazyregexp"
	"mlfnode/grid/problem"
	"mlfnode/grid/yamlfile"
)

// Report describes what Import has made of an old project folder.
type Report struct {
	File  string   // the project.yaml that was written
	Tasks []string // in the order of tasks.py
	Notes []string // what was not translated, and where it is
}

// The statements that matter in tasks.py.
var (
	defLine   = lazyregexp.New(`^(?:async\s+)?def\s+(\w+)\s*\(`)
	classLine = lazyregexp.New(`^class\s`)
	taskLine  = lazyregexp.New(`^@(?:\w+\.)?(?:shared_)?task\b`)
)

// oldFunction is a function of tasks.py.
type oldFunction struct {
	name string
	line int
	task bool // by virtue of its decorator
}

// oldTask is a task found in tasks.py.
type oldTask struct {
	name    string
	command []string
	shell   string
}

// importer collects the content of an old folder. It reads the Python files as text and runs
// nothing.
type importer struct {
	dir     string
	prefix  string // the folder's own name, with which the old paths begin
	report  Report
	tasks   []oldTask
	drivers []oldDriver
	seen    []string // parameter files whose values have been compared
}

// Import reads an old project folder (tasks.py, default.py and other drivers, parameters.yml) and
// writes its project.yaml, which must not exist yet.
func Import(dir string) (*Report, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", dir, err)
	}
	im := &importer{dir: abs, prefix: filepath.Base(abs) + "/"}
	im.report.File = filepath.Join(dir, projectFile)
	if _, err := os.Lstat(filepath.Join(abs, projectFile)); err == nil {
		return nil, fmt.Errorf("%s already exists; nothing was changed", im.report.File)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w", dir, problem.WithoutPath(err))
	}
	defer root.Close()
	text, err := readPython(root, "tasks.py")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no tasks.py, so it is not an old project; to make a new one: mlfnode new NAME", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("tasks.py can't be read: %w", problem.WithoutPath(err))
	}
	im.readTasks(text)
	if err := im.readDrivers(root); err != nil {
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

// readPython returns the content of a file with the line ends as Python reads them.
func readPython(root *os.Root, name string) (string, error) {
	data, err := readFile(root, name)
	if len(data) > yamlfile.MaxFile {
		return "", fmt.Errorf("it has more than %d bytes", yamlfile.MaxFile)
	}
	return strings.ReplaceAll(string(data), "\r\n", "\n"), err
}

func (im *importer) readTasks(text string) {
	lines := strings.Split(text, "\n")
	function := oldFunction{}
	begin := 0
	marked := false // by a decorator
	end := func(at int) {
		if function.name != "" && !im.function(function, lines, begin, at) && function.task {
			im.note("tasks.py", function.line, "the task %s has no line cmd = [...] and was left out; put what it does into a program of its own", function.name)
		}
	}
	for i, line := range lines {
		if m := defLine.Get().FindStringSubmatch(line); m != nil {
			end(i)
			function, marked, begin = oldFunction{m[1], i + 1, marked}, false, i+1
		}
		if classLine.Get().MatchString(line) { // its methods are not tasks
			end(i)
			function, marked = oldFunction{}, false
		}
		marked = marked || taskLine.Get().MatchString(line)
	}
	end(len(lines))
}

// command translates a list or a string. The old paths start at the framework's folder, the new
// ones at the project's.
func (im *importer) command(t *oldTask, v any) error {
	switch v := v.(type) {
	case string:
		if !usable(v) || strings.TrimSpace(v) == "" {
			return errors.New("no command")
		}
		t.shell = pathWord.Get().ReplaceAllStringFunc(strings.ReplaceAll(modernPython(v), " "+im.prefix, " "), im.localPath)
		return nil
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok || !usable(s) {
				return errors.New("not a string")
			}
			t.command = append(t.command, im.localPath(s))
		}
		if len(t.command) == 0 || strings.TrimSpace(t.command[0]) == "" {
			return errors.New("no program")
		}
		if t.command[0] == "python" {
			t.command[0] = "python3"
		}
		return nil
	}
	return errors.New("neither list nor string")
}

// pathWord matches a path in a shell command.
var pathWord = lazyregexp.New(`[\w.~+-]*(?:/[\w.~+-]+)+`)

// usable reports whether YAML and a program's arguments can hold the text.
func usable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

func modernPython(shell string) string {
	if rest, ok := strings.CutPrefix(shell, "python "); ok {
		return "python3 " + rest
	}
	return shell
}

// write writes project.yaml. The file appears complete or not at all.
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
		return fmt.Errorf("%s can't be written: %w", im.report.File, problem.WithoutPath(err))
	}
	_, err = f.Write(b.Bytes())
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("%s can't be written: %w", im.report.File, problem.WithoutPath(err))
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
	if n.Tag == "!!str" && !fitsBlock(s) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// fitsBlock reports whether text can appear in YAML without escapes: leading white space of a block
// counts as its indentation, and readers change some line ends.
func fitsBlock(s string) bool {
	return strings.TrimLeftFunc(s, unicode.IsSpace) == s && !strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) })
}

func put(m *yaml.Node, key string, v *yaml.Node) { m.Content = append(m.Content, scalar(key), v) }
