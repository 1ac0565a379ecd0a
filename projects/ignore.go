package projects

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	ignore "github.com/sabhiram/go-gitignore"
)

// ignoreFile names the file whose patterns, in the form of .gitignore, say what stays out of a bundle.
const ignoreFile = ".mlfignore"

// ignoreRules gives a function that says what stays out.
func ignoreRules(dir string) (func(name string, folder bool) bool, error) {
	var patterns *ignore.GitIgnore
	for _, file := range []string{ignoreFile, ".gitignore"} {
		at := filepath.Join(dir, file)
		info, err := os.Stat(at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && !info.Mode().IsRegular() {
			return nil, fmt.Errorf("%s can't be read: it is no regular file", file)
		}
		text, err := os.ReadFile(at)
		if err != nil {
			return nil, fmt.Errorf("%s can't be read: %w", file, bare(err))
		}
		patterns = ignore.CompileIgnoreLines(strings.Split(string(text), "\n")...)
		break
	}
	return func(name string, folder bool) bool {
		switch path.Base(name) {
		case ".git", "__pycache__":
			return true
		}
		if strings.HasSuffix(name, ".pyc") {
			return true
		}
		if patterns == nil {
			return false
		}
		return patterns.MatchesPath(name) || (folder && patterns.MatchesPath(name+"/"))
	}, nil
}
