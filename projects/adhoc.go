package projects

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"mlfnode/grid"
)

// Adhoc makes a project of a single command without a project.yaml. The project is named after the
// first argument that is a file under cwd, or else after the program. Its metrics are the last JSON
// object on stdout, if there is one. The files of cwd travel with the project, unless the program
// is known to read no files, or cwd is a folder that holds far more than a program's files and no
// argument names one of them. In the latter case Note says so.
func Adhoc(argv []string, cwd string) (*Project, error) {
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("there is no command. Write it after two dashes, as in mlfnode sweep --set " +
			"lr=0.1,0.01 -- python3 prog.py")
	}
	for _, a := range argv {
		if strings.ContainsRune(a, 0) {
			return nil, fmt.Errorf("the argument %q contains a zero byte, which a program's argument can't contain. "+
				"Take it out", a)
		}
	}
	if a := above(argv, cwd); a != "" {
		return nil, fmt.Errorf("%s is outside the folder you are in, and trials get only that folder. Go to the "+
			"folder that contains both, or give the absolute path", a)
	}
	p := &Project{Name: programName(argv[0])}
	file := "" // the first argument that is a regular file under cwd
	if i := slices.IndexFunc(argv, func(a string) bool { return isRegular(cwd, a) }); i >= 0 {
		file = argv[i]
	}
	what := NotAProject(cwd)
	switch {
	case file != "":
		if what == "your home folder" || what == "the root folder" {
			return nil, fmt.Errorf("all files of %s would travel to the workers, because %s is in it. Move %s to "+
				"a folder of its own and run the command there", what, file, file)
		}
		p.Name, p.Dir, p.Bundled = programName(file), cwd, true
	case readsNothing(argv):
	case what != "":
		p.Note = "trials start in an empty folder, because " + what + " does not travel to them; to give a command " +
			"files, run it in a folder of its own"
	default:
		p.Dir, p.Bundled, p.Lenient = cwd, true, true
	}
	t := newTask(p.Name)
	t.Command = slices.Clone(argv)
	t.Metrics = []grid.Source{{JSON: "stdout", Optional: true}}
	p.document = mapping()
	appendEntry(p.document, "command", sequenceOf(argv))
	stdout := flowMap(scalar("json"), scalar("stdout"), scalar("optional"), unquoted("true"))
	appendEntry(p.document, "metrics", sequence(stdout))
	p.Default, p.tasks = t.Name, []*task{t}
	return p, nil
}

// readsNothing reports whether the command is one that never reads a file of its folder, so that
// copying the folder would be pointless.
func readsNothing(argv []string) bool {
	dir, program := filepath.Split(argv[0])
	known := []string{"true", "false", "echo", "printf", "sleep", "seq", "nproc", "uname", "whoami"}
	folders := []string{"", "/bin/", "/usr/bin/", "/usr/local/bin/"}
	return slices.Contains(folders, dir) && slices.Contains(known, program)
}

// above returns an argument, or the value after its '=', that names something above cwd.
func above(argv []string, cwd string) string {
	for _, a := range argv {
		path := a
		if strings.HasPrefix(a, "-") {
			_, path, _ = strings.Cut(a, "=")
		}
		if clean := filepath.Clean(path); clean != ".." && !strings.HasPrefix(clean, "../") || path == "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(cwd, path)); err == nil {
			return path
		}
	}
	return ""
}

// programName returns the base name of a file without its extension.
func programName(file string) string {
	base := filepath.Base(file)
	return CleanName(strings.TrimSuffix(base, filepath.Ext(base)))
}

// isRegular reports whether a name is that of a regular file under dir.
func isRegular(dir, name string) bool {
	if !filepath.IsLocal(name) {
		return false
	}
	info, err := os.Stat(filepath.Join(dir, name))
	return err == nil && info.Mode().IsRegular()
}

// NotAProject describes a folder that does not belong to one program; it returns "" for other
// folders.
func NotAProject(cwd string) string {
	if sameFolder(cwd, string(filepath.Separator)) {
		return "the root folder"
	}
	if home, err := os.UserHomeDir(); err == nil && sameFolder(cwd, home) {
		return "your home folder"
	}
	for _, dir := range []string{"/tmp", "/var/tmp", "/dev/shm", "/home", "/usr", "/etc", "/var", "/opt", "/mnt",
		"/media", "/srv", "/run", "/bin", "/usr/bin"} {
		if sameFolder(cwd, dir) {
			return "the folder " + dir
		}
	}
	return ""
}

func sameFolder(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
