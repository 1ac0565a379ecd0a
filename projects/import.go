package projects

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// oldPaths translates the commands and paths of the old framework.
type oldPaths struct {
	dir    string // the project's, absolute
	prefix string // the folder's own name, with which the old paths begin
}

// importer collects the content of an old folder. It reads the Python files as text and runs
// nothing.
type importer struct {
	oldPaths
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
	im := &importer{oldPaths: oldPaths{dir: abs, prefix: filepath.Base(abs) + "/"}}
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
		return nil, fmt.Errorf("%s has no tasks.py, so it is not an old project; to make a new one: mlfnode new NAME",
			dir)
	}
	if err != nil {
		return nil, fmt.Errorf("tasks.py can't be read: %w", problem.WithoutPath(err))
	}
	im.readTasks(text)
	if err := im.readDrivers(root); err != nil {
		return nil, err
	}
	if len(im.tasks) == 0 {
		return nil, fmt.Errorf("tasks.py in %s has no function with a line cmd = [...]; write project.yaml by hand",
			dir)
	}
	project, err := encoded("# Made by `mlfnode import` from tasks.py; look it over.\n", im.project())
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", im.report.File, err)
	}
	_, err = writeProject(dir, false, project, nil)
	return &im.report, err
}

func (im *importer) addNote(file string, line int, format string, v ...any) {
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
		if function.name != "" && !im.findCommand(function, lines, begin, at) && function.task {
			im.addNote("tasks.py", function.line,
				"the task %s has no line cmd = [...] and was left out; put what it does into a program of its own",
				function.name)
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
func (o oldPaths) command(v any) (argv []string, shell string, err error) {
	switch v := v.(type) {
	case string:
		if !usable(v) || strings.TrimSpace(v) == "" {
			return nil, "", errors.New("no command")
		}
		if rest, ok := strings.CutPrefix(v, "python "); ok {
			v = "python3 " + rest
		}
		v = strings.ReplaceAll(v, " "+o.prefix, " ")
		return nil, pathWord.Get().ReplaceAllStringFunc(v, o.localPath), nil
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok || !usable(s) {
				return nil, "", errors.New("not a string")
			}
			argv = append(argv, o.localPath(s))
		}
		if len(argv) == 0 || strings.TrimSpace(argv[0]) == "" {
			return nil, "", errors.New("no program")
		}
		if argv[0] == "python" {
			argv[0] = "python3"
		}
		return argv, "", nil
	}
	return nil, "", errors.New("neither list nor string")
}

// pathWord matches a path in a shell command.
var pathWord = lazyregexp.New(`[\w.~+-]*(?:/[\w.~+-]+)+`)

// usable reports whether YAML and a program's arguments can hold the text.
func usable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// localPath converts a path of the old framework to one of the project. The old paths start at the
// folder above the project, or where that folder was mounted, and the project's folder may have
// been renamed.
func (o oldPaths) localPath(p string) string {
	if rest, found := strings.CutPrefix(p, o.prefix); found {
		return rest
	}
	clean := filepath.ToSlash(filepath.Clean(p))
	if !strings.Contains(p, "/") || isRegular(o.dir, clean) {
		return p
	}
	if filepath.IsAbs(p) {
		if _, err := os.Stat(p); err == nil {
			return p // a path of this machine
		}
	}
	for rest := clean; ; {
		_, after, found := strings.Cut(rest, "/")
		if !found {
			return p
		}
		if rest = after; isRegular(o.dir, rest) {
			return rest
		}
	}
}

// project returns the project.yaml.
func (im *importer) project() *yaml.Node {
	tasks := mapping()
	chosen := im.tasks[0].name
	for _, t := range im.tasks {
		d := im.driver(t.name)
		if d != nil && d.file == "default.py" && slices.Contains(d.calls, t.name) {
			chosen = t.name
		}
		n := mapping()
		if t.shell != "" {
			appendEntry(n, "command", scalar(t.shell))
		} else {
			appendEntry(n, "command", sequenceOf(t.command))
		}
		if d != nil && d.parameters != "" {
			appendEntry(n, "parameters", scalar(d.parameters))
		}
		if d != nil && len(d.base) > 0 {
			constants := mapping()
			for _, p := range d.base {
				value := scalar("")
				switch v := p[1].(type) {
				case source:
					value = &yaml.Node{Kind: yaml.ScalarNode, Value: strings.ToLower(string(v))}
				case string:
					value = scalar(v)
				}
				appendEntry(constants, p[0].(string), value)
			}
			appendEntry(n, "constants", constants)
		}
		appendEntry(tasks, t.name, n)
	}
	root := mapping()
	appendEntry(root, "name", scalar(CleanName(filepath.Base(im.dir))))
	appendEntry(root, "default", scalar(chosen))
	appendEntry(root, "tasks", tasks)
	return root
}
