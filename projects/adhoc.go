package projects

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Adhoc makes a project of one command without a project.yaml. It is named after the first argument that is a file under cwd,
// else after the program. The files of cwd travel with it only when an argument names one of them.
func Adhoc(argv []string, cwd string) (*Project, error) {
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("there is no command. Write it behind two dashes, as in mlfnode sweep --set lr=0.1,0.01 -- python3 prog.py")
	}
	for _, a := range argv {
		if strings.ContainsRune(a, 0) {
			return nil, fmt.Errorf("the argument %q holds a zero byte, which no program's argument can hold. Take it out", a)
		}
	}
	p := &Project{Name: programName(argv[0])}
	if file := firstFile(argv, cwd); file != "" {
		if err := checkFolder(cwd, file); err != nil {
			return nil, err
		}
		p.Name, p.Dir, p.Bundled = programName(file), cwd, true
	}
	t := newTask(p.Name)
	t.Command = append([]string(nil), argv...)
	p.Default, p.tasks = t.Name, []*task{t}
	return p, nil
}

// programName is the base name without its extension.
func programName(file string) string {
	base := filepath.Base(file)
	return CleanName(strings.TrimSuffix(base, filepath.Ext(base)))
}

// firstFile gives the first argument that is a regular file under cwd.
func firstFile(argv []string, cwd string) string {
	for _, a := range argv {
		if !filepath.IsLocal(a) {
			continue
		}
		if info, err := os.Stat(filepath.Join(cwd, a)); err == nil && info.Mode().IsRegular() {
			return a
		}
	}
	return ""
}

// checkFolder refuses to send a whole home folder or file system to the workers.
func checkFolder(cwd, file string) error {
	what := ""
	if home, err := os.UserHomeDir(); err == nil && sameFolder(cwd, home) {
		what = "your home folder"
	}
	if sameFolder(cwd, string(filepath.Separator)) {
		what = "the root folder"
	}
	if what == "" {
		return nil
	}
	return fmt.Errorf("all files of %s would travel to the workers, because %s lies in it. Move %s to a folder of its own and run the command there", what, file, file)
}

func sameFolder(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
