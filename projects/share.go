package projects

import (
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"mlfnode/grid"
)

// CheckShare explains why the entries of a task's share can't name anything. A project's loader
// finds the same problems, and reports them with their line numbers.
func CheckShare(share []string) error {
	for _, text := range share {
		if msg, hint := shareProblem("share", text); msg != "" {
			return fmt.Errorf("%s. %s", msg, hint)
		}
	}
	return nil
}

// CheckInputs explains why the patterns for the input files of a task's setup step can't name
// anything. A project's loader finds the same problems, and reports them with their line numbers.
func CheckInputs(inputs []string) error {
	for _, text := range inputs {
		if msg, hint := patternProblem("setup.inputs", text); msg != "" {
			return fmt.Errorf("%s. %s", msg, hint)
		}
	}
	return nil
}

// shareProblem returns what is wrong with an entry of share, and what to write instead; "" if
// nothing is.
func shareProblem(what, text string) (msg, hint string) {
	switch {
	case strings.HasPrefix(text, "~"):
		return fmt.Sprintf("%s has %q, and '~' means another folder on each machine", what, text),
			"Write the absolute path."
	case !isOutside(text):
		return patternProblem(what, text)
	case strings.ContainsAny(strings.TrimSuffix(text, "/**"), "*?[\\\n"):
		return fmt.Sprintf("%s has the pattern %q, and patterns name files in the project only", what, text),
			"Name the folder."
	}
	return "", ""
}

// patternProblem returns what is wrong with a pattern that names files in a project, and what to
// write instead; "" if nothing is.
func patternProblem(what, text string) (msg, hint string) {
	p, ok := parsePattern(text)
	switch {
	case !ok, p.never, p.negative:
		return fmt.Sprintf("%s has %q, which names no file", what, text),
			"Write the name of a file or folder, or a pattern like data/** as in .gitignore."
	case strings.ContainsAny(text, "\n\r"):
		return fmt.Sprintf("%s has a line end in %q", what, text), "Give each pattern in an entry of its own."
	case !grid.IsRelative(strings.TrimPrefix(text, "/")):
		return fmt.Sprintf("the pattern %q of %s leaves the project", text, what),
			"Patterns start at the project's folder: no '..'."
	}
	if plain := path.Clean("/" + text); plain == "/" {
		return fmt.Sprintf("%s has %q, the whole project", what, text), "Write ** for everything in it."
	} else if strings.TrimSuffix(text, "/") != plain && strings.TrimSuffix(text, "/") != plain[1:] {
		return fmt.Sprintf("%s has %q, and no file has such a name", what, text), fmt.Sprintf("Write %s.", plain)
	}
	return "", ""
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
