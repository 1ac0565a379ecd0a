package projects

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"mlfnode/grid/problem"
)

// New creates a project from the template under parent and returns its folder. If it fails, it
// leaves nothing behind.
func New(name, parent string) (string, error) {
	if name == "" || name != CleanName(name) {
		return "", fmt.Errorf("%q is not a valid project name; use lowercase letters, digits and dashes, as in %s",
			name, CleanName(name))
	}
	dir := filepath.Join(parent, name)
	if _, err := os.Lstat(dir); err == nil {
		return "", fmt.Errorf("%s already exists; choose another name", dir)
	}
	if !isFolder(parent) {
		return "", fmt.Errorf("there is no folder %s to make the project in", parent)
	}
	temp, err := os.MkdirTemp(parent, "."+name+"-")
	if err != nil {
		return "", fmt.Errorf("the folder %s can't be made: %w", dir, problem.WithoutPath(err))
	}
	err = copyEmbedded(template, temp, func(file, text string) string {
		if file == "main.py" || file == SchemaFile || strings.HasPrefix(file, "test_") {
			return text
		}
		return strings.ReplaceAll(text, "NAME", name)
	})
	if err == nil {
		err = os.Rename(temp, dir)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("the project %s can't be made: %w", dir, problem.WithoutPath(err)),
			os.RemoveAll(temp))
	}
	return dir, nil
}
