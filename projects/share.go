package projects

import (
	"path"
	"path/filepath"
	"strings"

	"mlfnode/grid"
	"mlfnode/grid/problem"
)

// CheckShare explains why the entries of a task's share can't name anything. A project's loader
// finds the same problems, and reports them with their line numbers.
func CheckShare(share []string) error {
	for _, text := range share {
		if err := checkShared("share", text); err != nil {
			return err
		}
	}
	return nil
}

// CheckInputs explains why the patterns for the input files of a task's setup step can't name
// anything. A project's loader finds the same problems, and reports them with their line numbers.
func CheckInputs(inputs []string) error {
	for _, text := range inputs {
		if err := checkPattern("setup.inputs", text); err != nil {
			return err
		}
	}
	return nil
}

// checkShared returns an error if text can't be an entry of share. The message says that what has
// it.
func checkShared(what, text string) error {
	switch {
	case strings.HasPrefix(text, "~"):
		return problem.Errorf("Write the absolute path.",
			"%s has %q, and '~' means another folder on each machine", what, text)
	case !isOutside(text):
		return checkPattern(what, text)
	case strings.ContainsAny(strings.TrimSuffix(text, "/**"), "*?[\\\n"):
		return problem.Errorf("Name the folder.",
			"%s has the pattern %q, and patterns name files in the project only", what, text)
	}
	return nil
}

// checkPattern returns an error if text can't be a pattern for files in a project. The message says
// that what has it.
func checkPattern(what, text string) error {
	p, ok := parsePattern(text)
	switch {
	case !ok, p.never, p.negative:
		return problem.Errorf("Write the name of a file or folder, or a pattern like data/** as in .gitignore.",
			"%s has %q, which names no file", what, text)
	case strings.ContainsAny(text, "\n\r"):
		return problem.Errorf("Give each pattern in an entry of its own.", "%s has a line end in %q", what, text)
	case !grid.IsRelative(strings.TrimPrefix(text, "/")):
		return problem.Errorf("Patterns start at the project's folder: no '..'.",
			"the pattern %q of %s leaves the project", text, what)
	}
	if plain := path.Clean("/" + text); plain == "/" {
		return problem.Errorf("Write ** for everything in it.", "%s has %q, the whole project", what, text)
	} else if strings.TrimSuffix(text, "/") != plain && strings.TrimSuffix(text, "/") != plain[1:] {
		return problem.Errorf("Write "+plain+".", "%s has %q, and no file has such a name", what, text)
	}
	return nil
}

// SharePatterns returns the entries of share that name something in the project.
func SharePatterns(share []string) (patterns []string) {
	for _, s := range share {
		if !isOutside(s) {
			patterns = append(patterns, s)
		}
	}
	return patterns
}

// isOutside reports whether an entry of share is a path outside the project: an absolute one, or
// one that goes up.
func isOutside(share string) bool {
	return filepath.IsAbs(share) || share == ".." || strings.HasPrefix(share, "../")
}

// Shared are the files in a project that trials see in place, or that a setup step reads. A nil
// Shared has none.
type Shared struct{ names nameSet }

// NewShared parses the patterns among the entries of share; it returns nil if there are none.
func NewShared(share []string) *Shared {
	if names := newNameSet(SharePatterns(share)); len(names) > 0 {
		return &Shared{names}
	}
	return nil
}

// NewInputs parses patterns of files in the project; it returns nil if there are none.
func NewInputs(patterns []string) *Shared {
	if names := newNameSet(patterns); len(names) > 0 {
		return &Shared{names}
	}
	return nil
}

// Has reports whether a file, or a folder with everything in it, is shared. Callers ask from the
// outermost folder inwards.
func (s *Shared) Has(name string, folder bool) bool {
	if s == nil {
		return false
	}
	// A pattern like data/** matches everything in a folder.
	return s.names.has(name, folder) ||
		folder && s.names.has(name+"/\x01", false) && s.names.has(name+"/\x01/\x01", false)
}
