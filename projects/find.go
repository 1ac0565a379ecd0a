package projects

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Find loads the project that a user names: by a path, by the name of a folder under ./projects, by
// the name that the project.yaml of the current folder declares, or by the name of an embedded
// example, which is extracted to a folder under cache once. If the folder of a plain name has no
// project.yaml, the search goes on.
func Find(name, cache string) (*Project, error) {
	if name == "" {
		return nil, fmt.Errorf("no project is named. Give a folder, or one of the examples %s",
			strings.Join(examples(), ", "))
	}
	tried := []string{name}
	plain := name != "." && name != ".." && !strings.ContainsRune(name, filepath.Separator)
	if plain {
		tried = append(tried, filepath.Join("projects", name))
	}
	fallback := ""
	for _, dir := range tried {
		switch {
		case !isFolder(dir):
		case hasProject(dir) || !plain:
			return Load(dir)
		case fallback == "":
			fallback = dir
		}
	}
	if plain && hasProject(".") {
		if p, err := Load("."); err == nil && p.Name == name {
			return p, nil
		}
	}
	switch {
	case slices.Contains(examples(), name):
		dir, err := extract(name, cache)
		if err != nil {
			return nil, err
		}
		return Load(dir)
	case fallback != "":
		return Load(fallback)
	}
	if info, err := os.Stat(name); err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s is a file, not a project's folder. To run one command write mlfnode sweep -- "+
			"python3 %s", name, name)
	}
	return nil, fmt.Errorf("there is no project %s: no folder %s, and no example of this name. The examples are %s; "+
		"mlfnode new %s makes a project",
		name, strings.Join(tried, " or "), strings.Join(examples(), " and "), CleanName(filepath.Base(name)))
}

func hasProject(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, projectFile))
	return err == nil
}
